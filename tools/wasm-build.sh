#!/usr/bin/env bash
# Builds a filter as it ships: compiled with the wasm profile, trimmed of the exports that Envoy
# need not call, optimised, and with its checksum beside it.
#
#   tools/wasm-build.sh PACKAGE OUT.wasm [wasm-trim options...]
#   tools/wasm-build.sh --check     only makes sure that the tools for it are there
#
# WASM_MAX_BYTES makes a larger result an error; WASM_FEATURES are features of the package.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ensure wasm-opt binaryen
choose_wasm_rust
[ "${1:-}" != --check ] || exit 0
[ $# -ge 2 ] || die "usage: $0 PACKAGE OUT.wasm [wasm-trim options...]"
package=$1 out=$2
shift 2

wasm_cargo build --quiet --profile wasm --package "$package" --features "${WASM_FEATURES:-}"
(cd "$root" && cargo build --quiet --package wasm-trim)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Its errors are about the input: a backtrace of the tool would only hide them.
RUST_BACKTRACE=0 "$root/target/debug/wasm-trim" "$@" \
  "$root/target/wasm-build/$wasm_target/wasm/${package//-/_}.wasm" "$work/trimmed.wasm"

# Rust's compiler uses these features without asking; an older wasm-opt has to be told. With -g
# the names of functions stay, which a stack trace in Envoy's log needs; as they are a third of the
# file, they ship beside it.
features=(--enable-bulk-memory --enable-multivalue --enable-mutable-globals \
  --enable-nontrapping-float-to-int --enable-reference-types --enable-sign-ext)
wasm-opt -O3 -g "${features[@]}" "$work/trimmed.wasm" -o "$work/debug.wasm"
wasm-opt "${features[@]}" --strip-debug --strip-producers "$work/debug.wasm" -o "$work/out.wasm"

bytes=$(stat -c %s "$work/out.wasm")
if [ -n "${WASM_MAX_BYTES:-}" ] && [ "$bytes" -gt "$WASM_MAX_BYTES" ]; then
  die "$package is $bytes bytes, over its budget of $WASM_MAX_BYTES"
fi
# Bytes that name this machine would be different bytes elsewhere.
for place in "$HOME" "$root"; do
  if [ "$place" != / ] && grep -aqF "$place/" "$work/out.wasm"; then
    die "$package contains a path of this machine, below $place"
  fi
done

mkdir -p "$(dirname "$out")"
# The copy is made beside its destination so that the last step is a rename: nobody reads a half.
cp "$work/debug.wasm" "${out%.wasm}.debug.wasm"
cp "$work/out.wasm" "$out.new"
mv "$out.new" "$out"
(cd "$(dirname "$out")" && sha256sum "$(basename "$out")" >"$(basename "$out").sha256")
printf '%s: %s bytes\n' "$out" "$bytes"
