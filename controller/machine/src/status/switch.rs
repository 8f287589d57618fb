//! What is remembered of one switch. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::duration::Millis;
use crate::time::UnixMs;

/// One switch, or the removal of a version that serves no more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Switch {
    /// The version that is left.
    pub from: String,
    /// The version that is gone to.
    pub to: String,
    /// What `from` consisted of when requests were taken from it, by kind, name and uid: only that is removed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub workloads: BTreeSet<String>,
    /// The controller started `to`, and stops it again if the switch is given up.
    #[serde(default)]
    pub ours: bool,
    /// It takes back another switch.
    #[serde(default)]
    pub rollback: bool,
    /// Nothing is switched: `from` is only removed.
    #[serde(default)]
    pub removal: bool,
    /// The switch began.
    pub started_at: UnixMs,
    /// There was room for `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headroom_at: Option<UnixMs>,
    /// `to` had been ready for long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<UnixMs>,
    /// `to` was let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<UnixMs>,
    /// How its requests were held, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceStatus>,
    /// The record with `to` was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flipped_at: Option<UnixMs>,
    /// All proxies had acked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_at: Option<UnixMs>,
    /// The epoch that they had then. What was written at this epoch or later never leads to `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_epoch: Option<u64>,
    /// Traffic had moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<UnixMs>,
    /// For how long both versions got new requests, if that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_ms: Option<u64>,
    /// Until when `from` stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_until: Option<UnixMs>,
    /// The switch settled without the whole proof, as the spec asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waived: bool,
    /// After the flip: since when `to` has not been ready, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_lost_at: Option<UnixMs>,
    /// The decision to remove `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal_intent_at: Option<UnixMs>,
    /// That decision was taken back without `from` having been seen to stop: that it was told to may still come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_stop: bool,
    /// `from` was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<UnixMs>,
}

impl Switch {
    /// It goes forward: there is something to go back to.
    pub(crate) fn may_roll_back(&self) -> bool {
        !self.removal && !self.rollback
    }

    /// Requests were let go to `to` by a fence.
    pub(crate) fn opened(&self) -> bool {
        self.fence.as_ref().is_some_and(|fence| fence.opened_at.is_some())
    }
}

/// How requests were held for one switch: by the hold under way, or else by the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FenceStatus {
    /// How often a hold was begun, since a person asked to try again.
    pub attempts: u32,
    /// The hold under way was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_at: Option<UnixMs>,
    /// Since when the controller had led that decided it. Another one knows nothing of the time since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub led_since: Option<UnixMs>,
    /// How long proxies were told to hold.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_hold: Millis,
    /// Epoch of the first record of the hold under way; 0: there is none.
    #[serde(skip_serializing_if = "is_none")]
    pub since: u64,
    /// Nothing was open on the version that is left: the record with the other one, still held, was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<UnixMs>,
    /// What waited was let go to the new version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<UnixMs>,
    /// It was committed and then given up: proxies beside the version that was to be left take requests again before
    /// any is let go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub going_back_at: Option<UnixMs>,
    /// For how long requests were held, in milliseconds, by the last hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_ms: Option<u64>,
    /// How many waited at most, as far as reports showed it.
    #[serde(skip_serializing_if = "is_none")]
    pub most_waiting: u64,
    /// Why the last hold was given up that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
    /// Nothing is held again before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<UnixMs>,
}

// As serde asks.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(span: &Millis) -> bool {
    span.0 == 0
}
