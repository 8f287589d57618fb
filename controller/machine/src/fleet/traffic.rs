//! How many requests a version gets lately, and for how long two versions got new ones: as far as
//! reports show it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::quiet::upsert;
use flag::instance::FlagState;
use flag::named::Named;
use flag::report::Report;

/// A rate is taken over at least half of this, and at most twice this.
const WINDOW_MS: u64 = 2_000;
/// Reports of one proxy that are further apart than this do not show which of two things came first.
const CLOSE_MS: u64 = 2_000;

/// Requests to one version, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Ever begun.
    pub started: u64,
    /// In flight.
    pub open: u64,
    /// Begun by second lately, at the proxies whose rate is known.
    pub per_second: f64,
    /// How many proxies that is.
    pub rated: usize,
}

/// Requests by version, as far as they are known. What the other proxies have is not zero but unknown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// How many proxies have to ack.
    pub expected: usize,
    /// Those of them whose last report counts.
    pub known: usize,
    /// By version.
    pub versions: BTreeMap<String, Flow>,
}

/// The requests that are open on each version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenRequests {
    /// Every proxy that has to ack has said what it has; there is one at least.
    pub all_known: bool,
    /// By version, as far as they are known.
    pub versions: BTreeMap<String, u64>,
}

impl Traffic {
    /// What of it is open.
    pub fn open(&self) -> OpenRequests {
        let versions = self.versions.iter().map(|(version, flow)| (version.clone(), flow.open)).collect();
        OpenRequests { all_known: self.expected > 0 && self.known == self.expected, versions }
    }
}

/// For how long a switch had new requests at both versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overlap {
    /// The version that is left.
    pub from: String,
    /// The version that is gone to.
    pub to: String,
    /// From the report with the first request to `to` to that with the last one to `from`.
    pub ms: u64,
}

/// Requests begun: sent by callers, and arrived at the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begun {
    at_ms: u64,
    sent: u64,
    arrived: u64,
}

/// Two earlier totals of one version at one proxy.
#[derive(Debug, Clone, Copy)]
struct Track {
    early: Begun,
    late: Begun,
}

/// Earlier totals at one proxy, by uid and version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracks(BTreeMap<String, BTreeMap<String, Option<Track>>>);

impl Tracks {
    /// Something was not seen: a rate would be guessed.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps those of some flags.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| keeps(uid));
    }

    /// Takes in one version's totals.
    pub(crate) fn take(&mut self, at_ms: u64, uid: &str, version: &str, state: &FlagState) {
        let now = begun(at_ms, state, version);
        upsert(&mut self.0, uid, |versions| {
            upsert(versions, version, |track: &mut Option<Track>| match track {
                Some(before) if now.sent >= before.late.sent && now.arrived >= before.late.arrived => {
                    if at_ms.saturating_sub(before.late.at_ms) >= WINDOW_MS {
                        *before = Track { early: before.late, late: now };
                    }
                }
                // It is the first one, or an instance has ended with what it had counted.
                _ => *track = Some(Track { early: now, late: now }),
            });
        });
    }

    /// Requests by second that were sent and that arrived, up to the report of `at_ms`.
    fn rate(&self, at_ms: u64, uid: &str, version: &str, state: &FlagState) -> Option<(f64, f64)> {
        let early = self.0.get(uid)?.get(version)?.as_ref()?.early;
        let (now, ms) = (begun(at_ms, state, version), at_ms.saturating_sub(early.at_ms));
        let per_s = |now: u64, early: u64| now.saturating_sub(early) as f64 * 1_000.0 / ms as f64;
        (ms >= WINDOW_MS / 2).then(|| (per_s(now.sent, early.sent), per_s(now.arrived, early.arrived)))
    }
}

fn begun(at_ms: u64, state: &FlagState, version: &str) -> Begun {
    let started = |totals: &Named<flag::count::Totals>| totals.get(version).map_or(0, |totals| totals.started);
    Begun { at_ms, sent: started(&state.sent), arrived: started(&state.arrived) }
}

/// One version at all proxies: what was sent, and what arrived.
#[derive(Debug, Default)]
struct Both {
    sent: Flow,
    arrived: Flow,
    /// The proxies that count the version. All others have nothing of it.
    counted: usize,
    rated: usize,
}

/// Adds up what proxies have of one flag. A request is seen where it is sent and where it arrives, or
/// only at one of both: the larger sum counts.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    known: usize,
    versions: BTreeMap<String, Both>,
}

