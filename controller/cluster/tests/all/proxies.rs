//! Which pods' proxies have to ack.

use std::cell::Cell;
use std::sync::Arc;

use cluster::cache::no_pods;
use cluster::proxies::{
    audience, audience_in_mesh, expected, expected_in_mesh, explain, keep_late, name_callers, unbelieved, unseen,
};
use cluster::workloads::Workloads;
use kube::runtime::watcher::Event;
use machine::fleet::ledger::{Laggard, LateFilter};
use machine::reason::Reason;
use machine::time::UnixMs;
use rstest::rstest;

use crate::objects::{Cluster, parse, spec};

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
    let found = expected("shop", &spec(callers), &cluster.objects);
    let name = format!("web-0.{namespace}");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), if expects { vec![name] } else { vec![] });
}

#[test]
fn a_pod_without_a_node_has_never_started() {
    let mut cluster = Cluster::default();
    cluster.unplaced_pod("web-0", "labels: {versionflag.io/proxy: ''}");
    assert!(expected("shop", &spec(""), &cluster.objects).is_empty());
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
    assert_eq!(
        expected_in_mesh("shop", &spec, &workloads, &cluster.objects).into_iter().collect::<Vec<_>>(),
        name(acks)
    );
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
    let pods = no_pods();
    for one in 0..5_000 {
        cluster.pod_in(
            "bank",
            &format!("pod-{one}"),
            "labels: {}",
            &format!("{{podIP: 10.1.{}.{}}}", one / 250, one % 250),
        );
    }
    for pod in &cluster.objects.pods {
        pods.lock().unwrap().apply(Event::Apply(pod.as_ref().clone()));
    }
    let looks = Cell::new(0);
    name_callers(&mut strangers, |address| {
        let found: Vec<_> = pods.lock().unwrap().by_key(address).cloned().collect();
        looks.set(looks.get() + found.len());
        found
    });
    // C27: only pods that have the address are looked at.
    assert_eq!(looks.get(), 2);
    let named = strangers.each_ref().map(|stranger| stranger.from.as_str());
    assert_eq!(named, ["plain.shop (10.0.0.7)", "plain.shop ([fd00::7])", "10.0.0.8", "", "no address"]);
}

const DELETED: &str = "app: web}, deletionTimestamp: '2026-01-01T00:00:00Z', annotations: {a: b";
const JOB: &str = "restartPolicy: Never, containers: [{name: app}, {name: istio-proxy}]";
const HEALTHY: &str = "{metadata: {name: one}}";
const SILENT: &str =
    "{metadata: {name: one}, spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute}]}}";
const FENCED: &str = "{metadata: {name: one}, spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute}, \
     {key: node.kubernetes.io/out-of-service, effect: NoExecute}]}}";
const OTHER: &str = "{metadata: {name: other}}";

/// Statuses of the containers `app` and `istio-proxy`.
fn statuses(phase: &str, app: &str, proxy: &str) -> String {
    let status = |name: &str, state: &str| {
        format!("{{name: {name}, image: a, imageID: a, ready: false, restartCount: 0, {state}}}")
    };
    format!("{{phase: {phase}, containerStatuses: [{}, {}]}}", status("app", app), status("istio-proxy", proxy))
}

const RUNS: &str = "state: {running: {}}";
const NO_IMAGE: &str = "state: {waiting: {reason: ImagePullBackOff}}";
const CREATING: &str = "state: {waiting: {reason: ContainerCreating}}";
const INITIALIZING: &str = "state: {waiting: {reason: PodInitializing}}";
const SUCCEEDED: &str = "state: {terminated: {exitCode: 0}}";
const FAILED: &str = "state: {terminated: {exitCode: 1}}";
const CRASHED: &str = "state: {waiting: {reason: ImagePullBackOff}}, lastState: {terminated: {exitCode: 1}}";

