//! When the API server last answered a watch of each kind: a watch that fails leaves what it has told as it was, and
//! nothing may rest on that for long. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use machine::reason::{Problem, Reason};
use machine::time::UnixMs;
use service::lock::lock;

use super::resource::time;

/// The API server ends every watch after this many seconds, and who watches asks again: by its answer it is heard.
pub const WATCH_SECONDS: u32 = 20;
/// A watch that nothing comes from for so long is broken: the API server would have ended it before.
pub const SILENCE: Duration = Duration::from_secs(30);
/// What was not heard of for longer is not believed.
const BELIEVED: Duration = Duration::from_secs(45);

/// By kind, in the plural; with the time as people write it.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<BTreeMap<String, (Instant, UnixMs)>>>);

impl Heard {
    /// All of a kind is known as of now.
    pub fn note(&self, kind: &str, now: Instant, as_written: UnixMs) {
        lock(&self.0).insert(kind.to_owned(), (now, as_written));
    }

    /// Whether a kind was heard of, and not too long ago.
    pub fn is_current(&self, kind: &str, now: Instant) -> bool {
        lock(&self.0).get(kind).is_some_and(|(at, _)| !is_stale(*at, now))
    }

    /// Those of these kinds that were heard of once, and not for too long. One that nobody watches is none of them.
    pub fn problem(&self, kinds: &[&str], now: Instant) -> Option<Problem> {
        let all = lock(&self.0);
        let heard = kinds.iter().filter_map(|kind| Some((*kind, *all.get(*kind)?)));
        let stale: Vec<_> = heard.filter(|(_, (at, _))| is_stale(*at, now)).collect();
        if stale.is_empty() {
            return None;
        }
        let named =
            stale.iter().map(|(kind, (_, at))| format!("{kind} at {}", time(*at).0)).collect::<Vec<_>>().join(", ");
        let message = format!(
            "what the cluster has may be out of date, because its API server has not answered a watch since ({named}): \
             see why in the controller's log, and whether its account may watch them"
        );
        Some(Problem::new(Reason::WatchStale, message).about(stale.into_iter().map(|(kind, _)| kind)))
    }
}

fn is_stale(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) > BELIEVED
}
