//! One proxy: its boots, its last report, and what has grown from those before. Pure.

use std::collections::{BTreeMap, VecDeque};

use flag::fence::Held;
use flag::instance::{Findings, FlagState};
use flag::named::Named;
use flag::record::Record;
use flag::report::Report;

use super::counted::{Counted, grow};
use super::quiet::{Runs, counted, keep_last};
use super::reached::Reached;
use super::traffic::Tracks;
use super::unmanaged::Flows;

/// Boots of a proxy that are remembered, so that a late report of an old one is not believed.
const OLD_BOOTS: usize = 8;

/// When the filter came to a proxy: a boot is named by that, in nanoseconds.
fn came_ms(boot: &str) -> Option<u64> {
    u64::from_str_radix(boot, 16).ok().map(|ns| ns / 1_000_000)
}

/// What is known of one proxy.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) report: Report,
    /// What its last complete report said of flags, if that is another one.
    whole: Option<Named<FlagState>>,
    pub(super) received_ms: u64,
    /// For how long its last report says what is so.
    pub(super) stale_ms: u64,
    /// When the filter came to it.
    pub(super) came_ms: u64,
    /// When a report was complete last.
    pub(super) complete_ms: u64,
    /// Boots of before, each with the last report of it that was seen.
    pub(super) old_boots: VecDeque<(String, u64)>,
    /// When a boot of before reported last although there is a newer one: it lives beside it.
    pub(super) rival_ms: Option<u64>,
    pub(super) runs: Runs,
    pub(super) reached: Reached,
    /// By uid: the record in effect, and since when.
    pub(super) effective: BTreeMap<String, (u64, String, u64)>,
    pub(super) unmanaged: Flows,
    pub(super) sent: Flows,
    pub(super) tracks: Tracks,
    /// By uid: the highest epoch under which a hold has run out here.
    pub(super) expired: BTreeMap<String, u64>,
}

impl Proxy {
    pub(super) fn new(report: &Report, now_ms: u64, stale_ms: u64) -> Proxy {
        Proxy {
            report: report.clone(),
            whole: None,
            received_ms: now_ms,
            stale_ms,
            came_ms: came_ms(&report.boot).map_or(now_ms, |came| came.min(now_ms)),
            complete_ms: now_ms,
            old_boots: VecDeque::new(),
            rival_ms: None,
            runs: Runs::default(),
            reached: Reached::default(),
            effective: BTreeMap::new(),
            unmanaged: Flows::default(),
            sent: Flows::default(),
            tracks: Tracks::default(),
            expired: BTreeMap::new(),
        }
    }

    /// The same proxy after another start: what it had before is not known to have ended.
    pub(super) fn restarted(mut self, now_ms: u64, stale_ms: u64, report: &Report) -> Proxy {
        let mut fresh = Proxy::new(report, now_ms, stale_ms);
        fresh.runs.lose();
        fresh.reached.lose();
        fresh.old_boots = std::mem::take(&mut self.old_boots);
        fresh.old_boots.retain(|(boot, _)| *boot != report.boot);
        fresh.old_boots.push_back((self.report.boot, self.report.seq));
        fresh.rival_ms = self.rival_ms;
        fresh.expired = std::mem::take(&mut self.expired);
        keep_last(&mut fresh.old_boots, OLD_BOOTS);
        fresh
    }

    pub(super) fn is_of_before(&self, boot: &str) -> bool {
        self.old_boots.iter().any(|(old, _)| old == boot)
    }

    /// Whether a boot of before goes on to report, and the one after it has not for as long as a report is believed.
    pub(super) fn is_outlived(&self, now_ms: u64) -> bool {
        let silent = |since: u64| now_ms.saturating_sub(since) > self.stale_ms;
        silent(self.received_ms) && self.rival_ms.is_some_and(|heard| !silent(heard))
    }

    /// A boot of before reports. One that goes on is alive: what it sends and has open is in no report that is believed.
    pub(super) fn hear_rival(&mut self, now_ms: u64, report: &Report) {
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
    pub(super) fn acked(&self, record: &Record) -> Result<u64, String> {
        let state = self.report.flags.get(&record.uid).ok_or("it does not know the flag")?;
        if state.epoch == 0 {
            return Err("its workers have different records, or another flag has one of its hosts there".to_owned());
        }
        if state.epoch != record.epoch {
            return Err(format!("it is at epoch {}, not {}", state.epoch, record.epoch));
        }
        if state.hash != record.hash {
            return Err(format!("its record of epoch {} has other content: {}", state.epoch, state.hash));
        }
        let since = self.effective.get(&record.uid).map(|(_, _, since)| *since);
        since.ok_or_else(|| "its last report was not complete".to_owned())
    }

    /// Takes in a report of this boot, and what it adds to the sums that are counted, by uid.
    pub(super) fn take(&mut self, now_ms: u64, stale_ms: u64, report: Report, sums: &mut BTreeMap<String, Counted>) {
        let gap = now_ms.saturating_sub(self.complete_ms) > self.stale_ms;
        // Whatever else is missing in the report.
        expire(&mut self.expired, &report);
        let others = report.instances != self.report.instances;
        // What a round has missed the next one shows, if the same instances have the same totals then: these only grow.
        if gap || others {
            // Something was not seen: what was quiet before may not have stayed so.
            self.runs.lose();
            self.reached.lose();
            self.effective.clear();
        }
        if gap || others || !report.complete {
            self.tracks.clear();
        }
        if report.complete {
            self.complete_ms = now_ms;
            self.unmanaged.take(now_ms, &report.flags, |state| &state.strangers);
            self.sent.take(now_ms, &report.flags, |state| &state.sent);
            self.effective.retain(|uid, _| report.flags.contains_key(uid));
            for (uid, state) in &report.flags {
                let known = self.effective.get(uid);
                if !known.is_some_and(|(epoch, hash, _)| *epoch == state.epoch && *hash == state.hash) {
                    self.effective.insert(uid.clone(), (state.epoch, state.hash.clone(), now_ms));
                }
            }
            self.tracks.retain(|uid| report.flags.contains_key(uid));
            for (uid, state) in &report.flags {
                for version in counted(state) {
                    self.tracks.take(now_ms, uid, version, state);
                }
            }
            self.runs.take(now_ms, &report);
            self.reached.take(now_ms, &report);
        }
        if report.complete {
            let last = Some(&self.report.flags).filter(|_| self.report.complete);
            if let Some(before) = self.whole.as_ref().or(last) {
                grow(sums, before, &report.flags);
            }
            self.whole = None;
        } else if self.report.complete && self.whole.is_none() {
            self.whole = Some(std::mem::take(&mut self.report.flags));
        }
        self.report = report;
        (self.received_ms, self.stale_ms) = (now_ms, stale_ms);
    }
}

/// A hold that has run out stays so, whatever is shown later.
fn expire(expired: &mut BTreeMap<String, u64>, report: &Report) {
    expired.retain(|uid, _| !report.complete || report.flags.contains_key(uid));
    let shows = |found: &&Findings| found.fenced.as_ref().is_some_and(|fenced| fenced.held == Held::Expired);
    for found in report.findings.iter().filter(shows) {
        let epoch = report.flags.get(&found.flag).map_or(0, |state| state.epoch);
        let highest = expired.entry(found.flag.clone()).or_default();
        *highest = epoch.max(*highest);
    }
}
