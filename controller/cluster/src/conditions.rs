//! The conditions of the resource. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use machine::fleet::ledger::{Fleet, Laggard, Quiet, busy};

use super::resource::time;
use super::scaled_object::ScaledObject;
use super::status::{StatusInputs, blocked};
use machine::checks::{Questions, Verdict};
use machine::observation::{Strength, VersionState};
use machine::reason::{Reason, shortened};
use machine::spec::{Check, CleanupPolicy, Headroom, Management};
use machine::status::{Phase, Switch};

/// Characters of a message, less than the definition of the resource allows: it may have YAML that puts things right.
const MESSAGE: usize = 32_000;

/// What a condition says.
struct Word {
    status: &'static str,
    reason: Reason,
    message: String,
}

fn word(status: &'static str, reason: Reason, message: impl Into<String>) -> Word {
    Word { status, reason, message: shortened(message.into(), MESSAGE) }
}

fn yes(reason: Reason, message: impl Into<String>) -> Word {
    word("True", reason, message)
}

fn no(reason: Reason, message: impl Into<String>) -> Word {
    word("False", reason, message)
}

fn unknown(reason: Reason, message: impl Into<String>) -> Word {
    word("Unknown", reason, message)
}

type Says = fn(&StatusInputs<'_>) -> Option<Word>;

/// Every type of condition, with what it says; `None`: it is absent.
const ALL: [(&str, Says); 11] = [
    ("Ready", |seen| Some(ready(seen))),
    ("RoutesReady", |seen| Some(routes(seen))),
    ("TargetReady", |seen| Some(target(seen))),
    ("HeadroomAvailable", |seen| Some(headroom(seen))),
    ("ChecksPassed", |seen| Some(checks(seen))),
    ("Switched", |seen| Some(of_switch(seen, switched))),
    ("Settled", |seen| Some(of_switch(seen, settled))),
    ("CleanedUp", |seen| Some(of_switch(seen, cleaned_up))),
    ("Reconciling", reconciling),
    ("Stalled", stalled),
    ("ReplicasContested", contested),
];

/// The types of all conditions, in the order in which they are written.
pub(super) fn types() -> [&'static str; 11] {
    ALL.map(|(kind, _)| kind)
}

/// All conditions. What did not change keeps the time of its last change.
pub(super) fn derive(seen: &StatusInputs<'_>) -> Vec<Condition> {
    ALL.iter().filter_map(|(kind, word)| Some(condition(seen, kind, word(seen)?))).collect()
}

fn condition(seen: &StatusInputs<'_>, kind: &str, word: Word) -> Condition {
    let mut before = seen.before.iter().flat_map(|before| &before.conditions);
    let before = before.find(|old| old.type_ == kind && old.status == word.status);
    Condition {
        type_: kind.to_owned(),
        status: word.status.to_owned(),
        observed_generation: seen.generation,
        last_transition_time: before.map_or_else(|| time(seen.now), |old| old.last_transition_time.clone()),
        reason: word.reason.name().to_owned(),
        message: word.message,
    }
}

/// Whether what the spec asks for is so: its version serves, and everybody knows.
fn ready(seen: &StatusInputs<'_>) -> Word {
    let (machine, wanted) = (seen.machine, &seen.spec.version);
    let active = &machine.active_version;
    if let Some((reason, message)) = blocked(seen) {
        return no(reason, message);
    }
    if let Some(held) = machine.r#override.as_ref().filter(|held| held.version != *wanted) {
        let message = format!("{} is held although the spec asks for {wanted}: {}", held.version, held.reason);
        return no(Reason::Overridden, message);
    }
    let before = matches!(machine.phase, Phase::Adopting | Phase::Committing | Phase::Switching);
    let before = before || machine.phase.before_flip();
    if before || active != wanted {
        return no(machine.phase.into(), format!("{wanted} is asked for and does not serve everywhere yet"));
    }
    if !seen.versions.get(active).is_some_and(|workload| workload.ready) {
        let lacks = seen.workloads.lacks(active).unwrap_or_default();
        return no(Reason::ActiveNotReady, format!("{active} serves and is not at full strength: {lacks}"));
    }
    yes(Reason::Serving, format!("{active} serves{}", unaware(seen.fleet)))
}

