//! Everything that is remembered of one flag, timestamps included. Pure.

mod switch;

use std::collections::{BTreeMap, BTreeSet};

use flag::record::Record;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::action::Action;
use crate::fleet::fence::FenceQuestion;
use crate::fleet::ledger::{Fleet, FleetQuestion, Laggard};
use crate::history::{Entry, Happening};
use crate::order::AnsweredOrder;
use crate::reason::{Reason, SENTENCE, shortened};
use crate::spec::{FenceSpec, Spec};
use crate::time::UnixMs;

pub use switch::{FenceStatus, Switch};

/// Entries of the history that are kept.
const HISTORY: usize = 10;
/// Answered requests that are remembered besides the last one.
const ANSWERED: usize = 8;

/// Where a flag stands.
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
    JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
pub enum Phase {
    /// The first version is taken over.
    Adopting,
    /// One version serves, nothing is asked for.
    Stable,
    /// The new version starts beside the active one.
    Coexisting,
    /// The new version is ready and waits to be let in.
    AwaitingPromotion,
    /// Proxies show that their routes resolve the new version.
    ProvingRoutes,
    /// New requests wait, the old version drains.
    Holding,
    /// New requests wait for the new version, proxies beside the old one refuse all.
    Committing,
    /// The flag is flipped, not every proxy has acked.
    Switching,
    /// All proxies acked, the old version gets quiet.
    Settling,
    /// The old version stays for a while, for a rollback.
    Retaining,
    /// The old version is stopped.
    Removing,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: &[Phase] = Phase::VARIANTS;

    /// Whether a switch is under way that has not been flipped yet.
    pub fn before_flip(self) -> bool {
        matches!(self, Phase::Coexisting | Phase::AwaitingPromotion | Phase::ProvingRoutes | Phase::Holding)
    }

    /// Whether proxies hold new requests.
    pub fn holds(self) -> bool {
        matches!(self, Phase::Holding | Phase::Committing)
    }

    /// The proxies that hold it up, each once: those that have not acked, then those whose routes or
    /// configuration are behind what it needs.
    pub fn laggards(self, fleet: &Fleet) -> Vec<Laggard> {
        let proves = matches!(self, Phase::Settling | Phase::Retaining | Phase::Removing);
        let configs = fleet.config_laggards.iter().filter(|_| proves);
        let routes = fleet.route_laggards.iter().filter(|_| proves || self == Phase::ProvingRoutes);
        let reaches = fleet.reach_laggards.iter().filter(|_| proves || self == Phase::ProvingRoutes);
        let fence = fleet.fence.iter().flat_map(|fence| fence.in_the_way()).filter(|_| self.holds());
        let mut named = BTreeSet::new();
        let all = fleet.laggards.iter().chain(configs).chain(routes).chain(reaches).chain(fence);
        all.filter(|one| named.insert(one.proxy.as_str())).cloned().collect()
    }

    /// The name of the phase.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl From<Phase> for Reason {
    fn from(phase: Phase) -> Reason {
        match phase {
            Phase::Adopting => Reason::Adopting,
            Phase::Stable => Reason::Stable,
            Phase::Coexisting => Reason::Coexisting,
            Phase::AwaitingPromotion => Reason::AwaitingPromotion,
            Phase::ProvingRoutes => Reason::ProvingRoutes,
            Phase::Holding => Reason::Holding,
            Phase::Committing => Reason::Committing,
            Phase::Switching => Reason::Switching,
            Phase::Settling => Reason::Settling,
            Phase::Retaining => Reason::Retaining,
            Phase::Removing => Reason::Removing,
        }
    }
}

/// What keeps a flag from moving on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Blocked {
    /// Why, in one word.
    pub reason: Reason,
    /// One sentence.
    pub message: String,
    /// Since when it has been so.
    pub since: UnixMs,
}

/// A version that is held against the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Override {
    /// The version that is held.
    pub version: String,
    /// The `spec.version` that it overrides; another one ends it.
    pub for_spec_version: String,
    /// Why.
    pub reason: String,
    /// When that was.
    pub at: UnixMs,
}

/// The last request that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LastRequest {
    /// Its id.
    pub id: String,
    /// What it asked for.
    pub action: Action,
    /// Why it was refused; absent: it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// When that was.
    pub at: UnixMs,
}

