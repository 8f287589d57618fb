//! The fence in one VM instance: who waits, who passes, who is refused, and what is shown of it.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{draft, nowhere, record};
use crate::config::Workload;
use crate::fence::{Expiry, Fence, Fenced, Gatekeeper, Held, Passage, grpc_timeout_ms};
use crate::instance::{Findings, InstanceFindings, combine_findings};
use crate::record::{Gate, Record};
use crate::table::{Channel, Table};

pub(super) fn fence(epoch: u64, since: u64) -> Fence {
    Fence {
        flag: "u-1".into(),
        epoch,
        since,
        old: "v1".into(),
        max_hold_ms: 1_000,
        expiry: Expiry::Open,
        marked: vec![],
        closed: vec![],
    }
}

fn held(epoch: u64, active: &str) -> Record {
    Record { gate: Gate::Hold, ..draft(epoch, active) }.seal().expect("a valid record")
}

/// What becomes of an unmarked request.
fn passes(gate: &Gatekeeper, record: &Record, now_ms: u64) -> Passage {
    gate.passage(record, now_ms, || None)
}

#[test]
fn a_hold_needs_the_record_and_its_fence() {
    let gate = Gatekeeper::default();
    assert_eq!(passes(&gate, &held(5, "v1"), 0), Passage::Go, "without a fence");
    assert_eq!(gate.shown(&held(5, "v1"), 0), None);
    gate.take(Some(&fence(5, 5)), 100);
    let cases = [
        (held(5, "v1"), Passage::Wait, (5, Held::Holding)),
        (record(5, "v1"), Passage::Go, (5, Held::Open)),
        (held(4, "v1"), Passage::Go, (0, Held::Open)),
        (held(6, "v1"), Passage::Go, (0, Held::Open)),
    ];
    for (record, passage, (epoch, held)) in cases {
        assert_eq!(passes(&gate, &record, 200), passage, "{record:?}");
        let shown = gate.shown(&record, 200).expect("a fence");
        assert_eq!((shown.epoch, shown.held), (epoch, held), "{record:?}");
    }
    gate.take(None, 300);
    assert_eq!(passes(&gate, &held(5, "v1"), 300), Passage::Go, "it was taken away");
}

#[test]
fn what_ran_out_stays_so_for_every_record_of_the_hold() {
    for (expiry, after) in [(Expiry::Open, Passage::Old), (Expiry::Reject, Passage::Refuse)] {
        let of = |epoch, since| Fence { expiry, ..fence(epoch, since) };
        let gate = Gatekeeper::default();
        gate.take(Some(&of(5, 5)), 100);
        assert_eq!(passes(&gate, &held(5, "v1"), 1_099), Passage::Wait);
        // A later record of the same hold gives it no more time.
        gate.take(Some(&of(6, 5)), 1_099);
        assert_eq!(passes(&gate, &held(6, "v2"), 1_099), Passage::Wait);
        assert_eq!(passes(&gate, &held(6, "v2"), 1_100), after);
        // Neither does a clock that is set back.
        assert_eq!(passes(&gate, &held(6, "v2"), 200), after);
        assert_eq!(gate.shown(&held(6, "v2"), 200).expect("a fence").held, Held::Expired);
        // An older hold that comes late is none; the next one is.
        gate.take(Some(&of(7, 4)), 2_000);
        assert_eq!(passes(&gate, &held(7, "v1"), 2_000), after);
        gate.take(Some(&of(8, 8)), 2_000);
        assert_eq!(passes(&gate, &held(8, "v1"), 2_999), Passage::Wait);
        gate.expire();
        assert_eq!(passes(&gate, &held(8, "v1"), 2_000), after, "the clock was set back");
    }
}

#[test]
fn what_has_begun_passes_and_is_counted() {
    let gate = Gatekeeper::default();
    gate.take(Some(&fence(5, 5)), 0);
    let marked = |mark: &str| gate.passage(&held(5, "v1"), 1, || Some(mark.to_owned()));
    assert_eq!((marked("v1"), marked("v2"), marked("")), (Passage::Old, Passage::Wait, Passage::Wait));
    assert_eq!(gate.shown(&held(5, "v1"), 1).expect("a fence").passed, 1);
    // Another hold counts for itself.
    gate.take(Some(&fence(6, 6)), 2);
    assert_eq!(gate.shown(&held(6, "v1"), 2).expect("a fence").passed, 0);
}

#[test]
fn a_workload_takes_what_its_gate_lets_in() {
    let gate = Gatekeeper::default();
    assert!(gate.admits("v1", false), "without a fence");
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    gate.take(Some(&Fence { marked: all(&["v1", "v2"]), closed: all(&["v3"]), ..fence(5, 0) }), 0);
    for (version, marked, admits) in
        [("v1", false, false), ("v1", true, true), ("v3", true, false), ("v3", false, false), ("v4", false, true)]
    {
        assert_eq!(gate.admits(version, marked), admits, "{version}, {marked}");
    }
}

