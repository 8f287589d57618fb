//! What open pages in browsers are sent: made once for all of them, and not at all while none is open. I/O: the clock.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::hub::Hub;
use crate::lock::lock;
use crate::views::FlagView;

/// Pages at a time.
pub(crate) const AT_A_TIME: usize = 64;
/// Between two looks at the flags, at least.
const EVERY: Duration = Duration::from_millis(500);
/// The same in times of what a look takes: looks at large fleets cost much.
const RESTS: u32 = 20;
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

/// The events of one page, and its place among all.
type Reader = (watch::Receiver<Bytes>, OwnedSemaphorePermit);

impl Pages {
    /// A page is opened: all flags now, and again and again. `None`: so many are open already.
    pub(crate) fn open(hub: &Arc<Hub>) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + use<>> {
        let place = Arc::clone(&hub.pages.room).try_acquire_owned().ok()?;
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
    while hub.pages.is_read() {
        let began = Instant::now();
        hub.pages.news.send_replace(event(hub.current_views(None)));
        tokio::time::sleep(EVERY.max(began.elapsed() * RESTS)).await;
    }
}

/// The flags as an event of a stream.
fn event(mut flags: Vec<FlagView>) -> Bytes {
    for fleet in flags.iter_mut().map(|flag| &mut flag.fleet) {
        let late =
            [&mut fleet.laggards, &mut fleet.config_laggards, &mut fleet.route_laggards, &mut fleet.reach_laggards];
        late.into_iter().chain([&mut fleet.strays, &mut fleet.unplaced]).for_each(|all| all.truncate(NAMED));
        [&mut fleet.members, &mut fleet.senders].into_iter().for_each(|all| all.truncate(NAMED));
        fleet.late_filters.truncate(NAMED);
        fleet.unmanaged.truncate(NAMED);
    }
    let mut text = b"data: ".to_vec();
    // Names and numbers are JSON.
    let _ = serde_json::to_writer(&mut text, &flags);
    text.extend(b"\n\n");
    text.into()
}
