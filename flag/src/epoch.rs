//! The next epoch of a flag. Pure.

use crate::limits::EPOCH_AHEAD_MS;

/// The clock or the stored epochs are wrong by more than a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "epoch {epoch} would be more than a day ahead of the clock: set the clock of this machine right, or restart the \
     proxies that report epoch {reported}"
)]
pub struct EpochError {
    /// The epoch that would be next.
    pub epoch: u64,
    /// The highest one that a proxy reported.
    pub reported: u64,
}

/// The epoch for a new record: above what was written, above what any proxy reported, and not
/// below the clock, so that a flag restored from a backup never falls behind its proxies.
pub fn next(written: u64, highest_reported: u64, now_ms: u64) -> Result<u64, EpochError> {
    let epoch = written.saturating_add(1).max(highest_reported.saturating_add(1)).max(now_ms);
    if epoch > now_ms.saturating_add(EPOCH_AHEAD_MS) {
        return Err(EpochError { epoch, reported: highest_reported });
    }
    Ok(epoch)
}
