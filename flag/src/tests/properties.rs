//! What holds for any order of events.

use proptest::prelude::*;

use super::{nowhere, record};
use crate::config::{Config, Workload};
use crate::epoch;
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
}
