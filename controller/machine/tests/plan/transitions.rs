//! What a switch becomes when it begins, is taken back or given up: what is kept of it, and what is done by itself.

use machine::action::Action;
use machine::checks::Verdict;
use machine::history::Happening;
use machine::observation::Headroom;
use machine::reason::Reason;
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;

use crate::fixtures::*;

fn asks_for(version: &str, more: &str) -> Spec {
    let mut spec = spec(more);
    version.clone_into(&mut spec.version);
    spec
}

fn refused(status: &Status) -> &str {
    status.last_request.as_ref().and_then(|last| last.refused.as_deref()).unwrap_or_default()
}

fn noted(status: &Status, event: Happening) -> bool {
    status.history.iter().any(|entry| entry.event == event)
}

/// What does not serve is not gone back to at once, whoever asks for it.
#[rstest]
#[case::by_hand("", seen().asked_for(Action::Rollback))]
#[case::by_a_deadline("settle: {timeout: 1s, onTimeout: Rollback}", seen().busy(1))]
fn a_rollback_starts_what_does_not_serve(#[case] more: &str, #[case] seen: Seen) {
    let back = next(more, &switching(Phase::Settling), &seen.not_running("v1"));
    let switch = back.switch.as_ref().unwrap();
    assert_eq!((back.phase, back.active_version.as_str(), switch.to.as_str()), (Phase::Coexisting, "v2", "v1"));
    assert!(switch.rollback && noted(&back, Happening::RolledBack));
}

/// A rollback waits neither for a person nor for `promotion.after`.
#[rstest]
#[case::a_person("promotion: {mode: Manual}")]
#[case::a_while("promotion: {after: 1h}")]
fn a_rollback_is_let_in_by_itself(#[case] more: &str) {
    let waits = with_switch(switching(Phase::AwaitingPromotion), |switch| switch.ready_at = Some(UnixMs(NOW)));
    assert_eq!(next(more, &waits, &seen()).phase, Phase::AwaitingPromotion);
    let back = with_switch(waits, |switch| switch.rollback = true);
    assert_eq!(next(more, &back, &seen()).phase, Phase::ProvingRoutes);
}

/// Or the flag would go back and forth by itself.
#[rstest]
#[case::it_died("onTargetFailure: Rollback", seen().exited("v1"))]
#[case::it_hangs("onTargetFailure: {action: Rollback, after: 0s}", seen().not_ready("v1"))]
#[case::it_does_not_settle("settle: {timeout: 1s, onTimeout: Rollback}", seen().busy(1))]
#[case::a_check_fails("checks: [{name: a, webhook: {url: 'http://a'}}]", seen().checked(Verdict::Failed, NOW))]
fn what_goes_back_is_not_taken_back_by_itself(#[case] more: &str, #[case] seen: Seen) {
    let mut status = going_back(Phase::Settling);
    for _ in 0..3 {
        status = next(more, &status, &seen);
        assert_eq!(status.active_version, "v1");
    }
}

/// No deadline sends requests to, or leaves alone, what does not serve.
#[test]
fn a_target_that_is_not_ready_is_never_waived() {
    let proceed = "settle: {timeout: 1s, onTimeout: Proceed}, switch: {laggards: Proceed}";
    let mut status = switching(Phase::Settling);
    for _ in 0..3 {
        status = next(proceed, &status, &seen().not_ready("v2"));
    }
    assert_eq!((status.phase, blocked(&status)), (Phase::Settling, Some(Reason::TargetNotReady)));
}

/// A leftover serves nobody: what is gone back to is the version before.
#[rstest]
#[case(Phase::Settling)]
#[case(Phase::Removing)]
fn a_rollback_while_a_leftover_is_removed_goes_to_the_version_before(#[case] phase: Phase) {
    let removal = with_switch(switching(phase), |switch| {
        (switch.from, switch.removal) = ("v0".to_owned(), true);
    });
    let status = Status { previous_version: Some("v1".to_owned()), ..removal };
    let back = next("", &status, &seen().not_running("v0").asked_for(Action::Rollback));
    assert_eq!(back.switch.as_ref().map(|switch| switch.to.as_str()), Some("v1"), "{back:#?}");
}

