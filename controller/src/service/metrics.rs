//! Metrics of the flag service. No I/O.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::FlagView;
use crate::status::Phase;

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    reports: Family<Labels, Counter>,
    expected: Gauge,
    acked: Gauge,
    laggards: Gauge,
    epoch: Gauge<u64, AtomicU64>,
    phase: Family<Labels, Gauge>,
    open: Family<Labels, Gauge>,
    pub(super) flip: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("versionflag");
        let metrics = Metrics {
            registry: Registry::default(),
            reports: Family::default(),
            expected: Gauge::default(),
            acked: Gauge::default(),
            laggards: Gauge::default(),
            epoch: Gauge::default(),
            phase: Family::default(),
            open: Family::default(),
            // 1 ms to 65 s.
            flip: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
        };
        registry.register("reports", "Reports by what became of them", metrics.reports.clone());
        registry.register("proxies_expected", "Proxies that have to ack", metrics.expected.clone());
        registry.register("proxies_acked", "Proxies that have acked the current record", metrics.acked.clone());
        registry.register("proxies_lagging", "Proxies that have not", metrics.laggards.clone());
        registry.register("epoch", "Epoch of the current record", metrics.epoch.clone());
        registry.register("phase", "1 for the phase in effect", metrics.phase.clone());
        registry.register("open_requests", "Requests in flight by version", metrics.open.clone());
        registry.register("flip_duration_seconds", "From a flip's record to the last ack", metrics.flip.clone());
        Metrics { registry, ..metrics }
    }

    pub(super) fn report(&self, result: &str) {
        self.reports.get_or_create(&vec![("result", result.to_owned())]).inc();
    }

    pub(super) fn show(&self, view: &FlagView) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.expected.set(count(view.fleet.expected));
        self.acked.set(count(view.fleet.acked));
        self.laggards.set(count(view.fleet.laggards.len()));
        self.epoch.set(view.status.epoch());
        for phase in Phase::ALL {
            let labels = vec![("phase", phase.name().to_owned())];
            self.phase.get_or_create(&labels).set(i64::from(phase == view.status.phase));
        }
        // Versions come and go; those that nobody counts any more have no line.
        self.open.clear();
        for (version, totals) in &view.fleet.sent {
            let open = i64::try_from(totals.open().unwrap_or(0)).unwrap_or(i64::MAX);
            self.open.get_or_create(&vec![("version", version.clone())]).set(open);
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
