//! Which phase comes next, and what a flag is blocked by.

use machine::action::Action;
use machine::fleet::ledger::{Fleet, Laggard};
use machine::history::Happening;
use machine::observation::{Headroom, VersionState};
use machine::plan::Effect;
use machine::reason::{Problem, Reason};
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;

use crate::fixtures::*;

#[rstest]
#[case::acked(Phase::Switching, seen(), "", Phase::Settling)]
#[case::quiet(Phase::Settling, seen(), "", Phase::Retaining)]
#[case::retained(Phase::Retaining, seen(), "", Phase::Removing)]
#[case::kept(Phase::Retaining, seen(), "cleanup: {policy: Retain}", Phase::Stable)]
#[case::baking(Phase::Settling, seen(), "settle: {bake: 2m}", Phase::Settling)]
#[case::unknown(Phase::Settling, seen().quiet_unknown(), "", Phase::Settling)]
#[case::unknown_past_deadline(Phase::Settling, seen().quiet_unknown(), PROCEED, Phase::Settling)]
#[case::busy(Phase::Settling, seen().busy(1), "", Phase::Settling)]
#[case::busy_but_proceed(Phase::Settling, seen().busy(1), PROCEED, Phase::Retaining)]
#[case::busy_then_back(Phase::Settling, seen().busy(1), "settle: {timeout: 1s, onTimeout: Rollback}", Phase::Switching)]
#[case::no_ack(Phase::Switching, seen().acked(0), "switch: {ackTimeout: 1s}", Phase::Switching)]
#[case::no_ack_but_proceed(
    Phase::Switching,
    seen().acked(0),
    "switch: {ackTimeout: 1s, laggards: Proceed}",
    Phase::Settling
)]
// C42: however long it takes.
#[case::an_ack_is_missing_again(Phase::Removing, seen().acked(0), "", Phase::Removing)]
#[case::used_again(Phase::Removing, seen().busy(1), "", Phase::Settling)]
// C08.
#[case::an_ack_of_the_new_version_is_missing(Phase::ProvingRoutes, seen().acked(0), "", Phase::ProvingRoutes)]
#[case::min_ready(Phase::Coexisting, seen(), "", Phase::AwaitingPromotion)]
fn next_phase(#[case] from: Phase, #[case] seen: Seen, #[case] more: &str, #[case] to: Phase) {
    let status = next(more, &switching(from), &seen);
    assert_eq!(status.phase, to, "{status:#?}");
}

const PROCEED: &str = "settle: {timeout: 1s, onTimeout: Proceed}";

fn short() -> Headroom {
    Headroom::Short { message: "no room".to_owned() }
}

/// v2 was not started yet.
fn before_the_start() -> Status {
    with_switch(switching(Phase::Coexisting), |switch| switch.headroom_at = None)
}

fn starts_v2(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Start { version, .. } if version == "v2"))
}

#[rstest]
#[case(short(), "", Some(Reason::HeadroomShort))]
#[case(Headroom::Unknown, "", Some(Reason::HeadroomUnknown))]
#[case(short(), "coexistence: {headroom: Warn}", None)]
#[case(Headroom::Fits, "", None)]
fn headroom_comes_before_the_start(#[case] headroom: Headroom, #[case] more: &str, #[case] reason: Option<Reason>) {
    let seen = seen().headroom(headroom).not_running("v2");
    let status = next(more, &before_the_start(), &seen);
    assert_eq!(blocked(&status), reason);
    let plan = pass(&spec(more), &status, &seen);
    assert_eq!(starts_v2(&plan.effects), reason.is_none());
}

#[rstest]
#[case::nothing_is_started(Phase::Coexisting, Phase::Coexisting)]
#[case::nothing_is_switched(Phase::ProvingRoutes, Phase::ProvingRoutes)]
#[case::nothing_is_settled(Phase::Settling, Phase::Settling)]
#[case::nothing_is_removed(Phase::Removing, Phase::Removing)]
// What was flipped is acked all the same.
#[case::acks_come(Phase::Switching, Phase::Settling)]
fn routes_that_do_not_fit_hold_everything_up(#[case] from: Phase, #[case] to: Phase) {
    let status = if from == Phase::Coexisting { before_the_start() } else { switching(from) };
    let seen = seen().routes(Reason::RouteConflict);
    let status = next(PROCEED, &status, &seen);
    assert_eq!(status.phase, to);
    let plan = pass(&spec(""), &status, &seen);
    assert_eq!(plan.status.phase, to);
    let blocked = plan.status.blocked.unwrap();
    assert_eq!((blocked.reason, blocked.message.as_str()), (Reason::RouteConflict, "a sentence on routes"));
    if from == Phase::Coexisting {
        assert!(!starts_v2(&plan.effects));
    }
}

#[test]
fn a_rollback_does_not_wait_for_routes() {
    let seen = seen().routes(Reason::RouteConflict).asked_for(Action::Rollback);
    let status = next("", &switching(Phase::Settling), &seen);
    assert_eq!((status.phase, status.active_version.as_str()), (Phase::Switching, "v1"));
}

