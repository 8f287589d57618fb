//! The fence of a switch: what it waits for before it holds, the proof at each of its steps, and what gives it up.

use flag::fence::{Expiry, Fence};
use flag::record::Gate;
use machine::action::Action;
use machine::history::Happening;
use machine::observation::Observation;
use machine::plan::{Effect, Pass, Plan, plan};
use machine::reason::Reason;
use machine::status::{Override, Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;

use crate::fixtures::*;

const FENCED: &str = "switch: {mode: Fenced}";

fn at(now: u64, more: &str, status: &Status, seen: &Observation) -> Plan {
    plan(Pass { now: UnixMs(now), spec: &spec(more), seen }, status)
}

fn gate(status: &Status) -> (Gate, &str) {
    let record = status.record.as_ref().unwrap();
    (record.gate, record.active.as_str())
}

fn noted(status: &Status, event: Happening) -> Option<&str> {
    status.history.iter().rev().find(|entry| entry.event == event).map(|entry| entry.message.as_str())
}

/// Everybody can hold, and has looked for long enough.
fn able() -> Seen {
    seen().fence(|_| ())
}

#[test]
fn a_fenced_switch_holds_commits_and_opens() {
    let holding = next(FENCED, &switching(Phase::ProvingRoutes), &able());
    assert_eq!((holding.phase, gate(&holding)), (Phase::Holding, (Gate::Hold, "v1")));
    let fence = holding.switch.as_ref().unwrap().fence.clone().unwrap();
    assert_eq!((fence.attempts, fence.held_at, fence.since), (1, Some(UnixMs(NOW)), holding.epoch()));
    assert_eq!(holding.active_version, "v1");
    assert!(noted(&holding, Happening::Held).unwrap().contains("attempt 1 of 5"), "{:?}", holding.history);

    let committing = next(FENCED, &holding, &able().drained(7));
    assert_eq!((committing.phase, gate(&committing)), (Phase::Committing, (Gate::Hold, "v2")));
    assert_eq!((committing.active_version.as_str(), committing.previous_version.as_deref()), ("v2", None));
    assert_eq!(committing.switch.as_ref().unwrap().fence.as_ref().unwrap().since, holding.epoch(), "the same hold");
    assert!(committing.epoch() > holding.epoch());

    let open = next(FENCED, &committing, &able().drained(9));
    assert_eq!((open.phase, gate(&open)), (Phase::Switching, (Gate::Open, "v2")));
    assert_eq!(open.previous_version.as_deref(), Some("v1"));
    let fence = open.switch.as_ref().unwrap().fence.clone().unwrap();
    assert_eq!((fence.most_waiting, fence.opened_at, fence.aborted), (9, Some(UnixMs(NOW)), None));
    assert!(noted(&open, Happening::Committed).is_some() && noted(&open, Happening::Flipped).is_some());
    // A plan that changes the status has no effects: nothing is sent that was not written.
    assert_eq!(at(NOW, FENCED, &committing, &able().drained(9)).effects, vec![]);
}

#[rstest]
#[case::nothing_is_shown(seen(), "", Some(Reason::FenceUnable))]
#[case::an_older_filter(able().fence(|one| one.unable.push(laggard("edge", "old"))), "", Some(Reason::FenceUnable))]
#[case::a_long_stream(able().fence(|one| one.long.push(laggard("edge", "12 s"))), "", Some(Reason::LongStreams))]
#[case::not_looked_for_long(able().fence(|one| one.unwatched.push(laggard("edge", "1"))), "", Some(Reason::FenceUnable))]
#[case::another_one_holds(able().other_fence("shop/ratings"), "", Some(Reason::FenceTurn))]
#[case::an_ack_is_missing(able().acked(0).lags("edge", "epoch 8"), "", Some(Reason::Laggards))]
#[case::whoever_proceeds_does_not(
    able().acked(0).lags("edge", "epoch 8"),
    ", ackTimeout: 1s, laggards: Proceed",
    Some(Reason::Laggards)
)]
#[case::nobody_knows_who_stands_beside(able(), ", fence: {inbound: Required}", Some(Reason::NoInbound))]
#[case::one_stands_alone(
    able().beside("v1", &[]).beside("v2", &["reviews-v2-a"]),
    ", fence: {inbound: Required}",
    Some(Reason::NoInbound)
)]
#[case::all_have_one(able().beside("v1", &[]).beside("v2", &[]), ", fence: {inbound: Required}", None)]
#[case::all_is_there(able(), "", None)]
fn nothing_is_held_before_all_can_be(#[case] seen: Seen, #[case] more: &str, #[case] reason: Option<Reason>) {
    let status = Status { phase_since: UnixMs(LONG_AGO), ..switching(Phase::ProvingRoutes) };
    let after = next(&format!("switch: {{mode: Fenced{more}}}"), &status, &seen);
    assert_eq!(blocked(&after), reason, "{after:#?}");
    assert_eq!(after.phase, if reason.is_some() { Phase::ProvingRoutes } else { Phase::Holding });
}

