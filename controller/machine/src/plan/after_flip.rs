//! The phases after the flip: all proxies ack, the old version gets quiet, stays for a while, and goes. Pure.

use super::settled::{ACKED_WITHIN, Kind, Proof, all_acked, behind, deletes, missing_acks, settled};
use super::wait::{Wait, blocked};
use super::{Pass, transitions, verdicts};
use crate::duration::Millis;
use crate::history::Happening;
use crate::reason::Reason;
use crate::spec::{CleanupPolicy, Laggards, OnTargetFailure, OnTimeout};
use crate::status::{Phase, Status, Switch};
use crate::time::UnixMs;

/// More than it takes to bring a configuration to every proxy, unless something is in its way.
const CONFIGURED_WITHIN: Millis = Millis(5_000);

/// Rolls back by itself when the new version died and the spec says so.
fn target_died(pass: Pass<'_>, status: &mut Status, switch: &Switch) -> Option<Wait> {
    let target = pass.seen.workload(&switch.to);
    let how = target.exited.filter(|_| !target.ready)?;
    let back = pass.seen.workload(&switch.from).ready && switch.may_roll_back();
    if pass.spec.on_target_failure == OnTargetFailure::Rollback && back {
        transitions::roll_back(pass, status, &format!("{} died after the flip: {how}", switch.to));
        return Some(Wait::moved());
    }
    let message = format!("{} is active but does not stay up: {how}", switch.to);
    Some(blocked(Reason::TargetExited, message))
}

/// The flag is flipped, not every proxy has acked.
pub(super) fn switching(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    let (now, fleet) = (pass.now, &pass.seen.fleet);
    let acked = all_acked(fleet);
    if !acked && let Some(wait) = target_died(pass, status, &switch) {
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
    if let Some(wait) = target_died(pass, status, &switch) {
        return wait;
    }
    let settle = &pass.spec.settle;
    let acked_at = switch.acked_at.unwrap_or(switch.started_at);
    let overdue = pass.now >= acked_at.plus(settle.timeout);
    let rolls_back = overdue && settle.on_timeout == OnTimeout::Rollback && switch.may_roll_back();
    let give_up = |status: &mut Status, missing: &str| {
        let why = format!("not settled within {}: {missing}", settle.timeout);
        transitions::roll_back(pass, status, &why);
        Wait::moved()
    };
    let proof = match settled(pass, &switch) {
        Ok(proof) => proof,
        Err(missing) if rolls_back => return give_up(status, &missing.problem.message),
        Err(missing) if missing.blocks || overdue => return Wait::blocked(missing.problem),
        Err(missing) if missing.kind == Kind::Proof => {
            return Wait::named_from(pass.now, status.phase_since.plus(CONFIGURED_WITHIN), missing.problem);
        }
        Err(missing) => return Wait { wake: missing.wake, ..Wait::on(missing.problem.message) },
    };
    let baked = acked_at.plus(settle.bake);
    if pass.now < baked && !switch.removal {
        return Wait::until(format!("{} has to serve alone for {}", switch.to, settle.bake), baked);
    }
    if let Some(wait) = verdicts::missing(pass, status, &switch, acked_at, settle.quiet_period) {
        return if rolls_back { give_up(status, &wait.waiting) } else { wait };
    }
    if let Proof::Waived(what) = proof {
        status.note(pass.now, Happening::WithoutProof, what);
    }
    settle_switch(pass, status, switch);
    Wait::moved()
}

fn settle_switch(pass: Pass<'_>, status: &mut Status, mut switch: Switch) {
    if switch.removal {
        switch.removal_intent_at = Some(pass.now);
        status.enter(pass.now, Phase::Removing);
    } else {
        status.note(pass.now, Happening::Settled, format!("{} is quiet", switch.from));
        switch.settled_at = Some(pass.now);
        let overlap = pass.seen.fleet.overlap.as_ref();
        let overlap = overlap.filter(|overlap| overlap.from == switch.from && overlap.to == switch.to);
        switch.overlap_ms = overlap.map(|overlap| overlap.ms).or(switch.overlap_ms);
        let until = pass.now.plus(pass.spec.cleanup.retain_for);
        switch.retain_until = switch.retain_until.or(Some(until));
        status.enter(pass.now, Phase::Retaining);
    }
    status.switch = Some(switch);
}

/// The old version stays for a while, for a rollback.
pub(super) fn retaining(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    if let Some(wait) = target_died(pass, status, &switch) {
        return wait;
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
    if settled(pass, &switch).is_err() {
        transitions::unsettle(pass.now, status, switch);
        return Wait::moved();
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

/// The old version is stopped, and deleted where the spec says so.
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
    match settled(pass, &switch) {
        Ok(_) if left.running => Wait::on(format!("{} has to stop", switch.from)),
        Ok(_) => Wait::on(format!("{} has to be deleted", switch.from)),
        // The record without the old version is new, and has to be acked too. That is a matter of
        // milliseconds; whatever takes longer is for Settling, where a rollback is possible.
        Err(missing) => {
            let until = status.phase_since.plus(ACKED_WITHIN);
            if missing.kind == Kind::Target || pass.now >= until {
                transitions::unsettle(pass.now, status, switch);
                return Wait::moved();
            }
            Wait::until(missing.problem.message, until)
        }
    }
}
