//! Rates, and how long two versions got new requests: as far as reports show it, and no further.

use std::collections::{BTreeMap, BTreeSet};

use flag::count::Totals;
use flag::instance::FlagState;
use flag::named::Named;
use flag::report::Report;
use machine::fleet::ledger::Ledger;
use machine::fleet::traffic::{Flow, Overlap, Traffic};

fn totals(started: &[(&str, u64)], open: u64) -> Named<Totals> {
    let of = |(version, started): &(&str, u64)| {
        ((*version).to_owned(), Totals { started: *started, finished: started.saturating_sub(open) })
    };
    started.iter().map(of).collect()
}

struct Story {
    ledger: Ledger,
    seq: u64,
}

impl Story {
    fn new() -> Story {
        Story { ledger: Ledger::new(5_000), seq: 0 }
    }

    fn report(&mut self, now_ms: u64, proxy: &str, boot: &str, sent: &[(&str, u64)]) {
        self.state(now_ms, proxy, boot, FlagState { sent: totals(sent, 0), ..FlagState::default() });
    }

    fn state(&mut self, now_ms: u64, proxy: &str, boot: &str, state: FlagState) {
        self.seq += 1;
        let report = Report {
            protocol: flag::PROTOCOL,
            proxy: proxy.to_owned(),
            boot: boot.to_owned(),
            seq: self.seq,
            revision: "r".to_owned(),
            instances: vec![1],
            complete: true,
            flags: Named::from([("u-1".to_owned(), state)]),
            findings: Default::default(),
        };
        self.ledger.accept(now_ms, report).expect("believed");
    }

    fn traffic(&self, now_ms: u64) -> Traffic {
        self.ledger.traffic(now_ms, "u-1", &BTreeSet::from(["a".to_owned(), "b".to_owned()]))
    }

    fn overlap(&self) -> Option<u64> {
        let asked = machine::fleet::ledger::FleetQuestion::default();
        let overlap = self.ledger.view(0, &super::record(9, "v2"), &BTreeSet::new(), &asked).overlap;
        overlap.map(|Overlap { from, to, ms }| {
            assert_eq!((from.as_str(), to.as_str()), ("v1", "v2"));
            ms
        })
    }
}

fn rates(traffic: &Traffic) -> Vec<(&str, f64, usize)> {
    traffic.versions.iter().map(|(version, flow)| (version.as_str(), flow.per_second, flow.rated)).collect()
}

#[test]
fn a_rate_takes_two_reports_and_counts_the_proxies_that_have_one() {
    let mut story = Story::new();
    assert_eq!(story.traffic(0), Traffic { expected: 2, known: 0, versions: BTreeMap::new() });
    story.report(0, "a", "1", &[("v1", 1_000), ("v2", 0)]);
    story.report(0, "b", "1", &[("v1", 7)]);
    assert_eq!(rates(&story.traffic(0)), [("v1", 0.0, 0), ("v2", 0.0, 1)], "b counts no v2, which is zero");
    story.report(500, "a", "1", &[("v1", 1_050), ("v2", 0)]);
    assert_eq!(rates(&story.traffic(500))[0], ("v1", 0.0, 0), "too short a time");
    story.report(1_000, "a", "1", &[("v1", 1_100), ("v2", 0)]);
    assert_eq!(rates(&story.traffic(1_000)), [("v1", 100.0, 1), ("v2", 0.0, 2)]);
    story.report(1_000, "b", "1", &[("v1", 57)]);
    assert_eq!(rates(&story.traffic(1_000)), [("v1", 150.0, 2), ("v2", 0.0, 2)]);
}

#[test]
fn an_old_rate_is_forgotten() {
    let mut story = Story::new();
    for second in 0..=10 {
        let v1 = if second <= 5 { second * 100 } else { 500 };
        story.report(second * 1_000, "a", "1", &[("v1", v1)]);
        story.report(second * 1_000, "b", "1", &[("v1", 0)]);
    }
    assert_eq!(rates(&story.traffic(10_000)), [("v1", 0.0, 2)]);
    // After a gap, and after a restart, nothing is known until it was seen for a while.
    story.report(15_100, "a", "1", &[("v1", 900)]);
    story.report(10_100, "b", "2", &[("v1", 3)]);
    assert_eq!(rates(&story.traffic(15_100)), [("v1", 0.0, 0)]);
    assert_eq!(story.traffic(15_200).known, 1, "b was not heard of for too long");
}

#[test]
fn what_is_sent_and_what_arrives_is_one_request() {
    let mut story = Story::new();
    let both = |sent: u64, arrived: u64, open: u64| FlagState {
        sent: totals(&[("v1", sent)], open),
        arrived: totals(&[("v1", arrived)], open + 1),
        ..FlagState::default()
    };
    story.state(0, "a", "1", both(10, 0, 0));
    story.state(0, "b", "1", FlagState { arrived: totals(&[("v1", 30)], 2), ..FlagState::default() });
    let flow = story.traffic(0).versions["v1"];
    assert_eq!(flow, Flow { started: 30, open: 2, per_second: 0.0, rated: 0 });
}

#[test]
fn an_overlap_is_between_the_first_new_and_the_last_old_request() {
    let mut story = Story::new();
    story.report(0, "a", "1", &[("v1", 10)]);
    story.report(0, "b", "1", &[("v1", 10)]);
    assert_eq!(story.overlap(), None, "nothing was flipped");
    story.ledger.flips("u-1", "v1", "v2");
    assert_eq!(story.overlap(), None, "nothing was sent to v2 yet");
    story.report(100, "a", "1", &[("v1", 12), ("v2", 3)]);
    assert_eq!(story.overlap(), Some(0));
    story.report(150, "b", "1", &[("v1", 11), ("v2", 1)]);
    story.report(200, "a", "1", &[("v1", 12), ("v2", 9)]);
    story.report(350, "b", "1", &[("v1", 13), ("v2", 9)]);
    story.report(450, "b", "1", &[("v1", 13), ("v2", 19)]);
    assert_eq!(story.overlap(), Some(250));
    // A proxy that starts later counts from nothing, one that starts anew as well.
    story.report(500, "c", "1", &[("v1", 0), ("v2", 0)]);
    story.report(600, "b", "2", &[("v1", 1), ("v2", 1)]);
    assert_eq!(story.overlap(), Some(500));
    story.ledger.forget("u-1");
    assert_eq!(story.overlap(), None);
}

#[test]
fn what_may_have_been_before_the_flip_makes_an_overlap_unknown() {
    let mut story = Story::new();
    story.report(0, "a", "1", &[("v1", 10)]);
    story.ledger.flips("u-1", "v1", "v2");
    story.report(100, "a", "1", &[("v1", 10), ("v2", 3)]);
    assert_eq!(story.overlap(), Some(0));
    story.report(200, "b", "1", &[("v1", 5), ("v2", 0)]);
    assert_eq!(story.overlap(), None, "b was not heard of before");
}
