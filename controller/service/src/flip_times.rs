//! Where the milliseconds of each flag's last flip went. I/O: reads the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flag::record::Record;
use flag::report::Report;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::lock::lock;

/// How long each part of a flip took. The first three come one after the other; proxies are sent the record, and ack it,
/// from its publication on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FlipTimes {
    /// Epoch of its record.
    pub epoch: u64,
    /// When the look began that decided it.
    pub at: UnixMs,
    /// From there to the decision, in milliseconds.
    pub decide_ms: f64,
    /// The write of the status.
    pub write_ms: f64,
    /// From there to the publication.
    pub publish_ms: f64,
    /// Until it was sent to each proxy.
    pub sent: Spread,
    /// Until the ack of each was taken in.
    pub acked: Spread,
}

impl FlipTimes {
    /// Its parts, one after the other, in milliseconds: what the last proxy was sent, and acked, is the last to be.
    pub(crate) fn parts(&self) -> [(&'static str, f64); 5] {
        let ack = (self.acked.max_ms - self.sent.max_ms).max(0.0);
        [
            ("decide", self.decide_ms),
            ("write", self.write_ms),
            ("publish", self.publish_ms),
            ("send", self.sent.max_ms),
            ("ack", ack),
        ]
    }
}

/// When it was the turn of each of many, in milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spread {
    /// How many they are.
    pub proxies: usize,
    /// The median.
    pub p50_ms: f64,
    /// Of the 99th of a hundred.
    pub p99_ms: f64,
    /// The last.
    pub max_ms: f64,
}

/// The flips that are under way, and the last one of each flag, by uid.
#[derive(Debug, Default)]
pub struct Stopwatch {
    running: Mutex<BTreeMap<String, Running>>,
    /// How many are, for those who come by all the time.
    count: AtomicUsize,
    last: Mutex<BTreeMap<String, FlipTimes>>,
}

#[derive(Debug)]
struct Running {
    times: FlipTimes,
    /// When the part that is under way began.
    since: Instant,
    stage: Stage,
    /// Of its record.
    hash: String,
    /// The proxies that have to ack.
    expected: BTreeSet<String>,
    sent: BTreeMap<String, Duration>,
    acked: BTreeMap<String, Duration>,
}

/// What is over of a flip.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Decided,
    Written,
    Published,
}

/// What a report acks of the flips that are under way.
#[derive(Debug)]
pub(crate) struct Acks {
    proxy: String,
    /// By uid.
    flips: Vec<String>,
}

impl Stopwatch {
    /// A look that began `at` and `since` has come to a status that is written next, which these proxies have to ack.
    pub fn decided(&self, before: &Status, new: &Status, expected: &BTreeSet<String>, at: UnixMs, since: Instant) {
        let flipped = |status: &Status| {
            let switch = status.switch.as_ref().filter(|switch| !switch.removal && status.phase == Phase::Switching);
            switch.and_then(|switch| switch.flipped_at)
        };
        // What is written of the same flip later is no other one.
        if flipped(before) == flipped(new) {
            return;
        }
        let begun = new.record.as_ref().filter(|_| flipped(new).is_some()).map(|record| Running {
            times: FlipTimes { epoch: record.epoch, at, decide_ms: ms(since.elapsed()), ..FlipTimes::default() },
            since: Instant::now(),
            stage: Stage::Decided,
            hash: record.hash.clone(),
            expected: expected.clone(),
            sent: BTreeMap::new(),
            acked: BTreeMap::new(),
        });
        self.change(|running| {
            match begun {
                Some(one) => running.insert(new.uid.clone(), one),
                // Given up before all had acked it.
                None => running.remove(&new.uid),
            };
        });
    }

    /// That status is written.
    pub fn written(&self, uid: &str) {
        self.with(uid, |one| {
            if one.stage == Stage::Decided {
                (one.stage, one.times.write_ms) = (Stage::Written, one.lap());
            }
        });
    }

