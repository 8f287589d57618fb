//! The conditions of the resource. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use machine::fleet::ledger::Laggard;

use super::resource::time;
use super::status::{Seen, blocked};
use machine::checks::{Questions, Verdict};
use machine::spec::{Check, CleanupPolicy, Management};
use machine::status::{Phase, Switch};

/// Reasons of a flag that waits for somebody, and is well.
const WAITS: [&str; 2] = ["AwaitingPromotion", "Suspended"];

/// What a condition says.
struct Word {
    status: &'static str,
    reason: String,
    message: String,
}

fn word(status: &'static str, reason: &str, message: impl Into<String>) -> Word {
    Word { status, reason: reason.to_owned(), message: message.into() }
}

fn yes(reason: &str, message: impl Into<String>) -> Word {
    word("True", reason, message)
}

fn no(reason: &str, message: impl Into<String>) -> Word {
    word("False", reason, message)
}

fn unknown(reason: &str, message: impl Into<String>) -> Word {
    word("Unknown", reason, message)
}

/// All conditions. What did not change keeps the time of its last change.
pub(super) fn derive(seen: &Seen<'_>) -> Vec<Condition> {
    let words = [
        ("Ready", Some(ready(seen))),
        ("RoutesReady", Some(routes(seen))),
        ("TargetReady", Some(target(seen))),
        ("HeadroomAvailable", Some(headroom(seen))),
        ("ChecksPassed", Some(checks(seen))),
        ("Switched", Some(of_switch(seen, switched))),
        ("Settled", Some(of_switch(seen, settled))),
        ("CleanedUp", Some(of_switch(seen, cleaned_up))),
        ("Reconciling", reconciling(seen)),
        ("Stalled", stalled(seen)),
        ("ReplicasContested", contested(seen)),
    ];
    words.into_iter().filter_map(|(kind, word)| word.map(|word| condition(seen, kind, word))).collect()
}

fn condition(seen: &Seen<'_>, kind: &str, word: Word) -> Condition {
    let mut before = seen.before.iter().flat_map(|before| &before.conditions);
    let before = before.find(|old| old.type_ == kind && old.status == word.status);
    Condition {
        type_: kind.to_owned(),
        status: word.status.to_owned(),
        observed_generation: seen.generation,
        last_transition_time: before.map_or_else(|| time(seen.now_ms), |old| old.last_transition_time.clone()),
        reason: word.reason,
        message: word.message,
    }
}

/// Whether what the spec asks for is so: its version serves, and everybody knows.
fn ready(seen: &Seen<'_>) -> Word {
    let (machine, wanted) = (seen.machine, &seen.spec.version);
    let active = &machine.active_version;
    if let Some((reason, message)) = blocked(seen) {
        return no(reason, message);
    }
    if let Some(held) = machine.r#override.as_ref().filter(|held| held.version != *wanted) {
        let message = format!("{} is held although the spec asks for {wanted}: {}", held.version, held.reason);
        return no("Overridden", message);
    }
    let before = machine.phase == Phase::Adopting || machine.phase == Phase::Switching || machine.phase.before_flip();
    if before || active != wanted {
        return no(machine.phase.name(), format!("{wanted} is asked for and does not serve everywhere yet"));
    }
    if !seen.versions.get(active).is_some_and(|workload| workload.ready) {
        let lacks = seen.workloads.lacks(active).unwrap_or_default();
        return no("ActiveNotReady", format!("{active} serves and is not at full strength: {lacks}"));
    }
    yes("Serving", format!("{active} serves"))
}

fn routes(seen: &Seen<'_>) -> Word {
    let (machine, fleet) = (seen.machine, &seen.fleet);
    if let Some(problem) = seen.routes {
        let snippet = if problem.snippet.is_empty() { "" } else { ". It needs:\n" };
        return no(problem.reason, format!("{}{snippet}{}", problem.message, problem.snippet));
    }
    if machine.phase == Phase::Stable && seen.spec.routing.in_mesh() {
        return match seen.spec.routing.management {
            Management::Managed => yes("Written", "the routes are written, and nothing leads past them"),
            Management::UserProvided => yes("Found", "every version has a route"),
        };
    }
    if !machine.proves_routes() {
        return unknown("NotAsked", "proxies show their routes only while a switch is under way");
    }
    if fleet.expected == 0 || fleet.acked < fleet.expected {
        return unknown("Laggards", format!("{} of {} proxies acked", fleet.acked, fleet.expected));
    }
    match fleet.route_laggards.first() {
        None => yes("Resolved", "no proxy has shown a route that does not fit"),
        Some(Laggard { proxy, why }) => {
            let count = fleet.route_laggards.len();
            no("NotProven", format!("routes do not fit at {count} proxies, such as {proxy}: {why}"))
        }
    }
}

fn target(seen: &Seen<'_>) -> Word {
    let machine = seen.machine;
    let version = machine.target_version.as_ref().unwrap_or(&machine.active_version);
    let workload = seen.versions.get(version).cloned().unwrap_or_default();
    let lacks = || seen.workloads.lacks(version).unwrap_or_else(|| format!("{version} is not ready"));
    match (workload.ready, workload.exited) {
        _ if version.is_empty() => unknown("NoVersion", "no version serves yet"),
        (true, _) => yes("Ready", format!("{version} is at full strength")),
        (false, Some(how)) => no("Exited", format!("{version} does not stay up: {how}")),
        (false, None) if workload.running => no("NotReady", lacks()),
        (false, None) => no("NotRunning", lacks()),
    }
}

