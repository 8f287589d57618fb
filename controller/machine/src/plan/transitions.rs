//! What a switch becomes when it begins, is flipped, taken back or given up. Pure.

use super::{Pass, fence};
use crate::history::Happening;
use crate::observation::{Keeper, Strength, VersionState};
use crate::spec::CleanupPolicy;
use crate::status::{Override, Phase, Status, Switch};
use crate::time::UnixMs;

/// Begins a switch to `to`. What the switch before it would have removed is removed later.
pub(super) fn begin(pass: Pass<'_>, status: &mut Status, to: &str) {
    if let Some(old) = status.switch.as_ref().filter(|_| status.phase != Phase::Stable)
        && (old.removal || pass.spec.cleanup.policy != CleanupPolicy::Retain)
    {
        let proved = status.phase == Phase::Removing && pass.seen.workload(&old.from).stopped;
        let rest = if proved { &mut status.ending } else { &mut status.leftovers };
        rest.insert(old.from.clone());
    }
    fence::shut(pass, status);
    let removed = status.leftovers.remove(to) | status.ending.remove(to);
    status.halted.remove(to);
    let ours = removed || !pass.seen.workload(to).running;
    let rollback = status.r#override.as_ref().is_some_and(|held| held.version == to);
    let from = status.active_version.clone();
    status.note(pass.now, Happening::Started, format!("from {from} to {to}"));
    status.switch = Some(Switch { from, to: to.to_owned(), ours, rollback, started_at: pass.now, ..Switch::default() });
    status.target_version = Some(to.to_owned());
    status.enter(pass.now, Phase::Coexisting);
}

/// Ends a switch that was not flipped. What was started for it is removed again.
pub(super) fn give_up(now: UnixMs, status: &mut Status) {
    if let Some(switch) = status.switch.take() {
        if switch.ours {
            status.leftovers.insert(switch.to.clone());
        }
        let message = format!("{} stays, {} is not switched to", switch.from, switch.to);
        status.note(now, Happening::GivenUp, message);
    }
    status.target_version = None;
    status.enter(now, Phase::Stable);
}

/// Goes back to the version that was left: at once if something of it serves and requests may still be sent there,
/// otherwise, and where a stop of it may still come, it is started and marked like any other target.
pub(super) fn roll_back(pass: Pass<'_>, status: &mut Status, why: &str) {
    let Some(old) = status.switch.clone() else {
        return;
    };
    hold(pass, status, &old.from, why);
    let left = pass.seen.workload(&old.from);
    status.halted.remove(&old.from);
    let may_stop = old.may_stop && pass.seen.keeper == Keeper::Platform;
    if !left.serves() || status.phase == Phase::Removing || may_stop {
        begin(pass, status, &old.from);
        status.note(pass.now, Happening::RolledBack, format!("{} is started, to go back to it: {why}", old.from));
        return;
    }
    let at = Some(pass.now);
    let back = Switch {
        from: old.to.clone(),
        to: old.from.clone(),
        rollback: true,
        started_at: pass.now,
        headroom_at: at,
        ready_at: at,
        promoted_at: at,
        ..Switch::default()
    };
    let fenced = fence::applies(pass, &back);
    if fenced {
        fence::shut(pass, status);
        status.target_version = Some(back.to.clone());
        // What the switch before it would have removed is removed after all, if this one is given up.
        let ours = pass.spec.cleanup.policy != CleanupPolicy::Retain;
        status.switch = Some(Switch { ours, ..back });
        status.enter(pass.now, Phase::ProvingRoutes);
    } else {
        flip(pass, status, back);
    }
    let part = if left.ready { String::new() } else { format!(", which is {}", strength(&left)) };
    let when = if fenced { ", once nothing is open on the former" } else { "" };
    status.note(pass.now, Happening::RolledBack, format!("from {} to {}{part}{when}: {why}", old.to, old.from));
}

/// How strong a version is that is not at full strength, in words.
fn strength(version: &VersionState) -> String {
    let sum = |of: fn(&Strength) -> u32| version.strength.values().map(of).fold(0, u32::saturating_add);
    format!("at {} of {} pods", sum(|one| one.serving), sum(|one| one.asked))
}

/// Sends requests to the new version.
pub(super) fn flip(pass: Pass<'_>, status: &mut Status, switch: Switch) {
    let now = pass.now;
    status.active_version.clone_from(&switch.to);
    status.previous_version = Some(switch.from.clone());
    status.target_version = Some(switch.to.clone());
    status.note(now, Happening::Flipped, format!("from {} to {}", switch.from, switch.to));
    status.shut.remove(&switch.to);
    let workloads = pass.seen.workload(&switch.from).workloads;
    status.switch = Some(Switch { flipped_at: Some(now), workloads, ..switch });
    status.enter(now, Phase::Switching);
}

/// Waits for the target again, which is no longer ready.
pub(super) fn wait_for_target(now: UnixMs, status: &mut Status, switch: Switch, why: String) {
    let headroom_at = switch.headroom_at.map(|_| now);
    status.switch = Some(Switch { ready_at: None, headroom_at, ..switch });
    status.note(now, Happening::TargetLost, why);
    status.enter(now, Phase::Coexisting);
}

/// What was shown did not hold: all of it has to be shown again, and the old version stays for as long again.
pub(super) fn unsettle(now: UnixMs, status: &mut Status, switch: Switch, why: String) {
    let may_stop = switch.may_stop || status.phase == Phase::Removing;
    let anew =
        Switch { settled_at: None, retain_until: None, removal_intent_at: None, may_stop, waived: false, ..switch };
    status.switch = Some(anew);
    status.note(now, Happening::Unsettled, why);
    status.enter(now, Phase::Settling);
}

/// Holds a version against the spec until the spec asks for another one.
pub(super) fn hold(pass: Pass<'_>, status: &mut Status, version: &str, reason: &str) {
    status.r#override = Some(Override {
        version: version.to_owned(),
        for_spec_version: pass.spec.version.clone(),
        reason: reason.to_owned(),
        at: pass.now,
    });
}
