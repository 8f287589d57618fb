//! How the contract grows: L1. What builds of different age read of each other.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::fence::fence;
use super::record;
use crate::fence::{Fence, Held};
use crate::health::HealthChecks;
use crate::instance::{Findings, InstanceFindings, combine_findings};
use crate::json;
use crate::level::{joined, parts};
use crate::probe::{INSIDE, NOT_TRIED, Outcome, Place, Probe, Probed, REACHED, SILENT};
use crate::report::Report;
use crate::snapshot::{Asks, Snapshot};
use crate::stray::{self, Stray};

const REPORT: &str = include_str!("../../golden/report.json");
const FINDINGS: &str = include_str!("../../golden/findings.json");
const ASKS: &str = include_str!("../../golden/asks.json");

fn probe() -> Probe {
    let place = Place { cluster: "reviews-v2".into(), host: "reviews".into(), path: "/ready".into() };
    let (flag, id, version) = ("u-1".into(), "p-1".into(), "v2".into());
    Probe { flag, id, version, clusters: vec![place], lowest: 200, highest: 399, timeout_ms: 1_000 }
}

fn snapshot(asks: Option<Asks>) -> Snapshot {
    let (protocol, revision, flags) = (1, "r-7".to_owned(), vec![record(5, "v1")]);
    Snapshot { protocol, revision, report_every_ms: 100, prove_routes: vec![], measure: vec![], flags, asks }
}

fn asks() -> Asks {
    let fences = vec![Fence { marked: vec!["v2".into()], closed: vec!["v1".into()], ..fence(5, 4) }];
    Asks { revision: "r-7".into(), probes: vec![probe()], fences, ..Asks::default() }
}

fn probed(id: &str, outcomes: &[(&str, &str)]) -> Probed {
    let one = |(cluster, outcome): &(&str, &str)| Outcome { cluster: (*cluster).into(), outcome: (*outcome).into() };
    Probed { id: id.into(), clusters: outcomes.iter().map(one).collect() }
}

#[test]
fn golden_parts_are_what_both_sides_write() {
    let asked: Asks = json::parse(ASKS.as_bytes()).expect("valid");
    assert_eq!(asked, asks());
    assert_eq!(serde_json::to_string_pretty(&asked).expect("serializable"), ASKS.trim_end());
    let report = Report::parse(&joined(REPORT.into(), FINDINGS.as_bytes())).expect("valid");
    let found = report.found("u-1").expect("something of it");
    assert_eq!(found.probed.as_ref().and_then(|probed| probed.lacks(&probe())), None);
    let fenced = found.fenced.as_ref().map(|fenced| (fenced.epoch, fenced.held, fenced.waiting));
    assert_eq!(fenced, Some((1_795_000_000_013, Held::Holding, 12)));
    assert_eq!(serde_json::to_string_pretty(&report.findings).expect("serializable"), FINDINGS.trim_end());
}

#[test]
fn the_first_part_is_what_the_first_build_reads() {
    let (first, both) = (snapshot(None).to_bytes().unwrap(), snapshot(Some(asks())).to_bytes().unwrap());
    assert_eq!(parts(&both).0, first);
    assert_eq!(parts(&first), (first.as_slice(), None));
    assert_eq!(Snapshot::parse(&both).unwrap(), snapshot(Some(asks())));
    assert_eq!(Snapshot::parse(&first).unwrap(), snapshot(None));
}

