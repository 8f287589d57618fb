//! Who acked, who lags, and whether the old version is quiet: the memory of all reports. Pure.
//!
//! It lives in the controller's memory only. After a restart everything is unknown until the
//! proxies have reported again, which is the safe side.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::fleet::counted::Counted;
use crate::fleet::fence::{FenceQuestion, FleetFence};
use crate::fleet::proxy::Proxy;
use crate::fleet::quiet::quiet;
use crate::fleet::traffic::{self, Move, Overlap, Sum, Traffic};
use crate::fleet::unmanaged::UnmanagedCaller;
use flag::answers::Answers;
use flag::count::Totals;
use flag::probe::Probe;
use flag::record::Record;
use flag::report::{Report, ReportError};
use flag::route;
use flag::stray::Stray;

pub use crate::fleet::quiet::{Quiet, busy};

/// A proxy that nobody waits for is forgotten after so long without a report.
const GONE_MS: u64 = 60_000;

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
    /// The proxies that stand beside the version that has to get quiet.
    pub members: BTreeSet<String>,
    /// How long ago a filter has to have come for nothing to be left of what was there before: see
    /// [`Fleet::late_filters`].
    pub drain_ms: u64,
    /// What has to be held; `None`: nothing has.
    pub fence: Option<FenceQuestion>,
}

/// A proxy to which the filter came not long ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LateFilter {
    /// Its name.
    pub proxy: String,
    /// When that was, in milliseconds by the proxy's clock.
    pub came_ms: u64,
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
    /// Health checks of it, which are no requests, as far as proxies beside it have told them apart.
    #[serde(default)]
    pub health_checks: u64,
    /// Those that have requests open of which it is not known which version serves them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unplaced: Vec<Laggard>,
    /// Those that may have connections from before the filter came, which it does not see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_filters: Vec<LateFilter>,
    /// Requests to the old version.
    pub old: Quiet,
    /// Proxies that sent requests to the old version lately, or have some open there, and stand beside it themselves:
    /// a version calls itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// The others that did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<String>,
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
    /// What they show of the fence of the switch under way; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FleetFence>,
}

impl Fleet {
    /// Whether every expected proxy has exactly the record last written.
    pub fn all_acked(&self) -> bool {
        self.expected > 0 && self.acked == self.expected && self.laggards.is_empty()
    }

    /// Whether a proxy is one of those that did not ack.
    pub(crate) fn lags(&self, proxy: &str) -> bool {
        self.laggards.iter().any(|late| late.proxy == proxy)
    }

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
            health_checks: 0,
            unplaced: vec![],
            late_filters: vec![],
            old: Quiet::Unknown,
            members: vec![],
            senders: vec![],
            unmanaged: vec![],
            unroutable: 0,
            highest_epoch: 0,
            sent: BTreeMap::new(),
            answers: BTreeMap::new(),
            overlap: None,
            fence: None,
        }
    }
}

/// All that was reported.
#[derive(Debug, Clone)]
pub struct Ledger {
    proxies: BTreeMap<String, Proxy>,
    stale_ms: u64,
    /// The last flip of each flag, by uid.
    moves: BTreeMap<String, Move>,
    /// What is counted, by the uid of the flag.
    pub(super) counted: BTreeMap<String, Counted>,
}

fn late(report: Report) -> ReportError {
    ReportError::Stale { proxy: report.proxy, boot: report.boot, seq: report.seq }
}

impl Ledger {
    /// A report older than `stale_ms` says nothing any more, where it is not said otherwise of that report.
    pub fn new(stale_ms: u64) -> Ledger {
        Ledger { proxies: BTreeMap::new(), stale_ms, moves: BTreeMap::new(), counted: BTreeMap::new() }
    }

    /// Takes in a report whose sender has been checked.
    pub fn accept(&mut self, now_ms: u64, report: Report) -> Result<(), ReportError> {
        self.accept_for(now_ms, self.stale_ms, report)
    }

