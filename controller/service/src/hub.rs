//! What the flag service and the driver of the state machine share. I/O: reads the clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use flag::PROTOCOL;
use flag::record::Record;
use flag::snapshot::Snapshot;
use machine::fleet::ledger::{Asked, Fleet, Ledger};
use machine::fleet::traffic::Traffic;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

use super::metrics::{ApiRequests, Metrics};
use super::sender::Senders;
use super::tls::Tls;
use crate::clock::now_ms;
use crate::lock::lock;
use machine::action::Request;
use machine::checks::Answers;
use machine::observation::Workload;
use machine::plan::Upcoming;
use machine::publication::Publication;
use machine::status::Status;
use machine::time::UnixMs;

/// Requests of people that wait for an answer.
const QUEUE: usize = 64;
/// Five reports at their slowest pace.
const STALE_MS: u64 = 5_000;

/// One flag as `GET /v1/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagView {
    /// Its name.
    pub name: String,
    /// The version that the spec asks for.
    pub spec_version: String,
    /// What is remembered.
    pub status: Arc<Status>,
    /// What the proxies say.
    pub fleet: Fleet,
    /// Its versions.
    pub versions: BTreeMap<String, Workload>,
    /// The last answers to its checks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: Answers,
    /// What is waited for.
    pub waiting: String,
    /// What is done after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Upcoming>,
    /// Who has to ack.
    #[serde(skip)]
    pub callers: BTreeSet<String>,
    /// The requests to its versions, as of now.
    #[serde(default)]
    pub traffic: Traffic,
    /// When this view is of.
    pub now: UnixMs,
}

/// Shared by the flag service and the driver. Flags are told apart by name.
#[derive(Debug)]
pub struct Hub {
    ledger: Mutex<Ledger>,
    /// Who may speak for a proxy.
    pub senders: Senders,
    posts: Mutex<BTreeMap<String, Publication>>,
    /// Grows with every change of what is published; 0: nothing is yet.
    changes: watch::Sender<u64>,
    views: Mutex<BTreeMap<String, Arc<FlagView>>>,
    requests: Mutex<VecDeque<(String, Request)>>,
    reports: Mutex<Reports>,
    /// Whether the driver has looked at every flag once.
    pub looked: AtomicBool,
    /// By which proxies reach it, if they are to use mutual TLS.
    pub tls: OnceLock<Arc<Tls>>,
    /// Wakes the driver.
    pub wake: Notify,
    pub(super) metrics: Metrics,
}

/// Who has reported since the driver asked that, and whether it waits for that.
#[derive(Debug)]
struct Reports {
    watched: bool,
    proxies: BTreeSet<String>,
}

impl Hub {
    /// A hub that has nothing to publish yet.
    pub fn new(senders: Senders) -> Hub {
        Hub {
            ledger: Mutex::new(Ledger::new(STALE_MS)),
            senders,
            posts: Mutex::default(),
            changes: watch::Sender::new(0),
            views: Mutex::default(),
            requests: Mutex::default(),
            reports: Mutex::new(Reports { watched: true, proxies: BTreeSet::new() }),
            looked: AtomicBool::new(false),
            tls: OnceLock::new(),
            wake: Notify::new(),
            metrics: Metrics::new(),
        }
    }

    /// The same, which also shows what is asked of the Kubernetes API.
    pub fn with_requests(self, requests: &ApiRequests) -> Hub {
        Hub { metrics: self.metrics.with(requests), ..self }
    }

    /// What the proxies that have to ack say.
    pub fn fleet(&self, now: UnixMs, record: &Record, expected: &BTreeSet<String>, asked: &Asked) -> Fleet {
        lock(&self.ledger).view(now.0, record, expected, asked)
    }

    pub(super) fn accept(&self, report: flag::report::Report) -> Result<(), flag::report::ReportError> {
        lock(&self.ledger).accept(now_ms(), report)
    }

    /// A report of this proxy was taken in.
    pub(super) fn reported(&self, proxy: String) {
        let mut reports = lock(&self.reports);
        reports.proxies.insert(proxy);
        if reports.watched {
            self.wake.notify_one();
        }
    }

    /// Who has reported since this was asked last.
    pub fn take_reported(&self) -> BTreeSet<String> {
        std::mem::take(&mut lock(&self.reports).proxies)
    }

