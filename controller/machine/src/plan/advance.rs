//! Which phase comes next. Pure.

use super::removal::{removing, retaining};
use super::settle::{Proof, What, all_acked, missing_acks, names, settled};
use super::{Wait, checks, request, suspended, wanted};
use crate::observation::{Headroom, Observation, RouteProblem};
use crate::spec::{self, CleanupPolicy, Laggards, OnTargetFailure, OnTimeout, PromotionMode, Spec};
use crate::status::{Phase, Status, Switch};

/// More than any healthy proxy takes to ack a record, and to report twice after it.
pub(super) const ACKS_MS: u64 = 2_000;

/// More than it takes to bring a configuration to every proxy, unless something is in its way.
const CONFIGURED_MS: u64 = 5_000;

/// At most one transition.
pub(super) fn advance(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation) -> Wait {
    if status.r#override.as_ref().is_some_and(|held| held.for_spec_version != spec.version) {
        status.r#override = None;
        return Wait::moved();
    }
    let answered = |status: &Status, id: &str| status.last_request.as_ref().is_some_and(|last| last.id == id);
    if let Some(request) = seen.request.as_ref().filter(|request| !answered(status, &request.id))
        && request::answer(now_ms, spec, status, seen, request)
    {
        return Wait::moved();
    }
    if suspended(spec, status) {
        return Wait::blocked("Suspended", "it is suspended: nothing moves until it is resumed");
    }
    if status.phase == Phase::Adopting {
        return adopting(now_ms, spec, status, seen);
    }
    if let Some(wait) = retarget(now_ms, spec, status, seen) {
        return wait;
    }
    let Some(switch) = status.switch.clone().filter(|_| status.phase != Phase::Stable) else {
        return stable(now_ms, spec, status, seen);
    };
    if let Some(wait) = checks::failed(now_ms, spec, status, seen, &switch) {
        return wait;
    }
    match status.phase {
        Phase::Adopting | Phase::Stable => Wait::default(),
        Phase::Coexisting => coexisting(now_ms, spec, status, seen, switch),
        Phase::AwaitingPromotion => awaiting(now_ms, spec, status, seen, switch),
        Phase::ProvingRoutes => proving(now_ms, status, seen, switch),
        Phase::Switching => switching(now_ms, spec, status, seen, switch),
        Phase::Settling => settling(now_ms, spec, status, seen, switch),
        Phase::Retaining => retaining(now_ms, spec, status, seen, switch),
        Phase::Removing => removing(now_ms, spec, status, seen, switch),
    }
}

fn adopting(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation) -> Wait {
    let version = &spec.version;
    let ready = seen.workload(&status.active_version).ready;
    if *version != status.active_version && !ready {
        let workload = seen.workload(version);
        if !workload.declared && !workload.running {
            return Wait::blocked("UnknownVersion", format!("it is not declared how to start {version}"));
        }
        if !status.active_version.is_empty() {
            status.leftovers.insert(status.active_version.clone());
        }
        status.leftovers.remove(version);
        status.active_version.clone_from(version);
        return Wait::moved();
    }
    if ready {
        status.enter(now_ms, Phase::Stable);
        status.note(now_ms, "Adopted", format!("{} serves", status.active_version));
        return Wait::moved();
    }
    match seen.workload(version).exited {
        Some(how) => Wait::blocked("ActiveNotReady", format!("{version} does not stay up: {how}")),
        None => Wait::on(format!("{version} has to get ready")),
    }
}

/// Starts, replaces or gives up a switch when another version is wanted.
fn retarget(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation) -> Option<Wait> {
    let wanted = wanted(spec, status).to_owned();
    if status.phase.before_flip() {
        if status.target_version.as_ref() == Some(&wanted) {
            return None;
        }
        give_up(now_ms, status);
        return Some(Wait::moved());
    }
    if wanted == status.active_version || status.phase == Phase::Removing {
        return None;
    }
    let workload = seen.workload(&wanted);
    if !workload.declared && !workload.running {
        let message = format!("it is not declared how to start {wanted}");
        return (status.phase == Phase::Stable).then(|| Wait::blocked("UnknownVersion", message));
    }
    begin(now_ms, spec, status, seen, &wanted);
    Some(Wait::moved())
}

