//! What is counted of a flag never falls, and never has what was there before.

use std::collections::BTreeSet;

use flag::count::Totals;
use flag::instance::FlagState;
use flag::named::Named;
use flag::report::Report;
use machine::fleet::ledger::Ledger;

struct Story {
    ledger: Ledger,
    seq: u64,
}

impl Story {
    fn new() -> Story {
        let mut ledger = Ledger::new(5_000);
        ledger.count("u-1", &BTreeSet::from(["v1", "v2"]));
        Story { ledger, seq: 0 }
    }

    /// What is counted after a proxy says that it has sent so many.
    fn tell(
        &mut self,
        proxy: &str,
        boot: &str,
        complete: bool,
        sent: &[(&str, u64)],
        unroutable: u64,
    ) -> (u64, u64, u64) {
        self.seq += 1;
        let totals = |(version, started): &(&str, u64)| {
            ((*version).to_owned(), Totals { started: *started, finished: *started })
        };
        let state = FlagState { sent: sent.iter().map(totals).collect(), unroutable, ..FlagState::default() };
        let report = Report {
            protocol: flag::PROTOCOL,
            proxy: proxy.to_owned(),
            boot: boot.to_owned(),
            seq: self.seq,
            revision: "r".to_owned(),
            instances: vec![1],
            complete,
            flags: Named::from([("u-1".to_owned(), state)]),
            findings: Default::default(),
        };
        self.ledger.accept(self.seq, report).expect("believed");
        self.counted()
    }

    /// To v1, to v2, and the responses from another version.
    fn counted(&self) -> (u64, u64, u64) {
        let counted = self.ledger.counted("u-1").expect("a flag that is counted");
        (counted.sent["v1"], counted.sent["v2"], counted.unroutable)
    }
}

#[test]
fn only_what_has_grown_counts() {
    let mut story = Story::new();
    assert_eq!(story.tell("a", "1", true, &[("v1", 1_000), ("v2", 0)], 7), (0, 0, 0), "it was there before");
    assert_eq!(story.tell("a", "1", true, &[("v1", 1_010), ("v2", 3)], 8), (10, 3, 1));
    assert_eq!(story.tell("b", "1", true, &[("v1", 500), ("v2", 500)], 0), (10, 3, 1), "another proxy comes");
    assert_eq!(story.tell("b", "1", true, &[("v1", 501), ("v2", 500)], 0), (11, 3, 1));
}

#[test]
fn nothing_falls_when_proxies_or_their_parts_go() {
    let mut story = Story::new();
    story.tell("a", "1", true, &[("v1", 0), ("v2", 0)], 0);
    assert_eq!(story.tell("a", "1", true, &[("v1", 40), ("v2", 0)], 2), (40, 0, 2));
    assert_eq!(story.tell("a", "1", true, &[("v1", 15), ("v2", 0)], 0), (40, 0, 2), "a worker has ended");
    assert_eq!(story.tell("a", "1", true, &[("v1", 16), ("v2", 0)], 0), (41, 0, 2));
    assert_eq!(story.tell("a", "2", true, &[("v1", 5), ("v2", 1)], 1), (41, 0, 2), "it has started anew");
    assert_eq!(story.tell("a", "2", true, &[("v1", 7), ("v2", 1)], 1), (43, 0, 2));
    story.ledger.forget_gone(1_000_000, |_| false);
    assert_eq!((story.ledger.remembered(), story.counted()), (0, (43, 0, 2)));
}

#[test]
fn what_an_incomplete_report_leaves_out_is_not_counted_twice() {
    let mut story = Story::new();
    assert_eq!(story.tell("a", "1", false, &[("v1", 100), ("v2", 0)], 0), (0, 0, 0));
    assert_eq!(story.tell("a", "1", true, &[("v1", 900), ("v2", 0)], 0), (0, 0, 0), "the first that is complete");
    assert_eq!(story.tell("a", "1", false, &[("v1", 100), ("v2", 0)], 0), (0, 0, 0));
    assert_eq!(story.tell("a", "1", false, &[("v1", 110), ("v2", 0)], 0), (0, 0, 0));
    assert_eq!(story.tell("a", "1", true, &[("v1", 905), ("v2", 0)], 0), (5, 0, 0));
}

#[test]
fn only_versions_that_the_flag_has_are_counted() {
    let mut story = Story::new();
    let both = [("v1", 0), ("v2", 0), ("v3", 0)];
    story.tell("a", "1", true, &both, 0);
    story.tell("a", "1", true, &both.map(|(version, _)| (version, 5)), 0);
    assert_eq!(story.ledger.counted("u-1").map(|counted| counted.sent.len()), Some(2));
    story.ledger.count("u-1", &BTreeSet::from(["v2", "v3"]));
    let counted = story.ledger.counted("u-1").expect("a flag that is counted").sent.clone();
    assert_eq!(counted, [("v2".to_owned(), 5), ("v3".to_owned(), 0)].into());
    story.ledger.forget("u-1");
    assert_eq!(story.ledger.counted("u-1"), None);
}
