//! For tests only: points at which the process ends as by `kill -9`, or stops as by `kill -STOP`.
//! I/O: reads two environment variables, ends or stops the process.
//!
//! `VERSIONFLAG_FAULT=3` ends it at the third point that it comes to. There is a point before and
//! after each write of what is remembered, and after each act that changed something, so a test
//! can go through all of them: 1, 2, 3 and so on, until a run comes to its end.
//!
//! `VERSIONFLAG_FAULT_STOP=WORDS` stops it, once, at the first point with exactly these words. It
//! goes on from there when it is told to (`kill -CONT`).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::signal::{Signal, raise};

const VARIABLE: &str = "VERSIONFLAG_FAULT";
const STOP: &str = "VERSIONFLAG_FAULT_STOP";

static FATAL: LazyLock<Option<u64>> = LazyLock::new(|| std::env::var(VARIABLE).ok()?.parse().ok());
static PASSED: AtomicU64 = AtomicU64::new(0);
static STOPS_AT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(STOP).ok());
static STOPPED: AtomicBool = AtomicBool::new(false);

/// One point at which a test may end or stop the process; `what` was just done, or is about to be.
pub fn point(what: &str) {
    if STOPS_AT.as_deref() == Some(what) && !STOPPED.swap(true, Ordering::Relaxed) {
        tracing::warn!(what, "{STOP} stops this process");
        let _ = raise(Signal::SIGSTOP);
    }
    let Some(fatal) = *FATAL else { return };
    let passed = PASSED.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    if passed == fatal {
        tracing::warn!(point = passed, what, "{VARIABLE} ends this process");
        let _ = raise(Signal::SIGKILL);
    }
}
