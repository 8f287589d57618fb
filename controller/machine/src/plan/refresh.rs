//! When a new record, with a new epoch, is needed. Pure.

use std::collections::BTreeSet;

use flag::epoch::EpochError;
use flag::record::{Gate, Record, RecordError};

use super::Pass;
use crate::reason::Reason;
use crate::record::Draft;
use crate::status::{Phase, Status};

/// Why no record can be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Epoch(#[from] EpochError),
    #[error("the flag cannot be written: {0}")]
    Record(#[from] RecordError),
}

impl Error {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Error::Epoch(_) => Reason::EpochAhead,
            Error::Record(_) => Reason::InvalidSpec,
        }
    }
}

/// Every version that requests may be sent to. One that is being removed is none of them any more:
/// no proxy can choose it when it is stopped.
fn versions(status: &Status) -> BTreeSet<String> {
    let mut versions = status.leftovers.clone();
    versions.insert(status.active_version.clone());
    versions.extend(status.target_version.clone());
    if let Some(switch) = status.switch.as_ref().filter(|_| !matches!(status.phase, Phase::Adopting | Phase::Stable)) {
        versions.insert(switch.to.clone());
        if status.phase != Phase::Removing {
            versions.insert(switch.from.clone());
        }
    }
    versions
}

/// Gives the record a new epoch if its content is no longer what the status says; or if a proxy has
/// a later one than was ever written as far as is remembered, which was then restored from a backup.
/// The proxies are led back only to a version that is ready.
pub(super) fn refresh(pass: Pass<'_>, status: &mut Status) -> Result<(), Error> {
    let (seen, active) = (pass.seen, status.active_version.as_str());
    if active.is_empty() {
        return Ok(());
    }
    let (highest, ready) = (seen.fleet.highest_epoch, seen.workload(active).ready);
    let waits = matches!(status.phase, Phase::AwaitingPromotion | Phase::ProvingRoutes);
    let preview = status.target_version.as_deref().filter(|_| waits);
    let (uid, name, versions) = (status.uid.as_str(), status.name.as_str(), &versions(status));
    let before = status.record.as_ref();
    let gate = if status.phase.holds() { Gate::Hold } else { Gate::Open };
    let seal = |epoch| {
        let drafted = Draft { uid, name, epoch, active, versions, preview, before }.record(pass.spec, seen);
        Record { gate, ..drafted }.seal()
    };
    let written = status.epoch();
    let same = match &status.record {
        Some(record) => seal(written)?.hash == record.hash,
        None => false,
    };
    let behind = highest > written && ready;
    let epoch = match flag::epoch::next(written, highest, pass.now.0) {
        // What a proxy says in error holds up nothing that needs no epoch.
        _ if same && !behind => return Ok(()),
        Err(_) if same => return Ok(()),
        next => next?,
    };
    status.record = Some(seal(epoch)?);
    // All records of a hold belong to the first one.
    let fence = status.switch.as_mut().and_then(|switch| switch.fence.as_mut());
    if let Some(fence) = fence.filter(|fence| gate == Gate::Hold && fence.since == 0) {
        fence.since = epoch;
    }
    Ok(())
}
