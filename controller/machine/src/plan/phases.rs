//! Which phase comes next: the table of phases. Pure.

use super::wait::{Wait, blocked};
use super::{Pass, after_flip, before_flip, fence, orders, requests, suspended, transitions, verdicts, wanted};
use crate::history::Happening;
use crate::observation::{Keeper, Observation};
use crate::reason::Reason;
use crate::status::{Phase, Status, Switch};

/// At most one transition.
pub(super) fn advance(pass: Pass<'_>, status: &mut Status) -> Wait {
    if status.r#override.as_ref().is_some_and(|held| held.for_spec_version != pass.spec.version) {
        status.r#override = None;
        return Wait::moved();
    }
    if !status.shut.is_empty() && pass.seen.fleet.all_acked() {
        status.shut.clear();
        return Wait::moved();
    }
    if let Some(request) = pass.seen.request.as_ref().filter(|request| !status.has_answered(&request.id)) {
        requests::answer(pass, status, request);
        return Wait::moved();
    }
    if let Some(order) = pass.seen.order.as_ref().filter(|order| status.answered_order(&order.id).is_none()) {
        orders::answer(pass, status, order);
        return Wait::moved();
    }
    if orders::complete(pass, status) {
        return Wait::moved();
    }
    // A hold ends by itself: it is given up first, by whatever does not let it go on.
    let holds = status.phase.holds();
    if !holds && suspended(pass.spec, status) {
        return blocked(Reason::Suspended, "it is suspended: nothing moves until it is resumed");
    }
    // Before a record is published no request goes by the flag: another version is simply adopted.
    let begins = status.phase == Phase::Adopting && status.record.is_none();
    if !begins
        && !holds
        && let Some(wait) = retarget(pass, status)
    {
        return wait;
    }
    if forget_ended(pass, status) {
        return Wait::moved();
    }
    if status.phase == Phase::Adopting {
        return adopting(pass, status);
    }
    let Some(switch) = status.switch.clone().filter(|_| status.phase != Phase::Stable) else {
        return stable(pass, status);
    };
    if let Some(wait) = verdicts::failed(pass, status, &switch) {
        return wait;
    }
    match status.phase {
        Phase::Adopting | Phase::Stable => Wait::default(),
        Phase::Coexisting => before_flip::coexisting(pass, status, switch),
        Phase::AwaitingPromotion => before_flip::awaiting_promotion(pass, status, switch),
        Phase::ProvingRoutes => before_flip::proving_routes(pass, status, switch),
        Phase::Holding => fence::holding(pass, status, switch),
        Phase::Committing => fence::committing(pass, status, switch),
        Phase::Switching => after_flip::switching(pass, status, switch),
        Phase::Settling => after_flip::settling(pass, status, switch),
        Phase::Retaining => after_flip::retaining(pass, status, switch),
        Phase::Removing => after_flip::removing(pass, status, switch),
    }
}

fn adopting(pass: Pass<'_>, status: &mut Status) -> Wait {
    let (version, seen) = (&pass.spec.version, pass.seen);
    if *version != status.active_version && status.record.is_none() {
        if !seen.workload(version).can_run() {
            return blocked(Reason::UnknownVersion, unknown(seen, version));
        }
        status.active_version.clone_from(version);
        return Wait::moved();
    }
    if seen.workload(&status.active_version).serves() {
        status.enter(pass.now, Phase::Stable);
        status.note(pass.now, Happening::Adopted, format!("{} serves", status.active_version));
        return Wait::moved();
    }
    let workload = seen.workload(version);
    match workload.failure(Reason::ActiveNotReady) {
        Some((reason, why)) => blocked(reason, format!("{version} {why}")),
        None => Wait::on(format!("{version} has to get ready{}", workload.lacking())),
    }
}

/// Says that there is nothing of a version, and what there is.
fn unknown(seen: &Observation, version: &str) -> String {
    let known = seen.versions.iter().filter(|(_, state)| state.can_run()).map(|(name, _)| name.as_str());
    let known = known.collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none" } else { &known };
    match seen.keeper {
        Keeper::Controller => format!("it is not declared how to start {version}; declared: {known}"),
        Keeper::Platform => format!("no workload of the Services has the version {version}; there is: {known}"),
    }
}

/// Starts, replaces or gives up a switch when another version is wanted.
fn retarget(pass: Pass<'_>, status: &mut Status) -> Option<Wait> {
    let wanted = wanted(pass.spec, status).to_owned();
    if status.phase.before_flip() {
        if status.target_version.as_ref() == Some(&wanted) {
            return None;
        }
        transitions::give_up(pass.now, status);
        return Some(Wait::moved());
    }
    if wanted == status.active_version {
        return None;
    }
    let rests = matches!(status.phase, Phase::Adopting | Phase::Stable);
    if !pass.seen.workload(&wanted).can_run() {
        return rests.then(|| blocked(Reason::UnknownVersion, unknown(pass.seen, &wanted)));
    }
    // Who must not begin it must not leave what is under way for it either.
    if let Some(problem) = pass.holding() {
        return rests.then(|| Wait::blocked(problem.clone()));
    }
    transitions::begin(pass, status, &wanted);
    Some(Wait::moved())
}

/// Versions that were stopped on a whole proof are forgotten when nothing of them runs any more, or somebody else
/// has started them again.
fn forget_ended(pass: Pass<'_>, status: &mut Status) -> bool {
    let ended = |version: &&String| {
        let workload = pass.seen.workload(version);
        !workload.running || !workload.stopped
    };
    let Some(version) = status.ending.iter().find(ended).cloned() else {
        return false;
    };
    status.ending.remove(&version);
    let how = if pass.seen.workload(&version).running { "started again by somebody else" } else { "stopped" };
    status.note(pass.now, Happening::Removed, format!("{version} is {how}"));
    true
}

fn stable(pass: Pass<'_>, status: &mut Status) -> Wait {
    let active = status.active_version.clone();
    if let Some(leftover) = status.leftovers.pop_first() {
        if leftover != active && pass.seen.workload(&leftover).running {
            let (from, to, at) = (leftover, active, Some(pass.now));
            let workloads = pass.seen.workload(&from).workloads;
            let acked_epoch = Some(status.epoch());
            let removal = Switch {
                from,
                to,
                workloads,
                removal: true,
                started_at: pass.now,
                acked_at: at,
                acked_epoch,
                ..Switch::default()
            };
            status.switch = Some(removal);
            status.enter(pass.now, Phase::Settling);
        }
        return Wait::moved();
    }
    let workload = pass.seen.workload(&active);
    if !workload.ready && status.halted.contains(&active) {
        let message = format!("{active} is active and was stopped by request: `restart` starts it");
        return blocked(Reason::ActiveNotReady, message);
    }
    if !workload.ready {
        if workload.barred.is_some()
            && let Some((reason, why)) = workload.failure(Reason::ActiveNotReady)
        {
            return blocked(reason, format!("{active} is active but {why}"));
        }
        let how = workload.exited.as_ref().map_or_else(|| workload.lacking(), |how| format!(": {how}"));
        return blocked(Reason::ActiveNotReady, format!("{active} is active but not ready{how}"));
    }
    if let Some(version) = status.ending.first() {
        return after_flip::has_to_stop(pass, version);
    }
    match &status.r#override {
        Some(held) => Wait::on(format!(
            "nothing: {active} is held although the spec asks for {} ({}); `retry` ends that",
            pass.spec.version, held.reason
        )),
        None => Wait::on(format!("nothing: {active} serves")),
    }
}