#[test]
fn a_record_says_where_its_services_are() {
    let seen = seen().in_namespace("shop", "app=reviews");
    let status = next("promotion: {mode: Manual}", &switching(Phase::AwaitingPromotion), &seen);
    let record = status.record.unwrap();
    assert_eq!((record.namespace.as_str(), record.version_label.as_str()), ("shop", "version"));
    assert!(record.members[0].selector.contains("app=reviews") && record.check().is_ok());
    // Other content, so another epoch.
    assert!(record.epoch > NOW - 1, "{record:?}");
}

#[test]
fn a_version_that_dies_after_the_flip_is_left_again_if_asked_for() {
    let seen = seen().exited("v2");
    let waits = next("", &switching(Phase::Settling), &seen);
    assert_eq!((waits.phase, blocked(&waits)), (Phase::Settling, Some(Reason::TargetExited)));
    let back = next("onTargetFailure: Rollback", &switching(Phase::Settling), &seen);
    assert_eq!((back.phase, back.active_version.as_str()), (Phase::Switching, "v1"));
    assert!(back.r#override.is_some());
}

#[rstest]
#[case::nobody_is_known(&[], None)]
#[case::one(
    &[("v1-a.shop", "plain.shop (10.0.0.7)", 40), ("v1-b.shop", "plain.shop (10.0.0.7)", 2)],
    Some("requests (42 a second) still reach v1 at v1-a.shop, v1-b.shop from plain.shop (10.0.0.7) that")
)]
#[case::one_of_many(&[("v1-a.shop", "", 0)], Some("requests still reach v1 at v1-a.shop that"))]
#[case::many(
    &[("v1-a.shop", "1", 0), ("v1-a.shop", "2", 0), ("v1-a.shop", "3", 0), ("v1-a.shop", "4", 0)],
    Some("v1-a.shop from 1, 2, 3 and 1 more that")
)]
fn who_goes_past_the_flag_is_named(#[case] known: &[(&str, &str, u64)], #[case] named: Option<&str>) {
    let come = |seen: Seen| known.iter().fold(seen, |seen, (at, from, rate)| seen.unmanaged(at, from, *rate));
    let status = next("", &switching(Phase::Settling), &come(seen().busy(0)));
    assert_eq!((status.phase, status.blocked.is_some()), (Phase::Settling, named.is_some()));
    if let (Some(blocked), Some(named)) = (status.blocked, named) {
        assert_eq!(blocked.reason, Reason::CallersWithoutFilter);
        assert!(blocked.message.contains(named), "{}", blocked.message);
    }
    // They hold up nothing once they stay away.
    assert_eq!(next("", &switching(Phase::Settling), &come(seen())).phase, Phase::Retaining);
}

#[rstest]
#[case::just_now(NOW - 100, None)]
#[case::for_long(NOW - 5_000, Some(Reason::ConfigLaggards))]
fn who_has_an_old_configuration_is_named_after_a_while(#[case] since: u64, #[case] reason: Option<Reason>) {
    let status = Status { phase_since: UnixMs(since), ..switching(Phase::Settling) };
    let plan = pass(&spec(""), &status, &seen().config_lags("web.shop", "an old epoch"));
    assert_eq!(plan.status.phase, Phase::Settling);
    assert_eq!(blocked(&plan.status), reason);
    assert!(plan.waiting.contains("web.shop"), "{}", plan.waiting);
    let soon = plan.requeue.map(|after| after.0);
    assert_eq!(soon.filter(|_| reason.is_none()), reason.is_none().then_some(4_900));
}

#[rstest]
#[case::routes_are_proved(Phase::ProvingRoutes, &["late", "both", "route"])]
#[case::only_acks_are_missing(Phase::Switching, &["late", "both"])]
#[case::all_is_proved(Phase::Settling, &["late", "both", "config", "route"])]
fn who_holds_a_phase_up_is_named_once(#[case] phase: Phase, #[case] expected: &[&str]) {
    let all = |names: &[&str]| {
        let one = |name: &&str| Laggard { proxy: (*name).to_owned(), why: "late".to_owned() };
        names.iter().map(one).collect::<Vec<_>>()
    };
    let fleet = Fleet {
        laggards: all(&["late", "both"]),
        config_laggards: all(&["both", "config"]),
        route_laggards: all(&["config", "route"][if phase == Phase::ProvingRoutes { 1 } else { 0 }..]),
        ..seen().0.fleet
    };
    let found = phase.laggards(&fleet);
    assert_eq!(found.iter().map(|one| one.proxy.as_str()).collect::<Vec<_>>(), expected);
}

#[test]
fn going_on_without_proof_is_remembered() {
    let both = format!("{PROCEED}, switch: {{laggards: Proceed}}");
    let status = next(&both, &switching(Phase::Settling), &seen().quiet_unknown());
    assert_eq!(status.phase, Phase::Retaining);
    let event = status.history.iter().find(|entry| entry.event == Happening::WithoutProof).unwrap();
    assert!(event.message.contains("it is not known yet whether v1 is still used"), "{event:?}");
}

