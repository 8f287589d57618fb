//! Who acked, who lags, and whether the old version is quiet: the memory of all reports. Pure.
//!
//! It lives in the controller's memory only. After a restart everything is unknown until the
//! proxies have reported again, which is the safe side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::fleet::quiet::{Runs, counted, keep_last, quiet};
use crate::fleet::reached::Reached;
use crate::fleet::traffic::{Move, Overlap, Sum, Tracks, Traffic};
use crate::fleet::unmanaged::{UnmanagedCaller, UnmanagedFlows};
use flag::answers::Answers;
use flag::count::Totals;
use flag::probe::Probe;
use flag::record::Record;
use flag::report::{Report, ReportError};
use flag::route;
use flag::stray::Stray;

pub use crate::fleet::quiet::Quiet;

/// Boots of a proxy that are remembered, so that a late report of an old one is not believed.
const OLD_BOOTS: usize = 8;

/// An expected proxy that holds a switch up, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Laggard {
    /// The proxy.
    pub proxy: String,
    /// What is known of it.
    pub why: String,
}

/// What is asked of the reports besides the acks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetQuestion {
    /// The version that has to get quiet.
    pub old: String,
    /// The version that routes have to resolve.
    pub wanted: String,
    /// The lowest epoch that the configuration of a proxy may have.
    pub config_epoch: u64,
    /// What has to be reached.
    pub probe: Option<Probe>,
}

/// What all expected proxies together say of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// How many have to ack.
    pub expected: usize,
    /// How many did.
    pub acked: usize,
    /// Those that did not.
    pub laggards: Vec<Laggard>,
    /// Those whose plugin configuration alone would give an earlier record than is needed.
    pub config_laggards: Vec<Laggard>,
    /// Those whose routes in use do not fit the record.
    pub route_laggards: Vec<Laggard>,
    /// Those that do not reach the version that is gone to, or did not show that they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reach_laggards: Vec<Laggard>,
    /// One of them has reached it before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reach_broken: bool,
    /// Since when, in milliseconds, all others have reached it without a break, where there was one.
    #[serde(default)]
    pub reached_since: u64,
    /// Where requests went to the old version past the flag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<Laggard>,
    /// Requests to the old version.
    pub old: Quiet,
    /// Who reaches the old version past all filters.
    #[serde(default, rename = "strangers", skip_serializing_if = "Vec::is_empty")]
    pub unmanaged: Vec<UnmanagedCaller>,
    /// Responses that came from another version than the intended one.
    pub unroutable: u64,
    /// The highest epoch that one of them reported.
    pub highest_epoch: u64,
    /// Sum of all known totals by version.
    pub sent: BTreeMap<String, Totals>,
    /// Sum of the answers of those that acked, by version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, Answers>,
    /// For how long both versions of the last flip got new requests; absent: that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
}

impl Fleet {
    /// So many have to ack, and nothing is known of them.
    pub fn unknown(expected: usize) -> Fleet {
        Fleet {
            expected,
            acked: 0,
            laggards: vec![],
            config_laggards: vec![],
            route_laggards: vec![],
            reach_laggards: vec![],
            reach_broken: false,
            reached_since: 0,
            strays: vec![],
            old: Quiet::Unknown,
            unmanaged: vec![],
            unroutable: 0,
            highest_epoch: 0,
            sent: BTreeMap::new(),
            answers: BTreeMap::new(),
            overlap: None,
        }
    }
}

#[derive(Debug)]
struct Proxy {
    report: Report,
    received_ms: u64,
    /// Boots of before, each with the last report of it that was seen.
    old_boots: VecDeque<(String, u64)>,
    /// When a boot of before reported last although there is a newer one: it lives beside it.
    rival_ms: Option<u64>,
    runs: Runs,
    reached: Reached,
    /// By uid: the record in effect, and since when.
    effective: BTreeMap<String, (u64, String, u64)>,
    unmanaged: UnmanagedFlows,
    tracks: Tracks,
}

/// All that was reported.
#[derive(Debug)]
pub struct Ledger {
    proxies: BTreeMap<String, Proxy>,
    stale_ms: u64,
    /// The last flip of each flag, by uid.
    moves: BTreeMap<String, Move>,
}

impl Ledger {
    /// A report older than `stale_ms` says nothing any more.
    pub fn new(stale_ms: u64) -> Ledger {
        Ledger { proxies: BTreeMap::new(), stale_ms, moves: BTreeMap::new() }
    }

