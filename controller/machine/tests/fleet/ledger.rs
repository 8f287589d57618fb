//! Who acked, who lags, when the old version is quiet; and that unknown is never zero.

use std::collections::BTreeSet;

use super::record;
use flag::count::Totals;
use flag::instance::{FlagState, Instance, combine};
use flag::named::Named;
use flag::record::Record;
use flag::report::Report;
use machine::fleet::ledger::{Fleet, FleetQuestion, Ledger, Quiet};

pub(super) fn state(record: &Record, started: u64, finished: u64) -> FlagState {
    FlagState {
        epoch: record.epoch,
        hash: record.hash.clone(),
        config_epoch: Some(record.epoch),
        sent: Named::from([("v1".to_owned(), Totals { started, finished })]),
        ..FlagState::default()
    }
}

pub(super) fn report(proxy: &str, seq: u64, state: FlagState) -> Report {
    Report {
        protocol: flag::PROTOCOL,
        proxy: proxy.to_owned(),
        boot: "b1".to_owned(),
        seq,
        revision: "r".to_owned(),
        instances: vec![1, 2],
        complete: true,
        flags: Named::from([("u-1".to_owned(), state)]),
        findings: Default::default(),
    }
}

/// Two proxies, `a` and `b`, that must ack.
pub(super) struct Story {
    pub(super) ledger: Ledger,
    pub(super) now_ms: u64,
    pub(super) record: Record,
    old: String,
    pub(super) expected: Vec<String>,
}

impl Story {
    pub(super) fn new() -> Story {
        Story {
            ledger: Ledger::new(3_000),
            now_ms: 10_000,
            record: record(9, "v2"),
            old: "v1".to_owned(),
            expected: vec!["a".to_owned(), "b".to_owned()],
        }
    }

    /// 100 ms later both report; `b` as given.
    pub(super) fn both(&mut self, seq: u64, b: FlagState) -> Fleet {
        self.now_ms += 100;
        let a = state(&self.record, 10, 10);
        self.ledger.accept(self.now_ms, report("a", seq, a)).expect("believed");
        self.ledger.accept(self.now_ms, report("b", seq, b)).expect("believed");
        self.view()
    }

    pub(super) fn view(&self) -> Fleet {
        let expected: BTreeSet<String> = self.expected.iter().cloned().collect();
        let asked = FleetQuestion {
            old: self.old.clone(),
            wanted: "v2".to_owned(),
            config_epoch: 9,
            ..FleetQuestion::default()
        };
        self.ledger.view(self.now_ms, &self.record, &expected, &asked)
    }

    pub(super) fn quiet(&mut self, from_seq: u64) -> Fleet {
        let state = state(&self.record, 5, 5);
        let mut fleet = self.view();
        for seq in from_seq..from_seq + 3 {
            fleet = self.both(seq, state.clone());
        }
        fleet
    }
}

#[test]
fn nobody_reported_means_unknown() {
    let fleet = Story::new().view();
    assert_eq!((fleet.acked, fleet.old), (0, Quiet::Unknown));
    assert!(fleet.laggards[0].why.contains("never reported"), "{:?}", fleet.laggards);
}

#[test]
fn two_rounds_after_the_last_ack_are_quiet() {
    let mut story = Story::new();
    let quiet = state(&story.record, 5, 5);
    for seq in 1..=2 {
        let fleet = story.both(seq, quiet.clone());
        assert_eq!((fleet.acked, fleet.old), (2, Quiet::Unknown), "one round is not enough");
    }
    assert_eq!(story.both(3, quiet).old, Quiet::Since(10_100));
}

#[test]
fn an_open_request_is_busy_and_a_new_one_starts_over() {
    let mut story = Story::new();
    assert_eq!(story.quiet(1).old, Quiet::Since(10_100));
    let open = state(&story.record, 6, 5);
    assert_eq!(story.both(4, open).old, Quiet::Busy { open: 1 });
    let finished = state(&story.record, 6, 6);
    assert_eq!(story.both(5, finished.clone()).old, Quiet::Busy { open: 0 });
    story.both(6, finished.clone());
    assert_eq!(story.both(7, finished).old, Quiet::Since(10_500));
}

#[test]
fn a_request_between_two_reports_is_seen_by_its_total() {
    let mut story = Story::new();
    story.quiet(1);
    let another = state(&story.record, 6, 6);
    assert_eq!(story.both(4, another).old, Quiet::Busy { open: 0 });
}

