#!/usr/bin/env bash
# Prints the path of a Lua: $LUA, or one on PATH, or Debian's package, unpacked into the cache.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ -n "${LUA:-}" ]; then
  [ -x "$LUA" ] || die "LUA is $LUA, which is not a program"
  printf '%s\n' "$LUA"
  exit 0
fi
command -v lua5.4 || command -v lua && exit 0

dir=$cache/lua
found() { [ -x "$dir/usr/bin/lua5.4" ] && printf '%s\n' "$dir/usr/bin/lua5.4"; }
found && exit 0
exec 9>"$dir.lock"
flock 9
found && exit 0 # somebody else fetched it while we waited

hint="lua5.4 (set LUA to a Lua, or on Debian and Ubuntu: apt-get install lua5.4)"
unpack "$dir" lua5.4 || missing "$hint"
found || missing "$hint"
