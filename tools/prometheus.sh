#!/usr/bin/env bash
# Prints the path of a Prometheus: $PROMETHEUS, or one on PATH, or Debian's package, unpacked into
# the cache. Nothing is installed: the package would start a service.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ -n "${PROMETHEUS:-}" ]; then
  [ -x "$PROMETHEUS" ] || die "PROMETHEUS is $PROMETHEUS, which is not a program"
  printf '%s\n' "$PROMETHEUS"
  exit 0
fi
command -v prometheus && exit 0

dir=$cache/prometheus
found() { [ -x "$dir/usr/bin/prometheus" ] && printf '%s\n' "$dir/usr/bin/prometheus"; }
found && exit 0
exec 9>"$dir.lock"
flock 9
found && exit 0 # somebody else fetched it while we waited

hint="prometheus (set PROMETHEUS to one, or on Debian and Ubuntu: apt-get install prometheus)"
command -v apt-get >/dev/null || missing "$hint"
say "fetching Prometheus"
new=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$new"' EXIT
download() { (cd "$new" && apt-get -qq download prometheus) >"$cache/apt.log" 2>&1; }
# The lists may be absent or out of date: fetch them only then.
download || { [ "$(id -u)" = 0 ] && apt-get -qq update >"$cache/apt.log" 2>&1 && download; } || missing "$hint"
dpkg-deb -x "$new"/prometheus_*.deb "$new/root"
mv "$new/root" "$dir"
found
