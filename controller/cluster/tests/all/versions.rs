//! Whether a version is ready: what its Service leads to, which pods say anything of it, and how many are enough.

use cluster::workloads::Workloads;
use machine::spec::Spec;
use rstest::rstest;

use crate::objects::{Cluster, spec};

const HTTP: &str = "[{name: http, port: 8080}]";
const BOTH: &str = "[{name: http, port: 8080}, {name: grpc, port: 9090}]";
const READY: &str = "{phase: Running, conditions: [{type: Ready, status: 'True'}]}";
const FAILING: &str = "{phase: Running, containerStatuses: [{name: app, image: a, imageID: a, ready: false, \
     restartCount: 4, state: {waiting: {reason: CrashLoopBackOff}}}]}";
const STARTING: &str = "{phase: Pending}";

fn find(cluster: &Cluster, spec: &Spec) -> Workloads {
    Workloads::find("shop", spec, &cluster.objects)
}

/// F08: the slices of a Service name the ports that its pods have.
#[rstest]
#[case::all_ports(&[(BOTH, "a b")], None)]
#[case::no_port(&[("[]", "a b")], Some("port 80 of the Service leads to the port web, which 2 of 2 ready pods do not name"))]
#[case::one_port(&[(HTTP, "a b")], Some("port 90 of the Service does not lead to 2 of 2 ready pods"))]
#[case::at_one_of_two(&[(BOTH, "a"), (HTTP, "b")], Some("port 90 of the Service does not lead to 1 of 2 ready pods"))]
#[case::by_another_family(&[(BOTH, "a"), (HTTP, "b"), (BOTH, "b")], None)]
fn every_port_of_the_service_has_to_lead_to_its_pods(#[case] slices: &[(&str, &str)], #[case] lacks: Option<&str>) {
    let mut cluster = Cluster::default();
    let ports = "[{port: 80, name: http, targetPort: web}, {port: 90, name: grpc, targetPort: 9090}]";
    cluster.service_spec("reviews", &format!("{{selector: {{app: reviews}}, ports: {ports}}}"));
    cluster.labelled("reviews-v2", "{app: reviews, version: v2}", 2).pod("a", "v2", READY).pod("b", "v2", READY);
    for (ports, pods) in slices {
        cluster.slice_of("reviews", ports, &pods.split(' ').collect::<Vec<_>>());
    }
    let seen = find(&cluster, &spec("")).observe("v2");
    assert_eq!((seen.lacks.as_deref(), seen.ready), (lacks, lacks.is_none()));
}

/// F08: each Service of a flag counts.
#[test]
fn a_port_that_one_of_several_services_lacks_is_named_with_it() {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v2", 1, 1);
    cluster.service_spec("admin", "{selector: {app: reviews}, ports: [{port: 81, name: http, targetPort: admin}]}");
    cluster.slice_of("admin", "[]", &["reviews-v2-0"]);
    let seen = find(&cluster, &spec(", services: [{name: reviews}, {name: admin}]")).observe("v2");
    let lacks = "Service admin: port 81 of the Service leads to the port admin, which 1 of 1 ready pods do not name";
    assert_eq!((seen.lacks.as_deref(), seen.ready), (Some(lacks), false));
}

fn progressing(revision: &str, replicas: i32, updated: i32, generation: i64) -> String {
    format!(
        "{{replicas: {replicas}, updatedReplicas: {updated}, availableReplicas: 2, observedGeneration: {generation}, \
         conditions: [{{type: Progressing, status: 'True', message: 'ReplicaSet \"reviews-v2-{revision}\" is progressing.'}}]}}"
    )
}

/// E10: pods that have ended, or whose workload makes others by now, say nothing of the version.
#[rstest]
#[case::current("b", FAILING, "b", 2, true)]
#[case::earlier("a", FAILING, "b", 2, false)]
#[case::not_known_yet("a", FAILING, "b", 1, true)]
#[case::ended("b", "{phase: Failed, reason: Evicted}", "b", 2, false)]
fn only_pods_of_the_current_template_say_how_a_version_ended(
    #[case] of: &str,
    #[case] status: &str,
    #[case] current: &str,
    #[case] observed: i64,
    #[case] exited: bool,
) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").labelled("reviews-v2", "{app: reviews, version: v2}", 2);
    cluster.pod_of("reviews-v2", of, "v2", status).pod_of("reviews-v2", "b", "v2", STARTING);
    cluster.status("reviews-v2", &progressing(current, 2, 2, observed));
    let seen = find(&cluster, &spec("")).observe("v2");
    assert_eq!(seen.exited.is_some(), exited, "{seen:?}");
}

