//! Which effects a status has, and in which order: nothing is left to who executes them.

use machine::observation::{Headroom, Keeper};
use machine::plan::{Effect, Pass, Plan, plan};
use machine::reason::Reason;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;

use crate::fixtures::*;

/// Nothing moves by itself before a person says so, so that every phase rests and acts.
const MANUAL: &str = "promotion: {mode: Manual}, switch: {mode: Fenced}";

/// What a phase waits for, so that the status stays as it is.
pub(crate) fn waiting_in(phase: Phase) -> (Status, Seen) {
    let status = switching(phase);
    match phase {
        Phase::Adopting => (status, seen().not_ready("v2")),
        Phase::Stable | Phase::AwaitingPromotion | Phase::Removing => (status, seen()),
        Phase::Coexisting => (status, seen().not_ready("v2")),
        Phase::ProvingRoutes => (status, seen().route_lags("edge", "no route yet")),
        Phase::Holding | Phase::Committing | Phase::Switching => (status, seen().acked(0)),
        Phase::Settling => (status, seen().busy(1)),
        Phase::Retaining => (with_switch(status, |switch| switch.retain_until = Some(UnixMs(NOW + 1))), seen()),
    }
}

/// The plan of a status that stays as it is, but for the words of what blocks.
fn rests(more: &str, status: &Status, seen: &Seen) -> Plan {
    let first = pass(&spec(more), status, seen);
    let status = Status { blocked: first.status.blocked.clone(), ..status.clone() };
    assert_eq!(first.status, status, "it does not rest");
    pass(&spec(more), &status, seen)
}

pub(crate) fn acts(more: &str, (status, seen): (Status, Seen)) -> String {
    words(&rests(more, &status, &seen).effects)
}

#[rstest]
#[case(Phase::Adopting, "start v2, publish, route, configure")]
#[case(Phase::Stable, "start v2, publish, route, configure")]
#[case(Phase::Coexisting, "start v1, start v2 like v1, publish, route, configure")]
#[case(Phase::AwaitingPromotion, "protect v2 at 999999, start v1, start v2 like v1, publish, route, configure")]
#[case(Phase::ProvingRoutes, "protect v2 at 999999, start v1, start v2 like v1, publish, route, configure")]
#[case(Phase::Holding, "start v1, start v2 like v1, publish")]
#[case(Phase::Committing, "start v2, start v1 like v2, publish")]
#[case(Phase::Switching, "start v2, start v1 like v2, publish, route, configure")]
#[case(Phase::Settling, "start v2, start v1 like v2, publish, route, configure")]
#[case(Phase::Retaining, "start v2, start v1 like v2, publish, route, configure")]
#[case(Phase::Removing, "start v2, publish, route, configure, stop v1")]
fn effects_come_in_this_order(#[case] phase: Phase, #[case] expected: &str) {
    assert_eq!(acts(MANUAL, waiting_in(phase)), expected);
}

#[rstest]
#[case(Phase::Switching, "protect v1 at 999999, start v1 like v2, publish, route, configure")]
#[case(Phase::Settling, "start v1 like v2, publish, route, configure")]
#[case(Phase::Removing, "start v1 like v2, publish, route, configure, stop v2")]
fn what_was_rolled_back_is_protected_until_all_acked_and_need_not_be_there(
    #[case] phase: Phase,
    #[case] expected: &str,
) {
    let (_, seen) = waiting_in(phase);
    assert_eq!(acts("", (going_back(phase), seen)), expected);
}

