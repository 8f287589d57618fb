//! Who polls: each proxy has a few places, and is woken by what concerns it. No I/O.

use std::collections::HashMap;
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
    polls: usize,
}

/// One poll; it ends with this.
#[derive(Debug)]
pub(crate) struct Poll<'a> {
    pollers: &'a Pollers,
    proxy: &'a str,
    changed: Arc<Notify>,
}

impl Pollers {
    /// Takes in a poll; `None`: this proxy has too many.
    pub(crate) fn begin<'a>(&'a self, proxy: &'a str) -> Option<Poll<'a>> {
        let mut seats = lock(&self.seats);
        let seat = seats.entry(proxy.to_owned()).or_default();
        if seat.polls >= OF_ONE_PROXY {
            return None;
        }
        seat.polls += 1;
        Some(Poll { pollers: self, proxy, changed: Arc::clone(&seat.changed) })
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
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut seats = lock(&self.pollers.seats);
        let left = seats.get_mut(self.proxy).map_or(0, |seat| {
            seat.polls = seat.polls.saturating_sub(1);
            seat.polls
        });
        if left == 0 {
            seats.remove(self.proxy);
        }
    }
}
