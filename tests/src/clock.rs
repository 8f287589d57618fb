//! The one clock that all measurements of a test share. Reads the clock, no other I/O.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "a test measures by the machine's clock")]
static EPOCH: LazyLock<(Instant, u64)> = LazyLock::new(|| {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), unix.as_millis() as u64)
});

/// Microseconds since this process first asked.
pub fn now_us() -> u64 {
    EPOCH.0.elapsed().as_micros() as u64
}

/// The wall clock at a [`now_us`] time, in milliseconds, for comparing with other processes.
pub fn unix_ms(at_us: u64) -> u64 {
    LazyLock::force(&EPOCH).1 + at_us / 1000
}

/// The [`now_us`] time of a wall clock time.
pub fn from_unix_ms(unix_ms: u64) -> u64 {
    unix_ms.saturating_sub(LazyLock::force(&EPOCH).1) * 1000
}
