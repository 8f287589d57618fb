#!/usr/bin/env bash
# Prints a folder with the packages of tests/page/package.json, installed there by npm once.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ensure node nodejs
ensure npm npm
package=$root/tests/page/package.json
dir=$cache/page-$(sha256sum "$package" | cut -c1-12)
exec 9>"$dir.lock"
flock 9
if [ ! -d "$dir/node_modules" ]; then
  say "installing Playwright"
  new=$(mktemp -d "$dir.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  cp "$package" "$new"
  (cd "$new" && npm install --silent --no-audit --no-fund --no-package-lock >&2)
  rm -rf "$dir"
  mv "$new" "$dir"
fi
printf '%s\n' "$dir"