/// The status of one flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Status {
    /// Identity of the flag.
    pub uid: String,
    /// For people, `namespace/name`.
    pub name: String,
    /// Where it stands.
    pub phase: Phase,
    /// Since when.
    pub phase_since: UnixMs,
    /// The record as last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// The version that serves.
    #[serde(default)]
    pub active_version: String,
    /// The version that is being switched to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// The version that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    /// What keeps it from moving on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
    /// A version that is held against the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#override: Option<Override>,
    /// Nothing moves, by request.
    #[serde(default)]
    pub suspended: bool,
    /// The switch under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
    /// Versions of earlier switches that still have to be removed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leftovers: BTreeSet<String>,
    /// Versions that were stopped on a whole proof, and of which something still runs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ending: BTreeSet<String>,
    /// Versions that a fence has left and that may be gone back to, while a proxy is not heard: it may send there, as its
    /// hold ran out or it started anew. They refuse all until every proxy has acked.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub shut: BTreeSet<String>,
    /// Versions that were stopped by request, and are started only by request, or for a switch to them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub halted: BTreeSet<String>,
    /// When it was asked for that these versions are started anew, which is not done yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts: BTreeMap<String, UnixMs>,
    /// What was asked for of single versions and answered, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<AnsweredOrder>,
    /// The last request that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request: Option<LastRequest>,
    /// The ids of those that were answered before, oldest first: where people ask in two ways, one of them goes on
    /// showing an earlier request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<String>,
    /// What happened lately, oldest first.
    #[serde(default)]
    pub history: Vec<Entry>,
}

/// A version that requests were taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftVersion<'a> {
    /// Its name.
    pub version: &'a str,
    /// What it consisted of then, by kind, name and uid.
    pub workloads: &'a BTreeSet<String>,
    /// It is being removed.
    pub goes: bool,
}

