//! Who polls: each proxy has a few places, and is woken by what concerns it. No I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::lock::lock;

/// Polls of one proxy at a time. It has one, two while one process takes over from another, and some that it gave up.
const OF_ONE_PROXY: usize = 8;

/// The polls that are under way, by proxy.
#[derive(Debug, Default)]
pub(crate) struct Pollers {
    seats: Mutex<HashMap<String, Seat>>,
}

#[derive(Debug, Default)]
struct Seat {
    changed: Arc<Notify>,
    /// What ends each poll, the oldest first.
    polls: VecDeque<Arc<Notify>>,
}

/// One poll; it ends with this.
#[derive(Debug)]
pub(crate) struct Poll<'a> {
    pollers: &'a Pollers,
    proxy: &'a str,
    changed: Arc<Notify>,
    ends: Arc<Notify>,
}

impl Pollers {
    /// Takes in a poll. Where its proxy has too many, the oldest ends: nobody may wait for its answer any more.
    pub(crate) fn begin<'a>(&'a self, proxy: &'a str) -> Poll<'a> {
        let ends = Arc::new(Notify::new());
        let mut seats = lock(&self.seats);
        let seat = seats.entry(proxy.to_owned()).or_default();
        if seat.polls.len() >= OF_ONE_PROXY
            && let Some(oldest) = seat.polls.pop_front()
        {
            oldest.notify_one();
        }
        seat.polls.push_back(Arc::clone(&ends));
        Poll { pollers: self, proxy, changed: Arc::clone(&seat.changed), ends }
    }

    /// Something has changed for these proxies.
    pub(crate) fn wake<'a>(&self, proxies: impl Iterator<Item = &'a str>) {
        let seats = lock(&self.seats);
        proxies.filter_map(|proxy| seats.get(proxy)).for_each(|seat| seat.changed.notify_waiters());
    }

    /// The same for all of them.
    pub(crate) fn wake_all(&self) {
        lock(&self.seats).values().for_each(|seat| seat.changed.notify_waiters());
    }
}

impl Poll<'_> {
    /// Ends with the next change after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Ends when another poll takes its place.
    pub(crate) fn ends(&self) -> Notified<'_> {
        self.ends.notified()
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut seats = lock(&self.pollers.seats);
        let Some(seat) = seats.get_mut(self.proxy) else { return };
        seat.polls.retain(|one| !Arc::ptr_eq(one, &self.ends));
        if seat.polls.is_empty() {
            seats.remove(self.proxy);
        }
    }
}