/// C03: whatever a flip goes to is marked before it, once; and again for another epoch.
#[rstest]
#[case::not_ready_yet(Phase::Coexisting, None, "")]
#[case::ready(Phase::AwaitingPromotion, None, "protect v2 at 999999, ")]
#[case::about_to_flip(Phase::ProvingRoutes, None, "protect v2 at 999999, ")]
#[case::marked(Phase::ProvingRoutes, Some(NOW - 1), "")]
#[case::marked_for_another(Phase::ProvingRoutes, Some(NOW - 2), "protect v2 at 999999, ")]
fn what_is_flipped_to_is_protected_before(#[case] phase: Phase, #[case] kept: Option<u64>, #[case] first: &str) {
    let (status, seen) = waiting_in(phase);
    let seen = kept.into_iter().fold(seen, |seen, epoch| seen.kept("v2", epoch));
    // A rollback waits for nobody to promote it.
    for rollback in [phase != Phase::AwaitingPromotion, false] {
        let status = with_switch(status.clone(), |switch| switch.rollback = rollback);
        let done = acts(MANUAL, (status, seen.clone()));
        assert_eq!(done, format!("{first}start v1, start v2 like v1, publish, route, configure"));
    }
}

#[test]
fn a_rollback_is_protected_by_the_epoch_of_its_record_even_while_nothing_may_move() {
    let status = going_back(Phase::Switching);
    let suspended = "suspend: true";
    assert_eq!(
        acts(suspended, (status, seen().acked(0))),
        "protect v1 at 999999, start v1 like v2, publish, route, configure"
    );
}

#[rstest]
#[case(Phase::Adopting, false)]
#[case(Phase::Stable, false)]
#[case(Phase::Coexisting, true)]
#[case(Phase::AwaitingPromotion, true)]
#[case(Phase::ProvingRoutes, true)]
#[case(Phase::Holding, true)]
#[case(Phase::Committing, true)]
#[case(Phase::Switching, true)]
#[case(Phase::Settling, true)]
#[case(Phase::Retaining, true)]
#[case(Phase::Removing, true)]
fn whoever_scales_what_serves_means_it_where_the_platform_keeps_it_and_nothing_is_switched(
    #[case] phase: Phase,
    #[case] by_platform: bool,
) {
    for (keeper, starts) in [(Keeper::Controller, true), (Keeper::Platform, by_platform)] {
        let (status, seen) = waiting_in(phase);
        let start = Effect::Start { version: status.active_version.clone(), like: None };
        let effects = rests(MANUAL, &status, &seen.kept_by(keeper)).effects;
        assert_eq!(effects.contains(&start), starts, "{keeper:?}: {}", words(&effects));
    }
}

#[rstest]
#[case("", "start v1, start v2 like v1")]
#[case("coexistence: {replicas: MatchActive}", "start v1, start v2 like v1")]
#[case("coexistence: {replicas: AsDeclared}", "start v1, start v2")]
fn a_new_version_gets_the_strength_that_the_spec_asks_for(#[case] more: &str, #[case] expected: &str) {
    let starts = acts(more, waiting_in(Phase::Coexisting));
    assert_eq!(starts, format!("{expected}, publish, route, configure"));
}

#[test]
fn what_was_left_is_kept_as_strong_as_what_serves_now() {
    let declared = acts("coexistence: {replicas: AsDeclared}", waiting_in(Phase::Retaining));
    assert_eq!(declared, "start v2, start v1, publish, route, configure");
}

#[test]
fn a_version_without_room_is_not_started() {
    let status = with_switch(switching(Phase::Coexisting), |switch| switch.headroom_at = None);
    assert_eq!(
        acts("", (status, seen().not_running("v2").headroom(Headroom::Unknown))),
        "start v1, publish, route, configure"
    );
}

/// Nothing moves, and what is there stays as it is: the other version is neither started nor stopped.
#[rstest]
#[case(Phase::Coexisting)]
#[case(Phase::Settling)]
#[case(Phase::Removing)]
fn suspended(#[case] phase: Phase) {
    let (status, seen) = waiting_in(phase);
    let start = format!("start {}", status.active_version);
    assert_eq!(acts("suspend: true", (status, seen)), format!("{start}, publish, route, configure"));
}

