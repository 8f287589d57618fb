//! Which pod an address belongs to.

use std::sync::Mutex;

use cluster::cache::Shared;
use cluster::identity::believe;
use cluster::index::Index;
use cluster::prune::Trim;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use rstest::rstest;
use service::spiffe::{ClientIdentity, IdentityError, SpiffeId};

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
    judge(believe(&pods(spec, status), proxy, address.parse().unwrap(), None, false), why);
}

fn pods(spec: &str, status: &str) -> Shared<Pod> {
    let mut pod: Pod =
        parse(&format!("{{metadata: {{name: web.a, namespace: shop}}, spec: {{{spec}}}, status: {status}}}"));
    pod.trim();
    let mut index = Index::default();
    index.apply(Event::Apply(pod));
    Shared::new(Mutex::new(index))
}

fn judge(found: Result<(), String>, why: &str) {
    assert_eq!(found.is_ok(), why.is_empty(), "{found:?}");
    assert!(found.as_ref().err().is_none_or(|error| error.contains(why)), "{found:?}");
}

/// What a certificate with these URIs says to a controller of `cluster.local`.
fn shown(uris: &[&str]) -> ClientIdentity {
    SpiffeId::from_uris(uris)?.of_trust_domain("cluster.local")
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const NAMED: &str = "serviceAccountName: web, containers: [{name: istio-proxy}]";

#[rstest]
#[case::its_own(NAMED, &[WEB], "198.18.0.7", "")]
#[case::mapped(NAMED, &[WEB], "::ffff:198.18.0.7", "")]
#[case::another_address(NAMED, &[WEB], "198.18.0.8", "that pod is at 198.18.0.7")]
#[case::another_account(
    NAMED,
    &["spiffe://cluster.local/ns/shop/sa/other"],
    "198.18.0.7",
    "its certificate is of spiffe://cluster.local/ns/shop/sa/other, and that pod has the account web of shop"
)]
#[case::another_namespace(
    NAMED,
    &["spiffe://cluster.local/ns/web/sa/web"],
    "198.18.0.7",
    "that pod has the account web of shop"
)]
#[case::no_account_is_the_default_one(MESH, &["spiffe://cluster.local/ns/shop/sa/default"], "198.18.0.7", "")]
#[case::an_empty_one_too(
    "serviceAccountName: '', containers: [{name: istio-proxy}]",
    &["spiffe://cluster.local/ns/shop/sa/default"],
    "198.18.0.7",
    ""
)]
#[case::the_default_one_by_name(
    "serviceAccountName: default, containers: [{name: istio-proxy}]",
    &["spiffe://cluster.local/ns/shop/sa/default"],
    "198.18.0.7",
    ""
)]
#[case::no_account_is_no_other(MESH, &[WEB], "198.18.0.7", "that pod has the account default of shop")]
#[case::another_trust_domain(
    NAMED,
    &["spiffe://other.mesh/ns/shop/sa/web"],
    "198.18.0.7",
    "of the trust domain \"other.mesh\", and this controller's of \"cluster.local\""
)]
#[case::no_uri(NAMED, &[], "198.18.0.7", "0 URIs, and has to have one")]
#[case::several_uris(NAMED, &[WEB, "https://web.shop"], "198.18.0.7", "2 URIs, and has to have one")]
#[case::twice_the_same(NAMED, &[WEB, WEB], "198.18.0.7", "2 URIs")]
#[case::of_the_node("hostNetwork: true, serviceAccountName: web, containers: [{name: istio-proxy}]", &[WEB], "198.18.0.7", "shares the address")]
#[case::no_sidecar("serviceAccountName: web, containers: [{name: web}]", &[WEB], "198.18.0.7", "has no sidecar")]
fn a_certificate_speaks_for_pods_of_its_account_at_their_address(
    #[case] spec: &str,
    #[case] uris: &[&str],
    #[case] address: &str,
    #[case] why: &str,
) {
    let found = believe(&pods(spec, AT), "web.a.shop", address.parse().unwrap(), Some(&shown(uris)), true);
    judge(found, why);
}

#[rstest]
#[case::no_mtls(false, "")]
#[case::mtls(true, "reach the port http-mtls of its Service by mutual TLS, or show a token bound to the pod")]
fn without_a_certificate_the_address_counts_only_where_nothing_else_is_asked_for(
    #[case] mtls: bool,
    #[case] why: &str,
) {
    judge(believe(&pods(NAMED, AT), "web.a.shop", "198.18.0.7".parse().unwrap(), None, mtls), why);
}

#[rstest]
#[case::of_the_whole_domain("spiffe://cluster.local")]
#[case::no_scheme("cluster.local/ns/shop/sa/web")]
#[case::another_scheme("https://cluster.local/ns/shop/sa/web")]
#[case::more("spiffe://cluster.local/ns/shop/sa/web/more")]
#[case::a_slash_more("spiffe://cluster.local/ns/shop/sa/web/")]
#[case::less("spiffe://cluster.local/ns/shop/sa")]
#[case::no_account("spiffe://cluster.local/ns/shop/sa/")]
#[case::no_namespace("spiffe://cluster.local/ns//sa/web")]
#[case::no_domain("spiffe:///ns/shop/sa/web")]
#[case::in_another_order("spiffe://cluster.local/sa/web/ns/shop")]
#[case::empty("")]
fn other_uris_are_no_workloads(#[case] uri: &str) {
    assert_eq!(SpiffeId::from_uris(&[uri]), Err(IdentityError::Name(uri.to_owned())));
}
