//! Whole switches in the house, told one at a time.

use std::collections::BTreeSet;

use machine::action::Action;
use machine::history::Happening;
use machine::observation::Keeper;
use machine::reason::Reason;
use machine::spec::CleanupPolicy;
use machine::status::Phase;
use rstest::rstest;

use crate::house::{House, Plot};
use crate::properties::{house, spec};

#[test]
fn a_whole_switch_goes_through_every_phase() {
    let mut house = house("");
    house.until(Phase::Stable);
    house.want("v2");
    house.until(Phase::Coexisting);
    house.until(Phase::Stable);
    let all = Phase::ALL[1..].iter().filter(|phase| !phase.holds()).copied();
    assert_eq!(house.trail, all.chain([Phase::Stable]).collect::<Vec<_>>());
    assert_eq!(house.stops, ["v1"]);
    assert_eq!(house.memory.record.as_ref().map(|record| record.versions.len()), Some(1));
}

#[test]
fn a_fenced_switch_goes_through_every_phase() {
    let mut house = house("switch: {mode: Fenced}");
    house.until(Phase::Stable);
    house.want("v2");
    house.until(Phase::Coexisting);
    house.until(Phase::Stable);
    assert_eq!(house.trail, [&Phase::ALL[1..], &[Phase::Stable]].concat());
    let fence = house.memory.switch.as_ref().and_then(|switch| switch.fence.clone()).unwrap();
    assert_eq!((fence.attempts, &fence.aborted, fence.held_ms), (1, &None, Some(200)));
    assert!(fence.held_at < fence.committed_at && fence.committed_at < fence.opened_at, "{fence:?}");
}

#[test]
fn what_is_left_is_deleted_if_asked_for_and_what_is_rolled_back_is_not() {
    let mut house = house("promotion: {mode: Automatic}");
    house.spec.cleanup.policy = CleanupPolicy::Delete;
    house.until(Phase::Stable);
    house.want("v2");
    house.until(Phase::Removing);
    house.end();
    assert_eq!((house.stops.as_slice(), &house.deleted), (&["v1".to_owned()][..], &BTreeSet::from(["v1".to_owned()])));
    let removed = house.memory.history.iter().find(|entry| entry.event == Happening::Removed).unwrap();
    assert_eq!(removed.message, "v1 is deleted");

    house.want("v3");
    house.until(Phase::Settling);
    house.ask(Action::Rollback);
    house.turn();
    house.end();
    assert_eq!(
        (house.memory.active_version.as_str(), house.stops.as_slice()),
        ("v2", &["v1".to_owned(), "v3".to_owned()][..])
    );
    assert!(!house.deleted.contains("v3"), "it may be tried again");
}

#[test]
fn a_missing_ack_is_waited_for_forever() {
    let mut house = house("");
    house.until(Phase::Stable);
    house.want("v2");
    house.until(Phase::Switching);
    for _ in 0..100 {
        house.now += 60_000;
        house.turn();
    }
    assert_eq!(house.memory.phase, Phase::Switching);
    let blocked = house.memory.blocked.as_ref().unwrap();
    assert_eq!(blocked.reason, Reason::Laggards);
    assert!(blocked.message.contains("proxy-0 (behind)"), "{}", blocked.message);
    assert!(house.running.contains_key("v1"));
}

/// The record alone has moved requests. A proxy that starts anew, or a route, could still send some to v1.
#[rstest]
#[case::files("routing: {provider: External}", Reason::ConfigLaggards)]
#[case::a_mesh("routing: {provider: Istio}", Reason::ConfigLaggards)]
fn nothing_is_removed_while_configurations_lag(#[case] routing: &str, #[case] reason: Reason) {
    let mut house = House::new(Plot { spec: spec(routing), keeper: Keeper::Controller });
    house.until(Phase::Stable);
    house.end();
    house.want("v2");
    house.until(Phase::Switching);
    house.proxies.files_lag = true;
    for _ in 0..200 {
        house.go_well(100);
    }
    assert_eq!((house.memory.phase, house.stops.len()), (Phase::Settling, 0));
    assert_eq!(house.memory.blocked.as_ref().map(|blocked| blocked.reason), Some(reason));
    house.proxies.files_lag = false;
    house.end();
    assert_eq!(house.stops, ["v1"]);
}

#[test]
fn a_person_promotes() {
    let mut house = house("promotion: {mode: Manual}");
    house.until(Phase::Stable);
    house.want("v2");
    house.until(Phase::AwaitingPromotion);
    for _ in 0..10 {
        house.now += 60_000;
        house.turn();
    }
    assert_eq!(house.memory.phase, Phase::AwaitingPromotion);
    house.ask(Action::Promote);
    house.until(Phase::Switching);
}

#[test]
fn an_abort_stops_what_was_started_and_sticks() {
    let mut house = house("promotion: {mode: Manual}");
    house.until(Phase::Stable);
    house.want("v2");
    house.until(Phase::AwaitingPromotion);
    house.ask(Action::Abort);
    house.turn();
    house.end();
    assert_eq!(house.outcome(), (Phase::Stable, "v1".to_owned(), BTreeSet::from(["v1".to_owned()]), true));
}
