//! When a version that ended by itself is started again. Pure.

const FIRST_MS: u64 = 500;
const MAX_MS: u64 = 30_000;
/// Up for this long, a version counts as started well.
const STEADY_MS: u64 = 10_000;
/// Up for this long, what was before counts no more.
const FORGOTTEN_MS: u64 = 600_000;

/// How often a version ended by itself, and when it may be started again.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Restarts {
    failures: u32,
    ends: u32,
    ended_ms: u64,
    next_ms: u64,
}

impl Restarts {
    /// The version ended, or could not be started, after it was up for so long. How often it has by now, where that is
    /// worth a line in the history: there is room for few, and a version may end every other second.
    pub(crate) fn ended(&mut self, now_ms: u64, up_ms: u64) -> Option<u32> {
        self.failures = if up_ms >= STEADY_MS { 1 } else { self.failures.saturating_add(1) };
        self.ends = if up_ms >= FORGOTTEN_MS { 1 } else { self.ends.saturating_add(1) };
        self.ended_ms = now_ms;
        self.next_ms = now_ms.saturating_add(backoff(self.failures));
        Some(self.ends).filter(|ends| ends.is_power_of_two())
    }

    /// Somebody wants it tried again at once, and did so then.
    pub(crate) fn forgive(&mut self, at_ms: u64) {
        if self.ended_ms <= at_ms {
            (self.failures, self.next_ms) = (0, 0);
        }
    }

    /// When it may be started again, if that is not now.
    pub(crate) fn next(&self, now_ms: u64) -> Option<u64> {
        Some(self.next_ms).filter(|next| now_ms < *next)
    }
}

fn backoff(failures: u32) -> u64 {
    FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T14: the wait doubles, up to a bound, and whoever asks ends it.
    #[test]
    fn the_wait_doubles_and_whoever_asks_ends_it() {
        let mut restarts = Restarts::default();
        let mut waits = vec![];
        let mut told = vec![];
        for end in 0..10 {
            told.extend(restarts.ended(end, 0));
            waits.extend(restarts.next(end).map(|next| next - end));
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
        assert_eq!(told, [1, 2, 4, 8], "few lines in the history");
        restarts.forgive(8);
        assert!(restarts.next(9).is_some(), "what was asked before it ended is not about that");
        restarts.forgive(9);
        assert_eq!(restarts.next(9), None);
        restarts.ended(20, 0);
        assert_eq!(restarts.next(20), Some(520), "it begins anew");
    }

    #[test]
    fn what_was_up_for_long_is_started_soon() {
        let mut restarts = Restarts::default();
        for end in 0..6 {
            restarts.ended(end, 0);
        }
        assert_eq!(restarts.ended(100_000, STEADY_MS), None, "the seventh end");
        assert_eq!(restarts.next(100_000), Some(100_500));
        assert_eq!(restarts.ended(900_000, FORGOTTEN_MS), Some(1));
    }
}