#[test]
fn what_a_later_level_adds_is_left_out() {
    let both = String::from_utf8(snapshot(Some(asks())).to_bytes().unwrap()).unwrap();
    let known = snapshot(Some(asks()));
    let cases = [
        both.replacen(r#""probes""#, r#""later":{"a":[1]},"probes""#, 1),
        both.replacen(r#""id":"p-1""#, r#""later":null,"id":"p-1""#, 1),
        format!("{both}\u{1e}{{\"a third part\":1}}\u{1e}"),
    ];
    for text in cases {
        assert_eq!(Snapshot::parse(text.as_bytes()).unwrap(), known, "{text}");
    }
    // In the first part, and in a record, it may change where requests go.
    for text in [both.replacen('{', r#"{"later":1,"#, 1), both.replacen(r#""uid""#, r#""later":1,"uid""#, 1)] {
        let error = Snapshot::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("unknown field `later`"), "{error}");
    }
}

/// A build of the first level publishes a snapshot and leaves the second part of the one before where it is.
#[test]
fn a_part_of_another_snapshot_says_nothing() {
    let stale = Asks { revision: "r-6".into(), ..asks() };
    assert_eq!(Snapshot::parse(&snapshot(Some(stale)).to_bytes().unwrap()).unwrap(), snapshot(None));
}

#[test]
fn a_probe_that_no_request_may_have_keeps_no_flag_back() {
    let wrong = [
        Place { cluster: String::new(), ..probe().clusters[0].clone() },
        Place { path: "/a b".into(), ..probe().clusters[0].clone() },
        Place { host: "a\"b".into(), ..probe().clusters[0].clone() },
    ];
    for place in wrong {
        let asks = Asks { probes: vec![Probe { clusters: vec![place], ..probe() }], ..asks() };
        let read = Snapshot::parse(&snapshot(Some(asks)).to_bytes().unwrap()).unwrap();
        assert_eq!(read, snapshot(Some(Asks { probes: vec![], ..self::asks() })));
    }
    let garbage = joined(snapshot(None).to_bytes().unwrap(), b"\xff{");
    assert_eq!(Snapshot::parse(&garbage).unwrap(), snapshot(None));
}

#[test]
fn a_cluster_is_reached_once_every_instance_has_reached_it() {
    let part = |id: u32, probed: Option<Probed>| {
        let found = Findings { flag: "u-1".into(), probed, ..Findings::default() };
        InstanceFindings { id, round: 3, flags: vec![found] }
    };
    let reached = || Some(probed("p-1", &[("reviews-v2", REACHED)]));
    let inside = || Some(probed("p-1", &[("reviews-v2", INSIDE)]));
    let failed = || Some(probed("p-1", &[("reviews-v2", "status 503: ")]));
    let cases = [
        (vec![part(1, reached()), part(2, inside())], None),
        (vec![part(1, reached()), part(2, failed())], Some("cluster reviews-v2: status 503: ".to_owned())),
        (vec![part(1, failed()), part(2, reached())], Some("cluster reviews-v2: status 503: ".to_owned())),
        // Of another build, or of another round: unknown.
        (vec![part(1, reached())], Some(format!("cluster reviews-v2: {SILENT}"))),
        (
            vec![part(1, reached()), InstanceFindings { round: 2, ..part(2, reached()) }],
            Some(format!("cluster reviews-v2: {SILENT}")),
        ),
        (vec![part(1, reached()), part(2, None)], Some(format!("cluster reviews-v2: {SILENT}"))),
        // Of another question.
        (
            vec![part(1, Some(probed("p-0", &[("reviews-v2", REACHED)]))), part(2, reached())],
            Some(NOT_TRIED.to_owned()),
        ),
        (vec![part(1, Some(probed("p-1", &[]))), part(2, reached())], Some(format!("cluster reviews-v2: {NOT_TRIED}"))),
    ];
    for (parts, lacks) in cases {
        let found = combine_findings(&[1, 2], 3, &parts);
        let all = found[0].probed.as_ref().expect("one of them has shown something");
        assert_eq!(all.lacks(&probe()), lacks, "{parts:?}");
    }
    assert_eq!(combine_findings(&[1], 3, &[]), []);
}

/// F14.
#[test]
fn health_checks_of_all_instances_are_added_up() {
    let part = |id: u32, checked: u64| {
        let found = Findings { flag: "u-1".into(), checked, ..Findings::default() };
        InstanceFindings { id, round: 3, flags: vec![found] }
    };
    let found = combine_findings(&[1, 2], 3, &[part(1, 3), part(2, 4), part(3, 9)]);
    assert_eq!(found.iter().map(|found| found.checked).collect::<Vec<_>>(), [7]);
    let health = HealthChecks { flag: "u-1".into(), paths: vec!["/a".into()], ..HealthChecks::default() };
    let bad = HealthChecks { paths: vec![String::new()], ..health.clone() };
    let sent = snapshot(Some(Asks { health: vec![bad, health.clone()], ..asks() }));
    let read = Snapshot::parse(&sent.to_bytes().unwrap()).unwrap();
    assert_eq!(read.asks.map(|asks| asks.health), Some(vec![health]));
}

/// L2, P3: what is unknown anywhere is, and the highest rival counts.
#[test]
fn unknown_requests_and_rivals_are_added_up() {
    let part = |id, unplaced, rival_epoch| {
        let found = Findings { flag: "u-1".into(), unplaced, rival_epoch, ..Findings::default() };
        InstanceFindings { id, round: 3, flags: vec![found] }
    };
    let sum = combine_findings(&[1, 2], 3, &[part(1, 2, 7), part(2, 3, 5)]);
    assert_eq!(sum, [Findings { flag: "u-1".into(), unplaced: 5, rival_epoch: 7, ..Findings::default() }]);
    let text = serde_json::to_string(&sum).expect("serializable");
    assert_eq!(text, r#"[{"flag":"u-1","unplaced":5,"rivalEpoch":7}]"#);
    assert_eq!(json::parse::<Vec<Findings>>(text.as_bytes()).expect("valid"), sum);
}

#[test]
fn strays_of_one_place_are_added_up() {
    let at = |place: &str, version: &str, count| {
        let (place, version) = (place.to_owned(), version.to_owned());
        Stray { place, version, route: "r".into(), cluster: "c".into(), count }
    };
    let mut sum = vec![at("a/", "v1", 1)];
    stray::add(&mut sum, &[at("a/", "v1", 2), at("a/", "v2", 4), at("b/", "v1", 8)]);
    assert_eq!(sum, [at("a/", "v1", 3), at("a/", "v2", 4), at("b/", "v1", 8)]);
    assert_eq!(stray::place("GET", "reviews", "/api?x=1"), "GET reviews/api");
    assert_eq!(stray::place("GET", "reviews", &"/".repeat(500)).len(), 120);
    // However many places there are, none is forgotten, and a report stays small.
    let mut sum = vec![at("a/", "v2", 1)];
    for number in 0..100 {
        stray::add(&mut sum, &[at(&format!("{number}/"), "v1", 1)]);
    }
    let of_v1: Vec<_> = sum.iter().filter(|one| one.version == "v1").collect();
    assert_eq!((sum.len(), of_v1.len()), (stray::MOST + 1, stray::MOST));
    assert_eq!(of_v1.iter().map(|one| one.count).sum::<u64>(), 100);
    assert_eq!(of_v1.last().map(|one| one.place.as_str()), Some(stray::OTHERS));
}
