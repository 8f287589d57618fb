//! Envoy metrics: a fixed number of names, whatever the flags are. Written on ticks and on rare
//! events only. Hostcalls.

use std::cell::Cell;

use proxy_wasm::types::MetricType;

use crate::hostcalls;

/// A counter, defined at its first use.
#[derive(Debug)]
pub(crate) struct Metric {
    name: &'static str,
    id: Cell<Option<u32>>,
}

impl Metric {
    const fn new(name: &'static str) -> Metric {
        Metric { name, id: Cell::new(None) }
    }

    pub(crate) fn add(&self, amount: u64) {
        if amount == 0 {
            return;
        }
        if self.id.get().is_none() {
            self.id.set(hostcalls::define_metric(MetricType::Counter, self.name).ok());
        }
        if let (Some(id), Ok(amount)) = (self.id.get(), i64::try_from(amount)) {
            // A metric that cannot be written must not disturb a request.
            let _ = hostcalls::increment_metric(id, amount);
        }
    }
}

/// Every metric of the filter.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Snapshots taken over from the flag service.
    pub(crate) snapshots: Metric,
    /// Answers of the flag service that were missing, late or not valid.
    pub(crate) service_failures: Metric,
    /// Plugin configurations refused.
    pub(crate) config_refused: Metric,
    /// Responses from another version than the intended one.
    pub(crate) unroutable: Metric,
    /// Requests held for the first answer, or at a gate.
    pub(crate) held: Metric,
    /// Requests refused at a gate.
    pub(crate) refused: Metric,
    /// Shared data that could not be understood.
    pub(crate) store_failures: Metric,
}

impl Metrics {
    pub(crate) const fn new() -> Metrics {
        Metrics {
            snapshots: Metric::new("versionflag_snapshots"),
            service_failures: Metric::new("versionflag_service_failures"),
            config_refused: Metric::new("versionflag_config_refused"),
            unroutable: Metric::new("versionflag_unroutable"),
            held: Metric::new("versionflag_held"),
            refused: Metric::new("versionflag_refused"),
            store_failures: Metric::new("versionflag_store_failures"),
        }
    }
}
