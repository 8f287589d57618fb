#!/usr/bin/env bash
# Prints the directory of the programs that make a Kubernetes cluster without containers: etcd,
# kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, and kwok, which plays the nodes;
# and helm.
# They are built from the modules in tools/kube, once, and kept in the cache.
#
#   tools/kube.sh            what is in $KUBEBUILDER_ASSETS is taken from there, the rest is built
#   tools/kube.sh --check    only whether it can be done here; status 69 if something is missing
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modules=$root/tools/kube
# Go itself says whether it is, or can fetch, the version that the module asks for.
command -v go >/dev/null && go -C "$modules/kwok" list -m >/dev/null 2>&1 ||
  missing "Go $(sed -n 's/^go //p' "$modules/kwok/go.mod") or later (https://go.dev/dl)"

if [ "${1:-}" = --check ]; then
  ensure ip iproute2
  # Only trying tells whether this root may: in a container it often may not.
  namespace=versionflag-check-$$
  ip netns add "$namespace" 2>/dev/null && ip netns delete "$namespace" ||
    missing "the right to make network namespaces (run make as root, in a container with --privileged)"
  exit 0
fi

version=$(sed -n 's/^\tk8s.io\/kubernetes v//p' "$modules/go.mod")
key=$(cat "$modules"/{,kwok/,helm/}go.{mod,sum} - <<<"${KUBEBUILDER_ASSETS:-}" | sha256sum)
dir=$cache/kube-$version-${key:0:12}

if [ ! -e "$dir/complete" ]; then
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
fi

# provide PROGRAM MODULE PACKAGE
provide() {
  local program=$1 module=$2 package=$3 asset=${KUBEBUILDER_ASSETS:-}/$1
  [ ! -x "$dir/$program" ] || return 0
  if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$asset" ]; then
    ln -sfn "$(readlink -f "$asset")" "$dir/$program"
    return
  fi
  say "building $program"
  # The variables are what Kubernetes' own build sets: a client may ask the server how old it is.
  local k8s=k8s.io/component-base/version started=$SECONDS
  CGO_ENABLED=0 GOFLAGS=-mod=readonly go -C "$module" build -trimpath -buildvcs=false -o "$dir/$program.new" \
    -ldflags "-s -w -X $k8s.gitVersion=v$version -X $k8s.gitMajor=${version%%.*} -X $k8s.gitMinor=$(cut -d. -f2 <<<"$version")" \
    "$package" >&2 || die "$program cannot be built: see above"
  mv "$dir/$program.new" "$dir/$program"
  say "built $program in $((SECONDS - started)) s"
}

if [ ! -e "$dir/complete" ]; then
  provide etcd "$modules" go.etcd.io/etcd/server/v3
  for program in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
    provide "$program" "$modules" "k8s.io/kubernetes/cmd/$program"
  done
  provide kwok "$modules/kwok" sigs.k8s.io/kwok/cmd/kwok
  provide helm "$modules/helm" helm.sh/helm/v3/cmd/helm
  touch "$dir/complete"
fi
printf '%s\n' "$dir"