fn headroom(seen: &Seen<'_>) -> Word {
    let machine = seen.machine;
    let short = machine.blocked.as_ref().filter(|blocked| blocked.reason.starts_with("Headroom"));
    match (short, &machine.switch) {
        (Some(blocked), _) if blocked.reason == "HeadroomUnknown" => unknown(&blocked.reason, &blocked.message),
        (Some(blocked), _) => no(&blocked.reason, &blocked.message),
        (None, Some(switch)) if switch.headroom_at.is_some() => yes("Checked", format!("{} fitted", switch.to)),
        (None, Some(switch)) if machine.phase == Phase::Coexisting => {
            unknown("NotChecked", format!("it is not known yet whether {} fits", switch.to))
        }
        (None, _) => yes("NotNeeded", "nothing has to be started"),
    }
}

/// What the checks say that are asked now.
fn checks(seen: &Seen<'_>) -> Word {
    let Some(questions) = Questions::of(seen.spec, seen.machine) else {
        return match seen.spec.checks.is_empty() {
            true => yes("NoChecks", "no checks are asked for"),
            false => unknown("NotAsked", "checks are asked before and after a flip"),
        };
    };
    let verdict = |check: &Check| seen.checks.get(&check.name).map_or(Verdict::Inconclusive, |answer| answer.verdict);
    let of = |wanted: Verdict| {
        let those = questions.checks.iter().filter(|check| verdict(check) == wanted);
        let said = |check: &Check| seen.checks.get(&check.name).map_or("not asked yet", |answer| &answer.message);
        those.map(|check| format!("{}: {}", check.name, said(check))).collect::<Vec<_>>().join("; ")
    };
    match (of(Verdict::Failed), of(Verdict::Inconclusive)) {
        (failed, _) if !failed.is_empty() => no("Failed", failed),
        (_, open) if !open.is_empty() => unknown("Inconclusive", open),
        _ => yes("Passed", of(Verdict::Passed)),
    }
}

/// About the switch under way, or the last one.
fn of_switch(seen: &Seen<'_>, word: impl Fn(&Seen<'_>, &Switch) -> Word) -> Word {
    let none = || unknown("NoSwitch", "nothing was switched yet");
    seen.machine.switch.as_ref().map_or_else(none, |switch| word(seen, switch))
}

fn switched(seen: &Seen<'_>, switch: &Switch) -> Word {
    let fleet = seen.fleet;
    match (switch.flipped_at, switch.acked_at) {
        _ if switch.removal => yes("Removal", format!("{} only has to be removed", switch.from)),
        (_, Some(_)) => yes("Acked", format!("every proxy sends new requests to {}", switch.to)),
        (Some(_), None) => no("Laggards", format!("{} of {} proxies acked", fleet.acked, fleet.expected)),
        (None, None) => no("NotFlipped", format!("{} still serves", switch.from)),
    }
}

fn settled(seen: &Seen<'_>, switch: &Switch) -> Word {
    let over = switch.removal_intent_at.is_some() || switch.removed_at.is_some();
    if switch.settled_at.is_some() || over {
        return yes("Settled", format!("nothing reaches {} any more", switch.from));
    }
    if seen.machine.phase != Phase::Settling {
        return no("NotSwitched", format!("{} may still get requests", switch.from));
    }
    no("NotQuiet", format!("{} has to be unused for {}", switch.from, seen.spec.settle.quiet_period))
}

fn cleaned_up(seen: &Seen<'_>, switch: &Switch) -> Word {
    let (machine, from) = (seen.machine, &switch.from);
    if let Some(leftover) = machine.leftovers.first() {
        return no("Leftovers", format!("{leftover} still has to be removed"));
    }
    match machine.phase {
        Phase::Stable if switch.removed_at.is_some() => {
            let there = seen.versions.get(from).is_some_and(|workload| workload.exists);
            yes("Removed", format!("{from} is {}", if there { "stopped" } else { "deleted" }))
        }
        Phase::Stable if seen.spec.cleanup.policy == CleanupPolicy::Retain => {
            yes("Retained", format!("{from} stays, as cleanup.policy asks"))
        }
        Phase::Stable => yes("Done", format!("nothing of {from} has to be removed")),
        Phase::Retaining => no("Retaining", format!("{from} stays for a rollback")),
        phase => no(phase.name(), format!("{from} is still needed")),
    }
}

fn reconciling(seen: &Seen<'_>) -> Option<Word> {
    let phase = seen.machine.phase;
    let waits = blocked(seen).is_none_or(|(reason, _)| WAITS.contains(&reason));
    (phase != Phase::Stable && waits).then(|| yes(phase.name(), format!("the phase is {}", phase.name())))
}

/// Who would undo what is done to the versions that the flag is about.
fn contested(seen: &Seen<'_>) -> Option<Word> {
    let machine = seen.machine;
    let switch = machine.switch.iter().flat_map(|switch| [&switch.from, &switch.to]);
    let versions = switch.chain([&machine.active_version, &seen.spec.version]).chain(&machine.leftovers);
    let (manager, object) = versions.flat_map(|version| seen.workloads.managers(version)).next()?;
    let message = format!(
        "{manager} applies spec.replicas of {object} too, and would undo what is done to it: leave replicas out of what \
         it applies, or have it ignore what the field manager versionflag writes"
    );
    Some(yes("FieldManager", message))
}

fn stalled(seen: &Seen<'_>) -> Option<Word> {
    blocked(seen).filter(|(reason, _)| !WAITS.contains(reason)).map(|(reason, message)| yes(reason, message))
}
