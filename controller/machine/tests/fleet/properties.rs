//! What holds for any order of reports.

use std::collections::BTreeSet;

use flag::count::Totals;
use flag::instance::FlagState;
use flag::report::Report;
use machine::fleet::ledger::{FleetQuestion, Ledger, Quiet};
use proptest::prelude::*;

use super::record;

proptest! {
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
            state.sent.insert("v1".to_owned(), Totals { started: 50 + open, finished: 50 });
            let report = Report {
                protocol: flag::PROTOCOL,
                proxy: format!("p{proxy}"),
                boot: "b".to_owned(),
                seq: seq as u64 + 1,
                revision: String::new(),
                instances: vec![1],
                complete: kind != 0,
                flags: [("u-1".to_owned(), state)].into(),
                findings: Default::default(),
            };
            ledger.accept(now_ms, report).expect("believed");
            latest[usize::from(proxy)] = Some((now_ms, kind, open, behind));
            let asked = FleetQuestion { old: "v1".to_owned(), wanted: "v2".to_owned(), config_epoch: target.epoch, ..FleetQuestion::default() };
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
