//! Workloads, pods and endpoints as a cluster shows them: which version they are, and how strong.

use cluster::scaled_object::Scale;
use cluster::workloads::Workloads;
use machine::status::LeftVersion;
use rstest::rstest;

use crate::objects::{Cluster, spec};

fn find(cluster: &Cluster) -> Workloads {
    Workloads::find("shop", &spec(""), &cluster.objects)
}

fn healthy() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", 2, 2).deployment("v2", 3, 3);
    cluster
}

#[test]
fn a_version_is_what_the_service_selects_and_the_label_says() {
    let found = find(&healthy());
    assert_eq!(found.errors, Vec::<String>::new());
    assert_eq!(found.versions().into_iter().collect::<Vec<_>>(), ["v1", "v2"]);
    assert_eq!((found.replicas("v1"), found.replicas("v2"), found.replicas("v3")), (2, 3, 0));
    for version in ["v1", "v2"] {
        let seen = found.observe(version);
        assert!(seen.declared && seen.running && seen.ready, "{version}: {seen:?} {:?}", found.lacks(version));
        assert_eq!(seen.exited, None);
    }
    let third = found.observe("v3");
    assert!(!third.declared && !third.running && !third.ready, "{third:?}");
    assert_eq!(
        found.lacks("v3").as_deref(),
        Some("Service reviews selects no Deployment or StatefulSet of version v3")
    );
}

/// What was there when requests were taken from v1.
fn find_left(cluster: &Cluster, remembered: &[&str]) -> Workloads {
    keeping(cluster, remembered, true)
}

fn keeping(cluster: &Cluster, remembered: &[&str], goes: bool) -> Workloads {
    let (mut found, workloads) = (find(cluster), &remembered.iter().map(|&it| it.to_owned()).collect());
    found.keep_to(LeftVersion { version: "v1", workloads, goes }, "shop", &cluster.objects);
    found
}

// C26
#[rstest]
#[case::the_service_is_gone("")]
#[case::it_selects_others("{selector: {app: reviews, track: new}, ports: [{port: 80, name: http}]}")]
#[case::it_selects_nothing("{ports: [{port: 80, name: http}]}")]
fn what_is_left_runs_whatever_is_selected(#[case] service: &str) {
    let mut cluster = healthy();
    let remembered = find(&cluster).observe("v1").workloads;
    assert_eq!(remembered.iter().map(String::as_str).collect::<Vec<_>>(), ["Deployment/reviews-v1 reviews-v1"]);
    cluster.objects.services.clear();
    if !service.is_empty() {
        cluster.service_spec("reviews", service);
    }
    assert!(!find(&cluster).observe("v1").running);
    let found = find_left(&cluster, &["Deployment/reviews-v1 reviews-v1"]);
    let seen = found.observe("v1");
    assert!(seen.running && seen.exists && !seen.stopped && !seen.ready, "{seen:?}");
    assert_eq!(scales(found.stop("v1")), [("Deployment/reviews-v1".to_owned(), 0)]);
    // It runs until its last pod is gone.
    cluster.objects.deployments.clear();
    cluster.labelled("reviews-v1", "{app: reviews, version: v1}", 0);
    let seen = find_left(&cluster, &["Deployment/reviews-v1 reviews-v1"]).observe("v1");
    assert!(seen.running && seen.stopped, "{seen:?}");
    cluster.objects.pods.clear();
    assert!(!find_left(&cluster, &["Deployment/reviews-v1 reviews-v1"]).observe("v1").running);
}