impl Status {
    /// The command that helps, or takes back.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self.phase {
            _ if self.suspended => "resume",
            Phase::AwaitingPromotion => "promote",
            Phase::Coexisting | Phase::ProvingRoutes | Phase::Holding | Phase::Committing => "abort",
            // To take a rollback back is to try again what it took back.
            Phase::Switching | Phase::Settling | Phase::Retaining if self.r#override.is_some() => "retry",
            // Nothing was switched: a rollback would go from what serves to the version before it.
            _ if self.switch.as_ref().is_some_and(|switch| switch.removal) => return None,
            Phase::Switching | Phase::Settling | Phase::Retaining => "rollback",
            Phase::Stable if self.r#override.is_some() => "retry",
            _ => return None,
        })
    }

    /// A flag that nothing is known of.
    pub fn new(uid: &str, name: &str, now: UnixMs) -> Status {
        Status {
            uid: uid.to_owned(),
            name: name.to_owned(),
            phase: Phase::Adopting,
            phase_since: now,
            record: None,
            active_version: String::new(),
            target_version: None,
            previous_version: None,
            blocked: None,
            r#override: None,
            suspended: false,
            switch: None,
            leftovers: BTreeSet::new(),
            ending: BTreeSet::new(),
            shut: BTreeSet::new(),
            halted: BTreeSet::new(),
            restarts: BTreeMap::new(),
            orders: vec![],
            last_request: None,
            answered: vec![],
            history: vec![],
        }
    }

    /// Whether a request was answered already.
    pub fn has_answered(&self, id: &str) -> bool {
        self.last_request.as_ref().is_some_and(|last| last.id == id) || self.answered.iter().any(|known| known == id)
    }

    /// Takes in the answer to a request.
    pub fn answer(&mut self, answer: LastRequest) {
        self.answered.extend(self.last_request.replace(answer).map(|last| last.id));
        self.answered.drain(..self.answered.len().saturating_sub(ANSWERED));
    }

    /// The epoch last written.
    pub fn epoch(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.epoch)
    }

    /// What the proxies' reports are asked for.
    pub fn asked(&self, spec: &Spec) -> FleetQuestion {
        // What is left may still be called by itself while it drains.
        let leaves = !self.phase.before_flip() || self.phase.holds();
        let switch = self.switch.as_ref().filter(|_| leaves);
        FleetQuestion {
            old: switch.map(|switch| switch.from.clone()).unwrap_or_default(),
            wanted: self.target_version.clone().unwrap_or_else(|| self.active_version.clone()),
            probe: None,
            members: BTreeSet::new(),
            drain_ms: 0,
            config_epoch: switch.and_then(|switch| switch.acked_epoch).unwrap_or_else(|| self.epoch()),
            fence: self.asked_of_fence(spec),
        }
    }

    fn asked_of_fence(&self, spec: &Spec) -> Option<FenceQuestion> {
        let switch = self.switch.as_ref().filter(|switch| !switch.removal)?;
        let held = switch.fence.as_ref().filter(|_| self.phase.holds());
        let waits = matches!(self.phase, Phase::AwaitingPromotion | Phase::ProvingRoutes) && spec.switch.is_fenced();
        let max_hold = held.map(|held| held.max_hold).or(waits.then_some(spec.switch.fence.max_hold))?;
        let since = held.map_or(0, |held| held.since);
        let (old, new) = (switch.from.clone(), switch.to.clone());
        // Nothing lies between a switch and the one that takes it back.
        let old_since_ms = switch.rollback.then_some(switch.started_at.0);
        Some(FenceQuestion { old, new, old_since_ms, since, drain_ms: FenceSpec::drain(max_hold).0 })
    }

    /// The version that is left, once requests were taken from it.
    pub fn left(&self) -> Option<LeftVersion<'_>> {
        let over = matches!(self.phase, Phase::Adopting | Phase::Stable) || self.phase.before_flip();
        let switch = self.switch.as_ref().filter(|switch| !over && !switch.workloads.is_empty())?;
        let goes = self.phase == Phase::Removing;
        Some(LeftVersion { version: &switch.from, workloads: &switch.workloads, goes })
    }

    /// Whether requests were held for the switch and the hold was given up: what it waits for is the next one.
    pub fn was_held_in_vain(&self) -> bool {
        let fence = self.switch.as_ref().and_then(|switch| switch.fence.as_ref());
        self.phase == Phase::ProvingRoutes && fence.is_some_and(|fence| fence.attempts > 0)
    }

    /// Whether proxies are asked to show their routes.
    pub fn proves_routes(&self) -> bool {
        !matches!(self.phase, Phase::Adopting | Phase::Stable)
    }

    /// Equal but for the wording of what blocks, which may change with every report.
    pub fn same_but_wording(&self, other: &Status) -> bool {
        let mut reworded = self.clone();
        if let (Some(mine), Some(theirs)) = (&mut reworded.blocked, &other.blocked)
            && mine.reason == theirs.reason
        {
            mine.message.clone_from(&theirs.message);
        }
        reworded == *other
    }

    /// How long the flip took that all proxies have acked since `before`, in seconds.
    pub fn flipped_since(&self, before: &Status) -> Option<f64> {
        let acked = |status: &Status| status.switch.as_ref().filter(|one| !one.removal).and_then(|one| one.acked_at);
        let (None, Some(acked_at)) = (acked(before), acked(self)) else { return None };
        let flipped_at = self.switch.as_ref()?.flipped_at?;
        Some(acked_at.since(flipped_at).0 as f64 / 1_000.0)
    }

    /// Whether requests were let go to the new version by a hold that was under way in `before`, and for how long they
    /// were held, in seconds; `None`: no hold has ended.
    pub fn hold_ended_since(&self, before: &Status) -> Option<(bool, f64)> {
        let fence = self.switch.as_ref().and_then(|switch| switch.fence.as_ref());
        let fence = fence.filter(|_| before.phase.holds() && !self.phase.holds())?;
        Some((fence.opened_at.is_some(), fence.held_ms? as f64 / 1_000.0))
    }

    /// Goes on to a phase.
    pub fn enter(&mut self, now: UnixMs, phase: Phase) {
        self.phase = phase;
        self.phase_since = now;
    }

    /// Adds to the history. The record may still change in this pass: the epoch of the entry is filled in
    /// at the end of it.
    pub fn note(&mut self, now: UnixMs, event: Happening, message: String) {
        let entry = Entry { at: now, event, message: shortened(message, SENTENCE), epoch: 0 };
        self.history.push(entry);
        self.history.drain(..self.history.len().saturating_sub(HISTORY));
    }

    /// Gives what was noted in this pass the epoch that the pass ends with.
    pub fn date_entries(&mut self) {
        let epoch = self.epoch();
        for event in self.history.iter_mut().filter(|event| event.epoch == 0) {
            event.epoch = epoch;
        }
    }
}
