#!/usr/bin/env bash
# Prints the directory of the programs that make a Kubernetes cluster without containers: etcd,
# kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, and kwok, which plays the nodes;
# and helm. For a mesh, Istio's pilot-discovery and pilot-agent, and crane, which is a registry too.
# They are built from the modules in tools/kube, once, and kept in the cache: a module that changes
# does not build the others again.
#
#   tools/kube.sh            what is in $KUBEBUILDER_ASSETS is taken from there, the rest is built
#   tools/kube.sh --mesh     with Istio and the registry in the same directory
#   tools/kube.sh --check    only whether it can be done here; status 69 if something is missing
#   tools/kube.sh --check --mesh
set -euo pipefail
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

check='' mesh=''
for option in "$@"; do
  case $option in
    --check) check=yes ;;
    --mesh) mesh=yes ;;
    *) die "usage: $0 [--check] [--mesh]" ;;
  esac
done

modules=$root/tools/kube
# Go itself says whether it is, or can fetch, the version that the module asks for.
{ command -v go && go -C "$modules/kwok" list -m; } >/dev/null 2>&1 ||
  missing "Go $(sed -n 's/^go //p' "$modules/kwok/go.mod") or later (https://go.dev/dl)"

ensure ip iproute2
[ -z "$mesh" ] || ensure iptables iptables
if [ -n "$check" ]; then
  # Only trying tells whether this root may: in a container it often may not.
  namespace=versionflag-check-$$
  { ip netns add "$namespace" 2>/dev/null && ip netns delete "$namespace"; } ||
    missing "the right to make network namespaces (run make as root, in a container with --privileged)"
  [ -n "$mesh" ] || exit 0
  unshare --net iptables -t nat -A OUTPUT -p tcp -m owner --gid-owner 1 -j REDIRECT --to-ports 1 2>/dev/null ||
    missing "a kernel with iptables' nat table, REDIRECT and owner match"
  exit 0
fi

version=$(sed -n 's/^\tk8s.io\/kubernetes v//p' "$modules/go.mod")
key() { cat "$modules/$1"/go.{mod,sum} | sha256sum | head -c 12; }
store=$cache/kube
# The word at the end changes when this script puts something else there.
dir=$store/programs-$({ key . && key kwok && key helm && key istio && key registry; } |
  cat - <(printf '%s' "${KUBEBUILDER_ASSETS:-}" gateway-api) | sha256sum | head -c 12)
complete=$dir/complete${mesh:+-mesh}

# provide PROGRAM MODULE PACKAGE [TAGS]
provide() {
  local program=$1 module=$2 package=$3 tags=${4:-} asset=${KUBEBUILDER_ASSETS:-}/$1 built
  [ ! -x "$dir/$program" ] || return 0
  if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$asset" ]; then
    ln -sfn "$(readlink -f "$asset")" "$dir/$program"
    return
  fi
  built=$store/${module/./kubernetes}-$(key "$module")
  if [ ! -x "$built/$program" ]; then
    mkdir -p "$built"
    say "building $program"
    # The variables are what Kubernetes' own build sets: a client may ask the server how old it is.
    local k8s=k8s.io/component-base/version started=$SECONDS
    CGO_ENABLED=0 GOFLAGS=-mod=readonly go -C "$modules/$module" build -trimpath -buildvcs=false -tags "$tags" \
      -o "$built/$program.new" \
      -ldflags "-s -w -X $k8s.gitVersion=v$version -X $k8s.gitMajor=${version%%.*} -X $k8s.gitMinor=$(cut -d. -f2 <<<"$version")" \
      "$package" >&2 || die "$program cannot be built: see above"
    mv "$built/$program.new" "$built/$program"
    say "built $program in $((SECONDS - started)) s"
  fi
  ln -sfn "$built/$program" "$dir/$program"
}

if [ ! -e "$complete" ]; then
  mkdir -p "$dir"
  exec 9>"$store/lock"
  flock 9
fi

if [ ! -e "$complete" ]; then
  provide etcd . go.etcd.io/etcd/server/v3
  for program in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
    provide "$program" . "k8s.io/kubernetes/cmd/$program"
  done
  provide kwok kwok sigs.k8s.io/kwok/cmd/kwok
  provide helm helm helm.sh/helm/v3/cmd/helm
  go -C "$modules/istio" mod download istio.io/istio >&2
  istio=$(go -C "$modules/istio" list -m -f '{{.Dir}}' istio.io/istio)
  cat "$istio/manifests/charts/base/files/crd-all.gen.yaml" >"$dir/istio-crds.yaml"
  # Of the version that this Istio was built for.
  go -C "$modules/istio" mod download sigs.k8s.io/gateway-api >&2
  gateway=$(go -C "$modules/istio" list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
  for file in "$gateway"/config/crd/standard/gateway.networking.k8s.io_{gateway,http,grpc,tls,reference}*.yaml; do
    printf -- '---\n'
    cat "$file"
  done >"$dir/gateway-api-crds.yaml"
  if [ -n "$mesh" ]; then
    provide crane registry github.com/google/go-containerregistry/cmd/crane
    # The tags are those of Istio's own build. The second leaves code out that nothing here calls.
    for program in pilot-agent pilot-discovery; do
      provide "$program" istio "istio.io/istio/pilot/cmd/$program" vtprotobuf,disable_pgv
    done
    cat "$istio/tools/packaging/common/envoy_bootstrap.json" >"$dir/envoy_bootstrap.json"
  fi
  touch "$complete"
fi
printf '%s\n' "$dir"