/// Begins a switch to `to`. What the switch before it would have removed is removed later.
pub(super) fn begin(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, to: &str) {
    if let Some(old) = status.switch.as_ref().filter(|_| status.phase != Phase::Stable)
        && (old.removal || spec.cleanup.policy != CleanupPolicy::Retain)
    {
        status.leftovers.insert(old.from.clone());
    }
    let ours = status.leftovers.remove(to) || !seen.workload(to).running;
    let rollback = status.r#override.as_ref().is_some_and(|held| held.version == to);
    let from = status.active_version.clone();
    status.note(now_ms, "Started", format!("from {from} to {to}"));
    status.switch = Some(Switch { from, to: to.to_owned(), ours, rollback, started_at: now_ms, ..Switch::default() });
    status.target_version = Some(to.to_owned());
    status.enter(now_ms, Phase::Coexisting);
}

/// Ends a switch that was not flipped. What was started for it is removed again.
pub(super) fn give_up(now_ms: u64, status: &mut Status) {
    if let Some(switch) = status.switch.take() {
        if switch.ours {
            status.leftovers.insert(switch.to.clone());
        }
        status.note(now_ms, "GivenUp", format!("{} stays, {} is not switched to", switch.from, switch.to));
    }
    status.target_version = None;
    status.enter(now_ms, Phase::Stable);
}

/// Goes back to the version that was left: at once if it is still ready, otherwise it is started
/// like any other target.
pub(super) fn roll_back(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, why: &str) {
    let Some(old) = status.switch.clone() else {
        return;
    };
    request::hold(now_ms, spec, status, &old.from, why);
    if !seen.workload(&old.from).ready {
        begin(now_ms, spec, status, seen, &old.from);
        return;
    }
    let at = Some(now_ms);
    let back = Switch {
        from: old.to.clone(),
        to: old.from.clone(),
        rollback: true,
        started_at: now_ms,
        headroom_at: at,
        ready_at: at,
        promoted_at: at,
        ..Switch::default()
    };
    flip(now_ms, status, back);
    status.note(now_ms, "RolledBack", format!("from {} to {}: {why}", old.to, old.from));
}

fn flip(now_ms: u64, status: &mut Status, switch: Switch) {
    status.active_version.clone_from(&switch.to);
    status.previous_version = Some(switch.from.clone());
    status.target_version = Some(switch.to.clone());
    status.note(now_ms, "Flipped", format!("from {} to {}", switch.from, switch.to));
    status.switch = Some(Switch { flipped_at: Some(now_ms), ..switch });
    status.enter(now_ms, Phase::Switching);
}

fn stable(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation) -> Wait {
    let active = status.active_version.clone();
    if let Some(leftover) = status.leftovers.pop_first() {
        if leftover != active && seen.workload(&leftover).running {
            let (from, to, at) = (leftover, active, Some(now_ms));
            let acked_epoch = Some(status.epoch());
            let removal =
                Switch { from, to, removal: true, started_at: now_ms, acked_at: at, acked_epoch, ..Switch::default() };
            status.switch = Some(removal);
            status.enter(now_ms, Phase::Settling);
        }
        return Wait::moved();
    }
    let workload = seen.workload(&active);
    if !workload.ready {
        let how = workload.exited.map(|how| format!(": {how}")).unwrap_or_default();
        return Wait::blocked("ActiveNotReady", format!("{active} is active but not ready{how}"));
    }
    match &status.r#override {
        Some(held) => Wait::on(format!(
            "nothing: {active} is held although the spec asks for {} ({}); `retry` ends that",
            spec.version, held.reason
        )),
        None => Wait::on(format!("nothing: {active} serves")),
    }
}

