//! The status of the resource, made from what the state machine remembers and what is seen. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use machine::fleet::ledger::Fleet;

use super::conditions;
use super::resource::{
    FenceOfSwitch, HeldStatus, HistoryStatus, LaggardStatus, LastRequestStatus, ProxiesStatus, ResourceStatus,
    SwitchStatus, VersionRole, VersionStatus, time,
};
use super::workloads::Workloads;
use machine::checks::CheckAnswers;
use machine::observation::VersionState;
use machine::reason::{Problem, Reason, SENTENCE, shortened};
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

/// Laggards that are named.
const NAMED: usize = 10;
/// Characters of what is known of one.
const WHY: usize = 500;

/// What the status is made from.
#[derive(Debug, Clone, Copy)]
pub struct StatusInputs<'a> {
    /// When that is.
    pub now: UnixMs,
    /// `metadata.generation` of the spec.
    pub generation: Option<i64>,
    /// The spec in force.
    pub spec: &'a Spec,
    /// What the state machine remembers.
    pub machine: &'a Status,
    /// What the proxies say.
    pub fleet: &'a Fleet,
    /// What the state machine sees, by version.
    pub versions: &'a BTreeMap<String, VersionState>,
    /// The last answers to the checks.
    pub checks: &'a CheckAnswers,
    /// What was found in the cluster.
    pub workloads: &'a Workloads,
    /// What has to be put right.
    pub problem: Option<&'a Problem>,
    /// What is wrong with the routes.
    pub routes: Option<&'a Problem>,
    /// What was written last.
    pub before: Option<&'a ResourceStatus>,
}

/// What a spec asks for and the controller cannot do yet.
pub fn unsupported(spec: &Spec) -> Option<Problem> {
    use machine::spec::{Management, Provider, Routing};
    let Routing { provider: Provider::External, management: Management::UserProvided, .. } = spec.routing else {
        return None;
    };
    let message = "spec.routing.management UserProvided is not supported yet with provider External: use Managed";
    Some(Problem::new(Reason::NotSupported, message))
}

/// Why a flag of which nothing is remembered cannot begin with the version that its spec asks for:
/// requests would be sent to what is not there, although another version serves.
pub fn cannot_begin(spec: &Spec, machine: &Status, versions: &BTreeMap<String, VersionState>) -> Option<Problem> {
    let ready = |version: &str| versions.get(version).is_some_and(|workload| workload.ready);
    let begins = machine.record.is_none() && !ready(&spec.version);
    let serves = versions.keys().find(|version| begins && ready(version))?;
    let message = format!(
        "{} is not ready, and {serves} serves: a VersionFlag begins with what serves, so set spec.version to {serves} \
         first",
        spec.version
    );
    Some(Problem::new(Reason::ActiveNotReady, message))
}

/// The one that counts, of all that has to be put right: what keeps others from being written to, then what holds, or
/// what does not hold would let go on what has to be held; else the first that was found.
pub fn foremost(problems: impl IntoIterator<Item = Problem>) -> Option<Problem> {
    problems.into_iter().min_by_key(|one| (!one.reason.bars_plugin(), !one.reason.holds()))
}

/// The whole status.
pub fn derive(seen: &StatusInputs<'_>) -> ResourceStatus {
    let machine = seen.machine;
    let named = |version: &String| Some(version.clone()).filter(|version| !version.is_empty());
    ResourceStatus {
        observed_generation: seen.generation,
        active_version: named(&machine.active_version),
        target_version: machine.target_version.clone(),
        previous_version: machine.previous_version.clone(),
        epoch: machine.record.as_ref().map(|record| int(record.epoch)),
        phase: Some(machine.phase),
        blocked_by: blocked(seen).map(|(_, message)| shortened(message.to_owned(), SENTENCE)),
        held: machine.r#override.as_ref().map(|held| HeldStatus {
            version: held.version.clone(),
            for_spec_version: held.for_spec_version.clone(),
            reason: held.reason.clone(),
            at: time(held.at),
        }),
        versions: versions(seen),
        proxies: Some(proxies(machine.phase, seen.fleet)),
        protected_workloads: protected(seen),
        switch: machine.switch.as_ref().map(switch),
        last_request: machine.last_request.as_ref().map(|last| LastRequestStatus {
            id: last.id.clone(),
            action: last.action,
            refused: last.refused.clone(),
            at: time(last.at),
        }),
        history: machine.history.iter().map(event).collect(),
        conditions: conditions::derive(seen),
        machine: Some(Arc::new(machine.clone())),
    }
}

/// The types of all conditions that there may be, in the order in which they are written.
pub fn condition_types() -> [&'static str; 11] {
    conditions::types()
}

/// Reason and sentence of what keeps the flag from moving on.
pub(super) fn blocked<'a>(seen: &StatusInputs<'a>) -> Option<(Reason, &'a str)> {
    let problem = seen.problem.map(|problem| (problem.reason, problem.message.as_str()));
    let machine = seen.machine.blocked.as_ref();
    problem.or_else(|| machine.map(|blocked| (blocked.reason, blocked.message.as_str())))
}

