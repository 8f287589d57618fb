#!/usr/bin/env bash
# Prints the path of a Chromium: $CHROMIUM, or one on PATH, or Debian's package, which is installed.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ -n "${CHROMIUM:-}" ]; then
  [ -x "$CHROMIUM" ] || die "CHROMIUM is $CHROMIUM, which is not a program"
  printf '%s\n' "$CHROMIUM"
  exit 0
fi
command -v chromium || command -v chromium-browser || command -v google-chrome && exit 0
ensure chromium chromium
command -v chromium
