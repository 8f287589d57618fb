//! A model check of the whole protocol, with the plan in it: whatever happens in whatever order, and whatever of it goes
//! wrong, no promise is broken, and all comes to its end.
//!
//! What decides is the real thing: `reconcile` with `plan` in each controller, on a `Ledger` that is fed with reports; the
//! table of flags in each VM instance; `combine` and `combine_findings` in each proxy. The world around it is a model.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;
mod api;
mod controller;
mod fair;
mod laws;
#[path = "../model_parts/mod.rs"]
mod model_parts;
mod mutation;
mod proxy;
mod seeds;
mod world;

use std::time::Instant;

use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Model};

use crate::acts::Chance;
use crate::laws::Law;
use crate::mutation::Mutation;
use crate::world::Protocol;

const UID: &str = "u-1";
const SERVICE: &str = "reviews";
const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

/// Which version it is.
fn number(version: &str) -> usize {
    VERSIONS.iter().position(|one| *one == version).unwrap()
}

/// How many steps of what broke a law are shown.
const LAST: usize = 40;
/// How many steps an order by chance has at most.
const DEEP: usize = 400;

/// Every order of all that can happen.
fn all(model: Protocol) {
    every(model, usize::MAX).assert_properties();
}

/// The same of so many steps.
fn every(model: Protocol, deep: usize) -> impl Checker<Protocol> {
    let began = Instant::now();
    let checker = model.checker().target_max_depth(deep).spawn_bfs().join();
    let (states, deep) = (checker.unique_state_count(), checker.max_depth());
    println!("{states} states, {deep} deep, {:.1} s", began.elapsed().as_secs_f64());
    assert!(broken(&checker).is_empty());
    checker
}

/// The laws that were broken, and how.
fn broken(checker: &impl Checker<Protocol>) -> Vec<&'static str> {
    let mut broken = vec![];
    for law in Law::ALL.map(Law::name) {
        if let Some(path) = checker.discovery(law) {
            println!("{law}: after {} steps", path.clone().into_actions().len());
            let steps = path.into_vec();
            let last = steps.len().saturating_sub(LAST);
            steps.iter().skip(last).for_each(|(state, action)| println!("{} {action:?}", state.sketch()));
            broken.push(law);
        }
    }
    broken
}

/// One proxy with so many instances. Time passes when nothing else is to do, and what is written is seen at once.
fn small(vms: usize) -> Protocol {
    Protocol { begun: 0, echoes: true, prompt: true, sample: 100, ..Protocol::new("", 1, vms) }
}

/// Two proxies with two instances each, and all that can go wrong.
fn wild(more: &str) -> Protocol {
    let world = Protocol::new(more, 2, 2);
    Protocol { begun: 20, faults: 8, ticks: 100, edits: 4, requests: 3, sample: 100, ..world }
}

const BACK: &str = "onTargetFailure: {action: Rollback, after: 1s}";

#[test]
fn every_order_without_faults() {
    all(Protocol { sample: 10, ..small(1) });
}

/// A person asks for anything, at any moment.
#[test]
fn every_order_with_a_request_by_hand() {
    all(Protocol { requests: 1, ..small(1) });
}

/// The spec asks for another version, a third one among them, at any moment.
#[test]
fn every_order_with_an_edit() {
    all(Protocol { edits: 1, ..small(1) });
}

/// The old version is told to stop by a controller that has ended, and another version is asked for meanwhile, and again.
#[test]
fn every_order_of_edits_while_a_stop_is_on_the_way() {
    every(Protocol { edits: 2, ticks: 30, ..small(1).with_a_stop_on_the_way() }, 16);
}

#[rstest]
#[case::two_instances(small(2))]
#[case::with_a_request(Protocol { begun: 1, ..small(1) })]
#[case::by_hand(Protocol { requests: 1, ..small(2) })]
#[ignore = "takes minutes: make model"]
fn many_orders(#[case] world: Protocol) {
    all(world);
}

/// Of so many steps from where a switch is asked for, or where what it left is about to be stopped.
#[rstest]
#[case::to_the_flip(Protocol { faults: 1, sample: 1_000, ..small(1) }, 20)]
#[case::at_the_end(Protocol { faults: 1, edits: 1, requests: 1, sample: 1_000, ..small(1).with_a_stop_on_the_way() }, 10)]
#[ignore = "takes minutes: make model"]
fn many_orders_with_a_fault(#[case] world: Protocol, #[case] deep: usize) {
    every(world, deep);
}

/// A world with a fault breaks the law that is named, and no other.
fn breaks(mutation: Mutation, law: Law) {
    let sample = if law == Law::Ends { 50 } else { 0 };
    let world = Protocol { sample, mutation: Some(mutation), ..wild("") };
    // What is decided is overtaken by a way back.
    let world = match law {
        Law::WayBack => Protocol { begun: 0, faults: 0, edits: 0, ..world.with_a_stop_on_the_way() },
        _ => world,
    };
    let checker = world.checker().target_state_count(200_000).target_max_depth(DEEP);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_simulation(1, Chance).join();
    assert_eq!(broken(&checker), [law.name()]);
}

#[rstest]
#[case::a_proxy_takes_what_is_older(Mutation::TakesAny, Law::EpochGrows)]
#[case::older_objects_are_written_over(Mutation::IgnoresVersions, Law::TwoContents)]
#[case::an_instance_is_not_asked(Mutation::AcksWithoutOne, Law::AckOfAll)]
#[case::the_target_is_trusted(Mutation::TrustsTarget, Law::Flip)]
#[case::nobody_waits_for_quiet(Mutation::StopsAtOnce, Law::StillUsed)]
#[case::nothing_is_protected(Mutation::ProtectsNothing, Law::WayBack)]
#[case::what_is_left_is_kept(Mutation::StartsWhatIsLeft, Law::StoppedStays)]
#[case::a_request_ends_twice(Mutation::CountsTwice, Law::Counts)]
#[case::what_is_unknown_is_quiet(Mutation::UnknownIsQuiet, Law::Drain)]
#[case::all_is_tidied_up(Mutation::TidiesUp, Law::ThirdVersion)]
#[case::nothing_is_said(Mutation::IsSilent, Law::Says)]
#[case::nothing_is_published(Mutation::PublishesNothing, Law::Ends)]
fn every_law_can_be_broken(#[case] mutation: Mutation, #[case] law: Law) {
    breaks(mutation, law);
}
