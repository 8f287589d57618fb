#!/usr/bin/env bash
# Runs the tests of the crate that both sides share as wasm, where numbers are 32 bits wide and
# the standard library is another one, under Node.
#
#   tools/wasm-test.sh [test filter]
#   tools/wasm-test.sh --check     only makes sure that the tools for it are there
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ensure node nodejs
choose_wasm_rust
[ "${1:-}" != --check ] || exit 0

# The runner reads what the library wrote into the test binary: the versions must be the same.
version=$(awk '/^name = / { name = $3 } /^version = / && name == "\"wasm-bindgen\"" { gsub(/"/, "", $3); print $3 }' "$root/Cargo.lock")
[ -n "$version" ] || die "there is no wasm-bindgen in Cargo.lock"
dir=$cache/wasm-bindgen-$version
runner=$dir/bin/wasm-bindgen-test-runner
(
  flock 9
  if ! [ -x "$runner" ]; then
    say "installing wasm-bindgen-cli $version"
    # It runs for a second: compiling it fast matters more than making it fast.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo install --quiet --root "$dir" --version "=$version" \
      --bin wasm-bindgen-test-runner wasm-bindgen-cli
  fi
) 9>"$dir.lock"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$runner
# Only the library's tests: doctests would be compiled by whichever rustdoc is on PATH.
wasm_cargo test --package versionflag-flag --lib -- "$@" 2>&1 | tee "$log"
# The runner is content with no tests at all.
grep -Eq '^test result: ok\. [1-9]' "$log" || die "no test ran as wasm"
