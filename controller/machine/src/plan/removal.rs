//! How the old version stays for a while, and goes. Pure.

use super::advance::{ACKS_MS, target_died};
use super::settle::{What, deletes, settled};
use super::{Wait, checks};
use crate::observation::Observation;
use crate::spec::{CleanupPolicy, Spec};
use crate::status::{Phase, Status, Switch};

pub(super) fn retaining(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, mut switch: Switch) -> Wait {
    if let Some(wait) = target_died(now_ms, spec, status, seen, &switch) {
        return wait;
    }
    if spec.cleanup.policy == CleanupPolicy::Retain {
        status.note(now_ms, "Retained", format!("{} stays", switch.from));
        status.target_version = None;
        status.enter(now_ms, Phase::Stable);
        return Wait::moved();
    }
    let until = switch.retain_until.unwrap_or(now_ms);
    if now_ms < until {
        return Wait::until(format!("{} stays for {} after it settled", switch.from, spec.cleanup.retain_for), until);
    }
    if settled(now_ms, spec, &switch, seen).is_err() {
        return unsettle(now_ms, status, switch);
    }
    // A restart forgets the answers: they have to be there again.
    if let Some(wait) = checks::missing(now_ms, spec, status, seen, &switch, (0, 0)) {
        return wait;
    }
    switch.removal_intent_at = Some(now_ms);
    status.switch = Some(switch);
    status.enter(now_ms, Phase::Removing);
    Wait::moved()
}

/// What was proved no longer holds: it has to be proved again.
fn unsettle(now_ms: u64, status: &mut Status, switch: Switch) -> Wait {
    status.switch = Some(Switch { settled_at: None, removal_intent_at: None, ..switch });
    status.enter(now_ms, Phase::Settling);
    Wait::moved()
}

pub(super) fn removing(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, mut switch: Switch) -> Wait {
    let (left, deletes) = (seen.workload(&switch.from), deletes(spec, &switch));
    let gone = !left.exists || !deletes;
    if gone && !left.running {
        let how = if deletes { "deleted" } else { "stopped" };
        status.note(now_ms, "Removed", format!("{} is {how}", switch.from));
        switch.removed_at = Some(now_ms);
        status.switch = Some(switch);
        status.target_version = None;
        status.enter(now_ms, Phase::Stable);
        return Wait::moved();
    }
    match settled(now_ms, spec, &switch, seen) {
        Ok(_) if left.running => Wait::on(format!("{} has to stop", switch.from)),
        Ok(_) => Wait::on(format!("{} has to be deleted", switch.from)),
        // The record without the old version is new, and has to be acked too. That is a matter of
        // milliseconds; whatever takes longer is for Settling, where a rollback is possible.
        Err(missing) => {
            let until = status.phase_since.saturating_add(ACKS_MS);
            if missing.what == What::Target || now_ms >= until {
                return unsettle(now_ms, status, switch);
            }
            Wait::until(missing.message, until)
        }
    }
}