/// E10: two pods are available, and both are of the template before.
#[test]
fn pods_of_an_earlier_template_make_no_version_ready() {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v2", 2, 2).status("reviews-v2", &progressing("b", 4, 2, 2));
    let found = find(&cluster, &spec(""));
    assert_eq!(
        (found.observe("v2").ready, found.lacks("v2").as_deref()),
        (false, Some("v2 of Service reviews: Deployment/reviews-v2 has 2 pods of an earlier template still"))
    );
}

/// F10.
#[rstest]
#[case::all_by_default("", 19, 19, Some("Deployment/reviews-v2 has 19 of 20 pods available"))]
#[case::enough(", coexistence: {ready: 95%}", 19, 19, None)]
#[case::too_few(
    ", coexistence: {ready: 95%}",
    18,
    18,
    Some("Deployment/reviews-v2 has 18 of 20 pods available, and 19 are needed")
)]
#[case::too_few_endpoints(", coexistence: {ready: 95%}", 20, 18, Some("18 of 20 pods are ready endpoints"))]
#[case::rounded_up(", coexistence: {ready: 94.5%}", 18, 18, Some("has 18 of 20 pods available, and 19 are needed"))]
fn the_share_that_the_spec_asks_for_is_enough(
    #[case] asked: &str,
    #[case] available: i32,
    #[case] endpoints: i32,
    #[case] lacks: Option<&str>,
) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v2", 20, endpoints);
    let status = "replicas: 20, updatedReplicas: 20, observedGeneration: 2";
    cluster.status("reviews-v2", &format!("{{{status}, availableReplicas: {available}}}"));
    let seen = find(&cluster, &spec(asked)).observe("v2");
    assert_eq!(seen.ready, lacks.is_none(), "{seen:?}");
    assert!(lacks.is_none_or(|lacks| seen.lacks.as_deref().unwrap().contains(lacks)), "{seen:?}");
}

/// F23, C41: the only Deployment gets the label of the new version, and replaces its pods.
#[test]
fn a_workload_that_changes_its_version_in_place_is_named() {
    let mut cluster = Cluster::default();
    cluster.service("reviews").labelled("reviews", "{app: reviews, version: v2}", 2);
    cluster.pod_of("reviews", "a", "v1", READY).pod_of("reviews", "b", "v2", READY);
    let found = find(&cluster, &spec(""));
    let (left, next) = (found.observe("v1"), found.observe("v2"));
    assert_eq!((left.relabelled, left.ready), (vec!["Deployment/reviews makes v2".to_owned()], false));
    assert_eq!(left.lacks.as_deref(), Some("Deployment/reviews makes v2 now, which made its pods"));
    assert!(next.relabelled.is_empty());
    // Beside one another they are two versions, whatever their selectors are.
    cluster.labelled("reviews-v1", "{app: reviews, version: v1}", 2);
    cluster.objects.pods.clear();
    cluster.pod_of("reviews-v1", "a", "v1", READY).pod_of("reviews", "b", "v2", READY);
    assert!(find(&cluster, &spec("")).observe("v1").relabelled.is_empty());
}

/// C09, F09: ready at the lower bound of its autoscaler, and not as strong as what serves.
#[test]
fn a_version_at_the_minimum_of_its_autoscaler_is_seen_with_its_strength() {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", 10, 10).deployment("v2", 2, 2).autoscaler("reviews-v2");
    let found = find(&cluster, &spec(""));
    let seen = found.observe("v2");
    assert_eq!((seen.ready, seen.strength["reviews"].asked), (true, 2));
    assert_eq!(seen.autoscalers, ["reviews-v2-hpa"]);
    assert_eq!(found.observe("v1").strength["reviews"].asked, 10);
}

/// F11: what the API server refuses.
#[test]
fn pods_that_cannot_be_made_are_said_with_the_reason() {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v2", 2, 1);
    let why = "pods \"reviews-v2-b\" is forbidden: exceeded quota: compute";
    cluster.status(
        "reviews-v2",
        &format!(
            "{{replicas: 1, updatedReplicas: 1, availableReplicas: 1, observedGeneration: 2, conditions: [{{type: \
             ReplicaFailure, status: 'True', reason: FailedCreate, message: '{why}'}}]}}"
        ),
    );
    let lacks = format!("Deployment/reviews-v2 has 1 of 2 pods of its current template; FailedCreate: {why}");
    assert_eq!(find(&cluster, &spec("")).observe("v2").lacks, Some(lacks));
}
