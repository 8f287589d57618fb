//! Whether a version is started anew or stopped by request, what that takes, and that it is done once.

use machine::history::Happening;
use machine::observation::VersionState;
use machine::order::{Order, Verb};
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;

use crate::fixtures::*;

const MANUAL: &str = "promotion: {mode: Manual}";

fn order(verb: Verb, version: &str, force: bool) -> Order {
    Order { id: "1".to_owned(), verb, version: version.to_owned(), force, started: None }
}

fn answered(status: &Status, seen: Seen, order: Order) -> Status {
    next(MANUAL, status, &seen.ordered(order))
}

fn refused(status: &Status) -> &str {
    status.answered_order("1").unwrap().refused.as_deref().unwrap_or_default()
}

/// Nothing is open on v1 and v2, and all proxies say so.
fn idle() -> Seen {
    seen().open("v1", 0).open("v2", 0)
}

/// T19
#[rstest]
#[case::serves(Phase::Stable, "v2", idle(), "v2 serves")]
#[case::serves_before_the_flip(Phase::AwaitingPromotion, "v1", idle(), "v1 serves")]
#[case::serves_after_the_flip(Phase::Switching, "v2", idle(), "v2 serves")]
#[case::waits(Phase::Coexisting, "v2", seen(), "")]
#[case::waits_for_a_person(Phase::AwaitingPromotion, "v2", idle(), "")]
#[case::somebody_looks_at_it(Phase::AwaitingPromotion, "v2", idle().open("v2", 2), "2 requests are open on v2")]
#[case::was_just_left(Phase::Switching, "v1", idle(), "may still reach v1")]
#[case::gets_quiet(Phase::Settling, "v1", idle(), "may still reach v1")]
#[case::stays_for_a_rollback(Phase::Retaining, "v1", idle(), "")]
#[case::stays_and_is_not_known(Phase::Retaining, "v1", seen(), "not known whether requests are open on v1")]
#[case::goes(Phase::Removing, "v1", idle(), "is being removed")]
#[case::rests(Phase::Stable, "v1", idle(), "")]
#[case::rests_and_does_not_run(Phase::Stable, "v1", seen().not_running("v1"), "")]
#[case::serves_and_does_not_run(Phase::Stable, "v2", seen().not_running("v2"), "")]
#[case::is_not_there(Phase::Stable, "v9", seen(), "there is no version v9 here; there is: v1, v2")]
#[case::is_not_declared(Phase::Stable, "v1", idle().undeclared_and_runs("v1"), "does not say any more how v1")]
fn a_version_is_started_anew_where_nothing_is_lost(
    #[case] phase: Phase,
    #[case] version: &str,
    #[case] seen: Seen,
    #[case] says: &str,
) {
    let before = switching(phase);
    let after = answered(&before, seen.clone(), order(Verb::Restart, version, false));
    assert!(refused(&after).contains(says) && refused(&after).is_empty() == says.is_empty(), "{}", refused(&after));
    assert_eq!(after.restarts.contains_key(version), says.is_empty());
    assert_eq!(after.phase, before.phase);
    // What is lost by it is for a person to say; what cannot be done is not done.
    let forced = answered(&before, seen, order(Verb::Restart, version, true));
    let in_vain = ["being removed", "no version", "not say any more"].iter().any(|why| says.contains(why));
    assert_eq!(refused(&forced).is_empty(), !in_vain, "{}", refused(&forced));
}

/// T19
#[rstest]
#[case::serves(Phase::Stable, "v2", "v2 serves")]
#[case::serves_before_the_flip(Phase::Coexisting, "v1", "v1 serves")]
#[case::waits(Phase::AwaitingPromotion, "v2", "`abort` gives that up")]
#[case::was_just_left(Phase::Switching, "v1", "kept until it is proved")]
#[case::gets_quiet(Phase::Settling, "v1", "kept until it is proved")]
#[case::stays_for_a_rollback(Phase::Retaining, "v1", "")]
#[case::goes(Phase::Removing, "v1", "being removed already")]
#[case::rests(Phase::Stable, "v1", "")]
#[case::is_not_there(Phase::Stable, "v9", "there is no version v9")]
fn a_version_is_stopped_where_nothing_needs_it(#[case] phase: Phase, #[case] version: &str, #[case] says: &str) {
    let before = switching(phase);
    let after = answered(&before, idle(), order(Verb::Stop, version, false));
    assert!(refused(&after).contains(says) && refused(&after).is_empty() == says.is_empty(), "{}", refused(&after));
    assert!(after.halted.is_empty(), "what is not forced goes by the proof");
    let forced = answered(&before, idle(), order(Verb::Stop, version, true));
    assert_eq!(forced.halted.contains(version), version != "v9", "{}", refused(&forced));
}

/// What waits for the end of a switch says so.
#[test]
fn a_version_of_before_is_removed_after_the_switch() {
    let mut before = switching(Phase::Settling);
    before.leftovers.insert("v0".to_owned());
    let mut seen = idle();
    seen.0.versions.insert("v0".to_owned(), VersionState { declared: true, running: true, ..VersionState::default() });
    let after = answered(&before, seen, order(Verb::Stop, "v0", false));
    assert!(refused(&after).contains("after the switch under way"), "{}", refused(&after));
}

