//! A model check of the fence: two versions never have open streams at once, and no hold lasts.
//!
//! What decides is the real thing: `plan` in each controller, on a `Ledger` that is fed with reports; the table of flags
//! with its `Gatekeeper` in each VM instance; `combine` and `combine_findings` in each proxy. The world around it is a
//! model. No clock is relied on: a hold runs out in any instance at any moment, and that of a controller jumps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
mod chance;
mod controller;
mod fair;
mod laws;
#[path = "../model_parts/mod.rs"]
mod model_parts;
mod proxy;
mod world;

use std::time::Duration;

use stateright::{Checker, Expectation, Model};

use crate::chance::Chance;
use crate::world::Protocol;

const UID: &str = "u-1";

/// Every order of all that can happen.
fn all(model: Protocol) {
    let checker = model.checker().spawn_bfs().join();
    println!("{} states, {} deep", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Some orders, for a while.
fn some(model: Protocol) {
    let laws = model.properties().into_iter().filter(|one| one.expectation == Expectation::Always);
    let laws: Vec<&str> = laws.map(|law| law.name).collect();
    let checker = model.checker().timeout(Duration::from_secs(10)).spawn_simulation(1, Chance).join();
    println!("{} states, {} deep", checker.state_count(), checker.max_depth());
    println!("seen: {:?}", checker.discoveries().keys().collect::<Vec<_>>());
    // What ought to come to pass does so in every order without faults: how far chance gets depends on the machine.
    laws.into_iter().for_each(|law| checker.assert_no_discovery(law));
}

#[test]
fn every_order_without_faults() {
    all(Protocol { requests: 2, memory: 2, sample: 40, ..Protocol::new("Reject", false, 1, 1, 1) });
}

const MANY: u8 = 4;

#[test]
fn some_orders_with_faults() {
    let world = Protocol::new("Reject", false, 2, 2, 2);
    some(Protocol { requests: MANY, faults: 3, jumps: 3, jump_ms: 1_100, one_by_one: true, sample: 1_000, ..world });
}

#[test]
fn some_orders_with_proxies_beside() {
    let world = Protocol::new("Open", true, 2, 1, 2);
    some(Protocol { requests: MANY, faults: 3, jumps: 3, jump_ms: 1_100, strangers: true, sample: 1_000, ..world });
}

#[test]
fn some_orders_of_chains() {
    let world = Protocol::new("Reject", true, 2, 1, 2);
    some(Protocol { requests: MANY, faults: 2, jumps: 2, passes: true, sample: 1_000, ..world });
}

/// What is held goes nowhere because an answer from before comes after a newer one.
#[test]
fn an_older_snapshot_opens_no_gate() {
    use crate::world::Action::{Begin, Hear, HearOlder, Look, Report};
    let model = Protocol { requests: 1, faults: 1, ..Protocol::new("Reject", false, 1, 1, 1) };
    let look = [Look(0), Look(0), Hear(0, 0, 0)];
    let steps = look.clone().into_iter().chain([Report(0, 0)]).chain(look).chain([HearOlder(0, 0, 1), Begin(0, 0)]);
    let state = steps.fold(model.start.clone(), |state, step| model.next_state(&state, step).unwrap());
    assert_eq!(state.phase(), machine::status::Phase::Committing);
    assert_eq!((state.streams, state.proxies[0].vms[0].waiting), (vec![], 1));
}
