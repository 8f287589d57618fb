//! What a proxy is sent by the flag service. Pure.

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::fence::Fence;
use crate::health::HealthChecks;
use crate::json::{self, JsonError};
use crate::level;
use crate::probe::Probe;
use crate::record::{Record, RecordError};
use crate::{PROTOCOL, limits, read_fields};

/// All flags a proxy needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Opaque: compared for equality only.
    pub revision: String,
    /// Milliseconds between two reports.
    pub report_every_ms: u32,
    /// The flags whose routes the proxy is asked to prove, by uid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prove_routes: Vec<String>,
    /// The flags whose answers the proxy is asked to measure, by uid. See [`crate::answers`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measure: Vec<String>,
    /// The flags.
    pub flags: Vec<Record>,
    /// What level 2 adds; `None`: whoever sends it does not know it.
    #[serde(skip)]
    pub asks: Option<Asks>,
}

/// What level 2 adds to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asks {
    /// Of the snapshot that it belongs to.
    pub revision: String,
    /// What every VM instance is asked to reach.
    pub probes: Vec<Probe>,
    /// What is no traffic, where a switch is under way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<HealthChecks>,
    /// What is held back and refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fences: Vec<Fence>,
}

read_fields! { Asks {
    revision: "revision",
    probes: "probes" or vec![],
    health: "health" or vec![],
    fences: "fences" or vec![],
    ..
} }

read_fields! { Snapshot {
    protocol: "protocol",
    revision: "revision",
    report_every_ms: "reportEveryMs",
    prove_routes: "proveRoutes" or vec![],
    measure: "measure" or vec![],
    flags: "flags";
    asks: None
} }

/// Why a snapshot or a list of flags is refused.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// More than [`limits::SNAPSHOT_BYTES`].
    #[error("{bytes} bytes are too many: at most {} are read", limits::SNAPSHOT_BYTES)]
    TooLarge {
        /// How many came.
        bytes: usize,
    },
    /// Not JSON of this shape.
    #[error("not a snapshot: {0}")]
    Json(#[from] JsonError),
    /// Another protocol.
    #[error("protocol {found} is not understood here: {PROTOCOL} is. Upgrade the older side, the controller first")]
    Protocol {
        /// The one that came.
        found: u32,
    },
    /// The report interval is out of bounds.
    #[error("reportEveryMs is {0}: it may be {min} to {max}", min = limits::REPORT_EVERY_MS.start(), max = limits::REPORT_EVERY_MS.end())]
    ReportEvery(u32),
    /// Too many flags.
    #[error("{0} flags are too many: at most {max} are taken", max = limits::FLAGS)]
    Flags(usize),
    /// A flag is not valid.
    #[error("flag {}: {error}", crate::quoted(.name))]
    Record {
        /// The flag's name.
        name: String,
        /// What is wrong.
        error: RecordError,
    },
    /// Two flags claim the same uid or host.
    #[error("{what} {} belongs to two flags, {} and {}", crate::quoted(.value), crate::quoted(.first), crate::quoted(.second))]
    Conflict {
        /// `uid` or `host`.
        what: &'static str,
        /// Its value.
        value: String,
        /// Name of the flag that has it.
        first: String,
        /// Name of the flag that claims it too.
        second: String,
    },
}

impl Snapshot {
    /// Parses and validates what the flag service answered.
    pub fn parse(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
        let (first, second) = level::parts(bytes);
        Snapshot::of_parts(first, second)
    }

    /// The same where the parts are kept apart.
    pub fn of_parts(first: &[u8], second: Option<&[u8]>) -> Result<Snapshot, SnapshotError> {
        let bytes = first.len() + second.map_or(0, <[u8]>::len);
        if bytes > limits::SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge { bytes });
        }
        let mut snapshot: Snapshot = json::parse(first)?;
        // What was left there for another snapshot says nothing for this one; and what is not understood there must not
        // keep the flags back. Its flag is then not reached.
        let asks = second.and_then(|second| json::parse::<Asks>(second).ok());
        snapshot.asks = asks.filter(|asks| asks.revision == snapshot.revision);
        if let Some(asks) = &mut snapshot.asks {
            asks.probes.retain(|probe| probe.check().is_ok());
            asks.health.retain(|health| health.check().is_ok());
            asks.fences.retain(|fence| fence.check().is_ok());
        }
        if snapshot.protocol != PROTOCOL {
            return Err(SnapshotError::Protocol { found: snapshot.protocol });
        }
        if !limits::REPORT_EVERY_MS.contains(&snapshot.report_every_ms) {
            return Err(SnapshotError::ReportEvery(snapshot.report_every_ms));
        }
        check_flags(&snapshot.flags)?;
        Ok(snapshot)
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let first = serde_json::to_vec(self)?;
        Ok(match &self.asks {
            Some(asks) => level::joined(first, &serde_json::to_vec(asks)?),
            None => first,
        })
    }
}

/// Validates flags each for itself and against one another.
pub fn check_flags(flags: &[Record]) -> Result<(), SnapshotError> {
    if flags.len() > limits::FLAGS {
        return Err(SnapshotError::Flags(flags.len()));
    }
    let (mut hosts, mut uids) = (FxHashMap::default(), FxHashMap::default());
    for flag in flags {
        let name = || crate::shortened(&flag.name);
        flag.check().map_err(|error| SnapshotError::Record { name: name(), error })?;
        let conflict = |what, value: &str, first: &str| {
            let (value, first) = (value.to_owned(), first.to_owned());
            SnapshotError::Conflict { what, value, first, second: name() }
        };
        if let Some(first) = uids.insert(flag.uid.as_str(), flag.name.as_str()) {
            return Err(conflict("uid", &flag.uid, first));
        }
        for host in flag.members.iter().flat_map(|member| &member.hosts) {
            if let Some(first) = hosts.insert(host.as_str(), flag.name.as_str()) {
                return Err(conflict("host", host, first));
            }
        }
    }
    Ok(())
}
