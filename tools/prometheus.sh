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
unpack "$dir" prometheus || missing "$hint"
found || missing "$hint"