/// Who is not known to have the record last written, for the end of a sentence.
fn unaware(fleet: &Fleet) -> String {
    let Fleet { acked, expected, .. } = fleet;
    if acked < expected {
        format!(", and {acked} of {expected} proxies are known to have its record")
    } else {
        String::new()
    }
}

fn routes(seen: &StatusInputs<'_>) -> Word {
    let (machine, fleet) = (seen.machine, &seen.fleet);
    if let Some(problem) = seen.routes {
        let needs = if problem.fix.is_empty() { "" } else { ". It needs:\n" };
        return no(problem.reason, format!("{}{needs}{}", problem.message, problem.fix));
    }
    if let Some(Laggard { proxy, why }) = fleet.strays.first() {
        return no(Reason::PastTheFlag, format!("requests have gone past the flag, such as at {proxy}: {why}"));
    }
    if machine.phase == Phase::Stable && seen.spec.routing.in_mesh() {
        return match seen.spec.routing.management {
            Management::Managed => yes(Reason::Written, "the routes are written, and nothing leads past them"),
            Management::UserProvided => yes(Reason::Found, "every version has a route"),
        };
    }
    if !machine.proves_routes() {
        return unknown(Reason::NotAsked, "proxies show their routes only while a switch is under way");
    }
    if !fleet.all_acked() {
        return unknown(Reason::Laggards, format!("{} of {} proxies acked", fleet.acked, fleet.expected));
    }
    if let Some(Laggard { proxy, why }) = fleet.route_laggards.first() {
        let count = fleet.route_laggards.len();
        return no(Reason::NotProven, format!("routes do not fit at {count} proxies, such as {proxy}: {why}"));
    }
    match fleet.reach_laggards.first() {
        None => yes(Reason::Resolved, "no proxy has shown a route that does not fit"),
        Some(Laggard { proxy, why }) => {
            let count = fleet.reach_laggards.len();
            no(Reason::NotReached, format!("{count} proxies do not reach it yet, such as {proxy}: {why}"))
        }
    }
}

fn target(seen: &StatusInputs<'_>) -> Word {
    let machine = seen.machine;
    let version = machine.target_version.as_ref().unwrap_or(&machine.active_version);
    let workload = seen.versions.get(version).cloned().unwrap_or_default();
    let lacks = || seen.workloads.lacks(version).unwrap_or_else(|| format!("{version} is not ready"));
    match (workload.ready, &workload.exited) {
        _ if version.is_empty() => unknown(Reason::NoVersion, "no version serves yet"),
        (true, _) => yes(Reason::Ready, strength(version, &workload)),
        (false, Some(how)) => no(Reason::Exited, format!("{version} does not stay up: {how}")),
        (false, None) if workload.running => no(Reason::NotReady, lacks()),
        (false, None) => no(Reason::NotRunning, lacks()),
    }
}

/// How strong a version is that is ready, in words: the spec may ask for a share of it only.
fn strength(version: &str, workload: &VersionState) -> String {
    let mut short = workload.strength.iter().filter(|(_, one)| one.serving < one.asked);
    match short.next() {
        None => format!("{version} is at full strength"),
        Some((service, Strength { asked, serving })) => format!(
            "{version} is as strong as coexistence.ready asks for: {serving} of {asked} pods serve in Service {service}"
        ),
    }
}

fn headroom(seen: &StatusInputs<'_>) -> Word {
    let machine = seen.machine;
    let short = machine
        .blocked
        .as_ref()
        .filter(|blocked| [Reason::HeadroomShort, Reason::HeadroomUnknown].contains(&blocked.reason));
    match (short, &machine.switch) {
        (Some(blocked), _) if blocked.reason == Reason::HeadroomUnknown => unknown(blocked.reason, &blocked.message),
        (Some(blocked), _) => no(blocked.reason, &blocked.message),
        (None, Some(switch)) if switch.headroom_at.is_some() => {
            let asks = seen.spec.coexistence.headroom == Headroom::Require;
            let or = if asks { "" } else { ", or was started all the same, as coexistence.headroom asks" };
            yes(Reason::Checked, format!("{} fitted{or}", switch.to))
        }
        (None, Some(switch)) if machine.phase == Phase::Coexisting => {
            unknown(Reason::NotChecked, format!("it is not known yet whether {} fits", switch.to))
        }
        (None, _) => yes(Reason::NotNeeded, "nothing has to be started"),
    }
}