fn coexisting(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, mut switch: Switch) -> Wait {
    let target = seen.workload(&switch.to);
    let Some(headroom_at) = switch.headroom_at else {
        // Without routes that hold them back, its pods would be sent requests as soon as they are ready.
        if let Some(problem) = seen.routes.as_ref().filter(|problem| problem.reason != RouteProblem::WARMING) {
            return held_up(problem);
        }
        let needed = !target.running && spec.coexistence.headroom == spec::Headroom::Require;
        let warn = !target.running && spec.coexistence.headroom == spec::Headroom::Warn;
        match &seen.headroom {
            Headroom::Short { message } if needed => return Wait::blocked("HeadroomShort", message.clone()),
            Headroom::Unknown if needed => {
                return Wait::blocked("HeadroomUnknown", format!("it is not known whether {} fits", switch.to));
            }
            Headroom::Short { message } if warn => status.note(now_ms, "HeadroomShort", message.clone()),
            _ => {}
        }
        switch.headroom_at = Some(now_ms);
        status.switch = Some(switch);
        return Wait::moved();
    };
    let min_ready = spec.coexistence.min_ready;
    if let Some(since) = target.ready_since.filter(|_| target.ready) {
        let enough = since.saturating_add(min_ready.0);
        if now_ms < enough {
            return Wait::until(format!("{} is ready and has to stay so for {min_ready}", switch.to), enough);
        }
        switch.ready_at = Some(now_ms);
        status.switch = Some(switch);
        status.enter(now_ms, Phase::AwaitingPromotion);
        return Wait::moved();
    }
    let timeout = spec.coexistence.ready_timeout;
    if let Some(how) = target.exited {
        return Wait::blocked("TargetExited", format!("{} does not stay up: {how}", switch.to));
    }
    let deadline = headroom_at.saturating_add(timeout.0);
    if now_ms >= deadline {
        return Wait::blocked("TargetNotReady", format!("{} has not become ready within {timeout}", switch.to));
    }
    Wait::until(format!("{} has to get ready", switch.to), deadline)
}

/// Back to waiting for the target, if it is no longer ready.
fn lost_ready(now_ms: u64, status: &mut Status, seen: &Observation, switch: &Switch) -> bool {
    if seen.workload(&switch.to).ready {
        return false;
    }
    let headroom_at = switch.headroom_at.map(|_| now_ms);
    status.switch = Some(Switch { ready_at: None, promoted_at: None, headroom_at, ..switch.clone() });
    status.enter(now_ms, Phase::Coexisting);
    true
}

fn awaiting(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, mut switch: Switch) -> Wait {
    if lost_ready(now_ms, status, seen, &switch) {
        return Wait::moved();
    }
    if switch.promoted_at.is_none() && !switch.rollback {
        if spec.promotion.mode == PromotionMode::Manual {
            let message = format!("{} is ready and waits to be promoted by hand", switch.to);
            return Wait::blocked("AwaitingPromotion", message);
        }
        let due = switch.ready_at.unwrap_or(now_ms).saturating_add(spec.promotion.after.0);
        if now_ms < due {
            return Wait::until(format!("{} is let in after {}", switch.to, spec.promotion.after), due);
        }
    }
    if let Some(wait) = checks::missing(now_ms, spec, status, seen, &switch, (0, 0)) {
        return wait;
    }
    switch.promoted_at = switch.promoted_at.or(Some(now_ms));
    status.switch = Some(switch);
    status.enter(now_ms, Phase::ProvingRoutes);
    Wait::moved()
}

fn held_up(problem: &RouteProblem) -> Wait {
    let message = problem.message.clone();
    if problem.passes() { Wait::on(message) } else { Wait::blocked(problem.reason, message) }
}

fn proving(now_ms: u64, status: &mut Status, seen: &Observation, switch: Switch) -> Wait {
    if lost_ready(now_ms, status, seen, &switch) {
        return Wait::moved();
    }
    if let Some(problem) = &seen.routes {
        return held_up(problem);
    }
    let laggards = &seen.fleet.route_laggards;
    if !laggards.is_empty() {
        let message = format!("routes do not resolve {} everywhere: {}", switch.to, names(laggards));
        let named = status.phase_since.saturating_add(ACKS_MS);
        return if now_ms >= named { Wait::blocked("RoutesNotProven", message) } else { Wait::until(message, named) };
    }
    flip(now_ms, status, switch);
    Wait::moved()
}

