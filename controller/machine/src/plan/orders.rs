//! Whether a version is started anew or stopped because somebody asks for it, and what that takes. Pure.
//!
//! A restart is under way until the version runs as a process that was started after it was granted: so it can be
//! repeated at any point, and is done once.

use super::{Effect, Pass, suspended};
use crate::history::Happening;
use crate::observation::{Observation, VersionState};
use crate::order::{AnsweredOrder, Order, Verb};
use crate::status::{Phase, Status};

/// Answers an order, once.
pub(super) fn answer(pass: Pass<'_>, status: &mut Status, order: &Order) {
    let (verb, version) = (order.verb, &order.version);
    let outcome = match verb {
        Verb::Restart => may_restart(pass.seen, status, order),
        Verb::Stop => may_stop(pass, status, order),
    };
    if outcome.is_ok() {
        let force = if order.force { ", whatever is lost by it," } else { "" };
        status.note(pass.now, Happening::Requested, format!("{} of {version}{force} was asked for", verb.name()));
        match verb {
            Verb::Restart => restart(pass, status, version),
            Verb::Stop => stop(pass, status, order),
        }
    }
    let (id, version, refused) = (order.id.clone(), version.clone(), outcome.err());
    status.answer_order(AnsweredOrder { id, verb, version, refused, at: pass.now });
}

fn restart(pass: Pass<'_>, status: &mut Status, version: &str) {
    status.halted.remove(version);
    status.restarts.insert(version.to_owned(), pass.now);
    // It has as long again to get ready.
    if let Some(switch) = status.switch.as_mut().filter(|one| status.phase == Phase::Coexisting && one.to == version) {
        switch.headroom_at = switch.headroom_at.map(|_| pass.now);
    }
}

fn stop(pass: Pass<'_>, status: &mut Status, order: &Order) {
    status.restarts.remove(&order.version);
    let retained = status.phase == Phase::Retaining;
    match status.switch.as_mut().filter(|switch| retained && switch.from == order.version) {
        _ if order.force => {
            status.halted.insert(order.version.clone());
        }
        // Both go the way of every removal, on the whole proof.
        Some(switch) => switch.retain_until = Some(pass.now),
        None => {
            status.leftovers.insert(order.version.clone());
        }
    }
}

/// Where a version stands, as far as orders go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It serves.
    Serves,
    /// It is gone to, and nothing was flipped yet.
    Waits,
    /// It was left, and it is not proved that nothing reaches it.
    Left,
    /// It was left and is quiet, and stays for a rollback.
    Retained,
    /// It is being removed.
    Goes,
    /// Nothing is done about it.
    Apart,
}

fn stand(status: &Status, version: &str) -> Stand {
    let (from, to) = status.switch.as_ref().map(|switch| (switch.from.as_str(), switch.to.as_str())).unzip();
    match status.phase {
        _ if status.active_version == version => Stand::Serves,
        _ if status.ending.contains(version) || status.leftovers.contains(version) => Stand::Goes,
        Phase::Adopting | Phase::Stable => Stand::Apart,
        phase if phase.before_flip() && to == Some(version) => Stand::Waits,
        Phase::Committing | Phase::Switching | Phase::Settling if from == Some(version) => Stand::Left,
        Phase::Retaining if from == Some(version) => Stand::Retained,
        Phase::Removing if from == Some(version) => Stand::Goes,
        _ => Stand::Apart,
    }
}

/// The requests that are open on a version; `None`: nobody knows.
fn open(seen: &Observation, status: &Status, version: &str) -> Option<u64> {
    let open = seen.open.versions.get(version);
    let counted = open.is_some() || status.record.as_ref().is_some_and(|record| record.versions.contains(version));
    let all = seen.open.all_known && seen.fleet.unplaced.is_empty();
    let open = open.copied().unwrap_or_default();
    (open > 0 || (counted && all)).then_some(open)
}

const ANYWAY: &str = "`--force` does it all the same";

fn may_restart(seen: &Observation, status: &Status, order: &Order) -> Result<(), String> {
    let (version, workload) = (&order.version, seen.workload(&order.version));
    if !workload.declared {
        return Err(undeclared(seen, version, &workload));
    }
    if status.restarts.contains_key(version) {
        return Err(format!("{version} is being started anew already"));
    }
    if let (Some(asked), Some(started)) = (order.started, workload.started)
        && asked != started
    {
        return Err(format!("{version} was started anew since it was looked at: look again"));
    }
    let stand = stand(status, version);
    if stand == Stand::Goes {
        return Err(format!("{version} is being removed: wait for that, and ask again"));
    }
    if order.force || workload.stopped || !workload.running {
        return Ok(());
    }
    if stand == Stand::Serves {
        return Err(format!(
            "{version} serves, and its requests would fail while it is started anew: switch to another version, or \
             {ANYWAY}"
        ));
    }
    if stand == Stand::Left {
        return Err(format!("requests may still reach {version}: wait until it is quiet, or {ANYWAY}"));
    }
    let previewed = status.record.as_ref().is_some_and(|record| record.preview.is_some());
    match open(seen, status, version) {
        Some(0) => Ok(()),
        // Nobody is led there before the flip.
        None if stand == Stand::Waits && !previewed => Ok(()),
        Some(open) => Err(format!("{open} requests are open on {version}, and would be cut off: wait, or {ANYWAY}")),
        None => Err(format!("it is not known whether requests are open on {version}: {ANYWAY}")),
    }
}