/// What somebody else runs stays when the switch to it is given up.
#[rstest]
#[case::started_for_it(true, &["v2"])]
#[case::it_ran_before(false, &[])]
fn only_what_was_started_for_a_switch_is_stopped_with_it(#[case] ours: bool, #[case] leftovers: &[&str]) {
    let status = with_switch(switching(Phase::Coexisting), |switch| switch.ours = ours);
    let given_up = next("", &status, &seen().asked_for(Action::Abort));
    assert_eq!((given_up.phase, given_up.leftovers), (Phase::Stable, names(leftovers)));
    let stable = Status { active_version: "v1".to_owned(), switch: None, ..switching(Phase::Stable) };
    let ran = |seen: &Seen| next("", &recorded(stable.clone(), NOW - 1, &["v1"]), seen).switch.unwrap().ours;
    assert_eq!((ran(&seen()), ran(&seen().not_running("v2"))), (false, true));
}

#[rstest]
#[case::scaled_to_zero("", &["v1"])]
#[case::retained("cleanup: {policy: Retain}", &[])]
fn what_an_overtaken_switch_has_left_is_removed_later(#[case] more: &str, #[case] leftovers: &[&str]) {
    let spec = asks_for("v3", more);
    let next = pass(&spec, &switching(Phase::Settling), &seen().not_running("v3")).status;
    assert_eq!((next.target_version.as_deref(), next.leftovers), (Some("v3"), names(leftovers)));
}

#[test]
fn a_switch_waits_as_long_as_its_promotion_says() {
    let ready_at =
        |ago: u64| with_switch(switching(Phase::AwaitingPromotion), |one| one.ready_at = Some(UnixMs(NOW - ago)));
    let after = "promotion: {after: 5s}";
    assert_eq!(next(after, &ready_at(4_999), &seen()).phase, Phase::AwaitingPromotion);
    assert_eq!(next(after, &ready_at(5_000), &seen()).phase, Phase::ProvingRoutes);
}

/// A target that was lost has all its time again, and has to be ready for as long again.
#[test]
fn a_lost_target_is_waited_for_anew() {
    let status = with_switch(switching(Phase::AwaitingPromotion), |switch| switch.ready_at = Some(UnixMs(LONG_AGO)));
    let lost = next("", &status, &seen().not_ready("v2"));
    let switch = lost.switch.unwrap();
    assert_eq!((switch.ready_at, switch.headroom_at), (None, Some(UnixMs(NOW))));
    let again = with_switch(status, |switch| switch.ready_at = Some(UnixMs(NOW - 500)));
    let mut seen = seen();
    seen.0.versions.insert("v2".to_owned(), ready(NOW - 300));
    let broken = next("", &again, &seen);
    assert_eq!(broken.phase, Phase::Coexisting, "it was away for a moment that no pass saw");
    assert_eq!(next("", &broken, &seen).phase, Phase::Coexisting);
}

#[rstest]
#[case::promote_too_early(Phase::Coexisting, Action::Promote, "v2 is not ready yet")]
#[case::promote_too_late(Phase::Settling, Action::Promote, "nothing waits for a promotion: the phase is Settling")]
#[case::abort_too_late(Phase::Removing, Action::Abort, "the flag is flipped already: use rollback")]
#[case::rollback_too_early(Phase::Coexisting, Action::Rollback, "nothing has been switched yet: use abort")]
#[case::nothing_before(Phase::Stable, Action::Rollback, "there is no previous version to go back to")]
fn what_is_refused_says_what_to_do(#[case] phase: Phase, #[case] action: Action, #[case] why: &str) {
    let seen = seen().not_ready("v2").asked_for(action);
    assert_eq!(refused(&next("promotion: {mode: Manual}", &switching(phase), &seen)), why);
}