#[test]
fn arrivals_at_the_old_version_count_too() {
    let mut story = Story::new();
    story.quiet(1);
    let mut arrived = state(&story.record, 5, 5);
    arrived.arrived.insert("v1".to_owned(), Totals { started: 1, finished: 0 });
    assert_eq!(story.both(4, arrived).old, Quiet::Busy { open: 1 });
}

#[test]
fn silence_makes_everything_unknown() {
    let mut story = Story::new();
    story.quiet(1);
    story.now_ms += 3_001;
    let fleet = story.view();
    assert_eq!((fleet.acked, fleet.old), (0, Quiet::Unknown));
    assert!(fleet.laggards[0].why.contains("last seen 3.0 s ago"), "{:?}", fleet.laggards);
    let state = state(&story.record, 5, 5);
    assert_eq!(story.both(4, state).old, Quiet::Unknown, "and it has to be proven anew");
}

#[test]
fn a_worker_that_does_not_answer_makes_it_unknown() {
    let mut story = Story::new();
    story.quiet(1);
    let report = Report { complete: false, flags: Named::new(), ..report("b", 4, FlagState::default()) };
    story.ledger.accept(story.now_ms, report).expect("believed");
    let fleet = story.view();
    assert_eq!((fleet.acked, fleet.old), (1, Quiet::Unknown));
}

#[test]
fn a_restarted_proxy_acks_and_proves_anew() {
    let mut story = Story::new();
    story.quiet(1);
    story.now_ms += 100;
    let restarted = Report { boot: "b2".into(), ..report("b", 1, state(&story.record, 0, 0)) };
    story.ledger.accept(story.now_ms, restarted.clone()).expect("believed");
    assert_eq!(story.view().old, Quiet::Unknown);
    let since = story.now_ms;
    for seq in 2..=4 {
        let quiet = state(&story.record, 10, 10);
        story.ledger.accept(since + seq, report("a", seq + 2, quiet)).expect("believed");
        let again = Report { seq, ..restarted.clone() };
        story.ledger.accept(since + seq, again).expect("believed");
    }
    story.now_ms += 4;
    assert_eq!(story.view().old, Quiet::Since(since), "what the boot before sent last is not known");
    let late = report("b", 9, state(&story.record, 5, 5));
    assert!(story.ledger.accept(story.now_ms, late).is_err(), "a late report of the old boot");
    let again = Report { seq: 4, ..restarted };
    assert!(story.ledger.accept(story.now_ms, again).is_err(), "the same report again");
}

#[test]
fn another_set_of_instances_proves_anew() {
    let mut story = Story::new();
    story.quiet(1);
    let report = Report { instances: vec![2, 3], ..report("b", 4, state(&story.record, 5, 5)) };
    story.ledger.accept(story.now_ms, report).expect("believed");
    assert_eq!(story.view().old, Quiet::Unknown);
}

#[test]
fn who_lags_is_named_with_the_reason() {
    let mut story = Story::new();
    let behind = FlagState { epoch: 8, config_epoch: None, ..state(&story.record, 1, 1) };
    let fleet = story.both(1, behind);
    assert_eq!(fleet.acked, 1);
    assert_eq!(fleet.laggards[0].proxy, "b");
    assert!(fleet.laggards[0].why.contains("at epoch 8, not 9"));
    assert!(fleet.config_laggards[0].why.contains("no such flag, not yet epoch 9"));
    let other = FlagState { hash: "other".into(), ..state(&story.record, 1, 1) };
    assert!(story.both(2, other).laggards[0].why.contains("other content"));
}

#[test]
fn routes_are_proven_by_their_name() {
    let mut story = Story::new();
    let mut routed = |seq, route: &str| {
        let state = FlagState { routes: BTreeSet::from([route.to_owned()]), ..state(&story.record, 1, 1) };
        story.both(seq, state).route_laggards.len()
    };
    assert_eq!(routed(1, "versionflag:reviews:v1,v2"), 2, "no request could show a route yet, at neither of both");
    assert_eq!(routed(2, "versionflag:reviews:v1,v2"), 0);
    assert_eq!(routed(9, "versionflag:reviews:v1"), 1);
    assert_eq!(routed(10, "somebody-elses"), 0, "its name says nothing about versions");
    assert_eq!(routed(11, "versionflag:reviews:v1,v2:v2"), 0);
    assert_eq!(routed(12, "versionflag:reviews:v1,v2:v1"), 1, "the default is another version");
    assert_eq!(routed(13, "versionflag:reviews:v0,v1,v2:v2"), 1, "it leads to a version that is not there");
    assert_eq!(routed(14, &flag::route::name(&record(9, "v2"))), 0);
}

