//! What the flag service and the driver of the state machine share. I/O: reads the clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use flag::PROTOCOL;
use flag::ledger::{Asked, Fleet, Ledger};
use flag::record::Record;
use flag::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

use super::metrics::Metrics;
use crate::observation::{Request, Workload};
use crate::status::Status;

/// Requests of people that wait for an answer.
const QUEUE: usize = 64;
/// Five reports at their slowest pace.
const STALE_MS: u64 = 5_000;

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One flag as `GET /v1/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagView {
    /// Its name.
    pub name: String,
    /// The version that the spec asks for.
    pub spec_version: String,
    /// What is remembered.
    pub status: Status,
    /// What the proxies say.
    pub fleet: Fleet,
    /// Its versions.
    pub versions: BTreeMap<String, Workload>,
    /// What is waited for.
    pub waiting: String,
    /// Unix milliseconds of this view.
    pub now: u64,
}

/// Shared by the flag service and the driver.
#[derive(Debug)]
pub struct Hub {
    ledger: Mutex<Ledger>,
    /// Known proxies, with their tokens.
    tokens: Mutex<BTreeMap<String, Option<String>>>,
    /// Those of them that have to ack.
    expected: Mutex<BTreeSet<String>>,
    snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    view: Mutex<Option<Arc<FlagView>>>,
    requests: Mutex<VecDeque<Request>>,
    /// Wakes the driver.
    pub wake: Notify,
    pub(super) metrics: Metrics,
}

// What a panicking thread left behind is still whole: every change here is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A hub that has nothing to publish yet.
    pub fn new() -> Hub {
        Hub {
            ledger: Mutex::new(Ledger::new(STALE_MS)),
            tokens: Mutex::default(),
            expected: Mutex::default(),
            snapshot: watch::Sender::new(None),
            view: Mutex::default(),
            requests: Mutex::default(),
            wake: Notify::new(),
            metrics: Metrics::new(),
        }
    }

    /// Replaces the list of proxies that may ask and report, with their tokens.
    pub fn know(&self, tokens: BTreeMap<String, Option<String>>) {
        *lock(&self.tokens) = tokens;
    }

    /// Replaces the list of proxies that have to ack.
    pub fn expect(&self, proxies: BTreeSet<String>) {
        *lock(&self.expected) = proxies;
    }

    pub(super) fn token_of(&self, proxy: &str) -> Option<Option<String>> {
        lock(&self.tokens).get(proxy).cloned()
    }

    /// What the expected proxies say.
    pub fn fleet(&self, now_ms: u64, record: &Record, asked: &Asked) -> Fleet {
        lock(&self.ledger).view(now_ms, record, &lock(&self.expected), asked)
    }

    pub(super) fn accept(&self, report: flag::report::Report) -> Result<(), flag::report::ReportError> {
        lock(&self.ledger).accept(now_ms(), report)
    }

    /// Publishes; who waits is woken at once if anything changed. Whether it did.
    pub fn publish(&self, flags: Vec<Record>, report_every_ms: u32, prove_routes: Vec<String>) -> bool {
        let mut snapshot =
            Snapshot { protocol: PROTOCOL, revision: String::new(), report_every_ms, prove_routes, flags };
        let bytes = serde_json::to_vec(&snapshot).unwrap_or_default();
        snapshot.revision = Sha256::digest(&bytes).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        self.snapshot.send_if_modified(|current| {
            let changed = current.as_ref().is_none_or(|current| current.revision != snapshot.revision);
            if changed {
                *current = Some(Arc::new(snapshot));
            }
            changed
        })
    }

    pub(super) fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshot.subscribe()
    }

    /// Replaces what `GET /v1/status` and the metrics show.
    pub fn show(&self, view: FlagView) {
        self.metrics.show(&view);
        *lock(&self.view) = Some(Arc::new(view));
    }

    /// A flip took this long from its record to the last ack.
    pub fn flipped(&self, seconds: f64) {
        self.metrics.flip.observe(seconds);
    }

    pub(super) fn view(&self) -> Option<Arc<FlagView>> {
        lock(&self.view).clone()
    }

    /// Queues a request; false: too many wait.
    pub(super) fn ask(&self, request: Request) -> bool {
        let mut queue = lock(&self.requests);
        let fits = queue.len() < QUEUE;
        if fits {
            queue.push_back(request);
        }
        fits
    }

    /// The next request that was not answered yet.
    pub fn next_request(&self, answered: Option<&str>) -> Option<Request> {
        let mut queue = lock(&self.requests);
        while queue.front().is_some_and(|request| Some(request.id.as_str()) == answered) {
            queue.pop_front();
        }
        queue.front().cloned()
    }
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new()
    }
}
