//! Which pods' proxies have to ack.

use cluster::proxies::{audience_in_mesh, expected, expected_in_mesh, name_callers};
use cluster::workloads::Workloads;
use rstest::rstest;

use crate::objects::{Cluster, spec};

const RUNNING: &str = "{phase: Running}";

#[rstest]
#[case::labelled("shop", "labels: {versionflag.io/proxy: 'true'}", RUNNING, "", true)]
#[case::any_value("shop", "labels: {versionflag.io/proxy: ''}", RUNNING, "", true)]
#[case::no_label("shop", "labels: {app: web}", RUNNING, "", false)]
#[case::elsewhere("other", "labels: {versionflag.io/proxy: ''}", RUNNING, "", false)]
#[case::starting("shop", "labels: {versionflag.io/proxy: ''}", "{phase: Pending}", "", true)]
#[case::terminating(
    "shop",
    "labels: {versionflag.io/proxy: ''}, deletionTimestamp: '2026-01-01T00:00:00Z'",
    RUNNING,
    "",
    true
)]
#[case::failed("shop", "labels: {versionflag.io/proxy: ''}", "{phase: Failed}", "", false)]
#[case::succeeded("shop", "labels: {versionflag.io/proxy: ''}", "{phase: Succeeded}", "", false)]
#[case::other_namespaces(
    "other",
    "labels: {versionflag.io/proxy: ''}",
    RUNNING,
    ", callers: {namespaces: [other]}",
    true
)]
#[case::only_those("shop", "labels: {versionflag.io/proxy: ''}", RUNNING, ", callers: {namespaces: [other]}", false)]
#[case::pods(
    "shop",
    "labels: {versionflag.io/proxy: '', app: web}",
    RUNNING,
    ", callers: {pods: {matchLabels: {app: web}}}",
    true
)]
#[case::other_pods(
    "shop",
    "labels: {versionflag.io/proxy: '', app: db}",
    RUNNING,
    ", callers: {pods: {matchLabels: {app: web}}}",
    false
)]
fn a_pod_has_to_ack(
    #[case] namespace: &str,
    #[case] metadata: &str,
    #[case] status: &str,
    #[case] callers: &str,
    #[case] expects: bool,
) {
    let mut cluster = Cluster::default();
    cluster.pod_in(namespace, "web-0", metadata, status);
    let found = expected("shop", &spec(callers), &cluster.objects.pods);
    let name = format!("web-0.{namespace}");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), if expects { vec![name] } else { vec![] });
}

#[test]
fn a_pod_without_a_node_has_never_started() {
    let mut cluster = Cluster::default();
    cluster.unplaced_pod("web-0", "labels: {versionflag.io/proxy: ''}");
    assert!(expected("shop", &spec(""), &cluster.objects.pods).is_empty());
}

const SIDECAR: &str = "containers: [{name: app}, {name: istio-proxy}]";
const GATEWAYS: &str = ", callers: {gateways: [{namespace: edge, matchLabels: {istio: ingress}}]}";
const ATTACHED: &str = ", routing: {provider: GatewayAPI, gateways: [{name: public, namespace: edge}, {name: near}]}, \
     callers: {pods: {matchLabels: {app: web}}}";
const NARROWED: &str = ", callers: {pods: {matchLabels: {app: web}}}";