#[test]
fn a_version_that_a_proxy_never_counted_is_quiet_there() {
    let mut story = Story::new();
    story.old = "v0".to_owned();
    let fleet = story.quiet(1);
    assert_eq!(fleet.old, Quiet::Since(0), "all its life");
}

/// T1: who joins while the old version is quiet has its whole life counted, and breaks nothing once that is proved.
#[test]
fn who_joins_and_never_sent_one_is_unknown_first_and_breaks_nothing() {
    let mut story = Story::new();
    story.quiet(1);
    let since = Quiet::Since(10_100);
    story.expected.push("c".to_owned());
    assert_eq!(story.view().old, Quiet::Unknown);
    for seq in 1..=3 {
        assert_eq!(story.view().old, Quiet::Unknown);
        let fleet = story.both(seq + 3, state(&story.record, 5, 5));
        assert_eq!(fleet.old, Quiet::Unknown);
        story.ledger.accept(story.now_ms, report("c", seq, state(&story.record, 0, 0))).expect("believed");
    }
    assert_eq!(story.view().old, since);
    // One that has is another matter, however quiet it is since.
    story.expected.push("d".to_owned());
    for seq in 1..=3 {
        story.both(seq + 6, state(&story.record, 5, 5));
        for (name, sent) in [("c", 0), ("d", 2)] {
            story
                .ledger
                .accept(story.now_ms, report(name, seq + 3, state(&story.record, sent, sent)))
                .expect("believed");
        }
    }
    assert!(matches!(story.view().old, Quiet::Since(later) if later > 10_100));
}

#[test]
fn the_sum_is_of_all_instances_or_of_none() {
    let record = record(9, "v2");
    let instance = |id, round, state| Instance { id, round, flags: Named::from([("u-1".to_owned(), state)]) };
    let live = [1, 2];
    let one = instance(1, 4, state(&record, 7, 5));
    let two = instance(2, 4, state(&record, 3, 3));
    let sum = combine(&live, 4, &[one.clone(), two.clone()]).expect("complete");
    assert_eq!(*sum.get("u-1").expect("known").sent.get("v1").expect("counted"), Totals { started: 10, finished: 8 });
    assert_eq!((sum.get("u-1").expect("known").epoch, sum.get("u-1").expect("known").config_epoch), (9, Some(9)));
    assert_eq!(combine(&live, 4, std::slice::from_ref(&one)), None, "one is missing");
    assert_eq!(combine(&live, 5, &[one.clone(), two.clone()]), None, "the answers are to an older round");
    assert_eq!(combine(&[], 0, &[]), None, "nobody lives");
    let behind = instance(2, 4, FlagState { epoch: 8, config_epoch: None, ..state(&record, 3, 3) });
    let sum = combine(&live, 4, &[one.clone(), behind]).expect("complete");
    assert_eq!(
        (sum.get("u-1").expect("known").epoch, sum.get("u-1").expect("known").config_epoch),
        (8, None),
        "the lowest counts"
    );
    let differs = instance(2, 4, FlagState { hash: "other".into(), ..state(&record, 3, 3) });
    assert_eq!(
        combine(&live, 4, &[one.clone(), differs]).expect("complete").get("u-1").expect("known").epoch,
        0,
        "no agreement"
    );
    let ignorant = Instance { id: 2, round: 4, flags: Named::new() };
    assert_eq!(
        combine(&live, 4, &[one, ignorant]).expect("complete").get("u-1").expect("known").epoch,
        0,
        "one does not know the flag"
    );
}

/// C11: whoever is not waited for, or has not been heard of lately, cannot hold a flag up.
#[test]
fn only_expected_proxies_say_which_epoch_is_the_highest() {
    let mut story = Story::new();
    story.quiet(1);
    let mut ahead = state(&story.record, 0, 0);
    ahead.epoch = 1_000_000;
    story.ledger.accept(story.now_ms, report("stranger", 1, ahead.clone())).expect("believed");
    assert_eq!(story.view().highest_epoch, 9);
    story.ledger.accept(story.now_ms, report("b", 9, ahead)).expect("believed");
    assert_eq!(story.view().highest_epoch, 1_000_000);
}

