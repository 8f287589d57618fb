//! The phases after the flip: all proxies ack, the old version gets quiet, stays for a while, and goes. Pure.

use super::settled::{ACKED_WITHIN, Kind, Missing, behind, deletes, holds, listed, may_go, missing_acks, proved};
use super::wait::{Wait, blocked};
use super::{Pass, fence, transitions, verdicts};
use crate::duration::Millis;
use crate::history::Happening;
use crate::reason::{Problem, Reason};
use crate::spec::{CleanupPolicy, Laggards, OnTimeout, TargetFailureAction};
use crate::status::{Phase, Status, Switch};
use crate::time::UnixMs;

/// What is done about a new version that is not ready after the flip: it is said, and once it ended or has hung for as
/// long as the spec says, it is gone back if the spec says so. `None`: it is ready, or may still be waited for.
fn target_failed(pass: Pass<'_>, status: &mut Status, switch: &Switch) -> Option<Wait> {
    let (target, failure) = (pass.seen.workload(&switch.to), pass.spec.on_target_failure);
    let lost_at = (!target.ready).then(|| switch.target_lost_at.unwrap_or(pass.now));
    let noticed = lost_at != switch.target_lost_at;
    if noticed {
        status.switch = Some(Switch { target_lost_at: lost_at, ..switch.clone() });
    }
    let Some(lost_at) = lost_at else {
        return noticed.then(Wait::moved);
    };
    let (hung_at, lacking) = (lost_at.plus(failure.after), target.lacking());
    let (reason, why) = match target.failure(Reason::TargetExited) {
        Some(failure) => failure,
        None if pass.now < hung_at => {
            let message = format!("{} is active but not ready{lacking}", switch.to);
            let problem = Problem::new(Reason::TargetNotReady, message).about([switch.to.as_str()]);
            return Some(Wait { wake: Some(hung_at), ..Wait::blocked(problem) });
        }
        None => (Reason::TargetExited, format!("has not been ready for {}{lacking}", failure.after)),
    };
    // What was stopped on a whole proof is started again for this, too.
    let left = pass.seen.workload(&switch.from);
    let back = left.serves() || (status.phase == Phase::Removing && left.declared);
    if failure.action == TargetFailureAction::Rollback && back && switch.may_roll_back() {
        transitions::roll_back(pass, status, &format!("{} {why}, after the flip", switch.to));
        return Some(Wait::moved());
    }
    Some(blocked(reason, format!("{} is active but {why}", switch.to)))
}

/// The flag is flipped, not every proxy has acked.
pub(super) fn switching(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    let (now, fleet) = (pass.now, &pass.seen.fleet);
    if fence::take_back(pass, status, &switch) {
        return Wait::moved();
    }
    let acked = fleet.all_acked();
    if !acked && let Some(wait) = target_failed(pass, status, &switch) {
        return wait;
    }
    let flipped_at = switch.flipped_at.unwrap_or(now);
    let overdue = now >= flipped_at.plus(pass.spec.switch.ack_timeout);
    if acked || (overdue && pass.spec.switch.laggards == Laggards::Proceed) {
        if !acked {
            status.note(now, Happening::WithoutAcks, missing_acks(fleet));
        }
        switch.acked_at = Some(now);
        switch.acked_epoch = Some(status.epoch());
        status.switch = Some(switch);
        status.enter(now, Phase::Settling);
        return Wait::moved();
    }
    let problem = behind(Reason::Laggards, missing_acks(fleet), &fleet.laggards);
    Wait::named_from(now, flipped_at.plus(ACKED_WITHIN), problem)
}

/// All proxies acked, the old version gets quiet.
pub(super) fn settling(pass: Pass<'_>, status: &mut Status, switch: Switch) -> Wait {
    if let Some(wait) = target_failed(pass, status, &switch) {
        return wait;
    }
    let settle = &pass.spec.settle;
    let acked_at = switch.acked_at.unwrap_or(switch.started_at);
    // What was settled once and is so no more has as long again.
    let deadline = acked_at.max(status.phase_since).plus(settle.timeout);
    let overdue = pass.now >= deadline;
    let rolls_back = overdue && settle.on_timeout == OnTimeout::Rollback && switch.may_roll_back();
    let give_up = |status: &mut Status, missing: &str| {
        let why = format!("not settled within {}: {missing}", settle.timeout);
        transitions::roll_back(pass, status, &why);
        Wait::moved()
    };
    let waived = match proved(pass, &switch) {
        Ok(_) => None,
        Err(missing) if rolls_back && missing.may_roll_back() => return give_up(status, &missing.problem.message),
        // Only what the operator asked for in so many words goes past what is not proved.
        Err(missing) if overdue && missing.may_be_waived(pass.spec) => Some(missing.problem.message),
        Err(missing) => return missing.wait(pass.now, status.phase_since, overdue, deadline),
    };
    let baked = acked_at.plus(settle.bake);
    if pass.now < baked && !switch.removal {
        return Wait::until(format!("{} has to serve alone for {}", switch.to, settle.bake), baked);
    }
    if let Some(wait) = verdicts::missing(pass, status, &switch, acked_at, settle.quiet_period) {
        return if rolls_back { give_up(status, &wait.waiting) } else { wait };
    }
    settle_switch(pass, status, Switch { waived: waived.is_some(), ..switch });
    if let Some(what) = waived {
        status.note(pass.now, Happening::WithoutProof, what);
    }
    Wait::moved()
}

