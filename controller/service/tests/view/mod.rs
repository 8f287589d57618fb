//! What tests of the flag service show of a flag.

use std::collections::{BTreeMap, BTreeSet};

use flag::count::Totals;
use machine::fleet::ledger::Fleet;
use machine::fleet::traffic::Traffic;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::FlagView;

/// A flag of which everything is known.
pub(crate) fn view() -> FlagView {
    let mut status = Status::new("u", "shop/reviews", UnixMs(0));
    status.phase = Phase::Stable;
    let sent = BTreeMap::from([("v1".to_owned(), Totals { started: 3, finished: 1 })]);
    FlagView {
        name: "shop/reviews".to_owned(),
        spec_version: "v1".to_owned(),
        status: status.into(),
        fleet: Fleet { sent, ..Fleet::unknown(1) },
        versions: BTreeMap::new(),
        checks: BTreeMap::new(),
        waiting: String::new(),
        next: None,
        callers: BTreeSet::new(),
        refused: vec![],
        flip: None,
        traffic: Traffic::default(),
        now: UnixMs(0),
    }
}