/// A second `abort` while what the first one gave up is stopped.
#[test]
fn an_abort_after_an_abort_says_so() {
    let removes = with_switch(switching(Phase::Settling), |switch| switch.removal = true);
    assert_eq!(refused(&next("", &removes, &seen().asked_for(Action::Abort))), "no switch is under way");
}

/// A rollback to what has to be started first is one in the history, too.
#[test]
fn a_rollback_of_what_is_over_is_remembered() {
    let over = Status { previous_version: Some("v1".to_owned()), switch: None, ..switching(Phase::Stable) };
    let back = next("", &over, &seen().not_running("v1").asked_for(Action::Rollback));
    assert!(noted(&back, Happening::RolledBack), "{:?}", back.history);
}

/// Whoever has suspended a flag may go back all the same: requests move, and nothing is stopped.
#[rstest]
#[case::by_request("", true)]
#[case::by_spec("suspend: true", false)]
fn a_rollback_goes_on_while_suspended(#[case] more: &str, #[case] suspended: bool) {
    let status = Status { suspended, ..switching(Phase::Settling) };
    let back = next(more, &status, &seen().asked_for(Action::Rollback));
    assert_eq!((back.active_version.as_str(), back.phase), ("v1", Phase::Switching));
    assert_eq!(back.record.as_ref().map(|record| record.active.as_str()), Some("v1"));
    let moved = next(more, &back, &seen());
    assert_eq!(moved.phase, Phase::Settling);
    let rests = next(more, &moved, &seen());
    assert_eq!((rests.phase, blocked(&rests)), (Phase::Settling, Some(Reason::Suspended)));
    // Nothing else is granted.
    assert!(refused(&next(more, &status, &seen().asked_for(Action::Retry))).contains("suspended"));
}

/// What was deleted in Removing is gone, and no rollback asks for it.
#[test]
fn what_was_deleted_is_not_gone_back_to() {
    let seen = seen().undeclared("v1").asked_for(Action::Rollback);
    let refused_by = next("cleanup: {policy: Delete}", &switching(Phase::Removing), &seen);
    assert_eq!(refused(&refused_by), "the previous version, v1, can no longer be started: it is not declared");
}

#[rstest]
#[case::undeclared(Some("v0"), "the previous version, v0, can no longer be started: it is not declared")]
#[case::the_active_one(Some("v2"), "there is no previous version to go back to")]
fn a_rollback_needs_something_to_go_back_to(#[case] previous: Option<&str>, #[case] why: &str) {
    let status = Status { previous_version: previous.map(str::to_owned), ..switching(Phase::Stable) };
    assert_eq!(refused(&next("", &status, &seen().asked_for(Action::Rollback))), why);
}

/// What was decided against the wish of a careful operator is in the history.
#[test]
fn what_was_gone_past_is_noted() {
    let warn = "coexistence: {headroom: Warn}";
    let short = Headroom::Short { message: "no room".to_owned() };
    let starts = with_switch(switching(Phase::Coexisting), |switch| switch.headroom_at = None);
    assert!(noted(&next(warn, &starts, &seen().headroom(short)), Happening::HeadroomShort));
    let without = "switch: {ackTimeout: 1s, laggards: Proceed}";
    for phase in [Phase::Switching, Phase::ProvingRoutes] {
        let status = Status { phase_since: UnixMs(LONG_AGO), ..switching(phase) };
        assert!(noted(&next(without, &status, &seen().acked(0).lags("edge", "epoch 8")), Happening::WithoutAcks));
    }
}

/// The check that asks for the rollback comes before the one that only pauses.
#[test]
fn the_check_that_rolls_back_comes_first() {
    let checks =
        "checks: [{name: a, onFail: Pause, webhook: {url: 'http://a'}}, {name: b, webhook: {url: 'http://b'}}]";
    let mut seen = seen().checked(Verdict::Failed, NOW);
    let failed = seen.0.checks.get("a").cloned().unwrap();
    seen.0.checks.insert("b".to_owned(), failed);
    assert_eq!(next(checks, &switching(Phase::Settling), &seen).active_version, "v1");
}

