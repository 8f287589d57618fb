//! Whether more pods fit, with the numbers if they do not.

use std::sync::Arc;

use cluster::headroom::{injected, look};
use cluster::workloads::Workloads;
use machine::observation::Headroom;
use rstest::rstest;

use crate::objects::{Cluster, parse, spec};

/// Service reviews with v1 of 2 pods, and v2 that starts with as many. Each takes 1 CPU and 1 GiB.
fn cluster(pod: &str, nodes: &[&str], quota: &str) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", 2, 0).deployment_of("v2", 0, pod);
    cluster.objects.nodes = Some(vec![]);
    for (index, node) in nodes.iter().enumerate() {
        let node = parse(&format!("{{metadata: {{name: node-{index}, labels: {{disk: ssd}}}}, {node}}}"));
        cluster.objects.nodes.as_mut().unwrap().push(Arc::new(node));
    }
    if !quota.is_empty() {
        let quota = parse(&format!("{{metadata: {{name: compute, namespace: shop}}, {quota}}}"));
        cluster.objects.quotas.push(Arc::new(quota));
    }
    cluster
}

fn seen(cluster: &Cluster) -> Headroom {
    let workloads = Workloads::find("shop", &spec(""), &cluster.objects);
    let beside = injected(&workloads, &["v2", "v1"]);
    look("shop", "v2", &workloads.start("v2", Some("v1")), &beside, &cluster.objects)
}

const APP: &str = "containers: [{name: app, resources: {requests: {cpu: '1', memory: 1Gi}}}]";
const ROOM: &str = "status: {allocatable: {cpu: '2', memory: 8Gi, pods: '10'}}";
const SMALL: &str = "status: {allocatable: {cpu: 1900m, memory: 8Gi, pods: '10'}}";
const TAINT: &str = "taints: [{key: team, value: other, effect: NoSchedule}]";

#[rstest]
#[case::one_node(APP, &[ROOM])]
#[case::two_nodes(APP, &[SMALL, SMALL])]
#[case::selected("nodeSelector: {disk: ssd}, containers: [{name: app}]", &[ROOM])]
#[case::tolerated(
    "tolerations: [{key: team, operator: Equal, value: other, effect: NoSchedule}], containers: [{name: app}]",
    &["spec: {taints: [{key: team, value: other, effect: NoSchedule}]}, status: {allocatable: {pods: '2'}}"])]
#[case::everything_tolerated(
    "tolerations: [{operator: Exists}], containers: [{name: app}]",
    &["spec: {taints: [{key: team, effect: NoExecute}]}, status: {allocatable: {pods: '2'}}"])]
#[case::preferred(APP, &["spec: {taints: [{key: team, effect: PreferNoSchedule}]}, status: {allocatable: {cpu: '2', memory: 8Gi, pods: '10'}}"])]
fn there_is_room(#[case] pod: &str, #[case] nodes: &[&str]) {
    assert_eq!(seen(&cluster(pod, nodes, "")), Headroom::Fits);
}

#[rstest]
#[case::cpu(APP, &[SMALL], "v2 needs 2 more pods of cpu 1 and memory 1Gi, and 1 fit: of 1 schedulable nodes 1 take them, with cpu 1900m and memory 8Gi free")]
#[case::memory(APP, &["status: {allocatable: {cpu: '8', memory: 1536Mi, pods: '10'}}"], "cpu 8 and memory 1536Mi free")]
#[case::pods("containers: [{name: app}]", &["status: {allocatable: {cpu: '8', pods: '1'}}"], "and 1 fit")]
#[case::selector("nodeSelector: {disk: tape}, containers: [{name: app}]", &[ROOM], "and 0 fit: of 1 schedulable nodes 0 take them, with nothing free")]
#[case::cordoned(APP, &["spec: {unschedulable: true}, status: {allocatable: {cpu: '8', memory: 8Gi, pods: '10'}}"], "of 0 schedulable nodes")]
#[case::limits("containers: [{name: app, resources: {limits: {cpu: '2'}}}]", &[ROOM], "more pods of cpu 2, and 1 fit")]
#[case::init("initContainers: [{name: init, resources: {requests: {cpu: 1500m}}}], containers: [{name: app}]", &[ROOM], "of cpu 1500m, and 1 fit")]
#[case::sidecar("initContainers: [{name: proxy, restartPolicy: Always, resources: {requests: {cpu: 500m}}}], \
     containers: [{name: app, resources: {requests: {cpu: '1'}}}]", &[ROOM], "of cpu 1500m, and 1 fit")]
