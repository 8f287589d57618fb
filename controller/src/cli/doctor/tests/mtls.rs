//! What is found where the controller asks for certificates.

use rstest::rstest;

use super::{add, healthy};
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::judge::judge;

/// The controller as manifests/kubernetes/mtls runs it, with what that brings.
const MTLS: &str = "
{kind: Pod, metadata: {name: two, namespace: versionflag, labels: {app.kubernetes.io/name: versionflag}, annotations: {traffic.sidecar.istio.io/includeInboundPorts: ''}}, spec: {containers: [{name: versionflag, env: [{name: VERSIONFLAG_MTLS_CERTS, value: any}]}, {name: istio-proxy}]}, status: {phase: Running}}
---
{kind: NetworkPolicy, metadata: {name: versionflag, namespace: versionflag}, spec: {podSelector: {matchLabels: {app.kubernetes.io/name: versionflag}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}], ports: [{protocol: TCP, port: http}, {protocol: TCP, port: http-mtls}]}]}}
---
";

#[rstest]
#[case::as_applied(include_str!("../../../../../manifests/kubernetes/mtls/istio.yaml"), "")]
#[case::without_a_rule_it_is_automatic("", "")]
#[case::mutual_tls_of_the_mesh(
    "{kind: DestinationRule, metadata: {name: tls, namespace: istio-system}, spec: {host: '*.local', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
    ""
)]
#[case::turned_off(
    "{kind: DestinationRule, metadata: {name: plain, namespace: shop}, spec: {host: versionflag.versionflag.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}}",
    "tls: DestinationRule shop/plain has callers speak to the flag service otherwise than by mutual TLS of the mesh"
)]
#[case::turned_off_for_its_port(
    "{kind: DestinationRule, metadata: {name: plain, namespace: shop}, spec: {host: versionflag.versionflag, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 7071}, tls: {mode: SIMPLE}}]}}}",
    "tls: DestinationRule shop/plain has callers speak"
)]
#[case::turned_off_for_the_mesh_and_on_for_it(
    "{kind: DestinationRule, metadata: {name: plain, namespace: istio-system}, spec: {host: '*.local', trafficPolicy: {tls: {mode: DISABLE}}}}\n---\n{kind: DestinationRule, metadata: {name: it, namespace: versionflag}, spec: {host: versionflag.versionflag.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
    ""
)]
#[case::turned_off_by_callers_goes_first(
    "{kind: DestinationRule, metadata: {name: plain, namespace: shop}, spec: {host: '*.local', trafficPolicy: {tls: {mode: DISABLE}}}}\n---\n{kind: DestinationRule, metadata: {name: it, namespace: versionflag}, spec: {host: versionflag.versionflag.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
    "tls: DestinationRule shop/plain has callers speak"
)]
#[case::turned_off_where_it_is_automatic(
    "{kind: PeerAuthentication, metadata: {name: plain, namespace: versionflag}, spec: {mtls: {mode: DISABLE}}}",
    "tls: PeerAuthentication versionflag/plain turns off the mutual TLS by which the controller believes"
)]
#[case::turned_off_and_on_for_it(
    "{kind: PeerAuthentication, metadata: {name: plain, namespace: versionflag}, spec: {mtls: {mode: DISABLE}}}\n---\n{kind: DestinationRule, metadata: {name: it, namespace: versionflag}, spec: {host: versionflag.versionflag.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
    ""
)]
#[case::its_sidecar_refuses_nobody(
    "{kind: AuthorizationPolicy, metadata: {name: none, namespace: versionflag}, spec: {}}",
    ""
)]
#[case::the_other_port_leaves(
    "{kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 7070}]}]}}",
    "network: NetworkPolicy web in shop lets nothing pass to the flag service"
)]
fn a_controller_that_asks_for_certificates_has_to_be_shown_them(#[case] yaml: &str, #[case] expected: &str) {
    let mut facts = Facts { port: 7071, ..healthy() };
    facts.controllers.clear();
    facts.network_policies.clear();
    add(&mut facts, MTLS);
    assert!(facts.mtls());
    // Istio's file has a Sidecar of the controller's own too, which is looked at in no other namespace.
    add(&mut facts, yaml);
    facts.sidecars.clear();
    let found: Vec<String> = judge(&facts).into_iter().map(|one| format!("{}: {}", one.check, one.message)).collect();
    assert_eq!(found.is_empty(), expected.is_empty(), "{found:?}");
    assert!(found.first().is_none_or(|first| first.starts_with(expected)), "{found:?}");
}

#[test]
fn who_may_not_pass_to_the_port_of_certificates_is_told() {
    let mut facts = Facts { port: 7071, ..healthy() };
    facts.controllers.clear();
    // With the NetworkPolicy of the plain port alone.
    add(&mut facts, MTLS.split("---").next().unwrap_or_default());
    let [one] = judge(&facts).try_into().expect("one finding");
    assert_eq!(one.message, "NetworkPolicies in versionflag let nothing pass to the controller from pod web");
}
