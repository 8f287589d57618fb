//! The points at which the controller dies or stops by itself, for the tests that go through them.
//! See `controller/src/fault.rs`. I/O: looks at a process and its log.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::wait::wait_for;

/// Kills the controller at its Nth point.
pub const FAULT: &str = "VERSIONFLAG_FAULT";
/// Stops it, once, at the first point with these words.
pub const STOP: &str = "VERSIONFLAG_FAULT_STOP";
/// Has the machine's clock go ahead, as the controller reads it, by the milliseconds in this file.
pub const CLOCK: &str = "VERSIONFLAG_FAULT_CLOCK";
/// A switch has fewer points; one with more would not come to its end.
pub const MOST: usize = 100;

/// Waits until the controller has died at a point, and gives its words, or until the end has come.
pub async fn died_or(
    controller: &mut Process,
    what: &str,
    limit: Duration,
    mut end: impl AsyncFnMut() -> Result<()>,
) -> Result<Option<String>> {
    let what = format!("{what}, or the end");
    let ended = wait_for(&what, limit, async || {
        if !controller.is_running() {
            return Ok(false);
        }
        end().await.map(|()| true)
    })
    .await?;
    if ended {
        return Ok(None);
    }
    let log = controller.log_tail(1);
    let point = log.split("what=").nth(1).with_context(|| format!("it ended by itself: {log}"))?;
    Ok(Some(point.to_owned()))
}
