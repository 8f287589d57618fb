#!/usr/bin/env bash
# The linker for wasm, called by the compiler, without the exports that match $WASM_HIDE (globs).
# The SDK exports a function for every callback there is. Taking an export away after linking leaves
# behind it what is reached through tables of functions; here the linker never keeps it.
#
# WASM_LD is the real linker.
set -euo pipefail

: "${WASM_LD:?}"
hidden() {
  local glob
  set -f # the globs are not for files
  for glob in ${WASM_HIDE:-}; do
    # shellcheck disable=SC2053 # a glob, on purpose
    [[ $1 == $glob ]] && return
  done
  return 1
}

args=()
while [ $# -gt 0 ]; do
  case $1 in
    --export)
      hidden "$2" || args+=("$1" "$2")
      shift 2
      ;;
    *)
      args+=("$1")
      shift
      ;;
  esac
done
exec "$WASM_LD" "${args[@]}"