/// Who has to ack, and who else is told.
#[rstest]
#[case::a_sidecar("shop", "app: web", SIDECAR, RUNNING, "", true, true)]
#[case::a_native_sidecar(
    "shop",
    "app: web",
    "containers: [{name: app}], initContainers: [{name: istio-init}, {name: istio-proxy, restartPolicy: Always}]",
    RUNNING,
    "",
    true,
    true
)]
#[case::no_sidecar(
    "shop",
    "app: web",
    "containers: [{name: app}], initContainers: [{name: istio-init}]",
    RUNNING,
    "",
    false,
    false
)]
#[case::the_label_of_others_says_nothing(
    "shop",
    "versionflag.io/proxy: ''",
    "containers: [{name: app}]",
    RUNNING,
    "",
    false,
    false
)]
#[case::elsewhere("other", "app: web", SIDECAR, RUNNING, "", false, false)]
#[case::a_caller_elsewhere("other", "app: web", SIDECAR, RUNNING, ", callers: {namespaces: [other]}", true, true)]
// The filter is there, and its inbound side observes.
#[case::the_flags_own_namespace("shop", "app: web", SIDECAR, RUNNING, ", callers: {namespaces: [other]}", true, true)]
#[case::among_narrowed_callers("shop", "app: web", SIDECAR, RUNNING, NARROWED, true, true)]
#[case::beside_narrowed_callers("shop", "app: db", SIDECAR, RUNNING, NARROWED, false, true)]
#[case::the_called("shop", "app: reviews, version: v1", SIDECAR, RUNNING, NARROWED, true, true)]
#[case::the_called_without_a_sidecar(
    "shop",
    "app: reviews, version: v1",
    "containers: []",
    RUNNING,
    NARROWED,
    false,
    false
)]
#[case::a_gateway("edge", "istio: ingress", SIDECAR, RUNNING, GATEWAYS, true, true)]
#[case::another_gateway("edge", "istio: egress", SIDECAR, RUNNING, GATEWAYS, false, false)]
#[case::a_gateway_elsewhere("other", "istio: ingress", SIDECAR, RUNNING, GATEWAYS, false, false)]
#[case::of_a_gateway("edge", "gateway.networking.k8s.io/gateway-name: public", SIDECAR, RUNNING, ATTACHED, true, true)]
#[case::of_a_near_gateway(
    "shop",
    "gateway.networking.k8s.io/gateway-name: near",
    SIDECAR,
    RUNNING,
    ATTACHED,
    true,
    true
)]
#[case::of_another_gateway(
    "edge",
    "gateway.networking.k8s.io/gateway-name: near",
    SIDECAR,
    RUNNING,
    ATTACHED,
    false,
    false
)]
#[case::ended("shop", "app: web", SIDECAR, "{phase: Succeeded}", "", false, false)]
#[case::failed("shop", "app: reviews, version: v1", SIDECAR, "{phase: Failed}", "", false, false)]
#[case::starting("shop", "app: web", SIDECAR, "{phase: Pending}", "", true, true)]
fn a_sidecar_has_to_ack(
    #[case] namespace: &str,
    #[case] labels: &str,
    #[case] containers: &str,
    #[case] status: &str,
    #[case] callers: &str,
    #[case] acks: bool,
    #[case] told: bool,
) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").pod_with(namespace, "web-0", &format!("labels: {{{labels}}}"), containers, status);
    let (spec, pods) = (spec(callers), &cluster.objects.pods);
    let workloads = Workloads::find("shop", &spec, &cluster.objects);
    let name = |there: bool| if there { vec![format!("web-0.{namespace}")] } else { vec![] };
    assert_eq!(expected_in_mesh("shop", &spec, &workloads, pods).into_iter().collect::<Vec<_>>(), name(acks));
    assert_eq!(audience_in_mesh("shop", &spec, pods).into_iter().collect::<Vec<_>>(), name(told));
}

#[test]
fn a_caller_without_a_filter_is_called_by_its_pod() {
    let mut cluster = Cluster::default();
    cluster.pod_in("shop", "plain", "labels: {}", "{phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 'fd00::7'}]}");
    let stranger = |from: &str| machine::fleet::unmanaged::UnmanagedCaller {
        at: "v1-a".to_owned(),
        from: from.to_owned(),
        per_second: 1,
    };
    let mut strangers = ["10.0.0.7", "[fd00::7]", "10.0.0.8", "", "no address"].map(stranger);
    name_callers(&mut strangers, cluster.objects.pods.iter());
    let named = strangers.each_ref().map(|stranger| stranger.from.as_str());
    assert_eq!(named, ["plain.shop (10.0.0.7)", "plain.shop ([fd00::7])", "10.0.0.8", "", "no address"]);
}