/// T19: it is not stopped at once, but goes the way of every removal: the proof is asked for.
#[test]
fn what_is_stopped_by_request_is_stopped_on_the_proof() {
    let kept = with_switch(switching(Phase::Retaining), |switch| switch.retain_until = Some(UnixMs(NOW + 60_000)));
    let after = answered(&kept, idle(), order(Verb::Stop, "v1", false));
    assert_eq!(after.switch.as_ref().unwrap().retain_until, Some(UnixMs(NOW)));
    assert_eq!(next("", &after, &idle()).phase, Phase::Removing);
    assert_eq!(next("", &after, &idle().busy(1)).phase, Phase::Settling, "a request is open");
    let left = answered(&switching(Phase::Stable), idle(), order(Verb::Stop, "v1", false));
    let removal = next("", &left, &idle());
    assert_eq!(
        (removal.phase, removal.switch.map(|one| (one.from, one.removal))),
        (Phase::Settling, Some(("v1".to_owned(), true)))
    );
    let suspended = Status { suspended: true, ..switching(Phase::Stable) };
    assert!(refused(&answered(&suspended, idle(), order(Verb::Stop, "v1", false))).contains("resume it first"));
}

/// T19: whatever runs and was started before is stopped, and what does not run is started; what was started since is
/// left alone.
#[test]
fn a_restart_is_done_once_wherever_the_controller_dies() {
    let starts = || seen().not_ready("v2");
    let asked = order(Verb::Restart, "v2", false);
    let after = answered(&switching(Phase::Coexisting), starts().started("v2", NOW - 9), asked.clone());
    assert_eq!(after.switch.as_ref().unwrap().headroom_at, Some(UnixMs(NOW)), "it has as long again to get ready");
    assert_eq!(answered(&after, starts().started("v2", NOW - 9), asked).orders, after.orders, "one id is one order");
    let effects = |seen: Seen| words(&pass(&spec(MANUAL), &after, &seen).effects);
    let old = effects(starts().started("v2", NOW - 9));
    assert!(old.ends_with(", stop v2"), "{old}");
    let adopted = effects(starts());
    assert!(adopted.ends_with(", stop v2"), "{adopted}");
    let stopping = effects(seen().stopping("v2", &[]));
    assert!(!stopping.contains("stop v2"), "{stopping}");
    let gone = effects(seen().not_running("v2"));
    assert!(gone.contains("start v2") && !gone.contains("stop"), "{gone}");
    let done = next(MANUAL, &after, &starts().started("v2", NOW));
    assert!(done.restarts.is_empty());
    assert_eq!(done.history.last().map(|one| one.event), Some(Happening::Restarted), "{:?}", done.history);
    let in_vain = next(MANUAL, &after, &starts().undeclared_and_runs("v2"));
    assert!(in_vain.restarts.is_empty());
    assert_eq!(in_vain.history.last().map(|one| one.event), Some(Happening::NotStarted), "{:?}", in_vain.history);
}

/// T19: two people ask for the same.
#[test]
fn an_order_of_two_people_is_done_once() {
    let seen = || seen().not_ready("v2").started("v2", NOW - 9);
    let first = answered(&switching(Phase::Coexisting), seen(), order(Verb::Restart, "v2", false));
    let another = |started| Order { id: "2".to_owned(), started, ..order(Verb::Restart, "v2", true) };
    let refused = |status: &Status, seen: Seen, order: Order| {
        let after = answered(status, seen, order);
        after.answered_order("2").unwrap().refused.clone().unwrap_or_default()
    };
    let twice = refused(&first, seen(), another(None));
    assert!(twice.contains("is being started anew already"), "{twice}");
    let done = Status { restarts: [].into(), ..first };
    let late = refused(&done, seen().started("v2", NOW), another(Some(UnixMs(NOW - 9))));
    assert!(late.contains("was started anew since it was looked at"), "{late}");
    assert_eq!(refused(&done, seen().started("v2", NOW), another(Some(UnixMs(NOW)))), "");
    let halted = Status { halted: names(&["v2"]), ..done };
    let stopped = refused(&halted, seen(), Order { id: "2".to_owned(), ..order(Verb::Stop, "v2", true) });
    assert!(stopped.contains("is stopped already"), "{stopped}");
}

/// T19: it stays stopped until a switch goes to it, or somebody asks for it.
#[test]
fn what_was_stopped_by_request_stays_stopped() {
    let status = |active: &str| {
        let status =
            Status { halted: names(&["v1", "v2"]), switch: None, target_version: None, ..switching(Phase::Stable) };
        Status { active_version: active.to_owned(), ..status }
    };
    let rests = |status: &Status, seen: &Seen| {
        let first = next("", status, seen);
        (
            first.blocked.clone().map(|one| one.message).unwrap_or_default(),
            words(&pass(&spec(""), &first, seen).effects),
        )
    };
    let (waits, effects) = rests(&status("v2"), &seen().not_running("v2").not_running("v1"));
    assert!(waits.contains("v2 is active and was stopped by request"), "{waits}");
    assert!(!effects.contains("start"), "{effects}");
    let (_, effects) = rests(&status("v2"), &seen());
    assert!(effects.contains("stop v1, stop v2") && !effects.contains("start"), "{effects}");
    let switches = next("", &status("v1"), &seen().not_running("v2"));
    assert_eq!((switches.phase, switches.halted), (Phase::Coexisting, names(&["v1"])));
    let asked = answered(&status("v2"), seen().not_running("v2"), order(Verb::Restart, "v2", false));
    assert_eq!((&asked.halted, asked.restarts.len()), (&names(&["v1"]), 1));
    let started =
        words(&pass(&spec(""), &next("", &asked, &seen().not_running("v2")), &seen().not_running("v2")).effects);
    assert!(started.starts_with("start v2, "), "{started}");
}
