//! What keeps the quiet of the old version unknown for a while, and what does not break it.

use std::collections::BTreeSet;

use flag::count::Totals;
use flag::instance::{Findings, FlagState};
use flag::named::Named;
use flag::record::Record;
use flag::report::Report;
use flag::table::{Channel, Table};
use machine::fleet::ledger::{Fleet, FleetQuestion, Ledger, Quiet};

use rstest::rstest;

use super::ledger::{Story, report, state};
use super::{nowhere, record};

fn late(seq: u64) -> Report {
    Report { complete: false, flags: Named::new(), ..report("b", seq, FlagState::default()) }
}

/// P11: counters only grow, so that equal ones before and after a round that one worker missed say what was between.
#[test]
fn a_late_round_breaks_nothing() {
    let mut story = Story::new();
    story.quiet(1);
    let since = Quiet::Since(10_100);
    let (same, more) = (state(&story.record, 5, 5), state(&story.record, 6, 6));
    story.ledger.accept(story.now_ms, late(4)).expect("believed");
    assert_eq!((story.view().acked, story.view().old), (1, Quiet::Unknown));
    let fleet = story.both(5, same.clone());
    assert_eq!((fleet.acked, fleet.old), (2, since));
    // What was sent meanwhile shows.
    story.ledger.accept(story.now_ms, late(6)).expect("believed");
    assert_eq!(story.both(7, more.clone()).old, Quiet::Busy { open: 0 });
    // Other instances, in the late round too, are another matter, ...
    let fleet = story.quiet(8);
    assert!(matches!(fleet.old, Quiet::Since(_)), "{fleet:?}");
    story.ledger.accept(story.now_ms, Report { instances: vec![1, 3], ..late(11) }).expect("believed");
    assert_eq!(story.both(12, same.clone()).old, Quiet::Unknown);
    // ... and so is a worker that is late for longer than a report is believed.
    story.quiet(13);
    for seq in 16..24 {
        story.now_ms += 500;
        story.ledger.accept(story.now_ms, report("a", seq, state(&story.record, 10, 10))).expect("believed");
        story.ledger.accept(story.now_ms, late(seq)).expect("believed");
    }
    assert_eq!(story.both(24, same).old, Quiet::Unknown);
}

/// L2, L3: a request may be on its way to any version until its proxy has looked which cluster it went to.
#[test]
fn what_is_not_placed_yet_is_unknown() {
    let mut story = Story::new();
    story.quiet(1);
    let says = |story: &mut Story, seq: u64, unplaced: u64, sent: u64| -> Fleet {
        story.now_ms += 100;
        let found = Findings { flag: "u-1".to_owned(), unplaced, ..Findings::default() };
        let b = Report { findings: vec![found], ..report("b", seq, state(&story.record, sent, sent)) };
        for report in [report("a", seq, state(&story.record, 10, 10)), b] {
            story.ledger.accept(story.now_ms, report).expect("believed");
        }
        story.view()
    };
    let fleet = says(&mut story, 4, 3, 5);
    assert_eq!(fleet.old, Quiet::Unknown);
    let [one] = fleet.unplaced.as_slice() else { panic!("{fleet:?}") };
    assert_eq!((one.proxy.as_str(), one.why.as_str()), ("b", "3 open"));
    // They turn out to be on the new version: the old one has been quiet all the time. Two rounds show it.
    for (seq, old) in [(5, Quiet::Unknown), (6, Quiet::Unknown), (7, Quiet::Since(10_100))] {
        let fleet = says(&mut story, seq, 0, 5);
        assert_eq!((fleet.old, fleet.unplaced), (old, vec![]));
    }
    // Or on the old one, which then has a request that it had not before.
    says(&mut story, 8, 1, 5);
    let fleet = says(&mut story, 9, 0, 6);
    assert_eq!(fleet.old, Quiet::Busy { open: 0 });
}

/// P12: a boot is named by when the filter came. Where it is not, its first report says when it was there.
#[test]
fn a_filter_that_came_lately_is_named() {
    let late = |boot: &str, drain_ms: u64| {
        let mut ledger = Ledger::new(3_000);
        let record = Story::new().record;
        let first = Report { boot: boot.to_owned(), ..report("a", 1, state(&record, 0, 0)) };
        for (now_ms, seq) in [(70_000, 1), (71_000, 2)] {
            ledger.accept(now_ms, Report { seq, ..first.clone() }).expect("believed");
        }
        let asked = FleetQuestion { drain_ms, ..FleetQuestion::default() };
        let fleet = ledger.view(71_000, &record, &["a".to_owned(), "b".to_owned()].into(), &asked);
        fleet.late_filters.into_iter().map(|late| (late.proxy, late.came_ms)).collect::<Vec<_>>()
    };
    // 30 s, 60 s and 90 s after the beginning.
    let boots = [30, 60, 90].map(|seconds: u64| format!("{:x}", seconds * 1_000_000_000));
    let a = |came_ms| vec![("a".to_owned(), came_ms)];
    assert_eq!(boots.each_ref().map(|boot| late(boot, 20_000)), [vec![], a(60_000), a(70_000)]);
    assert_eq!((late(&boots[1], 11_000), late("x", 20_000), late(&boots[1], 0)), (vec![], a(70_000), vec![]));
}

