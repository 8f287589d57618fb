//! What the proxies are sent of one flag. Pure.

use std::collections::BTreeSet;

use flag::fence::{Expiry, Fence};
use flag::health::HealthChecks;
use flag::probe::Probe;
use flag::record::Record;

use crate::checks::Questions;
use crate::duration::Millis;
use crate::observation::Observation;
use crate::pace::STEADY;
use crate::spec::{FenceSpec, OnExpiry, Spec};
use crate::status::{Phase, Status, Switch};

/// Between two reports of a proxy while requests wait for them.
const AT_ONCE: Millis = Millis(20);
/// Between two reports of a proxy while every one of them may move a flag.
const QUICK: Millis = Millis(100);

/// One flag as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The record.
    pub record: Record,
    /// The time between two reports that the flag needs.
    pub report_every: Millis,
    /// Whether proxies are asked to show their routes.
    pub prove_routes: bool,
    /// Whether proxies are asked to measure answers.
    pub measure: bool,
    /// What proxies are asked to reach.
    pub probe: Option<Probe>,
    /// Which requests to the version that is left are no traffic, while a switch is under way.
    pub health: Option<HealthChecks>,
    /// What is held back and refused, in mode Fenced.
    pub fence: Option<Fence>,
    /// The proxies that are sent it; `None`: every proxy that asks.
    pub audience: Option<BTreeSet<String>>,
}

impl Publication {
    /// What a status has its proxies sent.
    pub(crate) fn of(spec: &Spec, status: &Status, seen: &Observation, record: &Record) -> Publication {
        Publication {
            record: record.clone(),
            report_every: match status.phase {
                phase if phase.holds() => AT_ONCE,
                phase if phase.awaits_reports() => QUICK,
                _ => STEADY,
            },
            prove_routes: status.proves_routes(),
            measure: Questions::of(spec, status).is_some_and(|asked| asked.measures()),
            probe: seen.probe.clone(),
            health: status.proves_routes().then(|| spec.settle.health_checks.of_flag(&record.uid)),
            fence: fence(spec, status, record),
            audience: seen.audience.clone(),
        }
    }
}

/// What proxies hold back and refuse: the table of docs/guarantees.md.
fn fence(spec: &Spec, status: &Status, record: &Record) -> Option<Fence> {
    let switch = status.switch.as_ref().filter(|switch| !switch.removal);
    let (from, to) = switch.map(|switch| (switch.from.clone(), switch.to.clone())).unwrap_or_default();
    let (mut marked, mut closed) = match status.phase {
        _ if switch.is_none() => (vec![], vec![]),
        Phase::AwaitingPromotion | Phase::ProvingRoutes if spec.switch.is_fenced() => (vec![to], vec![]),
        Phase::Holding => (vec![from, to], vec![]),
        Phase::Committing => (vec![to], vec![from]),
        // What was flipped without a fence may still be on its way to the old version.
        Phase::Switching | Phase::Settling | Phase::Retaining | Phase::Removing
            if switch.is_some_and(Switch::opened) =>
        {
            (vec![], vec![from])
        }
        _ => (vec![], vec![]),
    };
    marked.retain(|version| !status.shut.contains(version));
    closed.extend(status.shut.iter().cloned());
    if marked.is_empty() && closed.is_empty() {
        return None;
    }
    let held = switch.and_then(|switch| switch.fence.as_ref()).filter(|_| status.phase.holds());
    let expiry = match spec.switch.fence.on_expiry {
        OnExpiry::Open => Expiry::Open,
        OnExpiry::Reject => Expiry::Reject,
    };
    Some(Fence {
        flag: record.uid.clone(),
        epoch: record.epoch,
        since: held.map_or(0, |held| held.since),
        old: switch.map_or(&status.active_version, |switch| &switch.from).clone(),
        max_hold_ms: FenceSpec::max_hold_ms(held.map_or(spec.switch.fence.max_hold, |held| held.max_hold)),
        expiry,
        marked,
        closed,
    })
}

impl Phase {
    /// Whether every report may move a flag in this phase.
    pub fn awaits_reports(self) -> bool {
        self.holds() || matches!(self, Phase::ProvingRoutes | Phase::Switching | Phase::Settling | Phase::Removing)
    }
}
