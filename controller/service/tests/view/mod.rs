//! What tests of the flag service show of a flag.

// Not every test uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use flag::count::Totals;
use machine::checks::{CheckAnswer, Verdict};
use machine::fleet::ledger::{Fleet, Quiet};
use machine::observation::VersionState;
use machine::reason::Reason;
use machine::status::{Blocked, Phase, Status, Switch};
use machine::time::UnixMs;
use service::FlagView;

/// A flag of which everything is known.
pub(crate) fn view() -> FlagView {
    let mut status = Status::new("u", "shop/reviews", UnixMs(0));
    status.phase = Phase::Stable;
    let sent = BTreeMap::from([("v1".to_owned(), Totals { started: 3, finished: 1 })]);
    let fleet = Fleet { sent, ..Fleet::unknown(1) };
    let name = "shop/reviews".to_owned();
    FlagView { spec_version: "v1".to_owned(), ..FlagView::of(name, status.into(), fleet, UnixMs(0)) }
}

/// The same in the middle of a switch from v1 to v2, which waits: every metric of it has a line.
pub(crate) fn at_work() -> FlagView {
    let mut view = view();
    let mut status = Status::clone(&view.status);
    (status.phase, status.active_version) = (Phase::Settling, "v2".to_owned());
    status.switch = Some(Switch { from: "v1".to_owned(), overlap_ms: Some(250), ..Switch::default() });
    status.blocked =
        Some(Blocked { reason: Reason::NotQuiet, message: "1 request is open on v1".to_owned(), since: UnixMs(0) });
    view.status = status.into();
    view.spec_version = "v2".to_owned();
    view.fleet.old = Quiet::Busy { open: 1 };
    let started = |at| VersionState { started: Some(UnixMs(at)), ..VersionState::default() };
    view.versions = BTreeMap::from([("v1".to_owned(), started(1)), ("v2".to_owned(), started(2))]);
    let answer = CheckAnswer { verdict: Verdict::Inconclusive, message: "no answer".to_owned(), since: UnixMs(0) };
    view.checks = BTreeMap::from([("errors".to_owned(), answer)]);
    view
}