impl Sum {
    /// A proxy whose last report, of `at_ms`, counts; with its earlier totals.
    pub(crate) fn add(&mut self, at_ms: u64, uid: &str, state: &FlagState, tracks: &Tracks) {
        self.known += 1;
        for version in state.sent.keys().chain(state.arrived.keys()).collect::<BTreeSet<_>>() {
            let both = self.versions.entry(version.clone()).or_default();
            both.counted += 1;
            for (flow, totals) in [(&mut both.sent, &state.sent), (&mut both.arrived, &state.arrived)] {
                let totals = totals.get(version).copied().unwrap_or_default();
                flow.started = flow.started.saturating_add(totals.started);
                flow.open = flow.open.saturating_add(totals.open().unwrap_or(0));
            }
            if let Some((sent, arrived)) = tracks.rate(at_ms, uid, version, state) {
                both.rated += 1;
                both.sent.per_second += sent;
                both.arrived.per_second += arrived;
            }
        }
    }

    /// All of it.
    pub(crate) fn end(self, expected: usize) -> Traffic {
        let known = self.known;
        let flow = |both: Both| Flow {
            started: both.sent.started.max(both.arrived.started),
            open: both.sent.open.max(both.arrived.open),
            per_second: both.sent.per_second.max(both.arrived.per_second),
            rated: both.rated + known.saturating_sub(both.counted),
        };
        let versions = self.versions.into_iter().map(|(version, both)| (version, flow(both))).collect();
        Traffic { expected, known, versions }
    }
}

/// A switch whose flip was published, as the reports after it show it.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    from: String,
    to: String,
    /// When the reports came with the first new request to `to`, and with the last one to `from`.
    first_new: Option<u64>,
    last_old: Option<u64>,
    /// What was there before cannot be told from what is new.
    unclear: bool,
    /// What each proxy has told last.
    seen: BTreeMap<String, Told>,
}

/// What a proxy has told at a time.
#[derive(Debug, Clone)]
struct Told {
    at_ms: u64,
    boot: String,
    /// Requests that it had begun to each version.
    from: u64,
    to: u64,
}

/// Takes what a report says of flips, which are by uid, into account.
pub(crate) fn note(moves: &mut BTreeMap<String, Move>, now_ms: u64, report: &Report) {
    for (uid, state) in report.flags.iter().filter(|_| report.complete) {
        if let Some(flip) = moves.get_mut(uid) {
            flip.take(now_ms, &report.proxy, &report.boot, state);
        }
    }
}

impl Move {
    pub(crate) fn new(from: &str, to: &str) -> Move {
        let (from, to) = (from.to_owned(), to.to_owned());
        Move { from, to, first_new: None, last_old: None, unclear: false, seen: BTreeMap::new() }
    }

    fn told(&self, at_ms: u64, boot: &str, state: &FlagState) -> Told {
        let of = |version: &str| {
            let begun = begun(0, state, version);
            begun.sent.saturating_add(begun.arrived)
        };
        Told { at_ms, boot: boot.to_owned(), from: of(&self.from), to: of(&self.to) }
    }

    /// What a proxy has told before the flip.
    pub(crate) fn before(&mut self, at_ms: u64, proxy: &str, boot: &str, state: &FlagState) {
        self.seen.insert(proxy.to_owned(), self.told(at_ms, boot, state));
    }

    /// Keeps what some proxies have told.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.seen.retain(|proxy, _| keeps(proxy));
    }

    /// What it tells after it.
    pub(crate) fn take(&mut self, now_ms: u64, proxy: &str, boot: &str, state: &FlagState) {
        let now = self.told(now_ms, boot, state);
        let (from, to) = (now.from, now.to);
        let (old, new) = match self.seen.insert(proxy.to_owned(), now) {
            Some(before) if before.boot == boot => {
                // Which came first between two reports that are far apart is not known.
                self.unclear |= from > before.from && to > before.to && now_ms.saturating_sub(before.at_ms) > CLOSE_MS;
                (before.from, before.to)
            }
            Some(_) => (0, 0),
            // Who was not heard of before may have begun them long ago.
            None => {
                self.unclear |= from > 0 || (to > 0 && self.first_new.is_none());
                return;
            }
        };
        if to > new {
            self.first_new = self.first_new.or(Some(now_ms));
        }
        if from > old {
            self.last_old = Some(now_ms);
        }
    }

    /// `None`: not known, or nothing was sent to the new version.
    pub(crate) fn overlap(&self) -> Option<Overlap> {
        let first = self.first_new.filter(|_| !self.unclear)?;
        let ms = self.last_old.map_or(0, |last| last.saturating_sub(first));
        Some(Overlap { from: self.from.clone(), to: self.to.clone(), ms })
    }
}