/// P3: what an earlier flag, or another one, has open on the old version counts for who has its place now.
#[rstest]
// The one that is deleted had another host, too: it sends nothing more there.
#[case::deleted(|now: Record| vec![now])]
// The other one goes on with another service.
#[case::moved(|now: Record| vec![ratings(6), now])]
fn open_requests_count_for_who_has_their_place(#[case] later: fn(Record) -> Vec<Record>) {
    let mut wide = Record { uid: "a".to_owned(), ..record(5, "v1") };
    wide.members[0].hosts.insert("other".to_owned());
    wide.members.extend(ratings(5).members);
    let wide = wide.seal().expect("valid");
    let now = record(9, "v2");
    let mut table = Table::default();
    table.apply(Channel::Service, &[wide], &nowhere);
    table.find("other").expect("has a flag").choose(None, |_| None).start();
    let records = later(now.clone());
    table.apply(Channel::Service, &records, &nowhere);
    table.apply(Channel::Config, &records, &nowhere);
    assert!(table.find("other").is_none(), "it is nobody's now");
    assert_eq!(table.find("ratings").map(|flag| flag.record.uid.as_str()), (records.len() > 1).then_some("a"));
    let mut ledger = Ledger::new(3_000);
    for seq in 1..=3 {
        let flags = table.flags().map(|(uid, flag)| (uid.clone(), flag.state(seq))).collect();
        ledger.accept(10_000 + seq, Report { flags, ..report("b", seq, FlagState::default()) }).expect("believed");
    }
    let asked = FleetQuestion { old: "v1".to_owned(), wanted: "v2".to_owned(), ..FleetQuestion::default() };
    let fleet = ledger.view(10_003, &now, &["b".to_owned()].into(), &asked);
    assert_eq!((fleet.acked, fleet.old), (1, Quiet::Busy { open: 1 }));
}

/// A record of flag `a` that is about another service.
fn ratings(epoch: u64) -> Record {
    let mut other = Record { uid: "a".to_owned(), name: "shop/ratings".to_owned(), ..record(epoch, "v1") };
    other.members[0].service = "ratings".to_owned();
    other.members[0].hosts = ["ratings".to_owned()].into();
    let clusters = ["v1", "v2"].map(|version| (version.to_owned(), [format!("ratings-{version}")].into()));
    other.members[0].clusters = clusters.into();
    other.seal().expect("valid")
}

/// Which version got the last request is not known where reports are missing: an overlap of 0 would say less than 100 ms.
#[test]
fn an_overlap_over_a_gap_is_unknown() {
    let overlap = |gap_ms: u64| {
        let counts = |v1, v2| {
            let sent =
                [("v1", v1), ("v2", v2)].map(|(version, n)| (version.to_owned(), Totals { started: n, finished: n }));
            FlagState { sent: sent.into(), ..FlagState::default() }
        };
        let mut ledger = Ledger::new(3_000);
        ledger.accept(0, report("a", 1, counts(10, 0))).expect("believed");
        ledger.flips("u-1", "v1", "v2");
        ledger.accept(100, report("a", 2, counts(10, 0))).expect("believed");
        ledger.accept(100 + gap_ms, report("a", 3, counts(500, 500))).expect("believed");
        let fleet = ledger.view(100 + gap_ms, &record(9, "v2"), &BTreeSet::new(), &FleetQuestion::default());
        fleet.overlap.map(|one| one.ms)
    };
    assert_eq!((overlap(500), overlap(60_000)), (Some(0), None));
}

/// P3: a flag that was made again is written above the one that proxies still know for its hosts.
#[test]
fn a_rival_for_the_same_hosts_has_a_lower_epoch() {
    let mut story = Story::new();
    story.quiet(1);
    assert_eq!(story.view().highest_epoch, 9);
    let found = Findings { flag: "u-1".to_owned(), rival_epoch: 50, ..Findings::default() };
    let nothing = FlagState { epoch: 0, ..state(&story.record, 0, 0) };
    let report = Report { findings: vec![found], ..report("b", 9, nothing) };
    story.ledger.accept(story.now_ms, report).expect("believed");
    let fleet = story.view();
    assert_eq!((fleet.highest_epoch, fleet.acked), (50, 1));
    assert!(fleet.laggards[0].why.contains("another flag has one of its hosts"), "{:?}", fleet.laggards);
}
