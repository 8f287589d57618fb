//! Which pods' proxies have to ack.

use rstest::rstest;
use versionflag::kube::proxies::expected;

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
