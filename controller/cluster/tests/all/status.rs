//! What people read of a flag, as the state machine remembers it and the cluster shows it.

use std::collections::BTreeMap;

use cluster::resource::{ResourceStatus, VersionRole};
use cluster::status::{StatusInputs, cannot_begin, condition_types, derive, unsupported};
use cluster::workloads::Workloads;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use machine::checks::CheckAnswers;
use machine::fleet::ledger::{Fleet, Laggard};
use machine::observation::{Observation, VersionState};
use machine::reason::{Problem, Reason};
use machine::record::Draft;
use machine::spec::Spec;
use machine::status::Status;
use machine::time::UnixMs;
use rstest::rstest;

use crate::objects::{Cluster, parse, spec};
use crate::table::rows;

pub(crate) const STABLE: &str = "phase: Stable, activeVersion: v2";
pub(crate) const STARTING: &str = "phase: Coexisting, activeVersion: v1, targetVersion: v2, \
     switch: {from: v1, to: v2, startedAt: 1000000}";
pub(crate) const SPREADING: &str = "phase: Switching, activeVersion: v2, targetVersion: v2, previousVersion: v1, \
     switch: {from: v1, to: v2, startedAt: 1000000, headroomAt: 1000000, readyAt: 1000000, flippedAt: 1000000}";
pub(crate) const SETTLING: &str = "phase: Settling, activeVersion: v2, targetVersion: v2, previousVersion: v1, \
     switch: {from: v1, to: v2, startedAt: 1000000, headroomAt: 1000000, readyAt: 1000000, flippedAt: 1000000, \
     ackedAt: 1000000}";
pub(crate) const RETAINING: &str = "phase: Retaining, activeVersion: v2, targetVersion: v2, previousVersion: v1, \
     switch: {from: v1, to: v2, startedAt: 1000000, headroomAt: 1000000, readyAt: 1000000, flippedAt: 1000000, \
     ackedAt: 1000000, settledAt: 1000000}";
pub(crate) const DONE: &str = "phase: Stable, activeVersion: v2, previousVersion: v1, \
     switch: {from: v1, to: v2, startedAt: 1000000, headroomAt: 1000000, readyAt: 1000000, flippedAt: 1000000, \
     ackedAt: 1000000, settledAt: 1000000, removalIntentAt: 1000000, removedAt: 1000000}";

pub(crate) struct World {
    pub(crate) spec: Spec,
    pub(crate) machine: Status,
    pub(crate) fleet: Fleet,
    pub(crate) workloads: Workloads,
    problem: Option<Problem>,
    routes: Option<Problem>,
    checks: CheckAnswers,
    before: Option<ResourceStatus>,
}

pub(crate) fn world(machine: &str) -> World {
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", 2, 2).deployment("v2", 3, 3).deployment("v3", 1, 1);
    let spec = spec(", routing: {provider: External}");
    let mut machine: Status = parse(&format!("{{uid: u, name: shop/reviews, phaseSince: 1000000, {machine}}}"));
    if !machine.active_version.is_empty() {
        let mut versions = std::collections::BTreeSet::from([machine.active_version.clone()]);
        versions.extend(machine.target_version.clone());
        versions.extend(machine.switch.iter().filter(|one| one.removed_at.is_none()).map(|one| one.from.clone()));
        let active = machine.active_version.clone();
        let draft = Draft {
            uid: "u",
            name: "shop/reviews",
            epoch: 7,
            active: &active,
            versions: &versions,
            preview: None,
            before: None,
        };
        machine.record = draft.record(&spec, &Observation::unknown()).seal().ok();
    }
    let fleet = Fleet { acked: 2, ..Fleet::unknown(2) };
    let workloads = Workloads::find("shop", &spec, &cluster.objects);
    World { spec, machine, fleet, workloads, problem: None, routes: None, checks: CheckAnswers::new(), before: None }
}

