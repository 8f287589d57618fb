//! What the proxies of a simulated world show of a fence. Pure.

use std::collections::BTreeMap;

use flag::fence::Fence;
use flag::record::Gate;

use super::proxies::{Old, Proxies, named};
use crate::duration::Millis;
use crate::fleet::fence::FleetFence;
use crate::fleet::ledger::Laggard;
use crate::time::UnixMs;

/// What is known of holds.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// What was published last.
    fence: Option<Fence>,
    held: bool,
    /// The hold under way, and when all had its first record.
    since: Option<(u64, UnixMs)>,
    /// From then until nothing is open on the old version; `None`: never.
    drain: Option<Millis>,
    pub(super) cannot: BTreeMap<String, String>,
    pub(super) long: BTreeMap<String, String>,
}

impl Holds {
    pub(super) fn publish(&mut self, fence: Option<&Fence>, gate: Gate) {
        self.fence = fence.cloned();
        self.held = gate == Gate::Hold;
    }

    /// Every proxy has what was published.
    pub(super) fn acked(&mut self, now: UnixMs) {
        let since = self.fence.as_ref().map(|fence| fence.since).filter(|since| *since > 0);
        self.since = since.map(|since| self.since.filter(|(known, _)| *known == since).unwrap_or((since, now)));
    }

    pub(super) fn takes(&mut self, drain: Option<Millis>) {
        self.drain = drain;
    }

    fn drained_at(&self) -> Option<UnixMs> {
        Some(self.since?.1.plus(self.drain?))
    }

    /// When the old version has drained, if that is still to come.
    pub(super) fn due(&self, now: UnixMs) -> Option<UnixMs> {
        self.drained_at().filter(|at| *at > now)
    }
}

impl Proxies {
    /// What they show of the fence of the record that was published last, where there is one.
    pub(super) fn fence(&self, now: UnixMs, late: &[Laggard]) -> Option<FleetFence> {
        let holds = &self.holds;
        let asked = holds.fence.as_ref()?;
        let first = |why: &str| self.first().map(|proxy| Laggard { proxy, why: why.to_owned() });
        let mut fence = FleetFence { unable: named(&holds.cannot), long: named(&holds.long), ..FleetFence::default() };
        fence.not_holding.extend(late.iter().cloned());
        if !holds.held {
            fence.not_holding.extend(first("nothing is held"));
        }
        let over = holds.since.is_some_and(|(_, at)| now >= at.plus(Millis(asked.max_hold_ms.into())));
        fence.expired.extend(first("its hold has run out").filter(|_| over && holds.held));
        match self.said() {
            Some(Old::Busy(open)) => {
                fence.open.extend(first(&format!("{open} requests sent to {} are open", asked.old)))
            }
            Some(Old::Unknown) => fence.open.extend(first("it is not known what is open")),
            Some(Old::Quiet) => {}
            None if holds.drained_at().is_none_or(|at| now < at) => {
                fence.open.extend(first(&format!("requests sent to {} are open", asked.old)));
            }
            None => {}
        }
        fence.drained = fence.unable.is_empty() && fence.in_the_way().next().is_none();
        Some(fence)
    }
}
