//! What happened to a flag. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::time::UnixMs;

/// A kind of thing that happens to a flag, as it stands in the history, in Events and in the audit log.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(from = "String")]
pub enum Happening {
    /// The first version serves.
    Adopted,
    /// A switch began.
    Started,
    /// The new version is started although room is short, as the spec asks.
    HeadroomShort,
    /// A check failed before the flip.
    CheckFailed,
    /// A switch was given up before the flip.
    GivenUp,
    /// New requests wait, while the old version drains.
    Held,
    /// Nothing was open on the old version: what waits goes to the new one.
    Committed,
    /// A hold was given up: what waited went to the old version.
    Aborted,
    /// The record with the new version was written.
    Flipped,
    /// Back to the version before.
    RolledBack,
    /// The switch went on without the acks of some proxies, as the spec asks.
    WithoutAcks,
    /// The switch went on without the whole proof, as the spec asks.
    WithoutProof,
    /// Traffic has moved.
    Settled,
    /// What was shown did not hold without a break: it has to be shown anew.
    Unsettled,
    /// The new version was lost while the switch waited, before the flip.
    TargetLost,
    /// A version ended by itself.
    VersionEnded,
    /// A version was started anew by request.
    Restarted,
    /// A version was not started, because of somebody else or of its command.
    NotStarted,
    /// The spec, or what belongs to it, was edited.
    Edited,
    /// The old version stays, as the spec asks.
    Retained,
    /// The old version is stopped or deleted.
    Removed,
    /// A request by hand was granted.
    Requested,
    /// Another version of the controller has written it, and this one does not know it.
    Other,
}

impl Happening {
    /// The word.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether people should have a look.
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Happening::RolledBack
                | Happening::WithoutProof
                | Happening::WithoutAcks
                | Happening::GivenUp
                | Happening::Aborted
                | Happening::Unsettled
                | Happening::TargetLost
                | Happening::VersionEnded
                | Happening::NotStarted
        )
    }
}

impl From<String> for Happening {
    fn from(word: String) -> Happening {
        word.parse().unwrap_or(Happening::Other)
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Entry {
    /// When it happened.
    pub at: UnixMs,
    /// What kind of thing it was.
    pub event: Happening,
    /// What happened, in one sentence.
    pub message: String,
    /// The epoch of the record by then.
    pub epoch: u64,
}
