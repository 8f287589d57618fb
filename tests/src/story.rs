//! Runs one test: its directory, its runtime, and a limit. I/O: through the test.

use std::time::Duration;

use anyhow::Result;

use crate::dir::TestDir;

/// No test takes longer, even on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// Tells a test's story. It fails by an error as well as by a panic, and what it started is ended
/// and its logs kept in both cases.
#[track_caller]
pub fn story(name: &str, tell: impl AsyncFnOnce(&TestDir) -> Result<()>) {
    story_within(name, LIMIT, tell);
}

/// The same with another limit.
#[track_caller]
pub fn story_within(name: &str, limit: Duration, tell: impl AsyncFnOnce(&TestDir) -> Result<()>) {
    let dir = TestDir::new(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    match runtime.block_on(async { tokio::time::timeout(limit, tell(&dir)).await }) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{name}: {error:?}"),
        Err(_) => panic!("{name}: not over after {limit:?}"),
    }
}
