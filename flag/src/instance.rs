//! One VM instance's part of a report, and the sum of all parts. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::count::Totals;
use crate::fence::Fenced;
use crate::named::Named;
use crate::probe::Probed;
use crate::read_fields;
use crate::record::Gate;
use crate::stray::{self, Stray};

/// What is in effect for one flag, and what was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagState {
    /// Epoch in effect; 0 where the instances do not agree on a record.
    pub epoch: u64,
    /// Hash of the record in effect.
    pub hash: String,
    /// Gate in effect.
    pub gate: Gate,
    /// The epoch that plugin configuration alone would give; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_epoch: Option<u64>,
    /// Requests by the version they were sent to.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub sent: Named<Totals>,
    /// Requests by the version they arrived at.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub arrived: Named<Totals>,
    /// Requests that arrived at a version that is not active and that no filter sent there, by the address
    /// that they came from, since the record is in effect and while a switch is under way. Under the
    /// empty address are those for which there was no room. When they ended is not counted.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub strangers: Named<Totals>,
    /// How the versions answered since the record is in effect, while that is asked for: see
    /// [`crate::answers`].
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub answers: Named<Totals>,
    /// Responses from another version than the intended one.
    pub unroutable: u64,
    /// Records refused because their epoch was used for other content.
    pub conflicts: u64,
    /// Names of the routes that ordinary requests matched lately, since the record is in effect: at
    /// most one an instance. See [`crate::route`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub routes: BTreeSet<String>,
}

/// The record that a VM instance keeps in shared data. Replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Instance id, never used twice in a process.
    pub id: u32,
    /// The round that this answers.
    pub round: u64,
    /// By uid.
    pub flags: Named<FlagState>,
}

read_fields! { FlagState {
    epoch: "epoch",
    hash: "hash",
    gate: "gate",
    config_epoch: "configEpoch" or None,
    sent: "sent" or Named::new(),
    arrived: "arrived" or Named::new(),
    strangers: "strangers" or Named::new(),
    answers: "answers" or Named::new(),
    unroutable: "unroutable" or 0,
    conflicts: "conflicts" or 0,
    routes: "routes" or BTreeSet::new(),
} }

/// What level 2 adds for one flag.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// Uid of the flag.
    pub flag: String,
    /// What came of the probe of it; absent: none was asked for, or nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probed: Option<Probed>,
    /// What went to one of its versions past it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<Stray>,
    /// Health checks that arrived at a version that is not active, and that nothing else counts.
    #[serde(skip_serializing_if = "is_zero")]
    pub checked: u64,
    /// Requests that are open for longer than a round without it being known which version serves them.
    #[serde(skip_serializing_if = "is_zero")]
    pub unplaced: u64,
    /// The highest epoch of another flag that claims one of its hosts; 0: none does.
    #[serde(skip_serializing_if = "is_zero")]
    pub rival_epoch: u64,
    /// What is shown of its fence; absent: there is none, or it is not understood there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Fenced>,
}

// As serde asks.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Findings {
    /// Whether there is something to be told.
    pub fn any(&self) -> bool {
        self.probed.is_some()
            || !self.strays.is_empty()
            || self.unplaced > 0
            || self.rival_epoch > 0
            || self.checked > 0
            || self.fenced.is_some()
    }
}

read_fields! { Findings {
    flag: "flag",
    probed: "probed" or None,
    strays: "strays" or vec![],
    checked: "checked" or 0,
    unplaced: "unplaced" or 0,
    rival_epoch: "rivalEpoch" or 0,
    fenced: "fenced" or None,
    ..
} }

/// What level 2 adds to what a VM instance keeps in shared data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceFindings {
    /// Instance id.
    pub id: u32,
    /// The round that this answers.
    pub round: u64,
    /// Of the flags of which there is something.
    pub flags: Vec<Findings>,
}

read_fields! { InstanceFindings { id: "id", round: "round", flags: "flags", .. } }

