//! The tables of docs/reference/state-machine.md name what there is.

use std::collections::BTreeSet;

use machine::action::Action;
use machine::plan::Effect;
use machine::status::Phase;
use strum::VariantNames;

use crate::effects::{acts, waiting_in};
use crate::fixtures::*;
use crate::table::rows;

const PAGE: &str = include_str!("../../../../docs/reference/state-machine.md");

/// The first cell of every row.
fn named(table: &str) -> Vec<String> {
    rows(PAGE, table).into_iter().map(|row| row[0].clone()).collect()
}

#[test]
fn every_phase_has_a_row_in_their_order() {
    assert_eq!(named("phases"), Phase::ALL.iter().map(|phase| phase.name()).collect::<Vec<_>>());
}

#[test]
fn every_request_has_a_row() {
    let known = Action::ALL.iter().map(|action| action.name().to_owned());
    let (documented, known): (BTreeSet<String>, BTreeSet<String>) =
        (named("requests").into_iter().collect(), known.collect());
    assert_eq!(documented, known);
}

#[test]
fn every_effect_has_a_row() {
    assert_eq!(named("effects"), Effect::VARIANTS);
}

#[test]
fn no_plan_has_its_effects_in_another_order_than_the_table() {
    let documented = named("effects");
    let deletes = (switching(Phase::Removing), seen().not_running("v1").exists("v1"));
    let back = (going_back(Phase::Switching), seen().acked(0));
    let clusters = (switching(Phase::Removing), seen().clusters(&[], None));
    let waiting = Phase::ALL.iter().map(|phase| waiting_in(*phase));
    let mut met = BTreeSet::new();
    for case in waiting.chain([deletes, back, clusters]) {
        let effects = acts("promotion: {mode: Manual}, switch: {mode: Fenced}, cleanup: {policy: Delete}", case);
        let name = |effect: &str| effect.split(' ').next().unwrap_or_default().to_owned();
        let place = |effect: &str| documented.iter().position(|row| *row == name(effect)).unwrap();
        let places: Vec<usize> = effects.split(", ").map(place).collect();
        assert!(places.is_sorted(), "{effects}");
        met.extend(places);
    }
    assert_eq!(met.len(), documented.len(), "some are in none of these plans");
}
