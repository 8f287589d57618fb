//! Callers without a filter: who is counted, who is named, and for how long.

use std::collections::BTreeSet;

use super::{nowhere, record};
use flag::count::Totals;
use flag::instance::FlagState;
use flag::limits;
use flag::named::Named;
use flag::report::Report;
use flag::table::{Channel, Table};
use machine::fleet::ledger::{FleetQuestion, Ledger};
use machine::fleet::unmanaged::UnmanagedCaller;

/// A report of the proxy in front of v1, where these have arrived.
fn report(boot: &str, seq: u64, strangers: &[(&str, u64)]) -> Report {
    let totals = |started| Totals { started, finished: 0 };
    let state = FlagState {
        arrived: Named::from([("v1".to_owned(), Totals { started: 900, finished: 900 })]),
        strangers: strangers.iter().map(|(from, started)| ((*from).to_owned(), totals(*started))).collect(),
        ..FlagState::default()
    };
    Report {
        protocol: flag::PROTOCOL,
        proxy: "v1-a".to_owned(),
        boot: boot.to_owned(),
        seq,
        revision: String::new(),
        instances: vec![1],
        complete: true,
        flags: Named::from([("u-1".to_owned(), state)]),
        findings: Default::default(),
    }
}

/// Who is spoken of, and how often they come.
fn seen(ledger: &Ledger, now_ms: u64, old: &str) -> Vec<(String, u64)> {
    let asked = FleetQuestion { old: old.to_owned(), ..FleetQuestion::default() };
    let fleet = ledger.view(now_ms, &record(9, "v2"), &BTreeSet::from(["v1-a".to_owned()]), &asked);
    fleet.unmanaged.into_iter().map(|UnmanagedCaller { from, per_second, .. }| (from, per_second)).collect()
}

#[test]
fn who_comes_is_named_with_a_rate_until_it_stays_away() {
    let mut ledger = Ledger::new(60_000);
    let mut take = |now_ms, report| ledger.accept(now_ms, report).expect("believed");
    take(1_000, report("b1", 1, &[("10.0.0.7", 3)]));
    take(1_500, report("b1", 2, &[("10.0.0.7", 28), ("10.0.0.8", 1)]));
    take(2_000, report("b1", 3, &[("10.0.0.7", 53), ("10.0.0.8", 1)]));
    let known = |from: &str, rate| (from.to_owned(), rate);
    assert_eq!(seen(&ledger, 2_000, "v1"), [known("10.0.0.7", 50), known("10.0.0.8", 0)]);
    // Whoever comes to a version that stays is no business of this switch.
    assert_eq!(seen(&ledger, 2_000, "v3"), []);
    let mut take = |now_ms, report| ledger.accept(now_ms, report).expect("believed");
    take(11_600, report("b1", 4, &[("10.0.0.7", 54), ("10.0.0.8", 1)]));
    assert_eq!(seen(&ledger, 11_600, "v1"), [known("10.0.0.7", 1)]);
    // A proxy that was started anew counts anew.
    let mut take = |now_ms, report| ledger.accept(now_ms, report).expect("believed");
    take(12_000, report("b2", 1, &[("10.0.0.8", 2)]));
    assert_eq!(seen(&ledger, 12_000, "v1"), [known("10.0.0.8", 0)]);
}

#[test]
fn a_filter_tells_some_apart_and_forgets_them_with_the_record() {
    let mut table = Table::default();
    table.apply(Channel::Service, &[record(9, "v2")], &nowhere);
    let flag = |table: &Table| table.flags().next().expect("a flag").1.clone();
    for number in 0..limits::STRANGERS + 5 {
        flag(&table).observed.stranger(&format!("10.0.0.{number}"));
    }
    flag(&table).observed.stranger("10.0.0.3");
    let strangers = flag(&table).state(0).strangers;
    let started = |from: &str| strangers.get(from).map(|totals| totals.started);
    assert_eq!((strangers.len(), started("10.0.0.3"), started("")), (limits::STRANGERS + 1, Some(2), Some(5)));
    table.apply(Channel::Service, &[record(10, "v2")], &nowhere);
    assert!(flag(&table).state(0).strangers.is_empty());
}

#[test]
fn a_report_of_too_many_is_not_believed() {
    let parse = |report: &Report| Report::parse(&serde_json::to_vec(report).expect("JSON"));
    assert!(parse(&report("b1", 1, &[("10.0.0.7", 3)])).is_ok());
    assert!(parse(&report("b1", 1, &[(&"1".repeat(limits::NAME_BYTES + 1), 3)])).is_err());
}

/// F15: a version whose members call each other is told apart from one that others call.
#[test]
fn who_sends_to_the_old_version_is_named_and_members_of_it_apart() {
    let mut ledger = Ledger::new(60_000);
    let sends = |proxy: &str, seq, started, finished| {
        let mut report = report("b1", seq, &[]);
        report.proxy = proxy.to_owned();
        let sent = Named::from([("v1".to_owned(), Totals { started, finished })]);
        report.flags.get_mut("u-1").expect("the flag").sent = sent;
        report
    };
    let all = ["v1-a", "web-0", "web-1", "web-2"].map(str::to_owned);
    let asked =
        FleetQuestion { old: "v1".to_owned(), members: all[..1].iter().cloned().collect(), ..FleetQuestion::default() };
    for (now_ms, calls) in [(1_000, 3), (20_000, 4)] {
        for (proxy, started, finished) in [("v1-a", calls, calls), ("web-0", 5, 5), ("web-1", 0, 0), ("web-2", 2, 1)] {
            ledger.accept(now_ms, sends(proxy, now_ms, started, finished)).expect("believed");
        }
    }
    let view = |now_ms| {
        let fleet = ledger.view(now_ms, &record(9, "v2"), &all.clone().into(), &asked);
        (fleet.members, fleet.senders)
    };
    // That of web-2 is open still, that of web-0 was long ago.
    assert_eq!(view(20_500), (vec!["v1-a".to_owned()], vec!["web-2".to_owned()]));
    assert_eq!(view(40_000), (vec![], vec!["web-2".to_owned()]));
}
