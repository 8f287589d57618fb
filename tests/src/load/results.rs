//! What became of every request. No I/O.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::clock;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Answered at once.
    Fast,
    /// Answered after a while.
    Slow,
    /// Answered for a long time.
    Stream,
}

/// What a request is sent over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// One request. Times are [`clock::now_us`].
#[derive(Debug, Clone)]
pub struct Request {
    /// When it fell due.
    pub due_us: u64,
    /// When it was given to a connection.
    pub start_us: u64,
    /// When the response's head came; 0 if it did not.
    pub head_us: u64,
    /// When the response ended, or the request failed.
    pub end_us: u64,
    /// 0 if no response came.
    pub status: u16,
    /// The version that answered, by its own account.
    pub version: Option<Arc<str>>,
    /// What it was sent over.
    pub protocol: Protocol,
    /// What it was for.
    pub kind: Kind,
    /// Why there was no response, or only a part of one.
    pub error: Option<Box<str>>,
}

impl Request {
    /// Anything but a whole response with a status of 2xx.
    pub fn failed(&self) -> bool {
        self.error.is_some() || !(200..300).contains(&self.status)
    }

    /// The version that answered, or `-`.
    pub fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("-")
    }
}

/// Counters of a load that is being made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests that fell due.
    pub sent: u64,
    /// Requests that ended.
    pub done: u64,
    /// Those that failed.
    pub failed: u64,
    /// Answered requests by version.
    pub by_version: BTreeMap<Arc<str>, u64>,
    /// Requests whose response has begun and not ended, by version.
    pub answering: BTreeMap<Arc<str>, u64>,
}

impl Live {
    /// Requests that fell due and did not end.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.done
    }

    /// Answered requests of a version.
    pub fn answered_by(&self, version: &str) -> u64 {
        self.by_version.get(version).copied().unwrap_or_default()
    }
}

/// Where the generator writes. One lock: there is one writing thread.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    state: Mutex<(Vec<Request>, Live)>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, (Vec<Request>, Live)> {
        self.state.lock().expect("nobody panics while recording")
    }

    pub(super) fn sent(&self) {
        self.lock().1.sent += 1;
    }

    /// The response has begun; gives the version's name, of which there is one copy.
    pub(super) fn head(&self, version: &str) -> Arc<str> {
        let live = &mut self.lock().1;
        match live.by_version.get_key_value(version) {
            Some((version, _)) => {
                let version = version.clone();
                *live.answering.entry(version.clone()).or_default() += 1;
                version
            }
            None => {
                let version = Arc::<str>::from(version);
                live.by_version.insert(version.clone(), 0);
                live.answering.insert(version.clone(), 1);
                version
            }
        }
    }

    pub(super) fn done(&self, request: Request) {
        let (requests, live) = &mut *self.lock();
        live.done += 1;
        live.failed += u64::from(request.failed());
        if let Some(version) = &request.version {
            *live.by_version.entry(version.clone()).or_default() += 1;
            *live.answering.entry(version.clone()).or_default() -= 1;
        }
        requests.push(request);
    }

    pub(super) fn live(&self) -> Live {
        self.lock().1.clone()
    }

    pub(super) fn take(&self) -> Results {
        Results::new(std::mem::take(&mut self.lock().0))
    }
}

/// Requests in the order in which they were started.
#[derive(Debug, Clone, Default)]
pub struct Results {
    requests: Vec<Request>,
}

impl Results {
    /// Any requests, in any order.
    pub fn new(mut requests: Vec<Request>) -> Results {
        requests.sort_by_key(|request| request.start_us);
        Results { requests }
    }

    /// Every request.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Together with those of another load.
    pub fn and(self, other: Results) -> Results {
        Results::new([self.requests, other.requests].concat())
    }

    /// Those that were started at this time or later.
    pub fn after(&self, us: u64) -> Results {
        self.only(|request| request.start_us >= us)
    }

    /// Those of a kind.
    pub fn kind(&self, kind: Kind) -> Results {
        self.only(|request| request.kind == kind)
    }

    /// Those that failed.
    pub fn failures(&self) -> Results {
        self.only(Request::failed)
    }

    /// Those for which it holds.
    pub fn only(&self, keep: impl Fn(&Request) -> bool) -> Results {
        Results { requests: self.requests.iter().filter(|request| keep(request)).cloned().collect() }
    }

    /// How many by version; those without are under `-`.
    pub fn by_version(&self) -> BTreeMap<String, u64> {
        self.count_by(|request| request.version().to_owned())
    }

    /// How many by anything else.
    pub fn count_by<K: Ord>(&self, key: impl Fn(&Request) -> K) -> BTreeMap<K, u64> {
        let mut counts = BTreeMap::new();
        for request in &self.requests {
            *counts.entry(key(request)).or_default() += 1;
        }
        counts
    }

    /// The request whose response from this version began first.
    pub fn first(&self, version: &str) -> Option<&Request> {
        self.served_by(version).min_by_key(|request| request.head_us)
    }

    /// The request whose response from this version ended last.
    pub fn last(&self, version: &str) -> Option<&Request> {
        self.served_by(version).max_by_key(|request| request.end_us)
    }

    /// The request that this version answered which was started last.
    pub fn last_started(&self, version: &str) -> Option<&Request> {
        self.served_by(version).max_by_key(|request| request.start_us)
    }

    /// For how long both versions took new requests: from the first response begun on the new one
    /// to the last request *started* that the old one answered.
    pub fn overlap(&self, old: &str, new: &str) -> Duration {
        let (begin, end) = (self.first(new).map(|it| it.head_us), self.last_started(old).map(|it| it.start_us));
        Duration::from_micros(begin.zip(end).map_or(0, |(begin, end)| end.saturating_sub(begin)))
    }

    /// Whether there are any, and this version answered all of them.
    pub fn all_served_by(&self, version: &str) -> bool {
        !self.is_empty() && self.requests.iter().all(|request| request.version() == version)
    }

    /// Time from falling due to the end of the response, at a quantile from 0 to 1.
    pub fn latency(&self, quantile: f64) -> Duration {
        let mut times: Vec<u64> = self.requests.iter().map(|it| it.end_us.saturating_sub(it.due_us)).collect();
        times.sort_unstable();
        let index = (quantile * times.len().saturating_sub(1) as f64).round() as usize;
        Duration::from_micros(times.get(index).copied().unwrap_or_default())
    }

    /// Panics unless this version answered the last request.
    #[track_caller]
    pub fn assert_last_by(&self, version: &str) {
        assert_eq!(self.requests.last().map(|request| request.version()), Some(version));
    }

    /// Panics, with what went wrong how often and the first few, unless every request succeeded.
    #[track_caller]
    pub fn assert_no_failures(&self) {
        assert!(!self.is_empty(), "no request was made");
        let failures = self.failures();
        if failures.is_empty() {
            return;
        }
        let why = failures.count_by(|it| (it.status, it.error.clone(), it.version().to_owned(), it.protocol, it.kind));
        let mut text = format!("{} of {} requests failed", failures.len(), self.len());
        for ((status, error, version, protocol, kind), count) in why {
            let error = error.as_deref().unwrap_or("");
            text += &format!("\n{count:>8} × {kind:?} over {protocol:?}: status {status}, version {version} {error}");
        }
        let (first, last) = (&failures.requests[0], &failures.requests[failures.len() - 1]);
        let (from, to) = (clock::unix_ms(first.start_us), clock::unix_ms(last.start_us));
        panic!("{text}\nstarted from {from} to {to} (unix ms); the first: {first:?}");
    }

    fn served_by(&self, version: &str) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(move |request| request.version() == version)
    }
}