#[test]
fn inside_the_group_calls_go_on() {
    let mut table = Table::default();
    table.apply(Channel::Service, &[held(5, "v1")], &nowhere);
    table.ask_fences(&[fence(5, 5)], &[held(5, "v1")], 0);
    let flag = table.find("reviews").expect("known");
    let own = |version: &str| Workload { service: "reviews".into(), version: version.into() };
    let cases = [
        (None, Passage::Wait),
        (Some(own("v1")), Passage::Go),
        (Some(own("v2")), Passage::Go),
        // It would call the active one.
        (Some(own("v9")), Passage::Wait),
        (Some(Workload { service: "ratings".into(), version: "v1".into() }), Passage::Wait),
    ];
    for (caller, passage) in cases {
        assert_eq!(flag.passage(caller.as_ref(), 1, || None), passage, "{caller:?}");
    }
}

/// A poller that stood still, or a leader that does not know that it is none, may say again what was said before.
#[test]
fn an_older_snapshot_changes_no_gate() {
    let mut table = Table::default();
    let mut tell = |record: Record, fence: Option<Fence>| {
        table.apply(Channel::Service, std::slice::from_ref(&record), &nowhere);
        table.ask_fences(fence.as_slice(), &[record], 0);
        let flag = table.find("reviews").expect("known");
        (flag.passage(None, 1, || None), flag.observed.gate.admits("v1", true))
    };
    assert_eq!(tell(held(5, "v1"), Some(fence(5, 5))), (Passage::Wait, true));
    let closed = Fence { closed: vec!["v1".into()], ..fence(6, 5) };
    assert_eq!(tell(held(6, "v2"), Some(closed)), (Passage::Wait, false));
    assert_eq!(tell(held(5, "v1"), Some(fence(5, 5))), (Passage::Wait, false), "the hold, again");
    assert_eq!(tell(record(4, "v1"), None), (Passage::Wait, false), "what was before it");
    assert_eq!(tell(record(7, "v1"), None), (Passage::Go, true), "it was given up");
}

/// A switch back: what was looked at was the version that is gone back to.
#[test]
fn another_version_that_is_left_is_watched_anew() {
    let (gate, record) = (Gatekeeper::default(), record(5, "v1"));
    let shown = |now_ms| gate.shown(&record, now_ms).map(|shown| (shown.oldest_ms, shown.watched_ms));
    gate.take(Some(&fence(5, 0)), 1_000);
    gate.oldest_since_ms.set(Some(2_000));
    gate.take(Some(&fence(6, 6)), 3_000);
    assert_eq!(shown(4_000), Some((2_000, 3_000)));
    gate.take(Some(&Fence { old: "v2".into(), ..fence(7, 0) }), 5_000);
    assert_eq!(shown(5_500), Some((0, 500)));
}

#[test]
fn all_instances_hold_or_none_does() {
    let shows = |epoch, held, waiting| Fenced { epoch, held, waiting, watched_ms: 50 + waiting, ..Fenced::default() };
    let part = |id, fenced: Option<Fenced>| {
        let flags = fenced.map(|fenced| Findings { flag: "u-1".into(), fenced: Some(fenced), ..Findings::default() });
        InstanceFindings { id, round: 3, flags: flags.into_iter().collect() }
    };
    let holding = || Some(shows(5, Held::Holding, 2));
    let cases = [
        (holding(), Some((5, Held::Holding, 4))),
        (Some(shows(4, Held::Holding, 0)), Some((0, Held::Holding, 2))),
        (Some(shows(5, Held::Open, 0)), Some((5, Held::Open, 2))),
        (Some(shows(5, Held::Expired, 1)), Some((5, Held::Expired, 3))),
        // An older filter in the same proxy.
        (None, Some((0, Held::Open, 2))),
    ];
    for (second, sum) in cases {
        let found = combine_findings(&[1, 2], 3, &[part(1, holding()), part(2, second.clone())]);
        let fenced = found.first().and_then(|found| found.fenced.as_ref());
        assert_eq!(fenced.map(|one| (one.epoch, one.held, one.waiting)), sum, "{second:?}");
    }
}

#[test]
fn a_fence_that_cannot_be_is_left_out() {
    let far = crate::limits::MAX_HOLD_MS;
    for (fence, valid) in [
        (fence(5, 5), true),
        (Fence { max_hold_ms: 0, ..fence(5, 5) }, false),
        (Fence { max_hold_ms: far, ..fence(5, 5) }, true),
        (Fence { max_hold_ms: far + 1, ..fence(5, 5) }, false),
        (Fence { old: String::new(), ..fence(5, 5) }, false),
        (Fence { closed: vec!["-".into()], ..fence(5, 5) }, false),
    ] {
        assert_eq!(fence.check().is_ok(), valid, "{fence:?}");
    }
}

#[test]
fn a_deadline_of_grpc_is_understood() {
    let cases = [
        ("1H", Some(3_600_000)),
        ("2M", Some(120_000)),
        ("3S", Some(3_000)),
        ("250m", Some(250)),
        ("1999u", Some(1)),
        ("1n", Some(0)),
        ("99999999999999999999S", None),
        ("18446744073709551615H", Some(u64::MAX)),
        ("5", None),
        ("S", None),
        ("", None),
        ("1x", None),
        ("1é", None),
    ];
    for (text, ms) in cases {
        assert_eq!(grpc_timeout_ms(text), ms, "{text}");
    }
}