// C26
#[test]
fn what_is_selected_since_is_somebody_elses() {
    let mut cluster = healthy();
    cluster.labelled("other-v1", "{app: reviews, version: v1, other: 'yes'}", 1);
    cluster.pod_in("shop", "other-v1-0", "labels: {app: reviews, version: v1, other: 'yes'}", "{phase: Running}");
    assert_eq!(scales(find(&cluster).stop("v1")).len(), 2);
    let found = find_left(&cluster, &["Deployment/reviews-v1 reviews-v1"]);
    assert_eq!(scales(found.stop("v1")), [("Deployment/reviews-v1".to_owned(), 0)]);
    assert_eq!(found.objects("v2").len(), 1, "other versions are as they are");
    // One that was made anew under the same name is another one.
    let found = find_left(&cluster, &["Deployment/reviews-v1 before"]);
    assert_eq!(scales(found.stop("v1")), []);
    assert!(!found.observe("v1").running);
    // But it is what there is to go back to.
    assert!(keeping(&cluster, &["Deployment/reviews-v1 before"], false).observe("v1").serves());
    assert_eq!(keeping(&cluster, &["Deployment/reviews-v1 reviews-v1"], false).objects("v1").len(), 1);
    // A pod that no workload makes is of the version all the same.
    let mut cluster = healthy();
    cluster.objects.deployments.clear();
    cluster.labelled("reviews-v1", "{app: reviews, version: v1, made: 'yes'}", 0);
    assert!(find_left(&cluster, &["Deployment/reviews-v1 reviews-v1"]).observe("v1").running);
}

#[test]
fn another_namespace_is_not_looked_at() {
    let found = Workloads::find("other", &spec(""), &healthy().objects);
    assert_eq!(found.errors, ["there is no Service reviews in namespace other"]);
    assert!(found.versions().is_empty());
    assert!(!found.observe("v1").declared);
}

#[rstest]
#[case::rolling(
    "{replicas: 3, updatedReplicas: 2, availableReplicas: 3, observedGeneration: 2}",
    "2 of 3 pods of its current"
)]
#[case::starting(
    "{replicas: 3, updatedReplicas: 3, availableReplicas: 1, observedGeneration: 2}",
    "1 of 3 pods available"
)]
#[case::just_created("{}", "has not seen that yet")]
#[case::changed(
    "{replicas: 3, updatedReplicas: 3, availableReplicas: 3, observedGeneration: 1}",
    "has not seen that yet"
)]
fn a_deployment_below_full_strength_is_not_ready(#[case] status: &str, #[case] why: &str) {
    let mut cluster = healthy();
    cluster.status("reviews-v2", status);
    let found = find(&cluster);
    let seen = found.observe("v2");
    assert!(seen.declared && seen.running && !seen.ready, "{seen:?}");
    assert!(found.lacks("v2").unwrap().contains(why), "{:?}", found.lacks("v2"));
    assert!(found.observe("v1").ready);
}

#[test]
fn every_pod_has_to_be_a_ready_endpoint() {
    let mut cluster = healthy();
    cluster.unready_endpoint("reviews-v2-0");
    let found = find(&cluster);
    assert!(!found.observe("v2").ready);
    assert_eq!(found.lacks("v2").as_deref(), Some("v2 of Service reviews: 2 of 3 pods are ready endpoints"));
}

#[test]
fn an_endpoint_in_two_slices_counts_once() {
    let mut cluster = healthy();
    cluster.unready_endpoint("reviews-v2-0");
    // As with two families of addresses.
    cluster.slice("reviews", &["reviews-v2-1", "reviews-v2-2"]);
    assert!(!find(&cluster).observe("v2").ready);
}

#[test]
fn a_version_without_pods_is_declared_and_does_not_run() {
    let mut cluster = healthy();
    cluster.deployment("v3", 0, 0);
    let seen = find(&cluster).observe("v3");
    assert!(seen.declared && !seen.running && !seen.ready, "{seen:?}");
}

#[test]
fn a_version_runs_until_its_last_pod_is_gone() {
    let mut cluster = healthy();
    cluster.deployment("v3", 0, 0).pod("reviews-v3-0", "v3", "{phase: Running}");
    assert!(find(&cluster).observe("v3").running);
    let mut cluster = healthy();
    cluster.deployment("v3", 0, 0).pod("reviews-v3-0", "v3", "{phase: Failed, reason: Evicted}");
    assert!(!find(&cluster).observe("v3").running, "what has failed for good does not run");
}