/// What the checks say that are asked now.
fn checks(seen: &StatusInputs<'_>) -> Word {
    let Some(questions) = Questions::of(seen.spec, seen.machine) else {
        return match seen.spec.checks.is_empty() {
            true => yes(Reason::NoChecks, "no checks are asked for"),
            false => unknown(Reason::NotAsked, "checks are asked before and after a flip"),
        };
    };
    let verdict = |check: &Check| seen.checks.get(&check.name).map_or(Verdict::Inconclusive, |answer| answer.verdict);
    let of = |wanted: Verdict| {
        let those = questions.checks.iter().filter(|check| verdict(check) == wanted);
        let said = |check: &Check| seen.checks.get(&check.name).map_or("not asked yet", |answer| &answer.message);
        those.map(|check| format!("{}: {}", check.name, said(check))).collect::<Vec<_>>().join("; ")
    };
    match (of(Verdict::Failed), of(Verdict::Inconclusive)) {
        (failed, _) if !failed.is_empty() => no(Reason::Failed, failed),
        (_, open) if !open.is_empty() => unknown(Reason::Inconclusive, open),
        _ => yes(Reason::Passed, of(Verdict::Passed)),
    }
}

/// About the switch under way, or the last one.
fn of_switch(seen: &StatusInputs<'_>, word: impl Fn(&StatusInputs<'_>, &Switch) -> Word) -> Word {
    let none = || {
        let (before, active) = (&seen.machine.previous_version, &seen.machine.active_version);
        let message = match before {
            None => "nothing was switched yet".to_owned(),
            Some(_) => format!("no switch is under way: the last one was given up, and {active} stays"),
        };
        unknown(Reason::NoSwitch, message)
    };
    seen.machine.switch.as_ref().map_or_else(none, |switch| word(seen, switch))
}

fn switched(seen: &StatusInputs<'_>, switch: &Switch) -> Word {
    let (Fleet { acked, expected, .. }, from, to) = (seen.fleet, &switch.from, &switch.to);
    match (switch.flipped_at, switch.acked_at) {
        _ if switch.removal && switch.removed_at.is_some() => yes(Reason::Removal, format!("{from} was only removed")),
        _ if switch.removal => yes(Reason::Removal, format!("{from} only has to be removed")),
        (_, Some(_)) if seen.fleet.all_acked() => yes(Reason::Acked, format!("every proxy sends new requests to {to}")),
        (_, Some(_)) => {
            yes(Reason::Acked, format!("{acked} of {expected} proxies are known to send new requests to {to}"))
        }
        _ if seen.machine.phase.holds() => {
            no(seen.machine.phase.into(), format!("new requests wait, and go to {to} once nothing is open on {from}"))
        }
        (Some(_), None) => no(Reason::Laggards, format!("{acked} of {expected} proxies acked")),
        (None, None) => no(Reason::NotFlipped, format!("{from} still serves")),
    }
}

/// What is known of a version that has settled.
fn rest(fleet: &Fleet, from: &str) -> String {
    match fleet.old {
        Quiet::Since(_) => format!("nothing reaches {from} any more"),
        Quiet::Unknown => format!("it is not known whether something reaches {from}"),
        Quiet::Busy { open } => busy(open, from),
    }
}