    /// A record is published.
    pub(crate) fn published(&self, record: &Record) {
        self.with(&record.uid, |one| {
            if !one.is_published() && one.times.epoch == record.epoch {
                (one.stage, one.times.publish_ms) = (Stage::Published, one.lap());
            }
        });
    }

    /// A proxy is sent these epochs, by uid.
    pub(crate) fn sent(&self, proxy: &str, epochs: &[(String, u64)]) {
        for (uid, epoch) in epochs {
            self.with(uid, |one| one.note(*epoch, proxy, |one| &mut one.sent));
        }
    }

    /// What a report acks, if anything.
    pub(crate) fn acks(&self, report: &Report) -> Option<Acks> {
        if self.count.load(Ordering::Relaxed) == 0 || !report.complete {
            return None;
        }
        let running = lock(&self.running);
        let acks = report.flags.iter().filter(|(uid, state)| {
            let flip = running.get(*uid);
            flip.is_some_and(|flip| (flip.times.epoch, &flip.hash) == (state.epoch, &state.hash))
        });
        let flips: Vec<String> = acks.map(|(uid, _)| uid.clone()).collect();
        (!flips.is_empty()).then(|| Acks { proxy: report.proxy.clone(), flips })
    }

    /// The report that acks this was taken in.
    pub(crate) fn acked(&self, acks: &Acks) {
        for uid in &acks.flips {
            self.with(uid, |one| one.note(one.times.epoch, &acks.proxy, |one| &mut one.acked));
        }
    }

    /// Nobody is waited for any more. What the flip took, if all have acked it.
    pub(crate) fn ended(&self, uid: &str) -> Option<FlipTimes> {
        let mut found = None;
        self.change(|running| found = running.remove(uid));
        let flip = found.filter(Running::is_published)?;
        let times = flip.shown();
        lock(&self.last).insert(uid.to_owned(), times.clone());
        (flip.acked.len() == flip.expected.len()).then_some(times)
    }

    /// The flip under way, as far as it is, or the last one.
    pub(crate) fn shown(&self, uid: &str) -> Option<FlipTimes> {
        let running = lock(&self.running).get(uid).filter(|one| one.is_published()).map(Running::shown);
        running.or_else(|| lock(&self.last).get(uid).cloned())
    }

    /// Nothing is known of the flag any more.
    pub(crate) fn forget(&self, uid: &str) {
        self.change(|running| drop(running.remove(uid)));
        lock(&self.last).remove(uid);
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Running>)) {
        let mut running = lock(&self.running);
        change(&mut running);
        self.count.store(running.len(), Ordering::Relaxed);
    }

    fn with(&self, uid: &str, act: impl FnOnce(&mut Running)) {
        if self.count.load(Ordering::Relaxed) > 0
            && let Some(one) = lock(&self.running).get_mut(uid)
        {
            act(one);
        }
    }
}

impl Running {
    fn is_published(&self) -> bool {
        self.stage == Stage::Published
    }

    /// Milliseconds since the part under way began; the next one begins.
    fn lap(&mut self) -> f64 {
        ms(std::mem::replace(&mut self.since, Instant::now()).elapsed())
    }

    fn note(&mut self, epoch: u64, proxy: &str, which: fn(&mut Running) -> &mut BTreeMap<String, Duration>) {
        if self.is_published() && epoch == self.times.epoch && self.expected.contains(proxy) {
            let elapsed = self.since.elapsed();
            let known = which(self);
            if !known.contains_key(proxy) {
                known.insert(proxy.to_owned(), elapsed);
            }
        }
    }

    fn shown(&self) -> FlipTimes {
        let (sent, acked) = (spread(&self.sent), spread(&self.acked));
        FlipTimes { sent, acked, ..self.times.clone() }
    }
}

fn spread(by_proxy: &BTreeMap<String, Duration>) -> Spread {
    let mut all: Vec<Duration> = by_proxy.values().copied().collect();
    all.sort_unstable();
    let at = |share: usize| all.get((all.len().saturating_sub(1) * share).div_ceil(100)).copied().map_or(0.0, ms);
    Spread { proxies: all.len(), p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
