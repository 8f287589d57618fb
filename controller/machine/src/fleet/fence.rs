//! Whether every expected proxy holds new requests under one record, and whether nothing is open on the version that is
//! left. What is not shown is not held; unknown is never zero; a hold that has run out never counts. Pure.

use std::collections::BTreeSet;

use flag::fence::{Fenced, Held};
use flag::named::Named;
use flag::record::Record;
use flag::route;
use serde::{Deserialize, Serialize};

use super::ledger::Laggard;
use super::proxy::Proxy;

/// What is asked of a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceQuestion {
    /// The version that is left.
    pub old: String,
    /// The version that is gone to.
    pub new: String,
    /// Until when another version was left, in Unix milliseconds, if one was just before: who has looked for longer than
    /// since then has looked at that.
    pub old_since_ms: Option<u64>,
    /// Epoch of the first record of the hold; 0: nothing is held.
    pub since: u64,
    /// How long the version that is left may drain, in milliseconds.
    pub drain_ms: u64,
}

/// What all expected proxies together show of the fence of one record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FleetFence {
    /// Those that do not show the fence of this record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unable: Vec<Laggard>,
    /// Those that do not hold under this very record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_holding: Vec<Laggard>,
    /// Those whose hold has run out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<Laggard>,
    /// Those that have requests open on the version that is left, or may have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Laggard>,
    /// Those with routes that do not lead to the version that is gone to: what waits there would be refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routeless: Vec<Laggard>,
    /// Those that have had one open there for longer than it may drain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub long: Vec<Laggard>,
    /// Those that have not looked for as long whether they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unwatched: Vec<Laggard>,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that went through the hold because they belong to something that had begun before it.
    pub passed: u64,
    /// Every expected proxy holds under this very record, and nothing is open on the version that is left: both at once.
    pub drained: bool,
}

impl FleetFence {
    /// What keeps it from being drained, by proxy.
    pub fn in_the_way(&self) -> impl Iterator<Item = &Laggard> {
        self.expired.iter().chain(&self.routeless).chain(&self.not_holding).chain(&self.open)
    }

    /// What these proxies say of a record. Those that are not current say nothing; `last` has what each said last.
    pub(super) fn of<'a>(
        expected: impl Iterator<Item = (&'a str, Result<&'a Proxy, String>)>,
        record: &Record,
        asked: &FenceQuestion,
        members: &BTreeSet<String>,
        last: impl Fn(&str) -> Option<&'a Proxy>,
    ) -> FleetFence {
        let (mut fence, mut beside) = (FleetFence::default(), 0);
        let mut spans: Vec<Option<(u64, u64)>> = vec![];
        for (name, current) in expected {
            beside += usize::from(members.contains(name));
            if last(name).is_some_and(|proxy| has_expired(proxy, record, asked)) {
                fence.expired.push(laggard(name, "its hold has run out"));
            }
            match current {
                Ok(proxy) => {
                    fence.add(name, proxy, record, asked);
                    spans.push(proxy.runs.idle(&record.uid, &asked.old));
                }
                Err(why) => {
                    fence.not_holding.push(laggard(name, why.clone()));
                    fence.open.push(laggard(name, why));
                    spans.push(None);
                }
            }
        }
        let each = fence.in_the_way().next().is_none() && fence.unable.is_empty() && !spans.is_empty();
        // Where nothing can begin any more on the old version but by what is open there, each may have come to zero in
        // its own time. Otherwise one may have begun at another proxy meanwhile.
        let alone = fence.passed == 0 && beside <= 1;
        fence.drained = each && (alone || at_once(&spans));
        fence
    }

    fn add(&mut self, name: &str, proxy: &Proxy, record: &Record, asked: &FenceQuestion) {
        let fenced = proxy.report.found(&record.uid).and_then(|found| found.fenced.as_ref());
        let shown = fenced.filter(|fenced| fenced.epoch == record.epoch);
        match (fenced, shown) {
            (None, _) => {
                let why =
                    "it shows nothing of the fence: its filter is older than this controller, or has not heard of it";
                self.unable.push(laggard(name, why));
            }
            (Some(_), None) => self.unable.push(laggard(name, "not all of its workers have the fence of this record")),
            _ => {}
        }
        if let Err(why) = holds(proxy, record, shown) {
            self.not_holding.push(laggard(name, why));
        }
        let mut routes = proxy.report.flags.get(&record.uid).into_iter().flat_map(|state| &state.routes);
        if let Some(why) = routes.find_map(|route| route::misses(route, record, &asked.new)) {
            self.routeless.push(laggard(name, why));
        }
        if let Some(what) = open(proxy, record, &asked.old) {
            self.open.push(laggard(name, what));
        }
        let Some(fenced) = fenced else { return };
        self.waiting = self.waiting.saturating_add(fenced.waiting);
        self.passed = self.passed.saturating_add(fenced.passed);
        // What it saw for another record may have been the other version.
        let Some(shown) = shown else { return };
        if asked.old_since_ms.is_some_and(|since| shown.watched_ms > proxy.received_ms.saturating_sub(since)) {
            self.unwatched.push(laggard(name, "it has looked at another version until now"));
        } else if shown.oldest_ms > asked.drain_ms {
            let seconds = shown.oldest_ms as f64 / 1_000.0;
            let what = format!("a stream has been open on {} for at least {seconds:.1} s", asked.old);
            self.long.push(laggard(name, what));
        } else if shown.watched_ms < asked.drain_ms {
            self.unwatched.push(laggard(name, format!("it has looked for {} ms", shown.watched_ms)));
        }
    }
}