fn undeclared(seen: &Observation, version: &str, workload: &VersionState) -> String {
    if workload.running {
        return format!("the file does not say any more how {version} is started: put it back, or `stop` it");
    }
    let known = seen.versions.iter().filter(|(_, one)| one.can_run()).map(|(name, _)| name.as_str());
    let known = known.collect::<Vec<_>>().join(", ");
    format!("there is no version {version} here; there is: {known}")
}

fn may_stop(pass: Pass<'_>, status: &Status, order: &Order) -> Result<(), String> {
    let (version, workload) = (&order.version, pass.seen.workload(&order.version));
    if !workload.can_run() {
        return Err(undeclared(pass.seen, version, &workload));
    }
    if status.halted.contains(version) || workload.stopped {
        return Err(format!("{version} is stopped already"));
    }
    let stand = stand(status, version);
    // Only where the controller would start it is there something to keep from running.
    let kept = matches!(stand, Stand::Serves | Stand::Waits | Stand::Left | Stand::Retained)
        || status.restarts.contains_key(version);
    let meant = workload.running || (order.force && kept);
    if !meant {
        return Err(format!("{version} does not run"));
    }
    if order.force {
        return Ok(());
    }
    if suspended(pass.spec, status) {
        return Err(format!("the flag is suspended: resume it first, or {ANYWAY}"));
    }
    match stand {
        Stand::Serves => Err(format!("{version} serves: switch to another version first, or {ANYWAY}")),
        Stand::Waits => Err(format!("{version} is switched to: `abort` gives that up and stops it, or {ANYWAY}")),
        Stand::Left => Err(format!(
            "{version} is kept until it is proved that nothing reaches it, and is then removed by itself; {ANYWAY}"
        )),
        Stand::Goes if status.ending.contains(version) || status.phase == Phase::Removing => {
            Err(format!("{version} is being removed already; {ANYWAY}"))
        }
        Stand::Goes => Err(format!("{version} is removed by itself, after the switch under way; {ANYWAY}")),
        Stand::Retained | Stand::Apart => Ok(()),
    }
}

/// Takes note of restarts that are done, or cannot be any more.
pub(super) fn complete(pass: Pass<'_>, status: &mut Status) -> bool {
    let workload = |version: &str| pass.seen.workload(version);
    let over = status.restarts.iter().find(|(version, asked)| {
        let one = workload(version);
        let anew = one.running && !one.stopped && one.started.is_some_and(|started| started >= **asked);
        anew || !one.declared || stand(status, version) == Stand::Goes
    });
    let Some(version) = over.map(|(version, _)| version.clone()) else { return false };
    status.restarts.remove(&version);
    let in_vain = match stand(status, &version) {
        Stand::Goes => Some("it is being removed"),
        _ if !workload(&version).declared => Some("the file does not say any more how"),
        _ => None,
    };
    match in_vain {
        None => status.note(pass.now, Happening::Restarted, format!("{version} was started anew, as was asked for")),
        Some(why) => status.note(pass.now, Happening::NotStarted, format!("{version} is not started anew: {why}")),
    }
    true
}

/// What is to be started for a restart and would not be otherwise.
pub(super) fn starts(pass: Pass<'_>, status: &Status) -> impl Iterator<Item = Effect> {
    let ended = status.restarts.keys().filter(move |version| !pass.seen.workload(version).running);
    ended.map(|version| Effect::Start { version: version.clone(), like: None })
}

/// What is to be stopped: what is to stay so, and what is still the process of before.
pub(super) fn stops(pass: Pass<'_>, status: &Status) -> impl Iterator<Item = Effect> {
    let of_before = status.restarts.iter().filter(move |(version, asked)| {
        let started = pass.seen.workload(version).started;
        started.is_none_or(|started| started < **asked)
    });
    let all = of_before.map(|(version, _)| version).chain(&status.halted);
    let runs = all.filter(move |version| {
        let one = pass.seen.workload(version);
        one.running && !one.stopped
    });
    runs.map(|version| Effect::Stop { version: version.clone() })
}