/// C16: 100,000 pods came and went.
#[test]
fn who_is_gone_is_forgotten_and_who_is_waited_for_is_not() {
    let mut story = Story::new();
    let later = record(10, "v2");
    story.both(1, state(&story.record, 10, 10));
    story.ledger.flips("u-1", "v1", "v2");
    let begin = story.now_ms;
    for one in 0..1_000 {
        let gone = format!("gone-{one}");
        story.ledger.accept(begin, report(&gone, 1, state(&story.record, 1, 1))).unwrap();
    }
    let is_expected = |name: &str| name == "a" || name == "b";
    story.ledger.forget_gone(begin + 60_000, is_expected);
    assert_eq!(story.ledger.remembered(), 1_002);
    // One of them comes back, and one that is waited for stays silent.
    story.now_ms = begin + 60_001;
    story.ledger.accept(story.now_ms, report("gone-7", 2, state(&later, 1, 1))).unwrap();
    story.ledger.accept(story.now_ms, report("a", 2, state(&later, 10, 10))).unwrap();
    story.ledger.forget_gone(story.now_ms, is_expected);
    assert_eq!(story.ledger.remembered(), 3);
    // What that one had is neither lost nor zero, and nothing of it is proved.
    let fleet = story.view();
    assert_eq!((fleet.acked, &fleet.old), (0, &Quiet::Unknown));
    assert!(fleet.laggards.iter().any(|laggard| laggard.proxy == "b" && laggard.why.starts_with("last seen")));
    assert!(fleet.sent["v1"].started >= 20, "{:?}", fleet.sent);
}

/// T2, P4, F17: an Envoy that is replaced drains beside the new one, or two Envoys have one id. Nothing is known of them
/// until one has been silent for as long as a report is believed.
#[test]
fn two_boots_side_by_side_are_unknown_and_named() {
    let mut story = Story::new();
    story.quiet(1);
    let record = story.record.clone();
    let of = |boot: &str, seq: u64| Report { boot: boot.into(), ..report("b", seq, state(&record, 0, 0)) };
    story.ledger.accept(story.now_ms, of("b2", 1)).expect("believed");
    assert_eq!(story.view().acked, 2);
    // The boot of before goes on.
    assert!(story.ledger.accept(story.now_ms, of("b1", 4)).is_err());
    let fleet = story.view();
    assert_eq!((fleet.acked, fleet.old), (1, Quiet::Unknown));
    assert!(fleet.laggards[0].why.contains("two processes report by its name"), "{:?}", fleet.laggards);
    // The new one does not change that, as long as the other one is heard of.
    for seq in 5..9 {
        story.now_ms += 1_000;
        story.ledger.accept(story.now_ms, report("a", seq, state(&record, 10, 10))).expect("believed");
        story.ledger.accept(story.now_ms, of("b2", seq)).expect("believed");
        assert!(story.ledger.accept(story.now_ms, of("b1", seq)).is_err());
        assert_eq!(story.view().acked, 1);
    }
    // A report that was on its way for long is none of somebody who lives.
    assert!(story.ledger.accept(story.now_ms, of("b1", 6)).is_err());
    for seq in 10..15 {
        story.now_ms += 1_000;
        story.ledger.accept(story.now_ms, report("a", seq, state(&record, 10, 10))).expect("believed");
        story.ledger.accept(story.now_ms, of("b2", seq)).expect("believed");
    }
    let fleet = story.view();
    assert_eq!(fleet.acked, 2);
    assert!(
        matches!(fleet.old, Quiet::Since(since) if since > 14_000),
        "what the other one had is over by now: {:?}",
        fleet.old
    );
}

/// T2: the later one of two Envoys with one id ends. The other one is believed after a while, counted anew.
#[test]
fn who_outlives_the_boot_after_it_is_believed_again() {
    let mut story = Story::new();
    story.quiet(1);
    let record = story.record.clone();
    let of = |boot: &str, seq: u64| Report { boot: boot.into(), ..report("b", seq, state(&record, 0, 0)) };
    story.ledger.accept(story.now_ms, of("b2", 1)).expect("believed");
    let mut believed = Vec::new();
    for seq in 5..15 {
        story.now_ms += 1_000;
        story.ledger.accept(story.now_ms, report("a", seq, state(&record, 10, 10))).expect("believed");
        let taken = story.ledger.accept(story.now_ms, of("b1", seq)).is_ok();
        believed.push((taken, story.view().acked));
    }
    // The later one is silent for long enough, then nothing more is heard of it for as long.
    let first = believed.iter().position(|(taken, _)| *taken).expect("believed at last");
    assert!(first >= 3, "{believed:?}");
    assert!(believed[..first].iter().all(|one| *one == (false, 1)), "{believed:?}");
    assert!(believed[first..].iter().all(|(taken, _)| *taken), "{believed:?}");
    assert_eq!(believed.last(), Some(&(true, 2)), "{believed:?}");
    // One that was on its way for long is none of somebody who lives.
    assert!(story.ledger.accept(story.now_ms, of("b2", 1)).is_err());
    assert_eq!(story.view().acked, 2);
}
