#!/usr/bin/env bash
# Checks by what the pure crates link that they are pure: no network, no cluster, no runtime, no calls
# into the system. What an adapter needs belongs to an adapter. Nothing is built.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Not to be reached from a pure crate, however far down.
impure='axum|hyper|hyper-.+|k8s-openapi|kube|kube-.+|mio|nix|reqwest|rustls|socket2|tokio|tokio-.+|tower|tower-.+'

# pure PACKAGE [CRATE...]: with crates, these are all that the package itself may name.
pure() {
  local package=$1 tree found
  shift
  # Of every target: what one of them alone pulls in counts.
  tree=$(cargo tree --locked --quiet --package "$package" --edges normal --target all --prefix depth --format ' {p}') || return
  if found=$(awk '{ print $2 }' <<<"$tree" | sort -u | grep -Ex "$impure"); then
    say "$package is to be pure, and has in it: ${found//$'\n'/, }"
    cargo tree --locked --quiet --package "$package" --edges normal --target all --invert "${found%%$'\n'*}" >&2
    return 1
  fi
  [ $# -gt 0 ] || return 0
  if found=$(awk '$1 == 1 { print $2 }' <<<"$tree" | sort -u | grep -vxF "$(printf '%s\n' "$@")"); then
    say "$package is linked into every proxy, and names a crate that tools/purity.sh does not list: ${found//$'\n'/, }"
    return 1
  fi
}

status=0
pure versionflag-flag rustc-hash serde serde_json sha2 thiserror || status=1
pure versionflag-machine || status=1
[ $status = 0 ] && say "the pure crates link nothing impure"
exit $status
