//! Waiting for a condition, with a limit. The only place that polls. No I/O but the caller's.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

const POLL: Duration = Duration::from_millis(5);

/// What one look at a condition gave.
pub trait Look {
    /// What is waited for.
    type Found;
    /// The thing itself, or the reason why it is not there.
    fn found(self) -> Result<Self::Found>;
}

impl Look for bool {
    type Found = ();
    fn found(self) -> Result<()> {
        if self { Ok(()) } else { bail!("not yet") }
    }
}

impl<T> Look for Option<T> {
    type Found = T;
    fn found(self) -> Result<T> {
        self.ok_or_else(|| anyhow::anyhow!("nothing yet"))
    }
}

impl<T> Look for Result<T> {
    type Found = T;
    fn found(self) -> Result<T> {
        self
    }
}

/// A reason that no more waiting will cure. As the root of an error it ends [`wait_for`] at once.
#[derive(Debug)]
pub struct GiveUp(pub String);

impl std::fmt::Display for GiveUp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for GiveUp {}

/// Looks until the condition holds. The error says what was waited for, and why it was not there
/// at the last look.
pub async fn wait_for<L: Look>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> L) -> Result<L::Found> {
    let end = Instant::now() + limit;
    let mut reason = "the first look did not come back".to_owned();
    loop {
        // A look may hang, at a stopped process for example.
        let Ok(looked) = timeout_at(end, look()).await else {
            bail!("waited {limit:?} for {what}: {reason}");
        };
        match looked.found() {
            Ok(found) => return Ok(found),
            Err(error) if error.is::<GiveUp>() => bail!("waited for {what}: {error:#}"),
            Err(error) => reason = format!("{error:#}"),
        }
        if Instant::now() >= end {
            bail!("waited {limit:?} for {what}: {reason}");
        }
        sleep(POLL).await;
    }
}
