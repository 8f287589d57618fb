//! Every metric of a flag: what is known of it, as lines. What is not known has none. Pure.

use machine::checks::Verdict;
use machine::fleet::ledger::Quiet;
use machine::status::Phase;
use prometheus_client::metrics::MetricType;

use super::MetricLabels;
use super::flags::Shown;

/// Whether a metric may fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It never does.
    Counter,
    /// It may.
    Gauge,
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> MetricType {
        match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        }
    }
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// A number of things, or 1 for yes and 0 for no.
    Count(u64),
    /// A span or a time.
    Seconds(f64),
}

/// One line.
#[derive(Debug)]
pub(super) struct Sample {
    /// Besides the flag.
    pub(super) labels: MetricLabels,
    pub(super) value: Value,
}

/// All lines of one name.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: fn(&Shown) -> Vec<Sample>,
}

const fn gauge(name: &'static str, help: &'static str, samples: fn(&Shown) -> Vec<Sample>) -> Family {
    Family { name, help, kind: Kind::Gauge, samples }
}

const fn counter(name: &'static str, help: &'static str, samples: fn(&Shown) -> Vec<Sample>) -> Family {
    Family { name, help, kind: Kind::Counter, samples }
}

/// Every metric of a flag.
pub(super) const ALL: &[Family] = &[
    gauge("proxies_expected", "Proxies that have to ack", |shown| count(shown.view.fleet.expected)),
    gauge("proxies_acked", "Proxies that have acked the current record", |shown| count(shown.view.fleet.acked)),
    gauge("proxies_lagging", "Proxies that have not", |shown| count(shown.view.fleet.laggards.len())),
    gauge("proxies_lagging_routes", "Proxies that have shown a route that does not fit, while that counts", |shown| {
        let counts = shown.view.status.phase == Phase::ProvingRoutes || leaves(shown);
        known(counts.then_some(shown.view.fleet.route_laggards.len()))
    }),
    gauge(
        "proxies_lagging_config",
        "Proxies that would start anew with an earlier record, while that counts",
        |shown| known(leaves(shown).then_some(shown.view.fleet.config_laggards.len())),
    ),
    gauge("epoch", "Epoch of the current record", |shown| one(shown.view.status.epoch())),
    gauge("phase", "1 for the phase in effect", phase),
    gauge("phase_since_timestamp_seconds", "When the phase in effect began", |shown| {
        seconds(Some(shown.view.status.phase_since.0))
    }),
    gauge("blocked", "1 for the reason that keeps the flag from moving on", |shown| {
        let reason = shown.view.blocked();
        reason.map(|reason| labelled("reason", reason.name(), 1)).into_iter().collect()
    }),
    gauge("overridden", "1 while another version is held than the spec asks for", |shown| {
        let held = shown.view.status.r#override.as_ref();
        let asked = &shown.view.spec_version;
        one(u64::from(held.is_some_and(|held| held.for_spec_version == *asked && held.version != *asked)))
    }),
    gauge("open_requests", "Requests in flight by version", open),
    gauge(
        "evidence_unknown",
        "1 while it is not known whether the version that is left still gets requests",
        |shown| one(u64::from(leaves(shown) && shown.view.fleet.old == Quiet::Unknown)),
    ),
    gauge("old_version_used", "1 while the version that is left still gets requests", used),
    gauge("unmanaged_callers", "Who lately came to the version that is left past all filters", |shown| {
        let status = &shown.view.status;
        let looks = status.switch.is_some() && (!status.phase.before_flip() || status.phase.holds());
        known(looks.then_some(shown.view.fleet.unmanaged.len()))
    }),
    gauge("overlap_seconds", "For how long both versions of the last flip got new requests", |shown| {
        let seen = || shown.view.fleet.overlap.as_ref().map(|overlap| overlap.ms);
        seconds(shown.view.status.switch.as_ref().and_then(|switch| switch.overlap_ms.or_else(seen)))
    }),
    gauge("check", "1 for the last verdict of a check", checks),
    counter("requests", "Requests that proxies were seen to send, by version", |shown| by_version(&shown.counted.sent)),
    counter("unroutable_responses", "Responses that came from another version than the intended one", |shown| {
        one(shown.counted.unroutable)
    }),
    counter("rollbacks", "Switches that were taken back", |shown| one(shown.rollbacks)),
    counter("version_restarts", "How often a version was started again while it was needed", |shown| {
        by_version(&shown.restarts)
    }),
];

fn one(value: u64) -> Vec<Sample> {
    vec![Sample { labels: vec![], value: Value::Count(value) }]
}

fn count(count: usize) -> Vec<Sample> {
    one(u64::try_from(count).unwrap_or(u64::MAX))
}

fn known(value: Option<usize>) -> Vec<Sample> {
    value.map(count).unwrap_or_default()
}

fn seconds(ms: Option<u64>) -> Vec<Sample> {
    let line = |ms: u64| Sample { labels: vec![], value: Value::Seconds(ms as f64 / 1_000.0) };
    ms.map(line).into_iter().collect()
}

fn labelled(label: &'static str, is: &str, value: u64) -> Sample {
    Sample { labels: vec![(label, is.to_owned())], value: Value::Count(value) }
}

fn by_version<'a>(values: impl IntoIterator<Item = (&'a String, &'a u64)>) -> Vec<Sample> {
    values.into_iter().map(|(version, value)| labelled("version", version, *value)).collect()
}

/// Whether every proxy has acked the flip, and the version before is still looked at.
fn leaves(shown: &Shown) -> bool {
    matches!(shown.view.status.phase, Phase::Settling | Phase::Retaining | Phase::Removing)
}

fn phase(shown: &Shown) -> Vec<Sample> {
    let is = |phase: &Phase| u64::from(*phase == shown.view.status.phase);
    Phase::ALL.iter().map(|phase| labelled("phase", phase.name(), is(phase))).collect()
}

/// Totals that contradict themselves have no line: unknown is not zero.
fn open(shown: &Shown) -> Vec<Sample> {
    let sent = shown.view.fleet.sent.iter();
    sent.filter_map(|(version, totals)| Some(labelled("version", version, totals.open()?))).collect()
}

fn used(shown: &Shown) -> Vec<Sample> {
    match shown.view.fleet.old {
        Quiet::Busy { .. } if leaves(shown) => one(1),
        Quiet::Since(_) if leaves(shown) => one(0),
        _ => vec![],
    }
}

fn checks(shown: &Shown) -> Vec<Sample> {
    const VERDICTS: [(&str, Verdict); 3] =
        [("passed", Verdict::Passed), ("failed", Verdict::Failed), ("inconclusive", Verdict::Inconclusive)];
    let lines = shown.view.checks.iter().flat_map(|(check, answer)| {
        VERDICTS.map(|(word, verdict)| Sample {
            labels: vec![("check", check.clone()), ("verdict", word.to_owned())],
            value: Value::Count(u64::from(answer.verdict == verdict)),
        })
    });
    lines.collect()
}
