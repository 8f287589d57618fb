//! The clock that everything is measured by. I/O: reads the clocks of this machine.
//!
//! Whoever sets the clock of a machine must neither end a span nor stretch one. So it is read once, and counted on by
//! the time since the machine's start, which nobody sets and which goes on while the machine sleeps. Spans that were
//! begun by another process are counted on by a clock that both have: see [`agree`].
//!
//! For tests, `VERSIONFLAG_FAULT_CLOCK=FILE` has the machine's clock go ahead by so many milliseconds.

use std::sync::{LazyLock, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use machine::duration::Millis;
use machine::time::UnixMs;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Clocks that differ by less are the same: the API server tells its time in whole seconds.
const CLOSE: Millis = Millis(2_000);

static START: LazyLock<Moment> = LazyLock::new(|| Moment { at: system(), up: up(), boot: boot() });
static AHEAD: OnceLock<i64> = OnceLock::new();

/// A moment that can be found again while the machine has not been started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Moment {
    /// When it was.
    pub at: UnixMs,
    /// How long the machine had been up, in milliseconds.
    pub up: u64,
    /// Which start of the machine that counts from; empty: not known.
    pub boot: String,
}

impl Moment {
    /// What the clock of this moment shows at a later one, as well as it can be known: it does not go back. After a
    /// new start of the machine only the clock of that says how much has passed.
    pub fn shows_at(&self, later: &Moment) -> UnixMs {
        if self.boot.is_empty() || self.boot != later.boot {
            return self.at.max(later.at);
        }
        self.at.plus(Millis(later.up.saturating_sub(self.up)))
    }
}

/// The present.
pub fn now() -> UnixMs {
    let shown = START.at.plus(Millis(up().saturating_sub(START.up)));
    UnixMs(shown.0.saturating_add_signed(AHEAD.get().copied().unwrap_or_default()))
}

/// The present, to be found again by a later process.
pub fn moment() -> Moment {
    Moment { at: now(), up: up(), boot: START.boot.clone() }
}

/// From now on it is `theirs`, by the clock that those go by who have remembered, or will. Only the first call counts:
/// a clock that is believed is not set.
pub fn agree(theirs: UnixMs) {
    let ahead = difference(now(), theirs);
    if AHEAD.set(ahead).is_ok() && ahead != 0 {
        tracing::warn!(
            ahead_ms = ahead,
            "this machine's clock is wrong, or was set: time is counted from {}",
            theirs.0
        );
    }
}

/// How far the other clock is ahead; nothing, where both are the same.
fn difference(ours: UnixMs, theirs: UnixMs) -> i64 {
    if ours.since(theirs).max(theirs.since(ours)) <= CLOSE { 0 } else { theirs.0.wrapping_sub(ours.0).cast_signed() }
}

#[expect(clippy::disallowed_methods, reason = "nothing else reads it")]
fn system() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ahead = std::env::var_os("VERSIONFLAG_FAULT_CLOCK").and_then(|path| std::fs::read_to_string(path).ok());
    let ahead: i64 = ahead.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(ahead))
}

/// How long the machine has been up, in milliseconds.
fn up() -> u64 {
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(up.as_millis()).unwrap_or(u64::MAX)
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn moment(at: u64, up: u64, boot: &str) -> Moment {
        Moment { at: UnixMs(at), up, boot: boot.to_owned() }
    }

    #[rstest]
    #[case::an_hour_later(moment(3_601_000, 3_600_500, "a"), 3_601_000)]
    #[case::the_clock_was_set_ahead(moment(9_000_000, 3_600_500, "a"), 3_601_000)]
    #[case::the_clock_was_set_back(moment(10, 3_600_500, "a"), 3_601_000)]
    #[case::another_boot(moment(9_000_000, 100, "b"), 9_000_000)]
    #[case::another_boot_with_an_earlier_clock(moment(10, 100, "b"), 1_000)]
    fn who_sets_the_clock_changes_no_span(#[case] later: Moment, #[case] shows: u64) {
        assert_eq!(moment(1_000, 500, "a").shows_at(&later), UnixMs(shows));
    }

    #[rstest]
    #[case::the_same(100_000, 100_000, 0)]
    #[case::to_the_second(100_000, 101_999, 0)]
    #[case::ahead(100_000, 700_000, 600_000)]
    #[case::behind(700_000, 100_000, -600_000)]
    fn clocks_that_are_close_are_the_same(#[case] ours: u64, #[case] theirs: u64, #[case] ahead: i64) {
        assert_eq!(difference(UnixMs(ours), UnixMs(theirs)), ahead);
    }
}
