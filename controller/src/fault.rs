//! For tests only: points at which the process ends as by `kill -9`. I/O: reads one environment
//! variable, ends the process.
//!
//! `VERSIONFLAG_FAULT=3` ends it at the third point that it comes to. There is a point before and
//! after each write of what is remembered, and after each act that changed something, so a test
//! can go through all of them: 1, 2, 3 and so on, until a run comes to its end.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, raise};

const VARIABLE: &str = "VERSIONFLAG_FAULT";

static FATAL: LazyLock<Option<u64>> = LazyLock::new(|| std::env::var(VARIABLE).ok()?.parse().ok());
static PASSED: AtomicU64 = AtomicU64::new(0);

/// One point; `what` was just done, or is about to be.
pub(crate) fn point(what: &str) {
    let Some(fatal) = *FATAL else { return };
    let passed = PASSED.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    if passed == fatal {
        tracing::warn!(point = passed, what, "{VARIABLE} ends this process");
        let _ = raise(Signal::SIGKILL);
    }
}
