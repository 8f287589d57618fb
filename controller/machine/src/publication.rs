//! What the proxies are sent of one flag. Pure.

use std::collections::BTreeSet;

use flag::health::HealthChecks;
use flag::probe::Probe;
use flag::record::Record;

use crate::checks::Questions;
use crate::duration::Millis;
use crate::observation::Observation;
use crate::spec::Spec;
use crate::status::{Phase, Status};

/// Between two reports of a proxy while every one of them may move a flag.
const QUICK: Millis = Millis(100);
/// The same otherwise.
const STEADY: Millis = Millis(1_000);

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
    /// The proxies that are sent it; `None`: every proxy that asks.
    pub audience: Option<BTreeSet<String>>,
}

impl Publication {
    /// What a status has its proxies sent.
    pub(crate) fn of(spec: &Spec, status: &Status, seen: &Observation, record: &Record) -> Publication {
        Publication {
            record: record.clone(),
            report_every: if status.phase.awaits_reports() { QUICK } else { STEADY },
            prove_routes: status.proves_routes(),
            measure: Questions::of(spec, status).is_some_and(|asked| asked.measures()),
            probe: seen.probe.clone(),
            health: status.proves_routes().then(|| spec.settle.health_checks.of_flag(&record.uid)),
            audience: seen.audience.clone(),
        }
    }
}

impl Phase {
    /// Whether every report may move a flag in this phase.
    pub fn awaits_reports(self) -> bool {
        matches!(self, Phase::ProvingRoutes | Phase::Switching | Phase::Settling | Phase::Removing)
    }
}