#[rstest]
#[case::as_written(NOW - 1, true, NOW - 1)]
#[case::a_proxy_is_ahead(NOW + 5, true, NOW + 6)]
#[case::but_nothing_to_lead_it_to(NOW + 5, false, NOW - 1)]
#[case::a_proxy_says_nonsense(u64::MAX, true, NOW - 1)]
fn a_record_that_was_restored_is_written_above_what_proxies_have(
    #[case] highest: u64,
    #[case] active_ready: bool,
    #[case] epoch: u64,
) {
    let seen = seen().reported(highest);
    let seen = if active_ready { seen } else { seen.not_ready("v1") };
    let after = next("promotion: {mode: Manual}", &switching(Phase::AwaitingPromotion), &seen);
    assert_eq!((after.epoch(), after.active_version.as_str()), (epoch, "v1"), "{after:#?}");
    assert_eq!(blocked(&after), Some(Reason::AwaitingPromotion));
}

#[test]
fn an_event_has_the_epoch_that_it_led_to() {
    let status = next("", &switching(Phase::ProvingRoutes), &seen());
    assert_eq!(status.phase, Phase::Switching);
    let flipped = status.history.iter().find(|entry| entry.event == Happening::Flipped).unwrap();
    assert_eq!((flipped.epoch, flipped.epoch > NOW - 1), (status.epoch(), true));
}

#[test]
fn the_old_version_is_stopped_only_after_the_proxies_dropped_it() {
    let status = next("", &switching(Phase::Retaining), &seen());
    assert_eq!((status.phase, status.record.as_ref().unwrap().versions.contains("v1")), (Phase::Removing, false));
    let stop = Effect::Stop { version: "v1".to_owned() };
    assert!(!pass(&spec(""), &status, &seen().acked(0)).effects.contains(&stop));
    assert!(pass(&spec(""), &status, &seen()).effects.contains(&stop));
}

#[test]
fn routes_that_are_about_to_be_written_are_waited_for_and_block_nothing() {
    let proving = pass(&spec(""), &switching(Phase::ProvingRoutes), &seen().routes(Reason::RoutesWarming));
    assert_eq!((proving.status.phase, proving.status.blocked), (Phase::ProvingRoutes, None));
    assert_eq!(proving.waiting, "a sentence on routes");
    // A new version may start beside one that has its routes, and not before.
    let starts = |reason| next("", &before_the_start(), &seen().routes(reason)).switch.unwrap().headroom_at.is_some();
    assert!(starts(Reason::RoutesWarming));
    assert!(!starts(Reason::RoutesPending));
}

#[test]
fn what_blocked_a_phase_is_not_said_of_the_next() {
    let manual = "promotion: {mode: Manual}";
    let mut status = next(manual, &switching(Phase::AwaitingPromotion), &seen());
    assert_eq!(blocked(&status), Some(Reason::AwaitingPromotion));
    for _ in 0..3 {
        status = next(manual, &status, &seen().asked_for(Action::Promote));
    }
    assert_eq!((status.phase, status.blocked), (Phase::Switching, None));
}

/// Today's order of what blocks: an invalid edit hides everything else, and what was decided goes on.
#[test]
fn an_edit_that_is_not_valid_is_said_and_stops_nothing() {
    let seen = seen().spec_error("version: is empty");
    let status = next("", &switching(Phase::Switching), &seen);
    assert_eq!((status.phase, blocked(&status)), (Phase::Settling, Some(Reason::InvalidSpec)));
}

#[test]
fn a_version_that_was_not_seen_does_not_run() {
    assert_eq!(seen().0.workload("v9"), VersionState::default());
}

/// What a flag that settles is blocked by.
fn matter(seen: Seen) -> Problem {
    pass(&spec(""), &switching(Phase::Settling), &seen).problem.unwrap()
}

#[rstest]
#[case::a_report_is_older(
    seen().acked(0).lags("web.shop", "last seen 5.1 s ago"),
    seen().acked(0).lags("web.shop", "last seen 7.3 s ago"),
    true
)]
#[case::more_acked(
    seen().proxies(3).acked(1).lags("web.shop", "behind"),
    seen().proxies(3).acked(2).lags("web.shop", "behind"),
    true
)]
#[case::another_proxy(seen().acked(0).lags("web.shop", "behind"), seen().acked(0).lags("cart.shop", "behind"), false)]
#[case::another_rate(seen().busy(0).unmanaged("v1-a", "x", 3), seen().busy(0).unmanaged("v1-a", "x", 4), true)]
#[case::another_caller(seen().busy(0).unmanaged("v1-a", "x", 3), seen().busy(0).unmanaged("v1-a", "y", 3), false)]
#[case::another_reason(seen().acked(0).lags("web.shop", "behind"), seen().quiet_unknown(), false)]
#[case::another_end(seen().exited("v2"), seen().exited_with("v2", "exit status: 2"), false)]
fn numbers_make_no_other_matter_of_a_problem(#[case] one: Seen, #[case] other: Seen, #[case] same: bool) {
    assert_eq!(matter(one).is_matter_of(&matter(other)), same);
}