impl World {
    pub(crate) fn status(&self, now: u64) -> ResourceStatus {
        let names = self.workloads.versions();
        let versions = names.into_iter().map(|name| (name.to_owned(), self.workloads.observe(name))).collect();
        derive(&StatusInputs {
            now: UnixMs(now),
            generation: Some(4),
            spec: &self.spec,
            machine: &self.machine,
            fleet: &self.fleet,
            versions: &versions,
            checks: &self.checks,
            workloads: &self.workloads,
            problem: self.problem.as_ref(),
            routes: self.routes.as_ref(),
            before: self.before.as_ref(),
        })
    }

    /// The same with something that has to be put right first.
    pub(crate) fn with_problem(self, problem: Problem) -> World {
        World { problem: Some(problem), ..self }
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<(String, String)> {
        let condition = self.status(1_000_000).conditions.into_iter().find(|one| one.type_ == kind)?;
        Some((condition.status, condition.reason))
    }
}

#[rstest]
#[case::adopting("phase: Adopting", [
    "Ready False Adopting", "RoutesReady Unknown NotAsked", "TargetReady Unknown NoVersion",
    "HeadroomAvailable True NotNeeded", "ChecksPassed True NoChecks", "Switched Unknown NoSwitch",
    "Settled Unknown NoSwitch", "CleanedUp Unknown NoSwitch", "Reconciling True Adopting"])]
#[case::stable(STABLE, [
    "Ready True Serving", "RoutesReady Unknown NotAsked", "TargetReady True Ready",
    "HeadroomAvailable True NotNeeded", "ChecksPassed True NoChecks", "Switched Unknown NoSwitch",
    "Settled Unknown NoSwitch", "CleanedUp Unknown NoSwitch", ""])]
#[case::starting(STARTING, [
    "Ready False Coexisting", "RoutesReady True Resolved", "TargetReady True Ready",
    "HeadroomAvailable Unknown NotChecked", "ChecksPassed True NoChecks", "Switched False NotFlipped",
    "Settled False NotSwitched", "CleanedUp False Coexisting", "Reconciling True Coexisting"])]
#[case::spreading(SPREADING, [
    "Ready False Switching", "RoutesReady True Resolved", "TargetReady True Ready",
    "HeadroomAvailable True Checked", "ChecksPassed True NoChecks", "Switched False Laggards",
    "Settled False NotSwitched", "CleanedUp False Switching", "Reconciling True Switching"])]
#[case::settling(SETTLING, [
    "Ready True Serving", "RoutesReady True Resolved", "TargetReady True Ready",
    "HeadroomAvailable True Checked", "ChecksPassed True NoChecks", "Switched True Acked",
    "Settled False NotQuiet", "CleanedUp False Settling", "Reconciling True Settling"])]
#[case::retaining(RETAINING, [
    "Ready True Serving", "RoutesReady True Resolved", "TargetReady True Ready",
    "HeadroomAvailable True Checked", "ChecksPassed True NoChecks", "Switched True Acked",
    "Settled True Settled", "CleanedUp False Retaining", ""])]
#[case::done(DONE, [
    "Ready True Serving", "RoutesReady Unknown NotAsked", "TargetReady True Ready",
    "HeadroomAvailable True Checked", "ChecksPassed True NoChecks", "Switched True Acked",
    "Settled True Settled", "CleanedUp True Removed", ""])]
fn every_phase_has_its_conditions(#[case] machine: &str, #[case] expected: [&str; 9]) {
    let conditions = world(machine).status(1_000_000).conditions;
    let found: Vec<String> =
        conditions.iter().map(|one| format!("{} {} {}", one.type_, one.status, one.reason)).collect();
    assert_eq!(found, expected.into_iter().filter(|one| !one.is_empty()).collect::<Vec<_>>());
    for Condition { type_, message, observed_generation, .. } in &conditions {
        assert!(!message.is_empty(), "{type_}");
        assert_eq!(*observed_generation, Some(4));
    }
}

