#!/usr/bin/env bash
# Runs every tier of tests in order. A tier whose tools cannot be installed here is skipped with a
# line that says what it needs; where CI is set to true that is a failure.
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

skipped=()

# tier HEADING TARGET [SCRIPT...]: runs the make target once the scripts have found its tools.
tier() {
  local heading=$1 target=$2 check status began=$SECONDS
  shift 2
  printf '\n== %s\n' "$heading"
  for check in "$@"; do
    status=0
    # Not quoted: a check is a command with its arguments.
    # shellcheck disable=SC2086
    $check >/dev/null || status=$?
    if [ "$status" = "$MISSING" ] && [ "${CI:-}" != true ]; then
      printf 'skipped: %s\n' "$heading"
      skipped+=("$target")
      return
    fi
    [ "$status" = 0 ] || exit "$status"
  done
  "${MAKE:-make}" --no-print-directory "$target"
  printf '%s: %d s\n' "$heading" $((SECONDS - began))
}

tier "unit tests" test-unit
tier "the alerts, with promtool" test-alerts tools/promtool.sh
tier "Argo CD's health check, with Lua" test-argocd tools/lua.sh
tier "the shared crate as wasm, under Node" test-wasm "tools/wasm-test.sh --check"
tier "the filter and the controller with real Envoy" test-envoy "tools/wasm-build.sh --check" tools/envoy.sh
tier "the page, in a real Chromium" test-page "tools/wasm-build.sh --check" tools/envoy.sh tools/playwright.sh tools/chromium.sh
tier "an older Envoy" test-old-envoy "tools/wasm-build.sh --check" tools/envoy.sh
tier "a real Kubernetes API, in a network namespace" test-kube "tools/kube.sh --check" "tools/wasm-build.sh --check" tools/envoy.sh
tier "a real Istio mesh, with a network namespace for each pod" test-mesh "tools/kube.sh --check --mesh" "tools/wasm-build.sh --check" tools/envoy.sh

[ ${#skipped[@]} = 0 ] || printf '\nNOT TESTED HERE: %s\n' "${skipped[*]}"