fn laggard(proxy: &str, why: impl Into<String>) -> Laggard {
    Laggard { proxy: proxy.to_owned(), why: why.into() }
}

/// Whether a hold under way has run out there at any time, or does not say which one has.
fn has_expired(proxy: &Proxy, record: &Record, asked: &FenceQuestion) -> bool {
    let epoch = proxy.expired.get(&record.uid).copied();
    let shows = proxy.report.found(&record.uid).and_then(|found| found.fenced.as_ref());
    let now = shows.is_some_and(|fenced| fenced.held == Held::Expired && fenced.epoch == 0);
    asked.since > 0 && (now || epoch.is_some_and(|epoch| epoch >= asked.since))
}

/// Whether every worker of it holds, with this very record in effect.
fn holds(proxy: &Proxy, record: &Record, shown: Option<&Fenced>) -> Result<(), String> {
    proxy.acked(record)?;
    let gate = proxy.report.flags.get(&record.uid).map(|state| state.gate);
    match shown.map(|shown| shown.held) {
        _ if gate != Some(record.gate) => Err("it has the record, but another gate".to_owned()),
        Some(Held::Holding) => Ok(()),
        Some(Held::Expired) => Err("its hold has run out".to_owned()),
        Some(Held::Open) | None => Err("it has the record, and does not hold requests".to_owned()),
    }
}

/// What it has open on the version that is left, or may have, in words.
fn open(proxy: &Proxy, record: &Record, old: &str) -> Option<String> {
    let report = &proxy.report;
    let Some(state) = report.flags.get(&record.uid) else {
        return Some("it does not know the flag".to_owned());
    };
    let of =
        |all: &Named<flag::count::Totals>| all.get(old).map_or(Some(0), |totals| totals.open()).unwrap_or(u64::MAX);
    let unplaced = report.found(&record.uid).map_or(0, |found| found.unplaced);
    let parts = [
        (of(&state.sent), format!("sent to {old}")),
        (of(&state.arrived), format!("arrived at {old}")),
        (unplaced, "sent to one of the versions, it is not known yet to which".to_owned()),
    ];
    let words: Vec<String> = parts
        .into_iter()
        .filter(|(open, _)| *open > 0)
        .map(|(open, what)| match open {
            u64::MAX => format!("nobody knows how many requests {what} are open"),
            1 => format!("1 request {what} is open"),
            _ => format!("{open} requests {what} are open"),
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Whether there was a moment in which none of them had anything open: each has been so from the first time to the
/// second at least, and the second is not over since.
fn at_once(spans: &[Option<(u64, u64)>]) -> bool {
    let spans: Option<Vec<(u64, u64)>> = spans.iter().copied().collect();
    spans.is_some_and(|spans| {
        let (begin, end) = (spans.iter().map(|span| span.0).max(), spans.iter().map(|span| span.1).min());
        begin.zip(end).is_some_and(|(begin, end)| begin <= end)
    })
}
