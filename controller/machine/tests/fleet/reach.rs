//! F18, and joiners: who has shown what of a probe.

use flag::instance::Findings;
use flag::probe::{Outcome, Place, Probe, Probed, REACHED};
use flag::stray::Stray;

use super::ledger::{Story, report, state};
use flag::instance::FlagState;
use flag::report::Report;
use machine::fleet::ledger::{Fleet, FleetQuestion};

fn probe() -> Probe {
    let place = Place { cluster: "c".to_owned(), host: "h".to_owned(), path: "/".to_owned() };
    let (flag, id, version) = ("u-1".to_owned(), "p".to_owned(), "v2".to_owned());
    Probe { flag, id, version, clusters: vec![place], lowest: 200, highest: 399, timeout_ms: 1_000 }
}

fn found(id: &str, outcome: &str) -> Findings {
    let outcome = Outcome { cluster: "c".to_owned(), outcome: outcome.to_owned() };
    let probed = Some(Probed { id: id.to_owned(), clusters: vec![outcome] });
    Findings { flag: "u-1".to_owned(), probed, ..Findings::default() }
}

struct Reach {
    story: Story,
    seq: u64,
}

impl Reach {
    fn new() -> Reach {
        let mut story = Story::new();
        story.expected = vec!["a".to_owned()];
        Reach { story, seq: 0 }
    }

    fn says(&mut self, found: Option<Findings>) -> Fleet {
        self.seq += 1;
        let report = report("a", self.seq, state(&self.story.record, 0, 0));
        self.accept(Report { findings: found.into_iter().collect(), ..report })
    }

    fn accept(&mut self, report: Report) -> Fleet {
        self.story.now_ms += 100;
        self.story.ledger.accept(self.story.now_ms, report).expect("believed");
        self.view()
    }

    fn view(&self) -> Fleet {
        let expected = self.story.expected.iter().cloned().collect();
        let asked = FleetQuestion { old: "v1".to_owned(), probe: Some(probe()), ..FleetQuestion::default() };
        self.story.ledger.view(self.story.now_ms, &self.story.record, &expected, &asked)
    }
}

fn why(fleet: &Fleet) -> (Option<&str>, bool) {
    (fleet.reach_laggards.first().map(|one| one.why.as_str()), fleet.reach_broken)
}

#[test]
fn what_was_never_shown_is_not_reached() {
    let mut reach = Reach::new();
    assert!(why(&reach.view()).0.unwrap().contains("never reported"));
    assert!(why(&reach.says(None)).0.unwrap().contains("older than this controller"));
    assert_eq!(why(&reach.says(Some(found("another", REACHED)))), (Some("not tried yet"), false));
    assert_eq!(why(&reach.says(Some(found("p", "no healthy host")))), (Some("cluster c: no healthy host"), false));
}

#[test]
fn a_break_begins_the_count_anew() {
    let mut reach = Reach::new();
    let fleet = reach.says(Some(found("p", REACHED)));
    assert_eq!((why(&fleet), fleet.reached_since), ((None, false), 0), "nothing ever broke");
    assert_eq!(why(&reach.says(Some(found("p", "status 503: ")))), (Some("cluster c: status 503: "), true));
    let since = reach.story.now_ms + 100;
    for _ in 0..3 {
        let fleet = reach.says(Some(found("p", REACHED)));
        assert_eq!((why(&fleet), fleet.reached_since), ((None, false), since));
    }
    // A round that was late is no break, ...
    let late = Report { complete: false, ..report("a", 50, FlagState::default()) };
    assert!(why(&reach.accept(late)).0.is_some());
    reach.seq = 60;
    assert_eq!(reach.says(Some(found("p", REACHED))).reached_since, since);
    // ... but what was not seen for long may have broken.
    reach.story.now_ms += 3_001;
    let since = reach.story.now_ms + 100;
    assert_eq!(reach.says(Some(found("p", REACHED))).reached_since, since);
}

/// The answer to one question says nothing of the time in which another was asked.
#[test]
fn another_question_begins_the_count_anew() {
    let mut reach = Reach::new();
    reach.says(Some(found("before", REACHED)));
    let since = reach.story.now_ms + 100;
    for _ in 0..2 {
        assert_eq!(reach.says(Some(found("p", REACHED))).reached_since, since);
    }
}

#[test]
fn silence_is_not_reached() {
    let mut reach = Reach::new();
    reach.says(Some(found("p", REACHED)));
    reach.story.now_ms += 3_001;
    assert!(why(&reach.view()).0.unwrap().contains("last seen"));
}

/// T4, T5: only what went to the old version is in the way.
#[test]
fn strays_to_the_old_version_are_named() {
    let mut reach = Reach::new();
    let stray = |version: &str| Stray {
        place: "reviews/api".to_owned(),
        version: version.to_owned(),
        route: "older".to_owned(),
        cluster: format!("reviews-{version}"),
        count: 35,
    };
    // F14: they say nothing of strays, nor do those of them.
    assert_eq!(reach.says(Some(Findings { checked: 7, ..found("p", REACHED) })).health_checks, 7);
    let of = |strays| Some(Findings { strays, ..found("p", REACHED) });
    assert_eq!(reach.says(of(vec![stray("v2")])).strays, []);
    let fleet = reach.says(of(vec![stray("v2"), stray("v1")]));
    let [one] = fleet.strays.as_slice() else { panic!("{:?}", fleet.strays) };
    assert_eq!(
        (one.proxy.as_str(), one.why.as_str()),
        ("a", "35 to reviews/api, by route \"older\" to cluster reviews-v1")
    );
}
