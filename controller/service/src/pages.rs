//! What open pages in browsers are sent: made once for all of them, and not at all while none is open. I/O: the clock.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::hub::Hub;
use crate::in_use::Use;
use crate::lock::lock;
use crate::views::FlagView;
use machine::time::UnixMs;

/// Pages at a time.
pub(crate) const AT_A_TIME: usize = 64;
/// Between two looks at the flags, at least.
const EVERY: Duration = Duration::from_millis(500);
/// The same in times of what a look takes: looks at large fleets cost much.
const RESTS: u32 = 20;
/// Where nothing changes, pages are told so often that the line to them is fine. They are told no less often of all else.
const AT_REST: Duration = Duration::from_secs(5);
/// What all pages together are sent in a millisecond at most, on average and but for [`AT_REST`], in bytes.
const BYTES_PER_MS: usize = 8_000;
/// Names of proxies in each list of a flag.
const NAMED: usize = 64;

/// All open pages.
#[derive(Debug)]
pub(crate) struct Pages {
    room: Arc<Semaphore>,
    news: watch::Sender<Bytes>,
    /// Somebody looks at the flags.
    is_looked: Mutex<bool>,
}

impl Default for Pages {
    fn default() -> Pages {
        let (room, news) = (Arc::new(Semaphore::new(AT_A_TIME)), watch::Sender::new(Bytes::new()));
        Pages { room, news, is_looked: Mutex::new(false) }
    }
}

/// The events of one page, and its place among all and on its connection.
type Reader = (watch::Receiver<Bytes>, (OwnedSemaphorePermit, Option<Use>));

impl Pages {
    /// A page is opened: all flags now, and again and again. `None`: so many are open already.
    pub(crate) fn open(
        hub: &Arc<Hub>,
        using: Option<Use>,
    ) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + use<>> {
        let place = (Arc::clone(&hub.pages.room).try_acquire_owned().ok()?, using);
        let mut news = hub.pages.news.subscribe();
        // Whoever comes later is not told to wait for the next look.
        news.mark_changed();
        let mut is_looked = lock(&hub.pages.is_looked);
        if !std::mem::replace(&mut *is_looked, true) {
            tokio::spawn(look(Arc::clone(hub)));
        }
        Some(unfold((news, place), next))
    }

    /// Whether a page is open. Where none is, nobody looks at the flags any more.
    fn is_read(&self) -> bool {
        let mut is_looked = lock(&self.is_looked);
        *is_looked = self.news.receiver_count() > 0;
        if !*is_looked {
            self.news.send_replace(Bytes::new());
        }
        *is_looked
    }
}

async fn next((mut news, place): Reader) -> Option<(Result<Bytes, Infallible>, Reader)> {
    loop {
        news.changed().await.ok()?;
        let event = news.borrow_and_update().clone();
        if !event.is_empty() {
            return Some((Ok(event), (news, place)));
        }
    }
}

async fn look(hub: Arc<Hub>) {
    let mut last = Last::default();
    while hub.pages.is_read() {
        let began = Instant::now();
        let event = last.event(hub.current_views(None), began);
        let bytes = event.as_ref().map_or(0, |event| event.len() * hub.pages.news.receiver_count());
        if let Some(event) = event {
            hub.pages.news.send_replace(event);
        }
        tokio::time::sleep(pause(began.elapsed(), bytes)).await;
    }
}

/// How long nobody looks after a look that took so long, and of which so many bytes are sent.
fn pause(took: Duration, bytes: usize) -> Duration {
    let sending = Duration::from_millis((bytes / BYTES_PER_MS) as u64);
    EVERY.max(took * RESTS).max(sending).min(AT_REST)
}

/// What pages were told last, but for its time, and when that was.
#[derive(Debug, Default)]
struct Last(Option<(Vec<u8>, Instant)>);

impl Last {
    /// What they are told now, if anything.
    fn event(&mut self, mut flags: Vec<FlagView>, at: Instant) -> Option<Bytes> {
        flags.iter_mut().for_each(shorten);
        let times: Vec<_> = flags.iter_mut().map(|flag| std::mem::replace(&mut flag.now, UnixMs(0))).collect();
        let told = event(&flags);
        let is_told = |(last, since): &(Vec<u8>, Instant)| *last == told && at.duration_since(*since) < AT_REST;
        if self.0.as_ref().is_some_and(is_told) {
            return None;
        }
        self.0 = Some((told, at));
        flags.iter_mut().zip(times).for_each(|(flag, now)| flag.now = now);
        Some(event(&flags).into())
    }
}

/// However large a fleet is, what is told of it is not.
fn shorten(flag: &mut FlagView) {
    let fleet = &mut flag.fleet;
    let late = [&mut fleet.laggards, &mut fleet.config_laggards, &mut fleet.route_laggards, &mut fleet.reach_laggards];
    late.into_iter().chain([&mut fleet.strays, &mut fleet.unplaced]).for_each(|all| all.truncate(NAMED));
    if let Some(fence) = &mut fleet.fence {
        let late = [&mut fence.unable, &mut fence.not_holding, &mut fence.expired, &mut fence.open];
        let more = [&mut fence.routeless, &mut fence.long, &mut fence.unwatched];
        late.into_iter().chain(more).for_each(|all| all.truncate(NAMED));
    }
    [&mut fleet.members, &mut fleet.senders].into_iter().for_each(|all| all.truncate(NAMED));
    fleet.late_filters.truncate(NAMED);
    fleet.unmanaged.truncate(NAMED);
}

/// The flags as an event of a stream.
fn event(flags: &[FlagView]) -> Vec<u8> {
    let mut text = b"data: ".to_vec();
    // Names and numbers are JSON.
    let _ = serde_json::to_writer(&mut text, flags);
    text.extend(b"\n\n");
    text
}

#[cfg(test)]
mod tests {
    use machine::fleet::ledger::Fleet;
    use machine::status::Status;

    use super::*;

    fn flag(now: u64, waiting: &str) -> Vec<FlagView> {
        let status = Status::new("u", "reviews", UnixMs(0));
        let mut view = FlagView::of("reviews".to_owned(), status.into(), Fleet::unknown(1), UnixMs(now));
        view.waiting = waiting.to_owned();
        vec![view]
    }

    #[test]
    fn pages_are_told_what_is_new_and_now_and_then_that_nothing_is() {
        let (mut last, begin) = (Last::default(), Instant::now());
        let told = last.event(flag(1, "a"), begin).unwrap();
        assert!(String::from_utf8_lossy(&told).contains("\"now\":1}"), "{told:?}");
        assert_eq!(last.event(flag(2, "a"), begin + EVERY), None, "another time is nothing new");
        assert!(last.event(flag(3, "b"), begin + EVERY * 2).is_some());
        let told = last.event(flag(4, "b"), begin + EVERY * 2 + AT_REST).unwrap();
        assert!(String::from_utf8_lossy(&told).contains("\"now\":4}"), "{told:?}");
    }

    #[test]
    fn who_has_much_to_tell_tells_it_less_often() {
        assert_eq!(pause(Duration::from_millis(1), 64 * 4_000), EVERY);
        assert_eq!(pause(Duration::from_millis(100), 0), Duration::from_secs(2));
        assert_eq!(pause(Duration::ZERO, 64 * 400_000), Duration::from_millis(3_200));
        // A page that hears nothing for longer asks by itself, which costs more.
        assert_eq!(pause(Duration::from_secs(1), 0), AT_REST);
    }
}