/// What is kept for the longer: an epoch is less than a day ahead of the clock.
fn int(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

fn versions(seen: &StatusInputs<'_>) -> Vec<VersionStatus> {
    let machine = seen.machine;
    let under_way = machine.switch.as_ref().filter(|_| !matches!(machine.phase, Phase::Adopting | Phase::Stable));
    let role = |name: &str| {
        if name == machine.active_version {
            VersionRole::Active
        } else if machine.target_version.as_deref() == Some(name) {
            VersionRole::Target
        } else if under_way.is_some_and(|switch| switch.from == name) {
            VersionRole::Old
        } else if machine.leftovers.contains(name) {
            VersionRole::Leftover
        } else {
            VersionRole::Other
        }
    };
    let mut names = seen.workloads.versions();
    names.extend([machine.active_version.as_str()].into_iter().filter(|name| !name.is_empty()));
    names.extend(machine.target_version.as_deref());
    let version = |name: &str| VersionStatus {
        name: name.to_owned(),
        role: role(name),
        ready: seen.versions.get(name).is_some_and(|workload| workload.ready),
        replicas: seen.workloads.replicas(name),
        autoscalers: seen.workloads.autoscalers_of(name),
        managers: seen.workloads.managers(name).into_keys().collect(),
    };
    names.into_iter().map(version).collect()
}

fn proxies(phase: Phase, fleet: &Fleet) -> ProxiesStatus {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let laggard = |one: &machine::fleet::ledger::Laggard| LaggardStatus {
        proxy: one.proxy.clone(),
        why: shortened(one.why.clone(), WHY),
    };
    ProxiesStatus {
        expected: count(fleet.expected),
        acked: count(fleet.acked),
        summary: format!("{}/{}", fleet.acked, fleet.expected),
        laggards: phase.laggards(fleet).iter().take(NAMED).map(laggard).collect(),
    }
}

/// The workloads of every version that requests are or may be sent to.
fn protected(seen: &StatusInputs<'_>) -> Vec<String> {
    let machine = seen.machine;
    let waits = if machine.phase == Phase::Coexisting { machine.target_version.as_ref() } else { None };
    let versions = machine.record.iter().flat_map(|record| &record.versions);
    let versions = versions.filter(|version| Some(*version) != waits);
    let names = versions.flat_map(|version| seen.workloads.objects(version)).map(ToString::to_string);
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn switch(switch: &machine::status::Switch) -> SwitchStatus {
    SwitchStatus {
        from: switch.from.clone(),
        to: switch.to.clone(),
        rollback: switch.rollback,
        removal: switch.removal,
        started_at: time(switch.started_at),
        ready_at: switch.ready_at.map(time),
        flipped_at: switch.flipped_at.map(time),
        acked_at: switch.acked_at.map(time),
        settled_at: switch.settled_at.map(time),
        overlap_ms: switch.overlap_ms.map(int),
        fence: switch.fence.as_ref().map(fence),
        retain_until: switch.retain_until.map(time),
        removed_at: switch.removed_at.map(time),
    }
}

fn fence(fence: &machine::status::FenceStatus) -> FenceOfSwitch {
    FenceOfSwitch {
        attempts: fence.attempts.into(),
        held_at: fence.held_at.map(time),
        committed_at: fence.committed_at.map(time),
        opened_at: fence.opened_at.map(time),
        held_ms: fence.held_ms.map(int),
        most_waiting: int(fence.most_waiting),
        aborted: fence.aborted.clone(),
        retry_at: fence.retry_at.map(time),
    }
}

fn event(entry: &machine::history::Entry) -> HistoryStatus {
    HistoryStatus {
        at: time(entry.at),
        event: entry.event.name().to_owned(),
        message: entry.message.clone(),
        epoch: int(entry.epoch),
    }
}

impl ResourceStatus {
    /// Equal but for wording, and for how many of those that have to ack did: both may change with
    /// every report, and neither is worth a write.
    pub fn same_but_wording(&self, other: &ResourceStatus) -> bool {
        self.outline() == other.outline()
    }

    /// Whether the same was decided: nothing else has to be written before it is acted on. When the next
    /// version fitted, got ready and was let in is seen again by whoever forgets it.
    pub fn same_decisions(&self, other: &ResourceStatus) -> bool {
        let decided = |status: &ResourceStatus| {
            let mut machine = status.machine.as_deref().cloned();
            if let Some(machine) = &mut machine {
                machine.blocked = None;
                if let Some(switch) = &mut machine.switch {
                    (switch.headroom_at, switch.ready_at, switch.promoted_at) = (None, None, None);
                }
            }
            machine
        };
        decided(self) == decided(other) && self.protected_workloads == other.protected_workloads
    }

    fn outline(&self) -> ResourceStatus {
        let mut outline = self.clone();
        outline.blocked_by = outline.blocked_by.map(|_| String::new());
        if let Some(proxies) = &mut outline.proxies {
            let all = proxies.acked == proxies.expected;
            *proxies = ProxiesStatus { expected: proxies.expected, acked: i32::from(all), ..ProxiesStatus::default() };
        }
        // What is wrong with routes changes only when somebody edits them, who waits for the next word.
        let numbers = [Reason::Laggards, Reason::NotProven, Reason::PastTheFlag].map(Reason::name);
        let worded = |one: &Condition| one.type_ == "RoutesReady" && !numbers.contains(&one.reason.as_str());
        for condition in outline.conditions.iter_mut().filter(|one| !worded(one)) {
            condition.message.clear();
        }
        if let Some(blocked) = outline.machine.as_mut().and_then(|machine| Arc::make_mut(machine).blocked.as_mut()) {
            blocked.message.clear();
        }
        outline
    }
}