    /// Whether a report wakes the driver. One that has come meanwhile does.
    pub fn watch_reports(&self, watched: bool) {
        let mut reports = lock(&self.reports);
        reports.watched = watched;
        if watched && !reports.proxies.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Publishes; who waits is woken at once if anything changed. Whether it did.
    pub fn publish(&self, post: Publication) -> bool {
        let mut posts = lock(&self.posts);
        let before = posts.get(&post.record.name);
        if before == Some(&post) {
            return false;
        }
        let (uid, to) = (&post.record.uid, &post.record.active);
        let before = before.map(|before| &before.record).filter(|before| before.uid == *uid && before.active != *to);
        if let Some(before) = before {
            lock(&self.ledger).flips(uid, &before.active, to);
        }
        posts.insert(post.record.name.clone(), post);
        drop(posts);
        self.changes.send_modify(|changes| *changes = changes.saturating_add(1));
        true
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All that a proxy is sent; `None`: nothing is published yet.
    pub(super) fn snapshot(&self, proxy: &str) -> Option<Snapshot> {
        let posts = lock(&self.posts);
        let for_it = |post: &&Publication| post.audience.as_ref().is_none_or(|audience| audience.contains(proxy));
        (*self.changes.borrow() > 0).then(|| snapshot(posts.values().filter(for_it)))
    }

    /// Replaces what `GET /v1/status` and the metrics show of a flag.
    pub fn show(&self, view: FlagView) {
        self.metrics.show(&view);
        lock(&self.views).insert(view.name.clone(), Arc::new(view));
    }

    /// A flag is gone. Proxies keep what they have of it.
    pub fn forget(&self, name: &str) {
        lock(&self.views).remove(name);
        self.metrics.forget(name);
        let gone = lock(&self.posts).remove(name);
        if let Some(post) = gone {
            lock(&self.ledger).forget(&post.record.uid);
            self.changes.send_modify(|changes| *changes = changes.saturating_add(1));
        }
    }

    /// A flip took this long from its record to the last ack.
    pub fn flipped(&self, seconds: f64) {
        self.metrics.flip.observe(seconds);
    }

    pub(super) fn has(&self, flag: &str) -> bool {
        lock(&self.views).contains_key(flag)
    }

    /// What was seen of all flags, or of one, with its requests as of now.
    pub(super) fn views(&self, flag: Option<&str>) -> Vec<FlagView> {
        let wanted = |view: &&Arc<FlagView>| flag.is_none_or(|flag| view.name == flag);
        let views: Vec<Arc<FlagView>> = lock(&self.views).values().filter(wanted).cloned().collect();
        let (now, ledger) = (now_ms(), lock(&self.ledger));
        let shown = views.iter().map(|view| {
            let traffic = ledger.traffic(now, &view.status.uid, &view.callers);
            FlagView { traffic, now: UnixMs(now), ..FlagView::clone(view) }
        });
        shown.collect()
    }

    /// Queues a request for a flag; false: too many wait.
    pub(super) fn ask(&self, flag: &str, request: Request) -> bool {
        let mut queue = lock(&self.requests);
        let fits = queue.len() < QUEUE;
        if fits {
            queue.push_back((flag.to_owned(), request));
        }
        fits
    }

    /// The flags that requests wait for.
    pub fn asked(&self) -> BTreeSet<String> {
        lock(&self.requests).iter().map(|(flag, _)| flag.clone()).collect()
    }

    /// The next request for a flag that was not answered yet.
    pub fn next_request(&self, flag: &str, answered: Option<&str>) -> Option<Request> {
        let mut queue = lock(&self.requests);
        queue.retain(|(of, request)| of != flag || Some(request.id.as_str()) != answered);
        queue.iter().find(|(of, _)| of == flag).map(|(_, request)| request.clone())
    }
}

fn snapshot<'a>(posts: impl Iterator<Item = &'a Publication> + Clone) -> Snapshot {
    let mut snapshot = Snapshot {
        protocol: PROTOCOL,
        revision: String::new(),
        report_every_ms: posts
            .clone()
            .map(|post| post.report_every)
            .min()
            .map_or(1_000, |every| u32::try_from(every.0).unwrap_or(u32::MAX)),
        prove_routes: posts.clone().filter(|post| post.prove_routes).map(|post| post.record.uid.clone()).collect(),
        measure: posts.clone().filter(|post| post.measure).map(|post| post.record.uid.clone()).collect(),
        flags: posts.map(|post| post.record.clone()).collect(),
    };
    let bytes = serde_json::to_vec(&snapshot).unwrap_or_default();
    snapshot.revision = Sha256::digest(&bytes).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    snapshot
}
