//! The metrics of the controller, as `GET /metrics` shows them. No I/O.

mod flags;
mod samples;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::flags::FlagMetrics;
use crate::flip_times::FlipTimes;

/// Names of labels, with their values.
type MetricLabels = Vec<(&'static str, String)>;

/// How often the API server of a cluster was asked, by verb and kind of object.
#[derive(Debug, Clone, Default)]
pub struct ApiRequests(Family<MetricLabels, Counter>);

impl ApiRequests {
    /// Counts one request of this verb, such as `patch`, to this kind of object.
    pub fn count(&self, verb: &str, kind: String) {
        self.0.get_or_create(&vec![("verb", verb.to_owned()), ("resource", kind)]).inc();
    }
}

/// The connections of proxies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections {
    pub(crate) open: Gauge,
    limit: Gauge,
    pub(crate) turned_away: Counter,
}

impl Connections {
    /// So many may be open.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

/// All metrics, and the registry that they are shown by.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    registry: Registry,
    pub(crate) connections: Connections,
    reports: Family<MetricLabels, Counter>,
    write_failures: Family<MetricLabels, Counter>,
    pub(crate) leader: Gauge,
    pub(crate) flags: FlagMetrics,
    /// Seconds from a flip's record to the last ack.
    flip: Histogram,
    /// Seconds of each part of it.
    flip_parts: Family<MetricLabels, Histogram, fn() -> Histogram>,
    /// Holds by what became of them.
    holds: Family<MetricLabels, Counter>,
    /// Seconds for which requests were held.
    held: Histogram,
}

/// From 1 ms to 65 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

impl ServiceMetrics {
    /// Metrics that know of no flag and no report.
    pub(crate) fn new() -> ServiceMetrics {
        let mut registry = Registry::with_prefix("versionflag");
        let metrics = ServiceMetrics {
            registry: Registry::default(),
            connections: Connections::default(),
            reports: Family::default(),
            write_failures: Family::default(),
            leader: Gauge::default(),
            flags: FlagMetrics::default(),
            flip: durations(),
            flip_parts: Family::new_with_constructor(durations),
            holds: Family::default(),
            held: durations(),
        };
        let Connections { open, limit, turned_away } = metrics.connections.clone();
        registry.register("connections", "Connections of proxies and people", open);
        registry.register("connections_limit", "How many there may be", limit);
        registry.register("connections_turned_away", "Connections for which there was no room", turned_away);
        registry.register("reports", "Reports by what became of them", metrics.reports.clone());
        registry.register("write_failures", "Files that could not be written", metrics.write_failures.clone());
        registry.register("leader", "1 where this controller leads", metrics.leader.clone());
        registry.register_collector(Box::new(metrics.flags.clone()));
        registry.register("flip_duration_seconds", "From a flip's record to the last ack", metrics.flip.clone());
        let parts = metrics.flip_parts.clone();
        registry.register("flip_part_seconds", "Parts of it, one after the other", parts);
        registry.register("holds", "Holds by what became of them", metrics.holds.clone());
        registry.register("held_seconds", "For how long requests were held", metrics.held.clone());
        ServiceMetrics { registry, ..metrics }
    }

    /// Counts one report: `accepted`, or the word of its refusal.
    pub(crate) fn count_report(&self, result: &str) {
        self.reports.get_or_create(&vec![("result", result.to_owned())]).inc();
    }

    /// Observes a flip, and its parts as far as they are known.
    pub(crate) fn observe_flip(&self, seconds: f64, times: Option<&FlipTimes>) {
        self.flip.observe(seconds);
        for (part, ms) in times.into_iter().flat_map(FlipTimes::parts) {
            self.flip_parts.get_or_create(&vec![("part", part.to_owned())]).observe(ms / 1_000.0);
        }
    }

    /// Counts a hold that has ended after so many seconds.
    pub(crate) fn observe_hold(&self, committed: bool, seconds: f64) {
        let outcome = if committed { "committed" } else { "aborted" };
        self.holds.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
        self.held.observe(seconds);
    }

    /// Counts files that could not be written.
    pub(crate) fn count_write_failures(&self, what: &str, failures: u64) {
        if failures > 0 {
            self.write_failures.get_or_create(&vec![("file", what.to_owned())]).inc_by(failures);
        }
    }

    /// The same metrics with those of the Kubernetes API.
    pub(crate) fn with_api_requests(mut self, requests: &ApiRequests) -> ServiceMetrics {
        self.registry.register("api_requests", "Requests to the Kubernetes API", requests.0.clone());
        self
    }

    /// All metrics as OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
