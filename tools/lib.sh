# shellcheck shell=bash
# Shared by the scripts beside it: messages, packages, and which Rust builds for wasm.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/versionflag
wasm_target=wasm32-unknown-unknown
mkdir -p "$cache"

say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# Something has to be installed first, and we may not. The status tells callers so.
readonly MISSING=69
missing() {
  say "missing: $*"
  exit "$MISSING"
}

# apt_install PACKAGE...: false where we may not or cannot.
apt_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  say "installing $*"
  local log=$cache/apt.log get=(apt-get -qy -o DPkg::Lock::Timeout=300)
  (
    export DEBIAN_FRONTEND=noninteractive
    # The lists may be absent or out of date: fetch them only then.
    "${get[@]}" install --no-install-recommends "$@" >"$log" 2>&1 ||
      { "${get[@]}" update && "${get[@]}" install --no-install-recommends "$@"; } >"$log" 2>&1
  ) </dev/null || {
    tail -n 3 "$log" >&2
    return 1
  }
}

# ensure COMMAND PACKAGE: the command is there, or is installed from the package.
ensure() {
  command -v "$1" >/dev/null || { apt_install "$2" && command -v "$1" >/dev/null; } ||
    missing "$1 (on Debian and Ubuntu: apt-get install $2)"
}

# unpack DIR PACKAGE: makes DIR what Debian's package has in it, without installing that; false where that cannot be.
unpack() {
  local new
  command -v apt-get >/dev/null || return 1
  say "fetching $2"
  new=$(mktemp -d "$1.XXXXXX")
  # The lists may be absent or out of date: fetch them only then.
  if { download "$new" "$2" || { [ "$(id -u)" = 0 ] && apt-get -qq update && download "$new" "$2"; }; } \
    >"$cache/apt.log" 2>&1; then
    dpkg-deb -x "$new"/"$2"_*.deb "$new/root"
    rm -rf "$1"
    mv "$new/root" "$1"
  fi
  rm -rf "$new"
  [ -d "$1" ]
}
download() { (cd "$1" && apt-get -qq download "$2"); }

# pypi DIR PACKAGE==VERSION: makes DIR a Python environment with this package, from a wheel only.
pypi() {
  rm -rf "$1"
  # A Python may come without venv, or be a stripped one: then Debian's own is tried.
  python3 -m venv "$1" >/dev/null 2>&1 ||
    { apt_install python3-venv && /usr/bin/python3 -m venv --clear "$1"; } ||
    missing "python3 with venv (on Debian and Ubuntu: apt-get install python3-venv)"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "$2" >&2
}

# From the root, where rust-toolchain.toml counts.
default_sysroot() { (cd "$root" && rustc --print sysroot); }
rust_has_wasm() { [ -d "$(default_sysroot)/lib/rustlib/$wasm_target/lib" ]; }

# Debian builds the standard library from its own sources, of the same version as its rustc.
debian_has_wasm() {
  [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] &&
    [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/vendor" ]
}

wasm_linker() {
  local lld sysroot
  sysroot=$(default_sysroot)
  for lld in "$sysroot"/lib/rustlib/*/bin/rust-lld /usr/bin/wasm-ld /usr/bin/wasm-ld-*; do
    [ -x "$lld" ] && printf '%s\n' "$lld" && return
  done
  return 1
}

# Chooses the Rust that builds for wasm, installing one if it has to. Sets wasm_rust to
# `default` (the Rust on PATH) or `debian`.
choose_wasm_rust() {
  local stamp=$cache/wasm-rust
  command -v cargo >/dev/null || missing "Rust (https://rustup.rs)"
  if rust_has_wasm; then
    wasm_rust=default
    return
  fi
  wasm_rust=debian
  # The stamp spares a warm run the wait for a rustup that cannot reach its server.
  if [ -e "$stamp" ] && debian_has_wasm && wasm_linker >/dev/null; then
    return
  fi
  if command -v rustup >/dev/null && (cd "$root" && timeout 180 rustup target add "$wasm_target") >/dev/null 2>&1 &&
    rust_has_wasm; then
    wasm_rust=default
    return
  fi
  debian_has_wasm || apt_install rustc-web cargo-web rust-web-src || true
  debian_has_wasm ||
    missing "Rust's $wasm_target target (rustup target add $wasm_target, or on Debian: apt-get install rustc-web cargo-web rust-web-src)"
  wasm_linker >/dev/null || apt_install lld || true
  wasm_linker >/dev/null || missing "wasm-ld (on Debian: apt-get install lld)"
  touch "$stamp"
}

# wasm_cargo COMMAND [ARG...]: runs cargo for wasm, in a target directory of its own, because two
# compilers in one would rebuild each other's work.
wasm_cargo() {
  local command=$1 dir rust_source flags=()
  shift
  [ -n "${wasm_rust:-}" ] || choose_wasm_rust
  local args=(--target "$wasm_target") env=(CARGO_TARGET_DIR="$root/target/wasm-build")
  local linker
  linker=$(wasm_linker) || missing "wasm-ld (on Debian: apt-get install lld)"
  env+=(WASM_LD="$linker" CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$root/tools/wasm-link.sh")
  local cargo=(cargo) rustc=rustc
  if [ "$wasm_rust" = debian ]; then
    cargo=(/usr/bin/cargo) rustc=/usr/bin/rustc
    args+=(-Z "build-std=std,panic_abort")
    env+=(
      RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
    )
  fi
  # Panic messages carry file names: take this machine out of them, so that a build elsewhere
  # gives the same bytes. The registry's folder exists only once something was fetched.
  (cd "$root" && env "${env[@]}" "${cargo[@]}" fetch --quiet)
  for dir in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    flags+=(--remap-path-prefix "${dir%/}=/crates")
  done
  # Debian's sources are a link to where they really are, and both names occur.
  rust_source=$(cd "$root" && "$rustc" --print sysroot)/lib/rustlib/src/rust
  if [ -d "$rust_source/library" ]; then
    for dir in "$rust_source/library" "$(readlink -f "$rust_source/library")"; do
      flags+=(--remap-path-prefix "$dir=/rust/library")
    done
  fi
  flags+=(--remap-path-prefix "$root=/versionflag")
  # A filter hashes little, and seldom: the small SHA-256 instead of the fast one.
  flags+=(--cfg 'sha2_backend_soft="compact"')
  env+=(CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f' && printf '%s' "${flags[*]}")")
  (cd "$root" && env "${env[@]}" "${cargo[@]}" "$command" "${args[@]}" "$@")
}