const BACK_OFF: &str = "{phase: Running, containerStatuses: [{name: app, image: a, imageID: a, ready: false, \
     restartCount: 4, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 3}}}]}";
const CREATING: &str = "{phase: Pending, containerStatuses: [{name: app, image: a, imageID: a, ready: false, \
     restartCount: 0, state: {waiting: {reason: ContainerCreating}}}]}";
const ENDED: &str = "{phase: Running, containerStatuses: [{name: app, image: a, imageID: a, ready: false, \
     restartCount: 1, state: {terminated: {exitCode: 7}}}]}";

#[rstest]
#[case::back_off(&[BACK_OFF, CREATING], Some("0 of 2 pods are available: CrashLoopBackOff in container app, its last exit code was 3 (pod-0)"))]
#[case::ended(&[ENDED], Some("0 of 1 pods are available: container app ended with exit code 7 (pod-0)"))]
// E10: what has ended is replaced.
#[case::evicted(&["{phase: Failed, reason: Evicted}"], None)]
#[case::starting(&[CREATING], None)]
#[case::one_is_ready(&[BACK_OFF, "{phase: Running, conditions: [{type: Ready, status: 'True'}]}"], None)]
#[case::none(&[], None)]
fn a_version_has_exited_when_no_pod_is_ready_and_one_fails(#[case] pods: &[&str], #[case] how: Option<&str>) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v3", 3, 0);
    for (index, status) in pods.iter().enumerate() {
        cluster.pod(&format!("pod-{index}"), "v3", status);
    }
    assert_eq!(find(&cluster).observe("v3").exited.as_deref(), how);
}

#[rstest]
#[case::missing("", "there is no Service reviews in namespace shop")]
#[case::no_selector("{}", "Service reviews has no selector")]
#[case::mysql(
    "{selector: {app: reviews}, ports: [{port: 3306, name: mysql}]}",
    "port 3306 of Service reviews is not HTTP by its word (mysql)"
)]
#[case::tls("{selector: {app: reviews}, ports: [{port: 443, name: https}]}", "(https)")]
#[case::app_protocol("{selector: {app: reviews}, ports: [{port: 80, name: http, appProtocol: tcp}]}", "(tcp)")]
#[case::udp("{selector: {app: reviews}, ports: [{port: 53, protocol: UDP, name: http}]}", "(UDP)")]
fn what_a_service_lacks_is_said(#[case] service: &str, #[case] error: &str) {
    let mut cluster = Cluster::default();
    if !service.is_empty() {
        cluster.service_spec("reviews", service);
    }
    cluster.deployment("v1", 1, 1);
    let errors = find(&cluster).errors;
    assert!(errors.len() == 1 && errors[0].contains(error), "{errors:?}");
}

// E14
#[rstest]
#[case("{port: 443}", Some("port 443 of Service reviews has neither a name nor an appProtocol, and is taken for TLS"))]
#[case("{port: 3306}", Some("is taken for TCP"))]
#[case("{port: 443, name: http}", None)]
#[case("{port: 443, appProtocol: http}", None)]
#[case("{port: 8443}", None)]
fn a_port_that_istio_takes_for_none_of_http_is_named(#[case] port: &str, #[case] error: Option<&str>) {
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", &format!("{{selector: {{app: reviews}}, ports: [{port}]}}"));
    let errors = find(&cluster).errors;
    assert_eq!(errors.len(), usize::from(error.is_some()), "{errors:?}");
    assert!(error.is_none_or(|error| errors[0].contains(error)), "{errors:?}");
    // Other proxies have their own ways.
    let other = spec(", routing: {provider: External}");
    assert_eq!(Workloads::find("shop", &other, &cluster.objects).errors, Vec::<String>::new());
}