#[test]
fn what_a_flip_leaves_is_remembered() {
    let flipped = next("", &switching(Phase::ProvingRoutes), &seen());
    assert_eq!((flipped.active_version.as_str(), flipped.previous_version.as_deref()), ("v2", Some("v1")));
    let acked = next("", &switching(Phase::Switching), &seen());
    assert_eq!(acked.switch.as_ref().and_then(|switch| switch.acked_epoch), Some(acked.epoch()));
    let settled = next("", &switching(Phase::Settling), &seen());
    assert_eq!(settled.switch.and_then(|switch| switch.settled_at), Some(UnixMs(NOW)));
}

// C26
#[test]
fn what_belongs_to_the_version_that_is_left_is_remembered() {
    let mut seen = seen();
    for version in ["v1", "v2"] {
        let workloads = names(&[&format!("Deployment/reviews-{version} uid")]);
        seen.0.versions.entry(version.to_owned()).or_default().workloads = workloads;
    }
    let left = |status: &Status| status.left().map(|left| (left.version.to_owned(), left.workloads.clone()));
    let of = |version: &str| Some((version.to_owned(), names(&[&format!("Deployment/reviews-{version} uid")])));
    let flipped = next("", &switching(Phase::ProvingRoutes), &seen);
    assert_eq!((flipped.phase, left(&flipped)), (Phase::Switching, of("v1")));
    // Whatever is there later.
    seen.0.versions.entry("v1".to_owned()).or_default().workloads = names(&["Deployment/other uid"]);
    for phase in [Phase::Settling, Phase::Retaining, Phase::Removing] {
        let status = Status { switch: flipped.switch.clone(), ..switching(phase) };
        assert_eq!(left(&next("", &status, &seen)), of("v1"), "{phase:?}");
        assert_eq!(left(&Status { phase: Phase::Stable, ..status }), None);
    }
    let back = next("", &Status { phase: Phase::Settling, ..flipped }, &seen.asked_for(Action::Rollback));
    assert_eq!(left(&back), of("v2"));
}

/// A removal has nothing to bake, and nothing is measured for it.
#[test]
fn a_removal_does_not_bake() {
    let removal = with_switch(switching(Phase::Settling), |switch| switch.removal = true);
    assert_eq!(next("settle: {bake: 2m}", &removal, &seen()).phase, Phase::Removing);
}

/// While nothing may move, no new record is written either.
#[test]
fn a_suspended_flag_writes_no_record() {
    let ahead = seen().reported(NOW + 5);
    assert_eq!(next("suspend: true", &switching(Phase::Settling), &ahead).epoch(), NOW - 1);
    assert_eq!(next("", &switching(Phase::Settling), &ahead.busy(1)).epoch(), NOW + 6);
}

/// One request stands in the annotation, others come through the flag service. Each is answered once.
#[test]
fn a_request_is_answered_once_whatever_was_asked_since() {
    let ask = |status: &Status, id: &str, action: Action| {
        let mut asked = seen().asked_for(action);
        asked.0.request = asked.0.request.map(|request| machine::action::Request { id: id.to_owned(), ..request });
        next("", status, &asked)
    };
    let suspended = ask(&switching(Phase::Settling), "by-annotation", Action::Suspend);
    let resumed = ask(&suspended, "elsewhere", Action::Resume);
    assert!(suspended.suspended && !resumed.suspended);
    // The annotation is still there.
    let again = ask(&resumed, "by-annotation", Action::Suspend);
    assert!(!again.suspended);
    assert_eq!(again.last_request, resumed.last_request);
    // As many as are remembered.
    let many = (0..20).fold(again, |status, one| ask(&status, &format!("more-{one}"), Action::Promote));
    assert!(many.answered.len() <= 8 && many.has_answered("more-12") && !many.has_answered("by-annotation"));
}