#[test]
fn whoever_is_about_to_end_holds_nothing() {
    let after = at(NOW, FENCED, &switching(Phase::ProvingRoutes), &able().leaving());
    assert_eq!((after.status.phase, after.waiting.as_str()), (Phase::ProvingRoutes, "this controller ends"));
}

/// Holds run out while the last decision is written. Nobody has heard of it, and nobody does.
#[rstest]
#[case::in_time(1_749, able().given_out(Some(Gate::Hold)), false)]
#[case::too_late(1_750, able().given_out(Some(Gate::Hold)), true)]
#[case::the_clock_was_set_back(0, able().given_out(Some(Gate::Hold)), true)]
#[case::all_have_heard_of_it(1_750, able().given_out(Some(Gate::Open)), false)]
#[case::it_began_again(1_750, able().given_out(None), false)]
#[case::another_one_may_have_said_it(1_750, able().given_out(Some(Gate::Hold)).led_since(7), false)]
fn an_end_of_a_fence_that_took_too_long_to_write_is_taken_back(
    #[case] after: u64,
    #[case] seen: Seen,
    #[case] taken_back: bool,
) {
    let open = next(FENCED, &switching(Phase::Committing), &able().drained(1));
    assert_eq!((open.phase, gate(&open)), (Phase::Switching, (Gate::Open, "v2")));
    let seen = seen.acked(0).lags("edge", "epoch 8");
    let now = if after == 0 { NOW - 101 } else { NOW - 100 + after };
    let late = at(now, FENCED, &open, &seen).status;
    if !taken_back {
        assert_eq!((late.phase, gate(&late)), (Phase::Switching, (Gate::Open, "v2")));
        return;
    }
    assert_eq!((late.phase, gate(&late)), (Phase::Holding, (Gate::Hold, "v1")));
    assert!(late.epoch() > open.epoch());
    let switch = late.switch.as_ref().unwrap();
    assert_eq!((switch.flipped_at, switch.fence.as_ref().unwrap().opened_at), (None, None));
    assert!(noted(&late, Happening::Aborted).unwrap().contains("to be written"), "{:?}", late.history);
    let back = at(now + 1, FENCED, &late, &able()).status;
    assert_eq!((back.phase, gate(&back)), (Phase::ProvingRoutes, (Gate::Open, "v1")));
}

/// Neither without the proof, nor by it when there is no time left.
#[rstest]
#[case::holding(Phase::Holding, 999, Phase::Committing)]
#[case::holding_too_late(Phase::Holding, 1_000, Phase::ProvingRoutes)]
#[case::committing(Phase::Committing, 1_499, Phase::Switching)]
#[case::committing_too_late(Phase::Committing, 1_500, Phase::Holding)]
fn a_decision_is_in_time_or_not_at_all(#[case] from: Phase, #[case] after: u64, #[case] to: Phase) {
    let status = switching(from);
    let now = NOW - 100 + after;
    assert_eq!(at(now, FENCED, &status, &able().drained(1)).status.phase, to);
    let waits = at(now, FENCED, &status, &able());
    let moved = if matches!(to, Phase::Committing | Phase::Switching) { from } else { to };
    assert_eq!(waits.status.phase, moved);
    if moved == from {
        assert_eq!(waits.requeue.map(|wait| wait.0), Some(1), "it looks again when the time is over");
        assert!(waits.waiting.starts_with("v1 has to"), "{}", waits.waiting);
    }
}

#[rstest]
#[case::an_ack_is_missing(able().drained(1).acked(0).lags("edge", "epoch 8"))]
#[case::nobody_shows_it(seen())]
#[case::not_drained(able())]
fn without_the_proof_it_waits(#[case] seen: Seen, #[values(Phase::Holding, Phase::Committing)] phase: Phase) {
    assert_eq!(next(FENCED, &switching(phase), &seen).phase, phase);
}

#[test]
fn what_is_not_reached_is_not_committed_to() {
    let seen = able().drained(1).unreached("edge", "one of its workers does not answer", false);
    assert_eq!(next(FENCED, &switching(Phase::Holding), &seen).phase, Phase::Holding);
}

