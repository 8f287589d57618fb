#!/usr/bin/env bash
# Prints the path of a promtool: the one beside the Prometheus of tools/prometheus.sh, or one on PATH.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

prometheus=$("$root/tools/prometheus.sh")
beside=$(dirname "$prometheus")/promtool
if [ -x "$beside" ]; then
  printf '%s\n' "$beside"
else
  command -v promtool || missing "promtool, which comes with Prometheus"
fi