#[rstest]
#[case("{port: 80}")]
#[case("{port: 80, name: http}")]
#[case("{port: 80, name: http-web}")]
#[case("{port: 80, name: grpc}")]
#[case("{port: 80, name: anything, appProtocol: http}")]
#[case("{port: 80, name: anything, appProtocol: kubernetes.io/h2c}")]
fn http_ports_are_taken(#[case] port: &str) {
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", &format!("{{selector: {{app: reviews}}, ports: [{port}]}}"));
    assert_eq!(find(&cluster).errors, Vec::<String>::new());
}

#[rstest]
#[case("{app: reviews}", "has no label version")]
#[case("{app: reviews, version: ''}", "its version \"\" is not a valid name")]
fn a_workload_without_a_version_is_an_error(#[case] labels: &str, #[case] error: &str) {
    let mut cluster = healthy();
    cluster.labelled("stray", labels, 1);
    let errors = find(&cluster).errors;
    assert!(errors.len() == 1, "{errors:?}");
    assert!(errors[0].starts_with("Deployment/stray is selected by Service reviews, but"), "{errors:?}");
    assert!(errors[0].contains(error), "{errors:?}");
}

#[test]
fn every_service_of_the_group_needs_the_version() {
    let mut cluster = healthy();
    cluster.service_spec("ratings", "{selector: {app: ratings}, ports: [{port: 80}]}");
    let both = spec(", services: [{name: reviews}, {name: ratings}]");
    let found = Workloads::find("shop", &both, &cluster.objects);
    let seen = found.observe("v1");
    assert!(!seen.declared && seen.running && !seen.ready, "{seen:?}");
    assert!(found.lacks("v1").unwrap().contains("Service ratings selects no"), "{:?}", found.lacks("v1"));
}

#[test]
fn a_stateful_set_is_a_workload_too() {
    let mut cluster = Cluster::default();
    cluster.service("reviews").stateful_set("v1", 2, 2);
    let found = find(&cluster);
    assert!(found.observe("v1").ready, "{:?}", found.lacks("v1"));
    assert_eq!(found.objects("v1")[0].to_string(), "StatefulSet/reviews-v1");
}

fn scales(scales: Vec<Scale>) -> Vec<(String, i32)> {
    scales.into_iter().map(|scale| (scale.object.to_string(), scale.replicas)).collect()
}

#[rstest]
#[case::as_strong(0, Some("v1"), Some(2))]
#[case::never_smaller(5, Some("v1"), None)]
#[case::raised(1, Some("v1"), Some(2))]
#[case::as_declared(1, None, None)]
#[case::at_least_one(0, None, Some(1))]
#[case::like_nothing(0, Some("v9"), Some(1))]
fn starting_asks_for_so_many(#[case] has: i32, #[case] like: Option<&str>, #[case] wanted: Option<i32>) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", 2, 2).deployment("v2", has, has);
    let wanted: Vec<_> = wanted.map(|count| ("Deployment/reviews-v2".to_owned(), count)).into_iter().collect();
    assert_eq!(scales(find(&cluster).start("v2", like)), wanted);
}

#[test]
fn stopping_scales_what_runs_to_zero() {
    let found = find(&healthy());
    assert_eq!(scales(found.stop("v1")), [("Deployment/reviews-v1".to_owned(), 0)]);
    assert_eq!(scales(found.stop("v3")), []);
}

/// At zero pods an autoscaler does nothing; above, it and the controller would fight.
#[rstest]
#[case::asleep(0, true, vec![5])]
#[case::awake(2, true, vec![])]
#[case::without(2, false, vec![5])]
fn an_autoscaler_is_woken_and_not_fought(#[case] replicas: i32, #[case] scaled: bool, #[case] wanted: Vec<i32>) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", 5, 5).deployment("v2", replicas, replicas);
    if scaled {
        cluster.autoscaler("reviews-v2");
    }
    let found = find(&cluster);
    let scales: Vec<i32> = found.start("v2", Some("v1")).into_iter().map(|scale| scale.replicas).collect();
    assert_eq!(scales, wanted);
    let by = found.objects("v2").into_iter().find_map(|object| found.autoscaler(object));
    assert_eq!(by, scaled.then_some("reviews-v2-hpa"));
    assert_eq!(found.stop("v1").len(), 1, "what is removed is scaled to zero, which turns an autoscaler off");
}