    /// Takes in a report whose sender has been checked.
    pub fn accept(&mut self, now_ms: u64, report: Report) -> Result<(), ReportError> {
        let known = self.proxies.remove(&report.proxy);
        let (mut proxy, stale) = match known {
            None => (Proxy::new(&report, now_ms), false),
            Some(proxy) if proxy.report.boot == report.boot => {
                let stale = report.seq <= proxy.report.seq;
                (proxy, stale)
            }
            Some(mut proxy) if proxy.is_of_before(&report.boot) => {
                proxy.hear_rival(now_ms, &report);
                (proxy, true)
            }
            Some(mut proxy) => {
                let mut fresh = Proxy::new(&report, now_ms);
                fresh.runs.lose();
                fresh.reached.lose();
                fresh.old_boots = std::mem::take(&mut proxy.old_boots);
                fresh.old_boots.push_back((proxy.report.boot, proxy.report.seq));
                fresh.rival_ms = proxy.rival_ms;
                keep_last(&mut fresh.old_boots, OLD_BOOTS);
                (fresh, false)
            }
        };
        let error = ReportError::Stale { proxy: report.proxy.clone(), boot: report.boot.clone(), seq: report.seq };
        if !stale {
            let counted = report.flags.iter().filter(|_| report.complete);
            for (uid, state) in counted {
                if let Some(flip) = self.moves.get_mut(uid) {
                    flip.take(now_ms, &report.proxy, &report.boot, state);
                }
            }
            let gap = now_ms.saturating_sub(proxy.received_ms) > self.stale_ms;
            proxy.take(now_ms, gap, report);
        }
        self.proxies.insert(proxy.report.proxy.clone(), proxy);
        if stale { Err(error) } else { Ok(()) }
    }

    /// A flag is about to be flipped, and was not before.
    pub fn flips(&mut self, uid: &str, from: &str, to: &str) {
        let mut flip = Move::new(from, to);
        for (name, proxy) in &self.proxies {
            if let Some(state) = proxy.report.flags.get(uid) {
                flip.before(name, &proxy.report.boot, state);
            }
        }
        self.moves.insert(uid.to_owned(), flip);
    }

    /// A flag is gone.
    pub fn forget(&mut self, uid: &str) {
        self.moves.remove(uid);
    }

    /// The requests of one flag at the expected proxies.
    pub fn traffic(&self, now_ms: u64, uid: &str, expected: &BTreeSet<String>) -> Traffic {
        let mut sum = Sum::default();
        let current = expected.iter().filter_map(|name| self.current(now_ms, name).ok());
        for (proxy, state) in current.filter_map(|proxy| Some((proxy, proxy.report.flags.get(uid)?))) {
            sum.add(proxy.received_ms, uid, state, &proxy.tracks);
        }
        sum.end(expected.len())
    }

    /// What the expected proxies say of `record`.
    pub fn view(&self, now_ms: u64, record: &Record, expected: &BTreeSet<String>, asked: &FleetQuestion) -> Fleet {
        let mut fleet = Fleet::unknown(expected.len());
        let mut last_ack_ms = 0;
        for name in expected {
            let laggard = |why: String| Laggard { proxy: name.clone(), why };
            match self.current(now_ms, name).and_then(|proxy| proxy.acked(record).map(|since| (proxy, since))) {
                Err(why) => fleet.laggards.push(laggard(why)),
                Ok((proxy, since)) => {
                    fleet.acked += 1;
                    last_ack_ms = last_ack_ms.max(since);
                    if let Some(state) = proxy.report.flags.get(&record.uid) {
                        Answers::add(&mut fleet.answers, &state.answers);
                    }
                    // The report of the ack was made before any request could show a route.
                    if proxy.received_ms <= since {
                        fleet.route_laggards.push(laggard("it took the record over just now".to_owned()));
                    }
                }
            }
            if let Some(probe) = &asked.probe {
                let reached = self.current(now_ms, name).map_err(|why| (why, false));
                match reached.and_then(|proxy| proxy.reached.since(probe)) {
                    Ok(since) => fleet.reached_since = fleet.reached_since.max(since),
                    Err((why, before)) => {
                        fleet.reach_laggards.push(laggard(why));
                        fleet.reach_broken |= before;
                    }
                }
            }
            let Some(proxy) = self.proxies.get(name) else { continue };
            let strays = proxy.report.found(&record.uid).map(|found| &found.strays);
            let strays = strays.into_iter().flatten().filter(|stray| stray.version == asked.old);
            fleet.strays.extend(strays.map(|Stray { place, cluster, route, count, .. }| {
                laggard(format!("{count} to {place}, by route {route:?} to cluster {cluster}"))
            }));
            let Some(state) = proxy.report.flags.get(&record.uid) else { continue };
            fleet.highest_epoch = fleet.highest_epoch.max(state.epoch);
            if state.arrived.contains_key(&asked.old) {
                fleet.unmanaged.extend(proxy.unmanaged.lately(now_ms, &record.uid, name));
            }
            if state.config_epoch.is_none_or(|epoch| epoch < asked.config_epoch) {
                let has = state.config_epoch.map_or("no such flag".to_owned(), |epoch| format!("epoch {epoch}"));
                let why = format!("its configuration has {has}, not yet epoch {}", asked.config_epoch);
                fleet.config_laggards.push(laggard(why));
            }
            if let Some(why) = state.routes.iter().find_map(|route| route::lacks(route, record, &asked.wanted)) {
                fleet.route_laggards.push(laggard(why));
            }
            fleet.unroutable = fleet.unroutable.saturating_add(state.unroutable);
            for (version, totals) in &state.sent {
                let sum = fleet.sent.entry(version.clone()).or_default();
                *sum = sum.plus(*totals);
            }
        }
        let all_acked = fleet.acked == fleet.expected && fleet.expected > 0;
        fleet.overlap = self.moves.get(&record.uid).and_then(Move::overlap);
        let proxies: Option<Vec<&Runs>> =
            expected.iter().map(|name| self.current(now_ms, name).ok().map(|proxy| &proxy.runs)).collect();
        let acked_ms = all_acked.then_some(last_ack_ms);
        fleet.old = proxies.map_or(Quiet::Unknown, |proxies| quiet(&proxies, &record.uid, &asked.old, acked_ms));
        fleet
    }