    /// The same of one that says what is so for `stale_ms`: until the next one but one is due.
    pub fn accept_for(&mut self, now_ms: u64, stale_ms: u64, report: Report) -> Result<(), ReportError> {
        // Nearly every report is of a boot that is known.
        if let Some(proxy) = self.proxies.get_mut(&report.proxy).filter(|proxy| proxy.report.boot == report.boot) {
            if report.seq <= proxy.report.seq {
                return Err(late(report));
            }
            traffic::note(&mut self.moves, now_ms, &report);
            proxy.take(now_ms, stale_ms, report, &mut self.counted);
            return Ok(());
        }
        let mut proxy = match self.proxies.remove(&report.proxy) {
            None => Proxy::new(&report, now_ms, stale_ms),
            Some(mut proxy) if proxy.is_of_before(&report.boot) && !proxy.is_outlived(now_ms) => {
                proxy.hear_rival(now_ms, &report);
                self.proxies.insert(report.proxy.clone(), proxy);
                return Err(late(report));
            }
            Some(proxy) => proxy.restarted(now_ms, stale_ms, &report),
        };
        traffic::note(&mut self.moves, now_ms, &report);
        let name = report.proxy.clone();
        proxy.take(now_ms, stale_ms, report, &mut self.counted);
        self.proxies.insert(name, proxy);
        Ok(())
    }

