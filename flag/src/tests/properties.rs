//! What holds for any order of events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{nowhere, record};
use crate::config::{Config, Workload};
use crate::epoch;
use crate::instance::FlagState;
use crate::ledger::{Asked, Ledger, Quiet};
use crate::report::Report;
use crate::snapshot::Snapshot;
use crate::table::{Channel, Table};

fn channel() -> impl Strategy<Value = Channel> {
    prop_oneof![Just(Channel::Config), Just(Channel::Service)]
}

proptest! {
    /// Records in any order over any channel: the epoch in effect never decreases, and content
    /// never changes under one epoch.
    #[test]
    fn the_epoch_never_decreases(arrivals in prop::collection::vec((channel(), 1..20_u64, any::<bool>()), 1..60)) {
        let mut table = Table::default();
        let mut last: Option<(u64, String)> = None;
        for (channel, epoch, first) in arrivals {
            table.apply(channel, &[record(epoch, if first { "v1" } else { "v2" })], &nowhere);
            let flag = table.find("reviews").expect("known");
            if let Some((epoch, hash)) = last {
                prop_assert!(flag.record.epoch >= epoch);
                prop_assert!(flag.record.epoch > epoch || flag.record.hash == hash);
            }
            last = Some((flag.record.epoch, flag.record.hash.clone()));
        }
    }

    #[test]
    fn the_next_epoch_is_above_both(written in 0..1_u64 << 50, reported in 0..1_u64 << 50, now in 0..1_u64 << 50) {
        if let Ok(next) = epoch::next(written, reported, now) {
            prop_assert!(next > written && next > reported && next >= now);
        }
    }

    /// Any authority, caller and header gets an answer, and it is a version of the record.
    #[test]
    fn every_request_gets_a_known_version(host in ".{0,40}", service in "[a-z]{0,9}", version in ".{0,9}", value in ".{0,9}") {
        let mut table = Table::default();
        table.apply(Channel::Config, &[record(3, "v1")], &nowhere);
        let _ = table.find(&host);
        let flag = table.find("reviews").expect("known");
        let caller = Workload { service, version };
        let chosen = flag.choose(Some(&caller), |_| Some(value));
        prop_assert!(flag.record.versions.contains(chosen.version()));
        prop_assert!(flag.served_by(&host).is_none_or(|counter| flag.record.versions.contains(counter.version())));
    }

    #[test]
    fn parsers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Snapshot::parse(&bytes);
        let _ = Config::parse(&bytes);
        let _ = Report::parse(&bytes);
    }

    /// Reports that come, stay away, restart or are incomplete in any order: the old version is
    /// quiet only if every expected proxy has a current, complete report of this very record with
    /// nothing open.
    #[test]
    fn unknown_is_never_zero(events in prop::collection::vec((0..2_u8, 0..4_u8, 0..3_u64, any::<bool>(), 0..2_000_u64), 1..80)) {
        let target = record(9, "v2");
        let expected = BTreeSet::from(["p0".to_owned(), "p1".to_owned()]);
        let mut ledger = Ledger::new(3_000);
        let mut now_ms = 1_000_000;
        let mut latest: [Option<(u64, u8, u64, bool)>; 2] = [None, None];
        for (seq, (proxy, kind, open, behind, pause)) in events.into_iter().enumerate() {
            now_ms += pause;
            let mut state = FlagState { epoch: 9, hash: target.hash.clone(), config_epoch: Some(9), ..FlagState::default() };
            if behind {
                state.epoch = 8;
            }
            state.sent.entry("v1".to_owned()).or_default().started = 50 + open;
            state.sent.entry("v1".to_owned()).or_default().finished = 50;
            let report = Report {
                protocol: crate::PROTOCOL,
                proxy: format!("p{proxy}"),
                boot: "b".to_owned(),
                seq: seq as u64 + 1,
                revision: String::new(),
                instances: vec![1],
                complete: kind != 0,
                flags: [("u-1".to_owned(), state)].into(),
            };
            ledger.accept(now_ms, report).expect("believed");
            latest[usize::from(proxy)] = Some((now_ms, kind, open, behind));
            let asked = Asked { old: "v1".to_owned(), wanted: "v2".to_owned(), config_epoch: target.epoch };
            let fleet = ledger.view(now_ms, &target, &expected, &asked);
            prop_assert_eq!(fleet.acked + fleet.laggards.len(), fleet.expected);
            let all_known = latest.iter().all(|seen| seen.is_some_and(|(at, kind, _, _)| kind != 0 && now_ms - at <= 3_000));
            if !all_known {
                prop_assert_eq!(fleet.old, Quiet::Unknown);
            }
            if let Quiet::Since(since) = fleet.old {
                prop_assert_eq!(fleet.acked, 2);
                prop_assert!(since <= now_ms);
                let none_open = latest.iter().flatten().all(|(_, _, open, behind)| *open == 0 && !behind);
                prop_assert!(none_open);
            }
        }
    }
}