    fn current(&self, now_ms: u64, name: &str) -> Result<&Proxy, String> {
        let proxy = self
            .proxies
            .get(name)
            .ok_or("it never reported: is the filter loaded, and can it reach the flag service?")?;
        let age = now_ms.saturating_sub(proxy.received_ms);
        if age > self.stale_ms {
            return Err(format!("last seen {:.1} s ago", age as f64 / 1000.0));
        }
        if proxy.rival_ms.is_some_and(|heard| now_ms.saturating_sub(heard) <= self.stale_ms) {
            return Err("two processes report by its name: one that is being replaced still has requests, or two \
                        proxies have one id"
                .to_owned());
        }
        if !proxy.report.complete {
            return Err("one of its workers does not answer".to_owned());
        }
        Ok(proxy)
    }
}

impl Proxy {
    fn new(report: &Report, now_ms: u64) -> Proxy {
        Proxy {
            report: report.clone(),
            received_ms: now_ms,
            old_boots: VecDeque::new(),
            rival_ms: None,
            runs: Runs::default(),
            reached: Reached::default(),
            effective: BTreeMap::new(),
            unmanaged: UnmanagedFlows::default(),
            tracks: Tracks::default(),
        }
    }

    fn is_of_before(&self, boot: &str) -> bool {
        self.old_boots.iter().any(|(old, _)| old == boot)
    }

    /// A boot of before reports. One that goes on is alive: what it sends and has open is in no report that is believed.
    fn hear_rival(&mut self, now_ms: u64, report: &Report) {
        let known = self.old_boots.iter_mut().find(|(boot, seq)| *boot == report.boot && *seq < report.seq);
        if let Some((_, seq)) = known {
            *seq = report.seq;
            self.rival_ms = Some(now_ms);
            self.runs.lose();
            self.reached.lose();
            self.effective.clear();
        }
    }

    /// Since when the record has been in effect.
    fn acked(&self, record: &Record) -> Result<u64, String> {
        let state = self.report.flags.get(&record.uid).ok_or("it does not know the flag")?;
        if state.epoch != record.epoch {
            return Err(format!("it is at epoch {}, not {}", state.epoch, record.epoch));
        }
        if state.hash != record.hash {
            return Err(format!("its record of epoch {} has other content: {}", state.epoch, state.hash));
        }
        let since = self.effective.get(&record.uid).map(|(_, _, since)| *since);
        since.ok_or_else(|| "its last report was not complete".to_owned())
    }

    fn take(&mut self, now_ms: u64, gap: bool, report: Report) {
        if !report.complete || gap || report.instances != self.report.instances {
            // Something was not seen: what was quiet before may not have stayed so.
            self.runs.lose();
            self.reached.lose();
            self.effective.clear();
            self.tracks.clear();
        }
        if report.complete {
            self.unmanaged.take(now_ms, &report.flags);
            let states = report.flags.iter();
            self.effective = states
                .map(|(uid, state)| {
                    let known =
                        self.effective.get(uid).filter(|(epoch, hash, _)| *epoch == state.epoch && *hash == state.hash);
                    let since = known.map_or(now_ms, |(_, _, since)| *since);
                    (uid.clone(), (state.epoch, state.hash.clone(), since))
                })
                .collect();
            self.tracks.retain(|uid| report.flags.contains_key(uid));
            for (uid, state) in &report.flags {
                for version in counted(state) {
                    self.tracks.take(now_ms, uid, version, state);
                }
            }
            self.runs.take(now_ms, &report);
            self.reached.take(now_ms, &report);
        }
        self.report = report;
        self.received_ms = now_ms;
    }
}
