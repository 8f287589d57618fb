//! Whether the old version still gets requests, by the totals of every proxy: a total that has not changed since, with
//! nothing open. Unknown is never zero. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flag::count::Totals;
use flag::instance::FlagState;
use flag::report::Report;
use serde::{Deserialize, Serialize};

/// Reports since the last ack that prove a total: two whole rounds lie between them.
const PROVEN_BY: usize = 3;

/// Stands for every version that a proxy has no counter of, because it started after that version
/// had left the flag.
const NEVER_COUNTED: &str = "";

/// What is known of requests to the old version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Quiet {
    /// At least one expected proxy's share is not known, or not proved since the last ack.
    Unknown,
    /// Requests are open, or some were sent lately.
    Busy {
        /// How many are open.
        open: u64,
    },
    /// Nothing open and nothing sent since then, in milliseconds; proved after the last ack.
    Since(u64),
}

/// What a version still gets, in words.
pub fn busy(open: u64, version: &str) -> String {
    match open {
        0 => format!("requests were sent to {version} lately"),
        1 => format!("1 request is open on {version}"),
        _ => format!("{open} requests are open on {version}"),
    }
}

/// Totals of one version at one proxy that have not changed, with nothing open, for some reports.
#[derive(Debug, Clone)]
struct Run {
    started: u64,
    since_ms: u64,
    /// It began because a request had been sent or was open until then.
    used: bool,
    /// When the latest reports of it came; [`PROVEN_BY`] at most.
    recent: VecDeque<u64>,
    /// Some requests are open of which it is not known which version serves them, or were until a moment ago. Once it
    /// is known, the total shows it.
    doubtful: bool,
}

/// What one version gets at one proxy.
#[derive(Debug, Clone)]
enum Use {
    Open(u64),
    Idle(Run),
}

/// The use of each version by one proxy, by the uid of the flag.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    all: BTreeMap<String, BTreeMap<String, Option<Use>>>,
    /// Something of this proxy's life was not seen, or of one of its name before.
    lost: bool,
}

impl Runs {
    /// Something was not seen: what was quiet before may not have stayed so.
    pub(super) fn lose(&mut self) {
        *self = Runs { all: BTreeMap::new(), lost: true };
    }

    /// Takes in a complete report.
    pub(super) fn take(&mut self, now_ms: u64, report: &Report) {
        self.all.retain(|uid, _| report.flags.contains_key(uid));
        for (uid, state) in &report.flags {
            let doubtful = report.found(uid).is_some_and(|found| found.unplaced > 0);
            upsert(&mut self.all, uid, |versions| {
                versions.retain(|version, _| version == NEVER_COUNTED || is_counted(state, version));
                for version in counted(state).chain([NEVER_COUNTED]) {
                    upsert(versions, version, |of: &mut Option<Use>| {
                        *of = Some(next(of.take(), now_ms, version, state, doubtful));
                    });
                }
            });
        }
    }

    /// From when to when at least a version has had nothing open without a break, in milliseconds, by the latest reports.
    /// `None`: something is open or not known, or one report alone says so.
    pub(super) fn idle(&self, uid: &str, version: &str) -> Option<(u64, u64)> {
        let Some(Use::Idle(run)) = self.of(uid, version) else { return None };
        // A round begins after the answer to the report before it, and ends before its own report.
        let until = *run.recent.iter().rev().nth(1)?;
        let since = if run.doubtful { *run.recent.front()? } else { run.since_ms };
        Some((since, until))
    }

    /// The use of a version of a flag; `None`: the proxy does not know the flag.
    fn of(&self, uid: &str, version: &str) -> Option<&Use> {
        let versions = self.all.get(uid)?;
        versions.get(version).or_else(|| versions.get(NEVER_COUNTED))?.as_ref()
    }
}

fn next(before: Option<Use>, now_ms: u64, version: &str, state: &FlagState, doubtful: bool) -> Use {
    let (sent, arrived) = totals_of(state, version);
    let open = sent.open().zip(arrived.open()).and_then(|(sent, arrived)| sent.checked_add(arrived));
    if open != Some(0) {
        return Use::Open(open.unwrap_or(u64::MAX));
    }
    let started = sent.started.saturating_add(arrived.started);
    let mut run = match before {
        Some(Use::Idle(run)) if run.started == started => Run { doubtful: run.doubtful || doubtful, ..run },
        known => Run { started, since_ms: now_ms, used: known.is_some(), recent: VecDeque::new(), doubtful: false },
    };
    if doubtful {
        run.recent.clear();
        return Use::Idle(run);
    }
    run.recent.push_back(now_ms);
    keep_last(&mut run.recent, PROVEN_BY);
    run.doubtful &= run.recent.len() < PROVEN_BY;
    Use::Idle(run)
}

/// What all of these proxies together say of a version of a flag, all of them having acked by then.
pub(super) fn quiet(proxies: &[&Runs], uid: &str, old: &str, acked_ms: Option<u64>) -> Quiet {
    let (mut open, mut since, mut busy, mut unknown) = (0_u64, 0, false, proxies.is_empty());
    for proxy in proxies {
        match proxy.of(uid, old) {
            None => return Quiet::Unknown,
            Some(Use::Open(more)) => (open, busy) = (open.saturating_add(*more), true),
            Some(Use::Idle(run)) => {
                let enough = run.recent.len() == PROVEN_BY;
                // Reports since the last ack are rounds that began after it.
                let proven =
                    enough && acked_ms.is_some_and(|acked| run.recent.front().is_some_and(|one| *one >= acked));
                busy |= run.used && !enough && !run.doubtful;
                unknown |= !proven;
                // Who never sent one in all its life, which was seen, has not broken anything by joining.
                let never = run.started == 0 && !proxy.lost;
                since = if never { since } else { since.max(run.since_ms) };
            }
        }
    }
    match (busy, unknown) {
        (true, _) => Quiet::Busy { open },
        (_, true) => Quiet::Unknown,
        _ => Quiet::Since(since),
    }
}

/// The versions that a proxy has counters of.
pub(super) fn counted(state: &FlagState) -> impl Iterator<Item = &str> {
    let all: BTreeSet<&str> = state.sent.keys().chain(state.arrived.keys()).map(String::as_str).collect();
    all.into_iter()
}

fn is_counted(state: &FlagState, version: &str) -> bool {
    state.sent.contains_key(version) || state.arrived.contains_key(version)
}

/// Changes what is kept of a name, made where there is none. Nearly every report is of names that are known, which are
/// not copied.
pub(super) fn upsert<T: Default>(all: &mut BTreeMap<String, T>, name: &str, change: impl FnOnce(&mut T)) {
    match all.get_mut(name) {
        Some(one) => change(one),
        None => change(all.entry(name.to_owned()).or_default()),
    }
}

/// Drops the oldest until `len` are left.
pub(super) fn keep_last<T>(queue: &mut VecDeque<T>, len: usize) {
    queue.drain(..queue.len().saturating_sub(len));
}

fn totals_of(state: &FlagState, version: &str) -> (Totals, Totals) {
    (state.sent.get(version).copied().unwrap_or_default(), state.arrived.get(version).copied().unwrap_or_default())
}