/// What all live instances together have found in a round. One of another build says nothing.
pub fn combine_findings(live: &[u32], round: u64, parts: &[InstanceFindings]) -> Vec<Findings> {
    let of = |id: &u32| parts.iter().find(|part| part.id == *id && part.round >= round);
    let mut sums: Vec<Findings> = Vec::new();
    for found in live.iter().filter_map(of).flat_map(|part| &part.flags) {
        match sums.iter_mut().find(|sum| sum.flag == found.flag) {
            Some(sum) => {
                stray::add(&mut sum.strays, &found.strays);
                sum.checked = sum.checked.saturating_add(found.checked);
                sum.unplaced = sum.unplaced.saturating_add(found.unplaced);
                sum.rival_epoch = sum.rival_epoch.max(found.rival_epoch);
            }
            None => sums.push(found.clone()),
        }
    }
    for Findings { flag, probed, fenced, .. } in &mut sums {
        let found = |id| of(id)?.flags.iter().find(|found| found.flag == *flag);
        *probed = Probed::all(live.iter().map(|id| found(id)?.probed.as_ref()));
        // Who says nothing of it holds nothing.
        let of_one = |id| found(id).and_then(|found| found.fenced.clone());
        let all = live.iter().map(|id| of_one(id).unwrap_or_default());
        *fenced =
            if live.iter().any(|id| of_one(id).is_some()) { all.reduce(|one, other| one.with(&other)) } else { None };
    }
    sums
}

read_fields! { Instance { id: "id", round: "round", flags: "flags" } }

/// The sum over all live instances: the lowest record in effect, and all totals added up. `None`
/// while an instance has not answered the round: its share is unknown, not zero.
pub fn combine(live: &[u32], round: u64, instances: &[Instance]) -> Option<Named<FlagState>> {
    let mut sums: Named<FlagState> = Named::new();
    let answered = || instances.iter().filter(|instance| instance.round >= round && live.contains(&instance.id));
    if live.is_empty() || answered().count() != live.len() {
        return None;
    }
    for (uid, state) in answered().flat_map(|instance| &instance.flags) {
        match sums.get_mut(uid) {
            Some(sum) => *sum = add(std::mem::take(sum), state),
            None => drop(sums.insert(uid.clone(), state.clone())),
        }
    }
    for (uid, sum) in sums.iter_mut() {
        // An instance that does not know a flag has no record of it in effect.
        if answered().any(|instance| !instance.flags.contains_key(uid)) {
            *sum = add(std::mem::take(sum), &FlagState::default());
        }
    }
    Some(sums)
}

fn add(sum: FlagState, state: &FlagState) -> FlagState {
    let agree = sum.epoch == state.epoch && sum.hash == state.hash && sum.gate == state.gate;
    let lowest = match sum.epoch.cmp(&state.epoch) {
        std::cmp::Ordering::Less => (sum.epoch, sum.hash, sum.gate),
        std::cmp::Ordering::Equal if !agree => (0, String::new(), Gate::Open),
        _ => (state.epoch, state.hash.clone(), state.gate),
    };
    FlagState {
        epoch: lowest.0,
        hash: lowest.1,
        gate: lowest.2,
        config_epoch: sum.config_epoch.zip(state.config_epoch).map(|(one, other)| one.min(other)),
        sent: add_totals(sum.sent, &state.sent),
        arrived: add_totals(sum.arrived, &state.arrived),
        strangers: add_totals(sum.strangers, &state.strangers),
        answers: add_totals(sum.answers, &state.answers),
        unroutable: sum.unroutable.saturating_add(state.unroutable),
        conflicts: sum.conflicts.saturating_add(state.conflicts),
        routes: {
            let mut routes = sum.routes;
            routes.extend(state.routes.iter().cloned());
            routes
        },
    }
}

fn add_totals(mut sum: Named<Totals>, part: &Named<Totals>) -> Named<Totals> {
    for (version, totals) in part {
        let so_far = sum.get(version).copied().unwrap_or_default();
        sum.insert(version.clone(), so_far.plus(*totals));
    }
    sum
}