fn settled(seen: &StatusInputs<'_>, switch: &Switch) -> Word {
    let (fleet, from) = (seen.fleet, &switch.from);
    let over = switch.removal_intent_at.is_some() || switch.removed_at.is_some();
    if switch.settled_at.is_some() || over {
        let message = match (switch.removed_at, switch.waived) {
            (None, true) => format!("it went on without proof, as settle.onTimeout asks: {}", rest(fleet, from)),
            (None, false) if fleet.old == Quiet::Unknown => format!("nothing reached {from} any more when it settled"),
            (None, false) => rest(fleet, from),
            (Some(_), true) => format!("it went on without proof, as settle.onTimeout asks, and {from} is removed"),
            (Some(_), false) => format!("nothing reached {from} any more, and it is removed"),
        };
        return yes(Reason::Settled, message);
    }
    if seen.machine.phase != Phase::Settling {
        return no(Reason::NotSwitched, format!("{from} may still get requests"));
    }
    let but = match fleet.health_checks {
        0 => String::new(),
        checks => format!("; {checks} health checks of it do not count"),
    };
    no(Reason::NotQuiet, format!("{from} has to be unused for {}{but}", seen.spec.settle.quiet_period))
}

fn cleaned_up(seen: &StatusInputs<'_>, switch: &Switch) -> Word {
    let (machine, from) = (seen.machine, &switch.from);
    if let Some(leftover) = machine.leftovers.first() {
        return no(Reason::Leftovers, format!("{leftover} still has to be removed"));
    }
    match machine.phase {
        Phase::Stable if switch.removed_at.is_some() => {
            let there = seen.versions.get(from).is_some_and(|workload| workload.exists);
            yes(Reason::Removed, format!("{from} is {}", if there { "stopped" } else { "deleted" }))
        }
        Phase::Stable if seen.spec.cleanup.policy == CleanupPolicy::Retain => {
            yes(Reason::Retained, format!("{from} stays, as cleanup.policy asks"))
        }
        Phase::Stable => yes(Reason::Done, format!("nothing of {from} has to be removed")),
        Phase::Retaining => no(Reason::Retaining, format!("{from} stays for a rollback")),
        phase => no(phase.into(), format!("{from} is still needed")),
    }
}

/// Whether it is on its way to what the spec asks for. Whoever waits for that waits no longer once traffic has settled: that
/// the old version stays for a while, and goes, is no part of it.
fn reconciling(seen: &StatusInputs<'_>) -> Option<Word> {
    let phase = seen.machine.phase;
    let waits = blocked(seen).is_none_or(|(reason, _)| reason.awaits_person());
    let is_settled = match phase {
        Phase::Stable => true,
        Phase::Retaining | Phase::Removing => ready(seen).status == "True",
        _ => false,
    };
    (!is_settled && waits).then(|| yes(phase.into(), format!("the phase is {}", phase.name())))
}

/// Who would undo what is done to the versions that the flag is about.
fn contested(seen: &StatusInputs<'_>) -> Option<Word> {
    let machine = seen.machine;
    if let Some((autoscaler, object)) = taken_away(seen) {
        let message = format!(
            "{autoscaler} takes {object} to zero, which is kept until it may go: give it a lower bound of one pod"
        );
        return Some(yes(Reason::FieldManager, message));
    }
    let switch = machine.switch.iter().flat_map(|switch| [&switch.from, &switch.to]);
    let versions = switch.chain([&machine.active_version, &seen.spec.version]).chain(&machine.leftovers);
    let (manager, object) = versions.flat_map(|version| seen.workloads.managers(version)).next()?;
    let message = format!(
        "{manager} applies spec.replicas of {object} too, and would undo what is done to it: leave replicas out of what \
         it applies, or have it ignore what the field manager versionflag writes"
    );
    Some(yes(Reason::FieldManager, message))
}

/// The autoscaler that ends what the switch keeps, and what that is.
fn taken_away<'a>(seen: &'a StatusInputs<'_>) -> Option<(&'a str, &'a ScaledObject)> {
    let keeps = matches!(seen.machine.phase, Phase::Committing | Phase::Switching | Phase::Settling | Phase::Retaining);
    let switch = seen.machine.switch.as_ref().filter(|_| keeps)?;
    let mut ended = seen.workloads.objects(&switch.from).into_iter().filter(|object| object.replicas() == 0);
    ended.find_map(|object| Some((seen.workloads.autoscaler(object)?, object)))
}

fn stalled(seen: &StatusInputs<'_>) -> Option<Word> {
    blocked(seen).filter(|(reason, _)| !reason.awaits_person()).map(|(reason, message)| yes(reason, message))
}
