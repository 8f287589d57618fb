//! Requests that proxies have sent since somebody began to count them. Pure.
//!
//! A sum of what proxies say falls when one of them goes away, and jumps when one comes that has sent requests for
//! days. So growth is added up, of each proxy by itself, from one complete report to the next. What nobody saw grow is
//! left out: the first report of a proxy and of each of its boots, and what a part of it had counted that has ended.
//! The result never falls, and is never too high.

use std::collections::{BTreeMap, BTreeSet};

use flag::instance::FlagState;
use flag::named::Named;

use super::ledger::Ledger;
use super::quiet::upsert;

/// What is counted of one flag. None of it ever falls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// Requests sent, by version.
    pub sent: BTreeMap<String, u64>,
    /// Responses that came from another version than the intended one.
    pub unroutable: u64,
}

impl Counted {
    /// Counts these versions from now on, and no others.
    pub(super) fn of(&mut self, versions: &BTreeSet<&str>) {
        self.sent.retain(|version, _| versions.contains(version.as_str()));
        for version in versions {
            upsert(&mut self.sent, version, |_| {});
        }
    }

    /// Adds what has grown at one proxy.
    fn add(&mut self, before: &FlagState, now: &FlagState) {
        for (version, sum) in &mut self.sent {
            if let (Some(before), Some(now)) = (before.sent.get(version), now.sent.get(version)) {
                *sum = sum.saturating_add(now.started.saturating_sub(before.started));
            }
        }
        self.unroutable = self.unroutable.saturating_add(now.unroutable.saturating_sub(before.unroutable));
    }
}

/// Adds what has grown at one proxy between two complete reports of one boot, of the flags that are counted, by uid.
pub(super) fn grow(counted: &mut BTreeMap<String, Counted>, before: &Named<FlagState>, now: &Named<FlagState>) {
    for (uid, now) in now {
        if let (Some(counted), Some(before)) = (counted.get_mut(uid), before.get(uid)) {
            counted.add(before, now);
        }
    }
}

impl Ledger {
    /// Counts the requests of a flag to these versions from now on, and no others.
    pub fn count(&mut self, uid: &str, versions: &BTreeSet<&str>) {
        upsert(&mut self.counted, uid, |counted| counted.of(versions));
    }

    /// What was counted of a flag; `None`: nothing is.
    pub fn counted(&self, uid: &str) -> Option<&Counted> {
        self.counted.get(uid)
    }
}
