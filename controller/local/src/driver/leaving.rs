//! The end of a controller while requests are held. I/O: what a turn does.

use std::sync::Arc;
use std::time::Duration;

use service::LEAVING;

use super::Driver;

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
                if holds(self).is_empty() && hub.all_acked(&held) {
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