#[rstest]
#[case::server_side("argocd-controller", "Apply", "f:replicas", true)]
#[case::anybody_who_applies("a-pipeline", "Apply", "f:replicas", true)]
#[case::a_tool_by_name("helm-controller", "Update", "f:replicas", true)]
#[case::other_fields("argocd-controller", "Apply", "f:paused", false)]
#[case::once_by_hand("kubectl-edit", "Update", "f:replicas", false)]
#[case::an_autoscaler("kube-controller-manager", "Update", "f:replicas", false)]
#[case::itself("versionflag", "Update", "f:replicas", false)]
fn who_would_undo_a_scale_is_named(
    #[case] manager: &str,
    #[case] operation: &str,
    #[case] field: &str,
    #[case] named: bool,
) {
    let mut cluster = healthy();
    let entry = format!(
        "[{{manager: {manager}, operation: {operation}, fieldsType: FieldsV1, fieldsV1: {{'f:spec': {{'{field}': {{}}}}}}}}]"
    );
    cluster.managed("reviews-v1", &entry);
    let found = find(&cluster);
    let shown: Vec<_> = found.managers("v1").into_iter().map(|(name, object)| format!("{name} {object}")).collect();
    let wanted = named.then(|| format!("{manager} Deployment/reviews-v1"));
    assert_eq!(shown, wanted.into_iter().collect::<Vec<_>>());
    assert!(found.managers("v2").is_empty());
}

#[rstest]
#[case::headless("{clusterIP: None, selector: {app: reviews}, ports: [{port: 80, name: http}]}", "", "is headless")]
#[case::headless_elsewhere(
    "{clusterIP: None, selector: {app: reviews}, ports: [{port: 80, name: http}]}",
    ", routing: {provider: External}",
    ""
)]
#[case::of_another_version(
    "{selector: {app: reviews, version: v1}, ports: [{port: 80, name: http}]}",
    "",
    "take version out of its selector, now that the routes of this flag lead to v1"
)]
#[case::of_this_version("{selector: {app: reviews, version: v2}, ports: [{port: 80, name: http}]}", "", "")]
fn a_service_whose_versions_cannot_be_switched_is_named(#[case] service: &str, #[case] more: &str, #[case] why: &str) {
    // F07, F24.
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", service).deployment("v1", 2, 2).deployment("v2", 2, 2);
    let found = Workloads::find("shop", &spec(more), &cluster.objects);
    assert_eq!(found.errors.is_empty(), why.is_empty(), "{:?}", found.errors);
    assert!(found.errors.first().is_none_or(|error| error.contains(why)), "{:?}", found.errors);
}

/// C08, C03, F12: what the plan needs to know of a version beside its readiness.
#[test]
fn a_version_says_how_strong_it_is_and_what_of_it_ends() {
    let mut cluster = healthy();
    cluster.unready_endpoint("reviews-v2-0").deployment("v3", 0, 0).pod("reviews-v3-0", "v3", "{phase: Running}");
    let found = find(&cluster);
    let strength = |version: &str| found.observe(version).strength["reviews"];
    assert_eq!((strength("v1").asked, strength("v1").serving), (2, 2));
    assert_eq!((strength("v2").asked, strength("v2").serving), (3, 2));
    assert!(found.observe("v2").serves() && !found.observe("v2").ready);
    let ends = found.observe("v3");
    assert_eq!((ends.stopped, ends.running, ends.ending), (true, true, vec!["pod reviews-v3-0".to_owned()]));
    assert!(!found.observe("v1").stopped && found.observe("v1").ending.is_empty());
    assert_eq!(found.observe("v1").kept_at, None);
}
