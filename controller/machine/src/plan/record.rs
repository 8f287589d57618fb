//! The record that a status stands for. Pure.

use std::collections::BTreeSet;

use flag::epoch::EpochError;
use flag::record::{Gate, Member, Preview, Record, RecordError};

use crate::observation::{Observation, Place};
use crate::spec::{Provider, Spec};
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
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Error::Epoch(_) => "EpochAhead",
            Error::Record(_) => "InvalidSpec",
        }
    }
}

/// The record of a spec, which is not sealed yet; `preview` is the version that the spec's preview leads to.
pub fn record_of(
    uid: &str,
    name: &str,
    epoch: u64,
    active: &str,
    versions: &BTreeSet<String>,
    preview: Option<&str>,
    spec: &Spec,
) -> Record {
    let members = spec.services.iter().map(|service| {
        let mut clusters = service.clusters.clone();
        clusters.retain(|version, _| versions.contains(version));
        if spec.routing.provider == Provider::External {
            for version in versions {
                let default = || BTreeSet::from([service.default_cluster(version)]);
                clusters.entry(version.clone()).or_insert_with(default);
            }
        }
        Member { service: service.name.clone(), hosts: service.hosts(), selector: BTreeSet::new(), clusters }
    });
    Record {
        uid: uid.to_owned(),
        name: name.to_owned(),
        namespace: String::new(),
        version_label: String::new(),
        epoch,
        active: active.to_owned(),
        gate: Gate::Open,
        members: members.collect(),
        versions: versions.clone(),
        preview: preview.zip(spec.preview.as_ref()).map(|(version, preview)| Preview {
            header: preview.header.clone(),
            value: preview.value.clone(),
            version: version.to_owned(),
        }),
        hash: String::new(),
    }
}

/// The same for services that proxies can find themselves beside.
fn placed(record: Record, place: &Place, spec: &Spec) -> Record {
    if place.namespace.is_empty() {
        return record;
    }
    let member = |member: Member| Member {
        selector: place.selectors.get(&member.service).cloned().unwrap_or_default(),
        ..member
    };
    Record {
        namespace: place.namespace.clone(),
        version_label: spec.version_label.clone(),
        members: record.members.into_iter().map(member).collect(),
        ..record
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
pub(super) fn refresh(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation) -> Result<(), Error> {
    let (highest, ready) = (seen.fleet.highest_epoch, seen.workload(&status.active_version).ready);
    if status.active_version.is_empty() {
        return Ok(());
    }
    let waits = matches!(status.phase, Phase::AwaitingPromotion | Phase::ProvingRoutes);
    let preview = status.target_version.as_deref().filter(|_| waits);
    let active = &status.active_version;
    let record = |epoch| record_of(&status.uid, &status.name, epoch, active, &versions(status), preview, spec);
    let seal = |epoch| placed(record(epoch), &seen.place, spec).seal();
    let written = status.epoch();
    let same = match &status.record {
        Some(record) => seal(written)?.hash == record.hash,
        None => false,
    };
    let behind = highest > written && ready;
    let epoch = match flag::epoch::next(written, highest, now_ms) {
        // What a proxy says in error holds up nothing that needs no epoch.
        _ if same && !behind => return Ok(()),
        Err(_) if same => return Ok(()),
        next => next?,
    };
    let record = seal(epoch)?;
    status.record = Some(record);
    Ok(())
}
