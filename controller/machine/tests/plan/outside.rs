//! What comes from outside of the state machine: who is in the way of a version, what happened, and a disk that is full.

use machine::action::Action;
use machine::history::Happening;
use machine::plan::{Effect, Pass, stand_still};
use machine::reason::Reason;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;

use crate::fixtures::*;

/// T7: a version that is not started gets no requests, and who is in its way is named.
#[rstest]
#[case::before_the_flip(Phase::Coexisting, "v2 is not started: process 77 (python3)")]
#[case::what_serves(Phase::Stable, "v2 is active but is not started: process 77 (python3)")]
#[case::after_the_flip(Phase::Settling, "v2 is active but is not started: process 77 (python3)")]
fn who_is_in_the_way_of_a_version_is_named(#[case] phase: Phase, #[case] says: &str) {
    let before = switching(phase);
    let after = next("", &before, &seen().barred("v2"));
    assert_eq!((after.phase, &after.active_version), (before.phase, &before.active_version));
    let blocked = after.blocked.unwrap();
    assert_eq!(blocked.reason, Reason::NotStarted);
    assert!(blocked.message.starts_with(says), "{}", blocked.message);
}

/// T14: `retry` is about what waits for its next start, whatever else is under way.
#[test]
fn whoever_waits_for_its_next_start_may_be_tried_again() {
    let status = switching(Phase::Stable);
    let asked = |seen: Seen| next("", &status, &seen.asked_for(Action::Retry)).last_request.unwrap().refused;
    assert_eq!(asked(seen().starts_again("v2", NOW + 8_000)), None);
    assert!(asked(seen().exited("v2")).is_some_and(|why| why.contains("nothing to try again")));
}

#[test]
fn what_happened_outside_is_in_the_history_once() {
    let seen = seen().occurred(NOW - 5, Happening::VersionEnded, "v2 ended by itself: exit status: 7");
    let told = |status: &Status| status.history.iter().filter(|one| one.event == Happening::VersionEnded).count();
    let first = next("", &switching(Phase::Settling), &seen);
    let entry = first.history.iter().find(|one| one.event == Happening::VersionEnded).unwrap();
    assert_eq!((entry.at, entry.epoch), (UnixMs(NOW - 5), first.epoch()));
    let again = next("", &first, &seen);
    assert_eq!((told(&first), told(&again)), (1, 1));
}

/// T8: what is on disk is kept running while nothing can be written; what was decided since is not done.
#[test]
fn without_a_disk_what_serves_is_kept_and_nothing_else_is_done() {
    let stored = recorded(
        Status { active_version: "v1".to_owned(), switch: None, target_version: None, ..switching(Phase::Stable) },
        NOW - 1,
        &["v1"],
    );
    let (spec, seen) = (spec(""), seen().exited("v1").not_running("v2"));
    assert!(pass(&spec, &stored, &seen).status.switch.is_some(), "v2 is asked for");
    let effects = stand_still(Pass { now: UnixMs(NOW), spec: &spec, seen: &seen }, &stored);
    let started: Vec<_> = effects
        .iter()
        .filter_map(|effect| if let Effect::Start { version, .. } = effect { Some(version.as_str()) } else { None })
        .collect();
    assert_eq!(started, ["v1"]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Stop { .. })));
}
