#!/usr/bin/env bash
# Finds Rust files of more than 400 lines. Tests do not count: neither a module under #[cfg(test)], nor
# a file tests.rs, nor what is in a folder tests. The package tests/ is for tests, but its src/, the
# harness, is code like any other.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# A file that may be longer: its path, a space, and why.
allowed='
'

mapfile -t files < <(find . -name '*.rs' -not -path './target/*' | sed 's|^\./||' | grep -vE '/tests(/|\.rs$)' | sort)
ALLOWED=$allowed awk '
  function close_file() {
    if (file == "") return
    if (lines > 400 && !(file in reason)) { printf "%s has %d lines: split it, or list it with a reason in tools/length.sh\n", file, lines; bad = 1 }
    if (lines <= 400 && file in reason) printf "%s has %d lines: take it off the list in tools/length.sh\n", file, lines
  }
  BEGIN {
    count = split(ENVIRON["ALLOWED"], rows, "\n")
    for (i = 1; i <= count; i++) if (split(rows[i], words, " ") > 1) reason[words[1]] = rows[i]
  }
  FNR == 1 { close_file(); file = FILENAME; lines = 0; test = 0 }
  test == 2 { if (/^}/) test = 0; next }
  test == 1 { test = 0; if (/^(pub(\([a-z]+\))? )?mod .*{$/) { test = 2; lines--; next } }
  /^#\[cfg\(test\)\]$/ { test = 1 }
  { lines++ }
  END { close_file(); exit bad }
' "${files[@]}"
