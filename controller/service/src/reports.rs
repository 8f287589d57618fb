//! The reports of the proxies that were taken in: what they say together, and who has reported since the driver
//! looked last. I/O: reads the clock for what a look costs; otherwise the time comes in as an argument.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use flag::record::Record;
use flag::report::{Report, ReportError};
use machine::duration::Millis;
use machine::fleet::counted::Counted;
use machine::fleet::ledger::{Fleet, FleetQuestion, Ledger};
use machine::fleet::traffic::Traffic;
use machine::pace::stale;
use machine::time::UnixMs;

use crate::lock::lock;

/// Between two looks for who is gone.
const FORGET_EVERY: Millis = Millis(60_000);

/// The reports of all proxies.
#[derive(Debug)]
pub struct Reports {
    ledger: Mutex<Ledger>,
    reporters: Mutex<Reporters>,
    /// When it was looked for who is gone.
    forgot_at: Mutex<UnixMs>,
    cost: Mutex<Duration>,
}

/// Who has reported since the driver took note of it last.
#[derive(Debug)]
struct Reporters {
    proxies: HashSet<String>,
    /// Whether the driver waits for reports.
    wake_driver: bool,
}

impl Default for Reports {
    fn default() -> Reports {
        let reporters = Reporters { proxies: HashSet::new(), wake_driver: true };
        Reports {
            ledger: Mutex::new(Ledger::new(stale(Millis(0)).0)),
            reporters: Mutex::new(reporters),
            forgot_at: Mutex::default(),
            cost: Mutex::default(),
        }
    }
}

impl Reports {
    /// What the `expected` proxies together say of a record.
    pub fn fleet(&self, now: UnixMs, record: &Record, expected: &BTreeSet<String>, asked: &FleetQuestion) -> Fleet {
        let began = Instant::now();
        let fleet = lock(&self.ledger).view(now.0, record, expected, asked);
        *lock(&self.cost) += began.elapsed();
        fleet
    }

    /// How long the looks at fleets have taken since this was asked last.
    pub(crate) fn take_cost(&self) -> Duration {
        std::mem::take(&mut lock(&self.cost))
    }

    /// The names of the proxies that have reported since this was called last.
    pub fn take_reporters(&self) -> BTreeSet<String> {
        std::mem::take(&mut lock(&self.reporters).proxies).into_iter().collect()
    }

    /// The requests to the versions of one flag as of now.
    pub fn traffic_of(&self, now: UnixMs, uid: &str, callers: &BTreeSet<String>) -> Traffic {
        lock(&self.ledger).traffic(now.0, uid, callers)
    }

    /// The requests to the versions of each flag as of now, by the flag's uid and its callers.
    pub(crate) fn traffic<'a>(
        &self,
        now: UnixMs,
        flags: impl Iterator<Item = (&'a str, &'a BTreeSet<String>)>,
    ) -> Vec<Traffic> {
        let ledger = lock(&self.ledger);
        flags.map(|(uid, callers)| ledger.traffic(now.0, uid, callers)).collect()
    }

    /// Counts the requests of a flag to these versions from now on.
    pub(crate) fn count(&self, uid: &str, versions: &BTreeSet<&str>) {
        lock(&self.ledger).count(uid, versions);
    }

    /// What was counted of each of these flags, by their uids; nothing of those that are not counted.
    pub(crate) fn counted<'a>(&self, uids: impl Iterator<Item = &'a str>) -> Vec<Counted> {
        let ledger = lock(&self.ledger);
        uids.map(|uid| ledger.counted(uid).cloned().unwrap_or_default()).collect()
    }

    /// Takes in a report of a proxy that reports at this pace. Whether the driver waits for it, and how many proxies are
    /// known.
    pub(crate) fn take_in(&self, now: UnixMs, pace: Millis, report: Report) -> Result<(bool, usize), ReportError> {
        let proxy = report.proxy.clone();
        let mut ledger = lock(&self.ledger);
        ledger.accept_for(now.0, stale(pace).0, report)?;
        let known = ledger.remembered();
        drop(ledger);
        let mut reporters = lock(&self.reporters);
        reporters.proxies.insert(proxy);
        Ok((reporters.wake_driver, known))
    }

    /// Whether it is time to forget who is gone. Once in a while only.
    pub(crate) fn begins_to_forget(&self, now: UnixMs) -> bool {
        let mut at = lock(&self.forgot_at);
        let due = now.since(*at) >= FORGET_EVERY;
        if due {
            *at = now;
        }
        due
    }

    /// Forgets the proxies that are gone, as far as nobody waits for them. How many are known then.
    pub(crate) fn forget_gone(&self, now: UnixMs, is_expected: impl Fn(&str) -> bool) -> usize {
        let mut ledger = lock(&self.ledger);
        ledger.forget_gone(now.0, is_expected);
        ledger.remembered()
    }

    /// Whether the driver waits for reports from now on. Whether there is one that it waits for already.
    pub(crate) fn set_wakes_driver(&self, wake: bool) -> bool {
        let mut reporters = lock(&self.reporters);
        reporters.wake_driver = wake;
        wake && !reporters.proxies.is_empty()
    }

    /// The active version of a flag is about to change.
    pub(crate) fn note_flip(&self, uid: &str, from: &str, to: &str) {
        lock(&self.ledger).flips(uid, from, to);
    }

    /// Drops what was reported of a flag.
    pub(crate) fn forget_flag(&self, uid: &str) {
        lock(&self.ledger).forget(uid);
    }
}