#[case::overhead("overhead: {cpu: 250m}, containers: [{name: app, resources: {requests: {cpu: '1'}}}]", &[ROOM], "of cpu 1250m, and 1 fit")]
#[case::no_such_resource("containers: [{name: app, resources: {limits: {example.com/gpu: 1}}}]", &[ROOM], "of example.com/gpu 1, and 0 fit")]
fn there_is_none(#[case] pod: &str, #[case] nodes: &[&str], #[case] why: &str) {
    match seen(&cluster(pod, nodes, "")) {
        Headroom::Short { message } => assert!(message.contains(why), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_taint_keeps_pods_away() {
    let node = format!("spec: {{{TAINT}}}, {ROOM}");
    assert!(matches!(seen(&cluster(APP, &[&node], "")), Headroom::Short { .. }));
}

#[test]
fn pods_that_run_take_room_and_pods_that_ended_do_not() {
    let resources = "containers: [{name: app, resources: {requests: {cpu: '1'}}}]";
    let mut one = cluster(APP, &[ROOM], "");
    one.pod_on("node-0", "other", resources, "{phase: Running}");
    assert!(matches!(seen(&one), Headroom::Short { .. }));
    let mut one = cluster(APP, &[ROOM], "");
    one.pod_on("node-0", "other", resources, "{phase: Succeeded}");
    one.pod_on("node-9", "other", resources, "{phase: Running}");
    assert_eq!(seen(&one), Headroom::Fits);
}

#[rstest]
#[case::cpu(
    "requests.cpu: '4'",
    "requests.cpu: '3'",
    Some("v2 needs 2 more of requests.cpu, ResourceQuota compute leaves 1 of 4")
)]
#[case::short_name(
    "memory: 4Gi",
    "memory: 3Gi",
    Some("v2 needs 2Gi more of memory, ResourceQuota compute leaves 1Gi of 4Gi")
)]
#[case::pods("pods: '3'", "pods: '2'", Some("leaves 1 of 3"))]
#[case::count("count/pods: '3'", "count/pods: '2'", Some("leaves 1 of 3"))]
#[case::limits("limits.cpu: '1'", "limits.cpu: '0'", None)]
#[case::enough("requests.cpu: '5'", "requests.cpu: '3'", None)]
#[case::something_else("configmaps: '1'", "configmaps: '1'", None)]
fn quotas_count(#[case] hard: &str, #[case] used: &str, #[case] why: Option<&str>) {
    let quota = format!("spec: {{hard: {{{hard}}}}}, status: {{hard: {{{hard}}}, used: {{{used}}}}}");
    match (seen(&cluster(APP, &[ROOM], &quota)), why) {
        (Headroom::Short { message }, Some(why)) => assert!(message.contains(why), "{message}"),
        (found, why) => assert_eq!((found, why), (Headroom::Fits, None)),
    }
}

#[test]
fn a_quota_of_another_namespace_or_for_some_pods_does_not_count() {
    let quota = "spec: {scopes: [BestEffort], hard: {pods: '0'}}, status: {hard: {pods: '0'}}";
    assert_eq!(seen(&cluster(APP, &[ROOM], quota)), Headroom::Fits);
    let mut elsewhere = cluster(APP, &[ROOM], "spec: {}, status: {hard: {pods: '0'}}");
    assert!(matches!(seen(&elsewhere), Headroom::Short { .. }));
    Arc::make_mut(&mut elsewhere.objects.quotas[0]).metadata.namespace = Some("other".to_owned());
    assert_eq!(seen(&elsewhere), Headroom::Fits);
}

#[test]
fn without_nodes_nobody_can_tell() {
    assert_eq!(seen(&cluster(APP, &[], "")), Headroom::Unknown);
    let mut cluster = cluster(APP, &[ROOM], "");
    cluster.objects.nodes = None;
    assert_eq!(seen(&cluster), Headroom::Unknown);
}

/// F11: the sidecars of the pods that run, which no template has.
#[rstest]
#[case::a_container("containers: [{name: app}, {name: proxy, RESOURCES}]")]
#[case::a_native_sidecar(
    "containers: [{name: app}], initContainers: [{name: proxy, restartPolicy: Always, RESOURCES}]"
)]
fn sidecars_that_are_injected_count(#[case] pod: &str) {
    let resources = "resources: {requests: {cpu: 500m}, limits: {cpu: '2'}}";
    let pod = pod.replace("RESOURCES", resources);
    let with = |nodes: &[&str], quota: &str| {
        let mut cluster = cluster(APP, nodes, quota);
        cluster.pod_with("shop", "a", "labels: {app: reviews, version: v1}", &pod, "{phase: Running}");
        match seen(&cluster) {
            Headroom::Short { message } => message,
            other => panic!("{other:?}"),
        }
    };
    let one = "status: {allocatable: {cpu: '2', memory: 8Gi, pods: '10'}}";
    assert!(with(&[one], "").contains("v2 needs 2 more pods of cpu 1500m and memory 1Gi, and 1 fit"));
    for (name, needs) in [("requests.cpu", "3"), ("limits.cpu", "4")] {
        let quota = format!("spec: {{}}, status: {{hard: {{{name}: '2'}}, used: {{{name}: '0'}}}}");
        let message = with(&[one, one], &quota);
        assert_eq!(message, format!("v2 needs {needs} more of {name}, ResourceQuota compute leaves 2 of 2"));
    }
}
