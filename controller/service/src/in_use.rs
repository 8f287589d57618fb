//! Whether a connection is in use: who asks for nothing for long is cut off, whatever protocol it speaks. I/O: the clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::lock::lock;

/// The requests that are under way on one connection.
#[derive(Debug)]
pub(crate) struct InUse {
    state: Mutex<State>,
    closes: Notify,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    /// When none was last.
    since: Instant,
}

/// One request that is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct Use(Arc<InUse>);

impl Default for InUse {
    fn default() -> InUse {
        InUse { state: Mutex::new(State { under_way: 0, since: Instant::now() }), closes: Notify::new() }
    }
}

impl InUse {
    /// A request begins.
    pub(crate) fn begin(this: &Arc<InUse>) -> Use {
        lock(&this.state).under_way += 1;
        Use(Arc::clone(this))
    }

    /// Waits until the connection is to end after what is under way.
    pub(crate) async fn closes(&self) {
        self.closes.notified().await;
    }

    /// Waits until no request has been under way for so long.
    pub(crate) async fn idles(&self, long: Duration) {
        loop {
            let now = Instant::now();
            let end = {
                let state = lock(&self.state);
                if state.under_way > 0 { now + long } else { state.since + long }
            };
            if end <= now {
                return;
            }
            sleep_until(end).await;
        }
    }
}

impl Use {
    /// The connection is to end after what is under way.
    pub(crate) fn close(&self) {
        self.0.closes.notify_one();
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.under_way = state.under_way.saturating_sub(1);
        state.since = Instant::now();
    }
}
