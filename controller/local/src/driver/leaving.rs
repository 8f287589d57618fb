//! The end of a controller while requests are held. I/O: what a turn does.

use std::sync::Arc;
use std::time::Duration;

use super::Driver;

/// For how long a controller that is told to end waits for its proxies to let go of what they hold.
const LEAVING: Duration = Duration::from_secs(2);

impl Driver {
    /// Gives up what is held, and has all hear of it, before this controller ends.
    pub(super) async fn leave(&mut self) {
        let holds = |driver: &Driver| -> Vec<String> {
            let held = driver.flags.iter().filter(|(_, flag)| flag.machine.store.state.status.phase.holds());
            held.map(|(name, _)| name.clone()).collect()
        };
        let (held, hub) = (holds(self), Arc::clone(&self.around.hub));
        if held.is_empty() {
            return;
        }
        hub.leave();
        let leaving = async {
            loop {
                let wait = self.turn(true).await;
                if holds(self).is_empty() && held.iter().all(|flag| hub.all_acked(flag)) {
                    break;
                }
                let _ = tokio::time::timeout(Duration::from_millis(wait.0), hub.driver_woken()).await;
            }
        };
        if tokio::time::timeout(LEAVING, leaving).await.is_err() {
            tracing::warn!(flags = held.join(", "), "not all proxies have heard that what they hold is given up");
        }
    }
}