#[test]
fn every_condition_has_a_row_and_three_may_be_absent() {
    let rows = rows(include_str!("../../../../docs/reference/kubernetes.md"), "conditions");
    let documented: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(documented, condition_types());
    let rests = world(STABLE).status(1_000_000).conditions;
    let always: Vec<&str> = rests.iter().map(|one| one.type_.as_str()).collect();
    assert_eq!(
        (always.as_slice(), &documented[8..]),
        (&documented[..8], &["Reconciling", "Stalled", "ReplicasContested"][..])
    );
}

#[rstest]
#[case::error("TargetNotReady", Some(("True", "TargetNotReady")), None)]
#[case::person("AwaitingPromotion", None, Some(("True", "Coexisting")))]
fn what_blocks_is_said_and_only_errors_stall(
    #[case] reason: &str,
    #[case] stalled: Option<(&str, &str)>,
    #[case] reconciling: Option<(&str, &str)>,
) {
    let mut world = world(STARTING);
    world.machine.blocked = parse(&format!("{{reason: {reason}, message: a sentence, since: 1000000}}"));
    let pair = |pair: Option<(&str, &str)>| pair.map(|(status, why)| (status.to_owned(), why.to_owned()));
    assert_eq!(world.condition("Ready"), pair(Some(("False", reason))));
    assert_eq!(world.condition("Stalled"), pair(stalled));
    assert_eq!(world.condition("Reconciling"), pair(reconciling));
    assert_eq!(world.status(1_000_000).blocked_by.as_deref(), Some("a sentence"));
}

#[test]
fn who_else_scales_is_said() {
    let mut world = world(SETTLING);
    assert_eq!(world.condition("ReplicasContested"), None);
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", 2, 2).deployment("v2", 3, 3).managed(
        "reviews-v1",
        "[{manager: argocd-controller, operation: Apply, fieldsV1: {'f:spec': {'f:replicas': {}}}}]",
    );
    world.workloads = Workloads::find("shop", &world.spec, &cluster.objects);
    let status = world.status(1_000_000);
    let condition = status.conditions.iter().find(|one| one.type_ == "ReplicasContested").unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "FieldManager"));
    assert!(condition.message.starts_with("argocd-controller applies spec.replicas of Deployment/reviews-v1 too"));
    let one = status.versions.iter().find(|one| one.name == "v1").unwrap();
    assert_eq!(one.managers, ["argocd-controller"]);
    assert!(!status.conditions.iter().any(|one| one.type_ == "Stalled"), "it does not hold anything up");
}

/// C40.
#[rstest]
#[case(SETTLING, 0, Some("reviews-v1-hpa takes Deployment/reviews-v1 to zero"))]
#[case(RETAINING, 0, Some("reviews-v1-hpa takes Deployment/reviews-v1 to zero"))]
#[case(RETAINING, 2, None)]
#[case(DONE, 0, None)]
fn an_autoscaler_that_ends_what_is_kept_is_said(
    #[case] machine: &str,
    #[case] replicas: i32,
    #[case] says: Option<&str>,
) {
    let mut world = world(machine);
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v1", replicas, replicas).deployment("v2", 3, 3).autoscaler("reviews-v1");
    world.workloads = Workloads::find("shop", &world.spec, &cluster.objects);
    let conditions = world.status(1_000_000).conditions;
    let found = conditions.iter().find(|one| one.type_ == "ReplicasContested").map(|one| one.message.as_str());
    assert_eq!(found.is_some(), says.is_some(), "{found:?}");
    assert!(found.unwrap_or_default().starts_with(says.unwrap_or_default()), "{found:?}");
}

#[test]
fn what_is_not_built_is_said() {
    let mut world = world(STABLE);
    use machine::spec::{Management, Provider};
    world.spec.routing.provider = Provider::External;
    world.spec.routing.management = Management::UserProvided;
    world.problem = unsupported(&world.spec);
    let status = world.status(1_000_000);
    let message = "spec.routing.management UserProvided is not supported yet with provider External: use Managed";
    assert_eq!(status.blocked_by.as_deref(), Some(message));
    assert_eq!(world.condition("Stalled"), Some(("True".to_owned(), "NotSupported".to_owned())));
    for provider in [Provider::External, Provider::Istio, Provider::GatewayAPI] {
        world.spec.routing.provider = provider;
        world.spec.routing.management = Management::Managed;
        assert_eq!(unsupported(&world.spec), None);
        world.spec.routing.management = Management::UserProvided;
        assert_eq!(unsupported(&world.spec).is_some(), provider == Provider::External);
    }
}