    /// What is known of each of these proxies, in their order.
    fn known<'a>(&'a self, names: &'a BTreeSet<String>) -> Vec<(&'a String, Option<&'a Proxy>)> {
        // Few among many are looked for, many are met in passing.
        if names.len().saturating_mul(16) < self.proxies.len() {
            return names.iter().map(|name| (name, self.proxies.get(name))).collect();
        }
        let mut all = self.proxies.iter().peekable();
        let meet = |name| {
            while all.next_if(|(known, _)| *known < name).is_some() {}
            (name, all.next_if(|(known, _)| *known == name).map(|(_, proxy)| proxy))
        };
        names.iter().map(meet).collect()
    }

    /// A flag is about to be flipped, and was not before.
    pub fn flips(&mut self, uid: &str, from: &str, to: &str) {
        let mut flip = Move::new(from, to);
        for (name, proxy) in &self.proxies {
            if let Some(state) = proxy.report.flags.get(uid) {
                flip.before(proxy.received_ms, name, &proxy.report.boot, state);
            }
        }
        self.moves.insert(uid.to_owned(), flip);
    }

    /// Drops the proxies that have been silent for long, and that nobody waits for. One that is waited for stays, with
    /// what it showed: that it is silent is no proof of anything.
    pub fn forget_gone(&mut self, now_ms: u64, is_expected: impl Fn(&str) -> bool) {
        let gone = |proxy: &Proxy| now_ms.saturating_sub(proxy.received_ms) > GONE_MS;
        self.proxies.retain(|name, proxy| !gone(proxy) || is_expected(name));
        for flip in self.moves.values_mut() {
            flip.retain(|name| self.proxies.contains_key(name));
        }
    }

    /// How many proxies are remembered.
    pub fn remembered(&self) -> usize {
        self.proxies.len()
    }

    /// A flag is gone.
    pub fn forget(&mut self, uid: &str) {
        self.moves.remove(uid);
        self.counted.remove(uid);
    }

    /// The requests of one flag at the expected proxies.
    pub fn traffic(&self, now_ms: u64, uid: &str, expected: &BTreeSet<String>) -> Traffic {
        let mut sum = Sum::default();
        let known = self.known(expected).into_iter();
        let current = known.filter_map(|(_, known)| self.current(now_ms, known).ok());
        for (proxy, state) in current.filter_map(|proxy| Some((proxy, proxy.report.flags.get(uid)?))) {
            sum.add(proxy.received_ms, uid, state, &proxy.tracks);
        }
        sum.end(expected.len())
    }

    /// What the expected proxies say of `record`.
    pub fn view(&self, now_ms: u64, record: &Record, expected: &BTreeSet<String>, asked: &FleetQuestion) -> Fleet {
        let mut fleet = Fleet::unknown(expected.len());
        let (mut last_ack_ms, mut all_runs) = (0, Some(Vec::with_capacity(expected.len())));
        let all = self.known(expected);
        for (name, known) in all.iter().copied() {
            let laggard = |why: String| Laggard { proxy: name.clone(), why };
            let current = self.current(now_ms, known);
            match (&mut all_runs, &current) {
                (Some(all), Ok(proxy)) => all.push(&proxy.runs),
                (some, _) => *some = None,
            }
            match current.clone().and_then(|proxy| proxy.acked(record).map(|since| (proxy, since))) {
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
                match current.map_err(|why| (why, false)).and_then(|proxy| proxy.reached.since(probe)) {
                    Ok(since) => fleet.reached_since = fleet.reached_since.max(since),
                    Err((why, before)) => {
                        fleet.reach_laggards.push(laggard(why));
                        fleet.reach_broken |= before;
                    }
                }
            }
            let Some(proxy) = known else { continue };
            if proxy.came_ms.saturating_add(asked.drain_ms) > now_ms {
                fleet.late_filters.push(LateFilter { proxy: name.clone(), came_ms: proxy.came_ms });
            }
            if let Some(found) = proxy.report.found(&record.uid) {
                fleet.health_checks = fleet.health_checks.saturating_add(found.checked);
                fleet.highest_epoch = fleet.highest_epoch.max(found.rival_epoch);
                let strays = found.strays.iter().filter(|stray| stray.version == asked.old);
                fleet.strays.extend(strays.map(|Stray { place, cluster, route, count, .. }| {
                    laggard(format!("{count} to {place}, by route {route:?} to cluster {cluster}"))
                }));
                if found.unplaced > 0 {
                    fleet.unplaced.push(laggard(format!("{} open", found.unplaced)));
                }
            }
            let Some(state) = proxy.report.flags.get(&record.uid) else { continue };
            fleet.highest_epoch = fleet.highest_epoch.max(state.epoch);
            if state.arrived.contains_key(&asked.old) {
                fleet.unmanaged.extend(proxy.unmanaged.lately(now_ms, &record.uid, name));
            }
            let open = state.sent.get(&asked.old).is_some_and(|totals| totals.open() != Some(0));
            if open || proxy.sent.grew(now_ms, &record.uid, &asked.old) {
                let who = if asked.members.contains(name) { &mut fleet.members } else { &mut fleet.senders };
                who.push(name.clone());
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
                match fleet.sent.get_mut(version) {
                    Some(sum) => *sum = sum.plus(*totals),
                    None => drop(fleet.sent.insert(version.clone(), *totals)),
                }
            }
        }
        fleet.overlap = self.moves.get(&record.uid).and_then(Move::overlap);
        fleet.fence = asked.fence.as_ref().map(|fence| {
            let all = all.iter().map(|(name, known)| (name.as_str(), self.current(now_ms, *known)));
            FleetFence::of(all, record, fence, &asked.members, |name| self.proxies.get(name))
        });
        let acked_ms = fleet.all_acked().then_some(last_ack_ms);
        fleet.old = all_runs.map_or(Quiet::Unknown, |proxies| quiet(&proxies, &record.uid, &asked.old, acked_ms));
        fleet
    }

    /// A proxy of which it is known what is so. The error says why nothing is.
    fn current<'a>(&self, now_ms: u64, known: Option<&'a Proxy>) -> Result<&'a Proxy, String> {
        let proxy = known.ok_or(
            "it never reported: does it run by that name, has it loaded the filter (its log says why not), and can it \
             reach the flag service?",
        )?;
        let age = now_ms.saturating_sub(proxy.received_ms);
        if age > proxy.stale_ms {
            return Err(format!(
                "last seen {:.1} s ago: does it run, and reach the flag service?",
                age as f64 / 1000.0
            ));
        }
        if proxy.rival_ms.is_some_and(|heard| now_ms.saturating_sub(heard) <= proxy.stale_ms) {
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