/// Rolls back by itself when the new version died and the spec says so.
pub(super) fn target_died(
    now_ms: u64,
    spec: &Spec,
    status: &mut Status,
    seen: &Observation,
    switch: &Switch,
) -> Option<Wait> {
    let target = seen.workload(&switch.to);
    let how = target.exited.filter(|_| !target.ready)?;
    let back = seen.workload(&switch.from).ready && switch.may_roll_back();
    if spec.on_target_failure == OnTargetFailure::Rollback && back {
        roll_back(now_ms, spec, status, seen, &format!("{} died after the flip: {how}", switch.to));
        return Some(Wait::moved());
    }
    Some(Wait::blocked("TargetExited", format!("{} is active but does not stay up: {how}", switch.to)))
}

fn switching(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, mut switch: Switch) -> Wait {
    let acked = all_acked(&seen.fleet);
    let deadline = switch.flipped_at.unwrap_or(now_ms).saturating_add(spec.switch.ack_timeout.0);
    if !acked && let Some(wait) = target_died(now_ms, spec, status, seen, &switch) {
        return wait;
    }
    if acked || (now_ms >= deadline && spec.switch.laggards == Laggards::Proceed) {
        if !acked {
            status.note(now_ms, "WithoutAcks", missing_acks(&seen.fleet));
        }
        switch.acked_at = Some(now_ms);
        switch.acked_epoch = Some(status.epoch());
        status.switch = Some(switch);
        status.enter(now_ms, Phase::Settling);
        return Wait::moved();
    }
    let named = switch.flipped_at.unwrap_or(now_ms).saturating_add(ACKS_MS);
    let message = missing_acks(&seen.fleet);
    if now_ms >= named { Wait::blocked("Laggards", message) } else { Wait::until(message, named) }
}

fn settling(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, mut switch: Switch) -> Wait {
    if let Some(wait) = target_died(now_ms, spec, status, seen, &switch) {
        return wait;
    }
    let acked_at = switch.acked_at.unwrap_or(switch.started_at);
    let overdue = now_ms >= acked_at.saturating_add(spec.settle.timeout.0);
    let proof = match settled(now_ms, spec, &switch, seen) {
        Ok(proof) => proof,
        Err(missing) if overdue && spec.settle.on_timeout == OnTimeout::Rollback && switch.may_roll_back() => {
            let why = format!("not settled within {}: {}", spec.settle.timeout, missing.message);
            roll_back(now_ms, spec, status, seen, &why);
            return Wait::moved();
        }
        Err(missing) if missing.blocks || overdue => return Wait::blocked(missing.reason, missing.message),
        Err(missing) if missing.what == What::Proof => {
            let named = status.phase_since.saturating_add(CONFIGURED_MS);
            let late = now_ms >= named;
            return if late {
                Wait::blocked(missing.reason, missing.message)
            } else {
                Wait::until(missing.message, named)
            };
        }
        Err(missing) => return Wait { wake_ms: missing.wake_ms, ..Wait::on(missing.message) },
    };
    let baked = acked_at.saturating_add(spec.settle.bake.0);
    if now_ms < baked && !switch.removal {
        return Wait::until(format!("{} has to serve alone for {}", switch.to, spec.settle.bake), baked);
    }
    let passed = (acked_at, spec.settle.quiet_period.0);
    if let Some(wait) = checks::missing(now_ms, spec, status, seen, &switch, passed) {
        if overdue && spec.settle.on_timeout == OnTimeout::Rollback && switch.may_roll_back() {
            let why = format!("not settled within {}: {}", spec.settle.timeout, wait.waiting);
            roll_back(now_ms, spec, status, seen, &why);
            return Wait::moved();
        }
        return wait;
    }
    if let Proof::Waived(what) = proof {
        status.note(now_ms, "WithoutProof", what);
    }
    if switch.removal {
        switch.removal_intent_at = Some(now_ms);
        status.enter(now_ms, Phase::Removing);
    } else {
        status.note(now_ms, "Settled", format!("{} is quiet", switch.from));
        switch.settled_at = Some(now_ms);
        let seen = seen.fleet.overlap.as_ref();
        let seen = seen.filter(|overlap| overlap.from == switch.from && overlap.to == switch.to);
        switch.overlap_ms = seen.map(|overlap| overlap.ms).or(switch.overlap_ms);
        let until = now_ms.saturating_add(spec.cleanup.retain_for.0);
        switch.retain_until = switch.retain_until.or(Some(until));
        status.enter(now_ms, Phase::Retaining);
    }
    status.switch = Some(switch);
    Wait::moved()
}
