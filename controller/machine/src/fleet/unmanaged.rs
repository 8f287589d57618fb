//! Callers that no filter speaks for: who comes to a version that ought to be left, and how often, as the
//! proxies in front of it report. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quiet::upsert;
use flag::count::Totals;
use flag::instance::FlagState;
use flag::named::Named;

/// How long somebody who came is spoken of, in milliseconds.
const STAYS_MS: u64 = 10_000;
/// The time that a rate is taken over, at least.
const RATE_MS: u64 = 1_000;

/// Somebody who goes past the flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnmanagedCaller {
    /// The proxy that saw it.
    pub at: String,
    /// Its address, or what is better known; empty: one of many.
    pub from: String,
    /// How often it comes there; 0: that is not known yet.
    pub per_second: u64,
}

/// What one address has sent to one proxy, or that to one version.
#[derive(Debug, Clone, Copy)]
struct Arrivals {
    total: u64,
    grew_ms: u64,
    /// Where the rate is counted from.
    base: (u64, u64),
    per_second: u64,
}

/// What one proxy has seen, by uid, and by address or version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flows(BTreeMap<String, BTreeMap<String, Option<Arrivals>>>);

impl Flows {
    /// Takes in this part of a report.
    pub(crate) fn take(&mut self, now_ms: u64, flags: &Named<FlagState>, part: fn(&FlagState) -> &Named<Totals>) {
        self.0.retain(|uid, _| flags.contains_key(uid));
        for (uid, state) in flags {
            upsert(&mut self.0, uid, |flows| {
                flows.retain(|name, _| part(state).contains_key(name));
                for (name, totals) in part(state) {
                    upsert(flows, name, |flow: &mut Option<Arrivals>| {
                        let before = flow.take().filter(|flow| flow.total <= totals.started);
                        *flow = Some(Arrivals::after(before, now_ms, totals.started));
                    });
                }
            });
        }
    }

    /// Whether there was one of this name lately.
    pub(crate) fn grew(&self, now_ms: u64, uid: &str, name: &str) -> bool {
        let flow = self.0.get(uid).and_then(|flows| flows.get(name)?.as_ref());
        flow.is_some_and(|flow| flow.total > 0 && now_ms.saturating_sub(flow.grew_ms) <= STAYS_MS)
    }

    /// Who came lately.
    pub(crate) fn lately(&self, now_ms: u64, uid: &str, at: &str) -> impl Iterator<Item = UnmanagedCaller> {
        let flows = self.0.get(uid).into_iter().flatten().filter_map(|(name, flow)| Some((name, flow.as_ref()?)));
        let lately = flows.filter(move |(_, flow)| now_ms.saturating_sub(flow.grew_ms) <= STAYS_MS);
        lately.map(move |(address, flow)| UnmanagedCaller {
            at: at.to_owned(),
            from: address.clone(),
            per_second: flow.per_second,
        })
    }
}

impl Arrivals {
    fn after(known: Option<Arrivals>, now_ms: u64, total: u64) -> Arrivals {
        let Some(known) = known else {
            return Arrivals { total, grew_ms: now_ms, base: (total, now_ms), per_second: 0 };
        };
        let grew_ms = if total > known.total { now_ms } else { known.grew_ms };
        let (count, since_ms) = known.base;
        let passed_ms = now_ms.saturating_sub(since_ms);
        if passed_ms < RATE_MS {
            return Arrivals { total, grew_ms, ..known };
        }
        // One every other second is not none.
        let per_second = total.saturating_sub(count).saturating_mul(1_000).div_ceil(passed_ms);
        Arrivals { total, grew_ms, base: (total, now_ms), per_second }
    }
}