/// Whatever gives a hold up, at each step of it.
#[rstest]
#[case::it_ran_out(able().drained(1).fence(|one| one.expired.push(laggard("edge", "ran out"))), "", "a hold has run out")]
#[case::no_route(able().drained(1).fence(|one| one.routeless.push(laggard("edge", "lists v1"))), "", "would not reach v2: edge")]
#[case::another_leader(able().drained(1).led_since(7), "", "another one leads")]
#[case::it_ends(able().drained(1).leaving(), "", "this controller ends")]
#[case::target_lost(able().drained(1).not_ready("v2"), "", "v2 is not ready any more")]
#[case::not_reached(able().drained(1).unreached("edge", "status 503", true), "", "v2 is not reached everywhere: edge")]
#[case::suspended(able().drained(1), "suspend: true, ", "the flag is suspended")]
#[case::not_fenced(able().drained(1), "promotion: {mode: Automatic}, settle: {bake: 0s}", "not to be fenced any more")]
#[case::the_cluster(able().drained(1).problem(Reason::WatchStale), "", "a sentence on the cluster")]
fn a_hold_is_given_up(
    #[case] seen: Seen,
    #[case] more: &str,
    #[case] why: &str,
    #[values(Phase::Holding, Phase::Committing)] phase: Phase,
) {
    let spec = if more.contains("settle") { more.to_owned() } else { format!("{more}{FENCED}") };
    let after = next(&spec, &switching(phase), &seen);
    let fence = after.switch.as_ref().unwrap().fence.clone().unwrap();
    assert!(fence.aborted.as_ref().unwrap().contains(why), "{fence:?}");
    assert!(noted(&after, Happening::Aborted).unwrap().contains(why));
    assert_eq!((fence.retry_at, fence.committed_at), (Some(UnixMs(NOW + 1_000)), None));
    assert_eq!(after.active_version, "v1");
    if phase == Phase::Holding {
        assert_eq!((after.phase, gate(&after)), (Phase::ProvingRoutes, (Gate::Open, "v1")));
        assert_eq!((fence.since, fence.held_at, fence.held_ms), (0, None, Some(100)));
    } else {
        // What is beside v1 refuses all: it takes requests again before any goes there.
        assert_eq!((after.phase, gate(&after)), (Phase::Holding, (Gate::Hold, "v1")));
        assert_eq!(fence.since, NOW - 2, "no hold is longer by it");
        let waits = next(&spec, &after, &able().acked(0).lags("v1", "epoch 8"));
        assert_eq!((waits.phase, gate(&waits)), (Phase::Holding, (Gate::Hold, "v1")));
        let opens = next(&spec, &after, &able());
        assert_eq!((opens.phase, gate(&opens)), (Phase::ProvingRoutes, (Gate::Open, "v1")));
        let over = at(NOW + 1_900, &spec, &after, &able().acked(0).lags("v1", "epoch 8")).status;
        assert_eq!((over.phase, gate(&over)), (Phase::ProvingRoutes, (Gate::Open, "v1")));
    }
}

/// A drained old version is not committed from once it is going back.
#[test]
fn what_goes_back_goes_back() {
    let back = next(FENCED, &switching(Phase::Committing), &able().led_since(7));
    assert_eq!(next(FENCED, &back, &able().drained(3).led_since(7)).phase, Phase::ProvingRoutes);
    assert_eq!(next(FENCED, &back, &able().drained(3).acked(0)).phase, Phase::Holding);
}

