//! Which pod an address belongs to.

use std::sync::Mutex;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use rstest::rstest;
use versionflag::kube::cache::Shared;
use versionflag::kube::identity::is_at;
use versionflag::kube::index::Index;
use versionflag::kube::trim::Trim;

use crate::objects::parse;

const MESH: &str = "containers: [{name: istio-proxy}]";
const AT: &str = "{phase: Running, podIP: 198.18.0.7, podIPs: [{ip: 198.18.0.7}, {ip: 'fd00::7'}]}";

#[rstest]
#[case::its_own("web.a.shop", MESH, AT, "198.18.0.7", "")]
#[case::its_second("web.a.shop", MESH, AT, "fd00::7", "")]
#[case::mapped("web.a.shop", MESH, AT, "::ffff:198.18.0.7", "")]
#[case::another_address("web.a.shop", MESH, AT, "198.18.0.8", "that pod is at 198.18.0.7")]
#[case::another_pod("other.shop", MESH, AT, "198.18.0.7", "there is no such pod")]
#[case::another_namespace("web.a.other", MESH, AT, "198.18.0.7", "there is no such pod")]
#[case::no_pod("web", MESH, AT, "198.18.0.7", "that is no POD.NAMESPACE")]
#[case::of_the_node(
    "web.a.shop",
    "hostNetwork: true, containers: [{name: istio-proxy}]",
    AT,
    "198.18.0.7",
    "shares the address of its node"
)]
#[case::no_sidecar("web.a.shop", "containers: [{name: web}]", AT, "198.18.0.7", "that pod has no sidecar of Istio's")]
#[case::native("web.a.shop", "containers: [], initContainers: [{name: istio-proxy}]", AT, "198.18.0.7", "")]
// The address may be another pod's by now.
#[case::ended("web.a.shop", MESH, "{phase: Succeeded, podIP: 198.18.0.7}", "198.18.0.7", "that pod has ended")]
#[case::no_address("web.a.shop", MESH, "{phase: Pending}", "198.18.0.7", "that pod has no address yet")]
fn a_pod_speaks_from_its_own_address(
    #[case] proxy: &str,
    #[case] spec: &str,
    #[case] status: &str,
    #[case] address: &str,
    #[case] why: &str,
) {
    let mut pod: Pod =
        parse(&format!("{{metadata: {{name: web.a, namespace: shop}}, spec: {{{spec}}}, status: {status}}}"));
    pod.trim();
    let mut index = Index::default();
    index.apply(Event::Apply(pod));
    let pods = Shared::new(Mutex::new(index));
    let found = is_at(&pods, proxy, address.parse().unwrap());
    assert_eq!(found.is_ok(), why.is_empty(), "{found:?}");
    assert!(found.err().unwrap_or_default().contains(why));
}