#[rstest]
#[case::nothing_serves_yet(&[], false, false)]
#[case::what_serves(&["v1"], false, false)]
#[case::both(&["v1", "v2"], false, false)]
#[case::another_serves(&["v2"], false, true)]
#[case::it_has_begun(&["v2"], true, false)]
fn a_flag_begins_with_what_serves(#[case] ready: &[&str], #[case] begun: bool, #[case] refused: bool) {
    let machine = if begun { world(STABLE).machine } else { Status::new("u", "shop/reviews", UnixMs(0)) };
    let workload = |version: &&str| ((*version).to_owned(), VersionState { ready: true, ..VersionState::default() });
    let spec = Spec { version: "v1".to_owned(), ..spec("") };
    let message = cannot_begin(&spec, &machine, &ready.iter().map(workload).collect()).map(|problem| problem.message);
    let why = "v1 is not ready, and v2 serves: a VersionFlag begins with what serves, so set spec.version to v2 first";
    assert_eq!(message.as_deref(), Some(why).filter(|_| refused));
}

#[test]
fn a_condition_keeps_its_time_while_its_status_does() {
    let mut world = world(SPREADING);
    let first = world.status(1_000_000);
    world.before = Some(first.clone());
    world.machine = self::world(SETTLING).machine;
    let next = world.status(9_000_000);
    let at = |status: &ResourceStatus, kind: &str| {
        let one = status.conditions.iter().find(|one| one.type_ == kind).unwrap();
        one.last_transition_time.0.as_second()
    };
    assert_eq!((at(&first, "Switched"), at(&next, "Switched")), (1_000, 9_000));
    assert_eq!((at(&first, "TargetReady"), at(&next, "TargetReady")), (1_000, 1_000));
    assert_eq!((at(&first, "Settled"), at(&next, "Settled")), (1_000, 1_000), "another reason, the same status");
}

/// F14: they are shown apart.
#[test]
fn health_checks_of_the_old_version_are_shown() {
    let mut world = world(SETTLING);
    world.fleet.health_checks = 35;
    let status = world.status(2_000_000);
    let settled = status.conditions.iter().find(|one| one.type_ == "Settled").unwrap();
    assert_eq!(settled.message, "v1 has to be unused for 10s; 35 health checks of it do not count");
}

#[test]
fn versions_have_roles_and_what_serves_is_protected() {
    let shown = |machine: &str| {
        let status = world(machine).status(1_000_000);
        let roles: BTreeMap<String, VersionRole> =
            status.versions.iter().map(|one| (one.name.clone(), one.role)).collect();
        (roles.into_values().collect::<Vec<_>>(), status.protected_workloads)
    };
    let (v1, v2) = ("Deployment/reviews-v1".to_owned(), "Deployment/reviews-v2".to_owned());
    assert_eq!(shown(STARTING), (vec![VersionRole::Active, VersionRole::Target, VersionRole::Other], vec![v1.clone()]));
    assert_eq!(
        shown(SETTLING),
        (vec![VersionRole::Old, VersionRole::Active, VersionRole::Other], vec![v1, v2.clone()])
    );
    assert_eq!(shown(DONE), (vec![VersionRole::Other, VersionRole::Active, VersionRole::Other], vec![v2]));
    let status = world(STABLE).status(1_000_000);
    let one = status.versions.iter().find(|one| one.name == "v2").unwrap();
    assert_eq!((one.ready, one.replicas), (true, 3));
    assert_eq!((status.epoch, status.proxies.unwrap().summary.as_str()), (Some(7), "2/2"));
}