fn settle_switch(pass: Pass<'_>, status: &mut Status, mut switch: Switch) {
    switch.settled_at = Some(pass.now);
    if switch.removal {
        switch.removal_intent_at = Some(pass.now);
        status.enter(pass.now, Phase::Removing);
    } else {
        let how = if switch.waived { "may go, as settle.onTimeout asks" } else { "is quiet" };
        status.note(pass.now, Happening::Settled, format!("{} {how}", switch.from));
        let overlap = pass.seen.fleet.overlap.as_ref();
        let overlap = overlap.filter(|overlap| overlap.from == switch.from && overlap.to == switch.to);
        switch.overlap_ms = overlap.map(|overlap| overlap.ms).or(switch.overlap_ms);
        switch.retain_until = Some(pass.now.plus(pass.spec.cleanup.retain_for));
        status.enter(pass.now, Phase::Retaining);
    }
    status.switch = Some(switch);
}

/// The old version stays for a while, for a rollback. What was shown has to hold without a break all the while.
pub(super) fn retaining(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    let shown = holds(pass, &switch);
    if let Err(Missing { kind: Kind::Broken, problem, .. }) = shown {
        transitions::unsettle(pass.now, status, switch, problem.message);
        return Wait::moved();
    }
    if pass.spec.cleanup.policy == CleanupPolicy::Retain {
        status.note(pass.now, Happening::Retained, format!("{} stays", switch.from));
        status.target_version = None;
        status.enter(pass.now, Phase::Stable);
        return Wait::moved();
    }
    let until = switch.retain_until.unwrap_or(pass.now);
    if pass.now < until {
        let retain_for = pass.spec.cleanup.retain_for;
        return Wait::until(format!("{} stays for {retain_for} after it settled", switch.from), until);
    }
    if let Err(missing) = shown {
        return missing.wait(pass.now, until, false, until);
    }
    // A restart forgets the answers: they have to be there again.
    if let Some(wait) = verdicts::missing(pass, status, &switch, UnixMs(0), Millis(0)) {
        return wait;
    }
    switch.removal_intent_at = Some(pass.now);
    status.switch = Some(switch);
    status.enter(pass.now, Phase::Removing);
    Wait::moved()
}

/// What was stopped has to end.
pub(super) fn has_to_stop(pass: Pass<'_>, version: &str) -> Wait {
    let ending = pass.seen.workload(version).ending;
    let what = if ending.is_empty() { String::new() } else { format!(": {}", listed(ending)) };
    Wait::on(format!("{version} has to stop{what}"))
}

/// The old version is stopped, and deleted where the spec says so. Once it was told to stop, on the whole proof, it is
/// only waited for.
pub(super) fn removing(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    let (left, deletes) = (pass.seen.workload(&switch.from), deletes(pass.spec, &switch));
    let gone = !left.exists || !deletes;
    if gone && !left.running {
        let how = if deletes { "deleted" } else { "stopped" };
        status.note(pass.now, Happening::Removed, format!("{} is {how}", switch.from));
        switch.removed_at = Some(pass.now);
        status.switch = Some(switch);
        status.target_version = None;
        status.enter(pass.now, Phase::Stable);
        return Wait::moved();
    }
    if left.stopped {
        if let Some(wait) = target_failed(pass, status, &switch) {
            return wait;
        }
        if left.running {
            return has_to_stop(pass, &switch.from);
        }
    }
    match may_go(pass, &switch) {
        Ok(()) if left.running => Wait::on(format!("{} has to stop", switch.from)),
        Ok(()) => Wait::on(format!("{} has to be deleted", switch.from)),
        Err(missing) if missing.kind == Kind::Broken && !left.stopped => {
            transitions::unsettle(pass.now, status, switch, missing.problem.message);
            Wait::moved()
        }
        // The record without the old version is new, and has to be acked too: the more proxies, the longer.
        Err(missing) => missing.wait(pass.now, status.phase_since, false, status.phase_since),
    }
}