/// F13, C38: only who is proven not to send a request is not waited for.
#[rstest]
#[case::no_image("app: web", SIDECAR, statuses("Pending", RUNS, NO_IMAGE), Some(HEALTHY), false)]
#[case::only_the_app_has_none("app: web", SIDECAR, statuses("Pending", NO_IMAGE, RUNS), Some(HEALTHY), true)]
#[case::being_created("app: web", SIDECAR, statuses("Pending", CREATING, CREATING), Some(HEALTHY), true)]
#[case::init_goes_on("app: web", SIDECAR, statuses("Pending", INITIALIZING, INITIALIZING), Some(HEALTHY), false)]
#[case::it_ran_before("app: web", SIDECAR, statuses("Pending", RUNS, CRASHED), Some(HEALTHY), true)]
#[case::no_word("app: web", SIDECAR, "{phase: Pending}".to_owned(), Some(HEALTHY), true)]
#[case::an_old_word("app: web", SIDECAR, statuses("Pending", RUNS, NO_IMAGE), Some(SILENT), true)]
#[case::whose_node_nobody_sees("app: web", SIDECAR, statuses("Pending", RUNS, NO_IMAGE), None, true)]
#[case::terminating(DELETED, SIDECAR, statuses("Running", RUNS, RUNS), Some(HEALTHY), true)]
#[case::unreachable(DELETED, SIDECAR, statuses("Running", RUNS, RUNS), Some(SILENT), true)]
#[case::fenced(DELETED, SIDECAR, statuses("Running", RUNS, RUNS), Some(FENCED), false)]
#[case::without_a_node(DELETED, SIDECAR, statuses("Running", RUNS, RUNS), Some(OTHER), false)]
#[case::nobody_sees_nodes(DELETED, SIDECAR, statuses("Running", RUNS, RUNS), None, true)]
#[case::a_node_that_is_new("app: web", SIDECAR, statuses("Running", RUNS, RUNS), Some(OTHER), true)]
#[case::its_proxy_has_stopped(DELETED, SIDECAR, statuses("Running", RUNS, SUCCEEDED), Some(HEALTHY), false)]
#[case::its_proxy_starts_again("app: web", SIDECAR, statuses("Running", RUNS, SUCCEEDED), Some(HEALTHY), true)]
#[case::a_job_at_work("app: web", JOB, statuses("Running", RUNS, RUNS), Some(HEALTHY), true)]
#[case::a_job_that_is_done("app: web", JOB, statuses("Running", FAILED, RUNS), Some(HEALTHY), false)]
#[case::no_job("app: web", SIDECAR, statuses("Running", FAILED, RUNS), Some(HEALTHY), true)]
fn who_is_proven_to_do_nothing_is_not_waited_for(
    #[case] labels: &str,
    #[case] containers: &str,
    #[case] status: String,
    #[case] node: Option<&str>,
    #[case] waited: bool,
) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").pod_with("shop", "web-0", &format!("labels: {{{labels}}}"), containers, &status);
    cluster.objects.nodes = node.map(|node| vec![Arc::new(parse(node))]);
    let spec = spec("");
    let workloads = Workloads::find("shop", &spec, &cluster.objects);
    assert_eq!(!expected_in_mesh("shop", &spec, &workloads, &cluster.objects).is_empty(), waited);
    // Who may start any moment is told at once, all the same.
    assert_eq!(audience_in_mesh("shop", &spec, &cluster.objects.pods).len(), 1);
}

/// F13: without Istio any container may be the proxy.
#[rstest]
#[case::none_has_started(statuses("Pending", NO_IMAGE, NO_IMAGE), false)]
#[case::one_has(statuses("Pending", NO_IMAGE, RUNS), true)]
fn a_pod_with_an_envoy_of_its_own_is_waited_for_once_anything_of_it_started(
    #[case] status: String,
    #[case] waited: bool,
) {
    let mut cluster = Cluster::default();
    cluster.pod_with("shop", "web-0", "labels: {versionflag.io/proxy: ''}", SIDECAR, &status);
    cluster.objects.nodes = Some(vec![Arc::new(parse(HEALTHY))]);
    let spec = spec(", routing: {provider: External}");
    assert_eq!(!expected("shop", &spec, &cluster.objects).is_empty(), waited);
    assert_eq!(audience("shop", &spec, &cluster.objects.pods).len(), 1);
}

/// P12: a filter that a proxy has had since its start has seen all of its requests.
#[rstest]
#[case::with_it("2026-01-01T00:00:03Z", None, true)]
#[case::a_clock_that_is_behind("2026-01-01T00:00:11Z", None, true)]
#[case::long_before("2025-12-31T23:59:00Z", None, false)]
#[case::its_plugin_was_there("2026-01-01T00:00:03Z", Some(-60), true)]
#[case::its_plugin_came_a_moment_after_it_started("2026-01-01T00:00:03Z", Some(4), false)]
#[case::both_within_a_second("2026-01-01T00:00:03Z", Some(3), false)]
#[case::the_plugin_may_not_have_come_to_it("2026-01-01T00:00:03Z", Some(0), false)]
fn a_filter_that_came_with_its_proxy_is_not_late(
    #[case] started: &str,
    #[case] plugin_s: Option<i64>,
    #[case] with_it: bool,
) {
    let mut cluster = Cluster::default();
    let runs = format!("state: {{running: {{startedAt: '{started}'}}}}");
    cluster.pod_with("shop", "web-0", "labels: {app: web}", SIDECAR, &statuses("Running", RUNS, &runs));
    let spec = spec("");
    // 2026-01-01T00:00:05Z.
    let late = |proxy: &str| LateFilter { proxy: proxy.to_owned(), came_ms: 1_767_225_605_000 };
    let since = plugin_s.map(|at| UnixMs(1_767_225_600_000_u64.saturating_add_signed(1_000 * at)));
    let mut kept = vec![late("web-0.shop"), late("web-1.shop")];
    keep_late(&mut kept, since, &spec, &cluster.objects);
    let kept: Vec<&str> = kept.iter().map(|late| late.proxy.as_str()).collect();
    assert_eq!(!kept.contains(&"web-0.shop"), with_it);
    assert!(kept.contains(&"web-1.shop"), "nobody knows it");
}