#[test]
fn laggards_are_named_up_to_ten() {
    let mut world = world(SPREADING);
    world.fleet = Fleet { acked: 3, ..Fleet::unknown(15) };
    world.fleet.laggards =
        (0..12).map(|index| Laggard { proxy: format!("pod-{index}.shop"), why: "late".to_owned() }).collect();
    let proxies = world.status(1_000_000).proxies.unwrap();
    assert_eq!((proxies.summary.as_str(), proxies.laggards.len()), ("3/15", 10));
}

#[test]
fn a_proxy_that_holds_routes_up_is_named_like_one_that_has_not_acked() {
    let mut world = world(SETTLING);
    let late = || vec![Laggard { proxy: "web.shop".to_owned(), why: "an old route".to_owned() }];
    let fleet = Fleet { acked: 3, ..Fleet::unknown(3) };
    for (fleet, reason) in [
        (Fleet { route_laggards: late(), ..fleet.clone() }, "NotProven"),
        (Fleet { reach_laggards: late(), ..fleet }, "NotReached"),
    ] {
        world.fleet = fleet;
        let status = world.status(1_000_000);
        let routes = status.conditions.iter().find(|one| one.type_ == "RoutesReady").unwrap();
        assert_eq!((routes.status.as_str(), routes.reason.as_str()), ("False", reason));
        let proxies = status.proxies.unwrap();
        assert_eq!((proxies.summary.as_str(), proxies.laggards[0].proxy.as_str()), ("3/3", "web.shop"));
    }
}

#[test]
fn only_what_matters_is_worth_a_write() {
    let mut world = world(SPREADING);
    world.fleet = Fleet { acked: 1, ..Fleet::unknown(3) };
    world.machine.blocked = parse("{reason: Laggards, message: 1 of 3, since: 1000000}");
    let first = world.status(1_000_000);
    world.before = Some(first.clone());
    world.fleet.acked = 2;
    world.machine.blocked = parse("{reason: Laggards, message: 2 of 3, since: 1000000}");
    let next = world.status(2_000_000);
    assert!(next != first && next.same_but_wording(&first));
    world.machine.blocked = parse("{reason: Laggards, message: a proxy has gone, since: 1000000}");
    let other = world.status(2_000_000);
    assert!(other.same_but_wording(&first));
    world.fleet.acked = 3;
    assert!(!world.status(2_000_000).same_but_wording(&first), "all acked");
    world.fleet = Fleet { acked: 1, ..Fleet::unknown(4) };
    assert!(!world.status(2_000_000).same_but_wording(&first), "one more is expected");
    world.fleet = Fleet { acked: 1, ..Fleet::unknown(3) };
    world.machine.blocked = None;
    assert!(!world.status(2_000_000).same_but_wording(&first), "nothing blocks any more");
}

#[test]
fn what_is_remembered_survives_the_api() {
    let mut world = world(RETAINING);
    world.machine.last_request = parse("{id: a, action: rollback, refused: no, at: 1000000}");
    let status = world.status(1_234_567);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<ResourceStatus>(&text).unwrap(), status);
    assert_eq!(status.machine, Some(world.machine.into()));
}

/// Parts of sentences come from others. What is written is taken, however long they are.
#[test]
fn no_sentence_is_too_long_to_be_written() {
    let mut world = world(SPREADING);
    let long = "\u{e9}".repeat(100_000);
    world.fleet.laggards = vec![Laggard { proxy: "web.shop".to_owned(), why: long.clone() }];
    world.fleet.acked = 1;
    world.problem = Some(Problem::new(Reason::Workloads, long.clone()));
    world.routes = Some(Problem::new(Reason::RouteConflict, long));
    let status = world.status(1_000_000);
    let chars = |text: &str| text.chars().count();
    assert!(status.conditions.iter().all(|one| chars(&one.message) <= 32_768));
    assert!(status.conditions.iter().any(|one| chars(&one.message) > 30_000));
    assert!(chars(status.blocked_by.as_deref().unwrap()) <= 2_001);
    assert!(chars(&status.proxies.unwrap().laggards[0].why) <= 501);
}
