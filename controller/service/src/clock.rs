//! The clock of this machine. I/O: reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use machine::time::UnixMs;

/// The present.
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