/// F13: whoever is waited for is named, with the rules.
#[rstest]
#[case::a_caller("shop", "app: web", RUNNING, "a caller, waited for until its pod, which is Running, has ended")]
#[case::starting("shop", "app: web", "{phase: Pending}", "a caller, waited for until its pod, which is starting, has")]
#[case::called("shop", "app: reviews, version: v1", RUNNING, "beside Service reviews, waited for until its pod, which")]
#[case::a_gateway(
    "edge",
    "istio: ingress",
    RUNNING,
    "a gateway, waited for until its pod, which is Running, has ended"
)]
#[case::terminating(
    "shop",
    DELETED,
    RUNNING,
    "a caller, waited for until its pod, which is terminating on the node one \
     that does not answer, is gone: an unreachable node may still run it, so delete the node, or give it the taint"
)]
fn who_is_waited_for_is_named_with_the_rule(
    #[case] namespace: &str,
    #[case] labels: &str,
    #[case] status: &str,
    #[case] rule: &str,
) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").pod_with(namespace, "web-0", &format!("labels: {{{labels}}}"), SIDECAR, status);
    cluster.objects.nodes = Some(vec![Arc::new(parse(SILENT))]);
    let spec = spec(GATEWAYS);
    let workloads = Workloads::find("shop", &spec, &cluster.objects);
    let late = |proxy: &str| Laggard { proxy: proxy.to_owned(), why: "last seen 9.0 s ago".to_owned() };
    let mut laggards = [late(&format!("web-0.{namespace}")), late("gone.shop")];
    explain(&mut laggards, "shop", &spec, &workloads, &cluster.objects);
    let [found, gone] = laggards;
    assert!(found.why.starts_with(&format!("last seen 9.0 s ago; {rule}")), "{}", found.why);
    assert_eq!(gone.why, "last seen 9.0 s ago");
}

/// C22.
#[rstest]
#[case::with_its_own_address("", SIDECAR, RUNNING, false)]
#[case::with_that_of_the_node("", "hostNetwork: true, containers: [{name: istio-proxy}]", RUNNING, true)]
#[case::without_a_proxy("", "hostNetwork: true, containers: [{name: app}]", RUNNING, false)]
#[case::ended("", "hostNetwork: true, containers: [{name: istio-proxy}]", "{phase: Failed}", false)]
#[case::no_caller(NARROWED, "hostNetwork: true, containers: [{name: istio-proxy}]", RUNNING, false)]
fn a_proxy_that_cannot_be_believed_is_named_before_a_switch(
    #[case] callers: &str,
    #[case] containers: &str,
    #[case] status: &str,
    #[case] named: bool,
) {
    let mut cluster = Cluster::default();
    cluster.service("reviews").pod_with("shop", "edge-0", "labels: {app: edge}", containers, status);
    let spec = spec(callers);
    let workloads = Workloads::find("shop", &spec, &cluster.objects);
    let problem = unbelieved("shop", &spec, &workloads, &cluster.objects);
    let reason = problem.as_ref().map(|problem| problem.reason);
    assert_eq!(reason, named.then_some(Reason::HostNetwork));
    assert!(
        problem.is_none_or(|problem| problem.message.starts_with("edge-0.shop has to ack") && problem.reason.holds())
    );
}

/// C23.
#[rstest]
#[case::all_are_seen(None, ", callers: {namespaces: [other]}", None)]
#[case::its_own(Some("shop"), "", None)]
#[case::named(Some("shop"), ", callers: {namespaces: [shop]}", None)]
#[case::elsewhere(Some("shop"), ", callers: {namespaces: [other, shop]}", Some("in namespace other"))]
#[case::a_gateway(Some("shop"), GATEWAYS, Some("in namespace edge"))]
#[case::attached(Some("shop"), ATTACHED, Some("in namespace edge"))]
fn callers_that_are_not_seen_are_named(
    #[case] watched: Option<&str>,
    #[case] callers: &str,
    #[case] why: Option<&str>,
) {
    let problem = unseen(watched, "shop", &spec(callers));
    assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
    assert!(problem.is_none_or(|one| one.message.contains(why.unwrap()) && one.reason.holds()));
}