#[rstest]
#[case(Action::Abort)]
#[case(Action::Rollback)]
fn people_end_a_hold(#[case] action: Action, #[values(Phase::Holding, Phase::Committing)] phase: Phase) {
    let mut status = next(FENCED, &switching(phase), &able().drained(3).asked_for(action));
    assert_eq!(status.last_request.as_ref().unwrap().refused, None);
    for _ in 0..4 {
        status = next(FENCED, &status, &able());
    }
    // What was started for it is removed again.
    let over = status.phase == Phase::Stable || status.switch.as_ref().is_some_and(|switch| switch.removal);
    assert!(over && gate(&status) == (Gate::Open, "v1"), "{status:#?}");
    assert_eq!(status.r#override.as_ref().map(|held| held.version.as_str()), Some("v1"));
}

#[test]
fn another_version_ends_a_hold() {
    for phase in [Phase::Holding, Phase::Committing] {
        let mut other = spec(FENCED);
        "v3".clone_into(&mut other.version);
        let mut status = switching(phase);
        for _ in 0..4 {
            status = pass(&other, &status, &able().drained(3).not_running("v3")).status;
            assert!(status.active_version == "v1" || status.phase.holds());
        }
        assert_eq!(status.active_version, "v1");
        assert!(matches!(status.phase, Phase::Stable | Phase::Coexisting), "{status:#?}");
    }
}

/// A clock that is set back says nothing of how much time is left.
#[test]
fn a_clock_that_is_set_back_gives_it_up() {
    for phase in [Phase::Holding, Phase::Committing] {
        let after = at(NOW - 101, FENCED, &switching(phase), &able().drained(1)).status;
        assert_eq!(after.active_version, "v1");
    }
}

#[test]
fn it_is_tried_again_later_and_later_and_no_more_often_than_asked_for() {
    let given_up = |attempts: u32| {
        let status = with_switch(switching(Phase::Holding), |switch| {
            switch.fence.as_mut().unwrap().attempts = attempts;
        });
        next(FENCED, &status, &able().led_since(7))
    };
    let waits: Vec<u64> = [1, 2, 3, 4, 7, 90]
        .map(|attempts| given_up(attempts).switch.unwrap().fence.unwrap().retry_at.unwrap().0 - NOW)
        .into();
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 60_000, 60_000]);
    let third = given_up(3);
    assert_eq!(at(NOW + 3_999, FENCED, &third, &able()).status.phase, Phase::ProvingRoutes);
    let again = at(NOW + 4_000, FENCED, &third, &able()).status;
    let fence = again.switch.as_ref().unwrap().fence.clone().unwrap();
    assert_eq!((again.phase, fence.attempts, fence.since), (Phase::Holding, 4, again.epoch()));

    let last = given_up(5);
    let ended = at(NOW + 3_600_000, FENCED, &last, &able()).status;
    assert_eq!((ended.phase, blocked(&ended)), (Phase::ProvingRoutes, Some(Reason::FenceAborted)));
    let back = with_switch(ended.clone(), |switch| switch.rollback = true);
    let held = Override {
        version: "v2".to_owned(),
        for_spec_version: "v2".to_owned(),
        reason: "rolled back by request".to_owned(),
        at: UnixMs(LONG_AGO),
    };
    // A way back is tried again, too, and not given up.
    let back = Status { r#override: Some(held), ..back };
    for (action, ended) in [(Action::Retry, &ended), (Action::Promote, &ended), (Action::Retry, &back)] {
        let again = next(FENCED, ended, &able().asked_for(action));
        assert_eq!(again.r#override, ended.r#override, "{action:?}");
        assert_eq!(next(FENCED, &again, &able()).phase, Phase::Holding, "{action:?}");
    }
}

/// A rollback is fenced, too; but not where what it leaves serves nobody.
#[test]
fn a_rollback_is_fenced_unless_requests_fail_anyway() {
    let settling = switching(Phase::Settling);
    let back = next(FENCED, &settling, &able().asked_for(Action::Rollback));
    assert_eq!((back.phase, gate(&back)), (Phase::ProvingRoutes, (Gate::Open, "v2")));
    assert_eq!(next(FENCED, &back, &able()).phase, Phase::Holding);
    // It fails while that waits: it is gone back at once.
    let fails = next(FENCED, &back, &seen().acked(0).not_ready("v2"));
    assert_eq!((fails.phase, gate(&fails)), (Phase::Switching, (Gate::Open, "v1")));

    let failed = next(FENCED, &settling, &able().not_ready("v2").asked_for(Action::Rollback));
    assert_eq!((failed.phase, gate(&failed)), (Phase::Switching, (Gate::Open, "v1")));
    let ended = next(&format!("{FENCED}, onTargetFailure: Rollback"), &settling, &able().exited("v2"));
    assert_eq!((ended.phase, gate(&ended)), (Phase::Switching, (Gate::Open, "v1")));
    assert_eq!(published(FENCED, &failed, &able().acked(0)), None, "requests may still come to v2");
}

/// Another version is asked for: what the switch before would have removed is removed after all.
#[test]
fn a_way_back_that_is_given_up_leaves_no_version_behind() {
    let mut third = spec(FENCED);
    "v3".clone_into(&mut third.version);
    let mut status = next(FENCED, &switching(Phase::Settling), &able().asked_for(Action::Rollback));
    for _ in 0..2 {
        status = pass(&third, &status, &able().not_running("v3")).status;
    }
    assert!(status.leftovers.contains("v1") && status.active_version == "v2", "{status:#?}");
}

/// What a status has proxies hold back and refuse.
fn published(more: &str, status: &Status, seen: &Seen) -> Option<Fence> {
    let plan = pass(&spec(more), status, seen);
    let found = plan.effects.into_iter().find_map(|effect| match effect {
        Effect::Publish(published) => Some(*published),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{:#?}", plan.status)).fence
}

#[rstest]
#[case::awaiting(Phase::AwaitingPromotion, 0, &["v2"], &[])]
#[case::proving(Phase::ProvingRoutes, 0, &["v2"], &[])]
#[case::holding(Phase::Holding, NOW - 2, &["v1", "v2"], &[])]
#[case::committing(Phase::Committing, NOW - 2, &["v2"], &["v1"])]
#[case::open(Phase::Switching, 0, &[], &["v1"])]
#[case::settling(Phase::Settling, 0, &[], &["v1"])]
#[case::retaining(Phase::Retaining, 0, &[], &["v1"])]
fn what_is_refused_where(#[case] phase: Phase, #[case] since: u64, #[case] marked: &[&str], #[case] closed: &[&str]) {
    let manual = "promotion: {mode: Manual}, settle: {bake: 1h}, switch: {mode: Fenced, fence: {onExpiry: Reject}}";
    let status = with_switch(switching(phase), |switch| {
        switch.retain_until = Some(UnixMs(NOW + 1));
        if !phase.before_flip() && !phase.holds() {
            switch.fence.get_or_insert_default().opened_at = Some(UnixMs(LONG_AGO));
        }
    });
    let seen = able().acked(0).lags("edge", "epoch 8");
    let first = pass(&spec(manual), &status, &seen).status;
    let fence = published(manual, &first, &seen).unwrap();
    let all = |names: &[&str]| names.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    assert_eq!((fence.since, fence.epoch, fence.old.as_str()), (since, status.epoch(), "v1"));
    assert_eq!((fence.marked.clone(), fence.closed.clone()), (all(marked), all(closed)));
    assert_eq!((fence.max_hold_ms, fence.expiry), (2_000, Expiry::Reject));
    assert!(fence.check().is_ok());
}

/// A caller whose hold ran out, or that started anew, may send to v1 until it has heard that v2 serves. Whatever is asked
/// for meanwhile, v1 refuses.
#[rstest]
fn what_was_left_stays_closed_until_everybody_is_heard(#[values(Phase::Switching, Phase::Settling)] phase: Phase) {
    let open = with_switch(switching(phase), |switch| {
        switch.fence.get_or_insert_default().opened_at = Some(UnixMs(LONG_AGO));
    });
    let heard = next(FENCED, &open, &able().asked_for(Action::Rollback));
    assert!(heard.shut.is_empty() && heard.phase == Phase::ProvingRoutes, "{heard:#?}");
    let unheard = able().acked(0).lags("edge", "epoch 8");
    let mut third = spec(FENCED);
    "v3".clone_into(&mut third.version);
    let back = next(FENCED, &open, &able().acked(0).lags("edge", "epoch 8").asked_for(Action::Rollback));
    let other = pass(&third, &open, &able().acked(0).lags("edge", "epoch 8").not_running("v3")).status;
    assert_eq!((back.phase, other.phase), (Phase::ProvingRoutes, Phase::Coexisting));
    for (status, spec) in [(&back, &spec(FENCED)), (&other, &third)] {
        let sent = |status: &Status, seen: &Seen| {
            let effects = pass(spec, status, seen).effects;
            effects.into_iter().find_map(|effect| match effect {
                Effect::Publish(published) => Some(published.fence),
                _ => None,
            })
        };
        let waits = pass(spec, status, &unheard).status;
        let fence = sent(&waits, &unheard).unwrap().unwrap();
        assert_eq!((fence.marked, fence.closed), (vec![], vec!["v1".to_owned()]), "{:?}", waits.phase);
        let heard = pass(spec, &waits, &able()).status;
        assert!(heard.shut.is_empty() && heard.phase == waits.phase, "{:?}", heard.phase);
    }
    // Requests go to what is gone back to at once.
    let fails = next(FENCED, &back, &seen().acked(0).not_ready("v2"));
    assert!(fails.active_version == "v1" && fails.shut.is_empty(), "{fails:#?}");
}

#[rstest]
#[case::at_rest(FENCED, Phase::Stable)]
#[case::it_starts(FENCED, Phase::Coexisting)]
#[case::not_asked_for("", Phase::ProvingRoutes)]
#[case::flipped_without(FENCED, Phase::Switching)]
fn nothing_is_asked_for_otherwise(#[case] more: &str, #[case] phase: Phase) {
    let seen = able().acked(0).lags("edge", "epoch 8").not_ready("v9");
    let status = Status { phase_since: UnixMs(NOW), ..switching(phase) };
    let seen = if phase == Phase::Coexisting { seen.not_ready("v2") } else { seen };
    let first = pass(&spec(more), &status, &seen).status;
    assert_eq!(published(more, &first, &seen), None);
}