#[rstest]
#[case::stopped_first("cleanup: {policy: Delete}", seen().exists("v1"), ", stop v1")]
#[case::then_deleted("cleanup: {policy: Delete}", seen().not_running("v1").exists("v1"), ", delete v1")]
#[case::not_proved("", seen().quiet_unknown(), "")]
#[case::not_acked("", seen().acked(0), "")]
#[case::not_ready("", seen().not_ready("v2"), "")]
#[case::routes_lag("", seen().route_lags("edge", "v1 still"), "")]
#[case::configuration_lags("", seen().config_lags("edge", "epoch 8"), "")]
#[case::routes_do_not_fit("", seen().routes(Reason::RouteConflict), "")]
fn a_removal_needs_the_whole_proof_in_the_very_pass(#[case] more: &str, #[case] seen: Seen, #[case] last: &str) {
    let just_now = Status { phase_since: UnixMs(NOW), ..switching(Phase::Removing) };
    let moves = pass(&spec(more), &just_now, &seen).status.phase;
    if moves == Phase::Removing {
        assert_eq!(acts(more, (just_now, seen)), format!("start v2, publish, route, configure{last}"));
    } else {
        assert_eq!((moves, last), (Phase::Settling, ""), "only a target that is not ready ends it at once");
    }
}

#[rstest]
#[case::at_once(NOW, 0, false)]
#[case::a_second_later(NOW - 1_000, 0, true)]
#[case::all_acked(NOW, 1, true)]
fn the_configuration_waits_while_a_flip_spreads(#[case] since: u64, #[case] acked: usize, #[case] configures: bool) {
    let status = Status { phase_since: UnixMs(since), ..switching(Phase::Switching) };
    let status = Status { suspended: true, ..status };
    let effects = rests("", &status, &seen().acked(acked)).effects;
    assert_eq!(words(&effects).contains("configure"), configures);
}

/// Every problem of the cluster holds routes back in a mesh; two of them hold back the part in the plugins that
/// others share; and what puts in doubt whose the workloads are holds back every start and stop (C07). None holds back
/// the record.
#[rstest]
#[case::none(None, "Istio", "start v2, publish, route, configure, stop v1")]
#[case::other(Some(Reason::Forbidden), "Istio", "start v2, publish, configure, stop v1")]
#[case::istio(Some(Reason::IstioMissing), "Istio", "start v2, publish, configure, stop v1")]
#[case::files(Some(Reason::Forbidden), "External", "start v2, publish, route, configure, stop v1")]
#[case::taken(Some(Reason::ServiceTaken), "External", "publish, route, configure")]
#[case::workloads(Some(Reason::Workloads), "GatewayAPI", "publish, configure")]
#[case::header(Some(Reason::HeaderTaken), "Istio", "publish")]
#[case::too_wide(Some(Reason::TooWide), "GatewayAPI", "publish")]
fn what_a_problem_holds_back(#[case] problem: Option<Reason>, #[case] provider: &str, #[case] done: &str) {
    let more = format!("routing: {{provider: {provider}}}");
    // With the clusters that the provider names.
    let status = next(&more, &switching(Phase::Removing), &seen());
    let seen = problem.map_or_else(seen, |reason| seen().problem(reason));
    let plan = rests(&more, &status, &seen);
    assert_eq!(words(&plan.effects), done);
    assert_eq!(plan.waiting, problem.map_or("v1 has to stop", |_| "a sentence on the cluster"));
    let seen = seen.not_ready("v2");
    let begins = next(&more, &switching(Phase::Coexisting), &seen);
    let effects = words(&rests(&more, &begins, &seen).effects);
    assert_eq!(effects.starts_with("start v1, start v2 like v1, publish"), done.starts_with("start"), "{effects}");
}

/// C07: a flag that another one shares a Service with neither flips nor removes, and goes back all the same.
/// C36: nor does one that may be looking at what is out of date.
#[rstest]
#[case(Phase::Stable)]
#[case(Phase::Coexisting)]
#[case(Phase::ProvingRoutes)]
#[case(Phase::Settling)]
#[case(Phase::Removing)]
fn what_may_be_somebody_elses_is_left_as_it_is(
    #[case] phase: Phase,
    #[values(Reason::ServiceTaken, Reason::WatchStale)] reason: Reason,
) {
    let status = if phase == Phase::Stable {
        Status { active_version: "v1".to_owned(), ..switching(phase) }
    } else {
        switching(phase)
    };
    let seen = seen().problem(reason);
    let after = next("", &status, &seen);
    assert_eq!((after.phase, blocked(&after)), (phase, Some(reason)));
    let effects = words(&rests("", &after, &seen).effects);
    assert!(!effects.contains("start") && !effects.contains("stop"), "{effects}");
    let back = next("", &switching(Phase::Settling), &seen.asked_for(machine::action::Action::Rollback));
    assert_eq!((back.phase, back.active_version.as_str()), (Phase::Switching, "v1"));
}

/// Nothing is decided: neither the status nor the world moves.
#[rstest]
#[case::no_spec_was_ever_valid(switching(Phase::Removing), seen().spec_unknown(), "")]
#[case::a_problem_then(
    switching(Phase::Removing),
    seen().spec_unknown().problem(Reason::NewerController),
    "a sentence on the cluster"
)]
#[case::a_problem_at_the_beginning(
    Status::new("uid", "reviews", UnixMs(0)),
    seen().problem(Reason::Workloads),
    "a sentence on the cluster"
)]
fn nothing_is_planned(#[case] status: Status, #[case] seen: Seen, #[case] waiting: &str) {
    let asked = seen.asked_for(machine::action::Action::Suspend);
    let Plan { status: after, effects, requeue, waiting: said, .. } = pass(&spec(""), &status, &asked);
    assert_eq!((after, words(&effects), requeue, said.as_str()), (status, String::new(), None, waiting));
}

#[test]
fn a_problem_after_the_first_record_stops_no_decision() {
    let status = next("", &switching(Phase::Switching), &seen().problem(Reason::Forbidden));
    assert_eq!(status.phase, Phase::Settling);
}

/// A pass either changes the status or acts on it.
#[rstest]
fn a_status_that_changes_has_no_effects(#[values(0, 1)] acked: usize) {
    for phase in Phase::ALL {
        for (_, seen) in Phase::ALL.iter().map(|phase| waiting_in(*phase)) {
            let (spec, status) = (spec(""), switching(*phase));
            let Plan { status: after, effects, requeue, .. } =
                plan(Pass { now: UnixMs(NOW), spec: &spec, seen: &seen.acked(acked) }, &status);
            assert!(after == status || (effects.is_empty() && requeue == Some(machine::duration::Millis(0))));
        }
    }
}

/// T10: whoever runs, may be started or is named has its cluster; where nobody knows what is named, all stay.
#[rstest]
#[case::the_first_ones(seen().clusters(&[], None), "cluster v1+v2")]
#[case::a_third_is_declared(seen().not_running("v3").clusters(&["v1", "v2"], Some(&["v1", "v2"])), "cluster v1+v2+v3")]
#[case::one_is_named(seen().clusters(&["v0", "v1", "v2"], Some(&["v0", "v2"])), "cluster v0+v1+v2")]
#[case::nobody_knows(seen().clusters(&["v0", "v1", "v2"], None), "cluster v0+v1+v2")]
#[case::nothing_names_it(seen().clusters(&["v0", "v1", "v2"], Some(&["v1", "v2"])), "cluster v1+v2")]
#[case::it_runs(seen().undeclared_and_runs("v0").clusters(&["v0", "v1", "v2"], Some(&["v2"])), "cluster v0+v1+v2")]
fn a_cluster_is_there_as_long_as_anything_may_need_it(#[case] seen: Seen, #[case] expected: &str) {
    let effects = acts("", (switching(Phase::Removing), seen));
    let cluster = effects.split(", ").find(|effect| effect.starts_with("cluster"));
    assert_eq!(cluster, Some(expected), "{effects}");
}

/// T10: it is there before the record, the routes or the filter name it.
#[test]
fn a_cluster_comes_before_what_names_it() {
    let effects = acts(MANUAL, (switching(Phase::Removing), seen().clusters(&[], None)));
    assert_eq!(effects, "start v2, cluster v1+v2, publish, route, configure, stop v1");
}
