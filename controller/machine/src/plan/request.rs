//! What people ask for by hand. Pure.

use super::advance::{begin, give_up, roll_back};
use crate::observation::{Action, Observation, Request};
use crate::spec::Spec;
use crate::status::{LastRequest, Override, Phase, Status};

/// Answers a request once. False: it has to wait for the pass after the removal under way.
pub(super) fn answer(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, request: &Request) -> bool {
    if request.action == Action::Rollback && status.phase == Phase::Removing {
        return false;
    }
    let outcome = act(now_ms, spec, status, seen, request.action);
    if outcome.is_ok() {
        status.note(now_ms, "Requested", format!("{} was asked for", request.action.name()));
    }
    status.last_request =
        Some(LastRequest { id: request.id.clone(), action: request.action, refused: outcome.err(), at: now_ms });
    true
}

fn act(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation, action: Action) -> Result<(), String> {
    let stopped = super::suspended(spec, status) && !matches!(action, Action::Suspend | Action::Resume);
    if stopped {
        return Err("the flag is suspended: resume it first".to_owned());
    }
    match action {
        Action::Promote => promote(now_ms, status),
        Action::Rollback => rollback(now_ms, spec, status, seen),
        Action::Abort => {
            if !status.phase.before_flip() {
                return Err(match status.phase {
                    Phase::Switching | Phase::Settling | Phase::Retaining => {
                        "the flag is flipped already: use rollback".to_owned()
                    }
                    _ => "no switch is under way".to_owned(),
                });
            }
            hold(now_ms, spec, status, &status.active_version.clone(), "aborted by request");
            give_up(now_ms, status);
            Ok(())
        }
        Action::Retry => retry(now_ms, status),
        Action::Suspend if status.suspended => Err("it is suspended already".to_owned()),
        Action::Suspend => {
            status.suspended = true;
            Ok(())
        }
        Action::Resume if status.suspended => {
            status.suspended = false;
            Ok(())
        }
        Action::Resume if spec.suspend => Err("spec.suspend is true: set it to false".to_owned()),
        Action::Resume => Err("it is not suspended".to_owned()),
    }
}

fn promote(now_ms: u64, status: &mut Status) -> Result<(), String> {
    let phase = status.phase;
    match &mut status.switch {
        Some(switch) if phase == Phase::AwaitingPromotion => {
            switch.promoted_at = Some(now_ms);
            Ok(())
        }
        Some(switch) if phase == Phase::Coexisting => Err(format!("{} is not ready yet", switch.to)),
        _ => Err(format!("nothing waits for a promotion: the phase is {}", phase.name())),
    }
}

fn rollback(now_ms: u64, spec: &Spec, status: &mut Status, seen: &Observation) -> Result<(), String> {
    if status.phase.before_flip() {
        return Err("nothing has been switched yet: use abort".to_owned());
    }
    let under_way = matches!(status.phase, Phase::Switching | Phase::Settling | Phase::Retaining);
    if under_way && status.switch.as_ref().is_some_and(|switch| !switch.removal) {
        roll_back(now_ms, spec, status, seen, "rolled back by request");
        return Ok(());
    }
    let Some(previous) = status.previous_version.clone().filter(|previous| *previous != status.active_version) else {
        return Err("there is no previous version to go back to".to_owned());
    };
    let workload = seen.workload(&previous);
    if !workload.declared && !workload.running {
        return Err(format!("the previous version, {previous}, can no longer be started: it is not declared"));
    }
    hold(now_ms, spec, status, &previous, "rolled back by request");
    begin(now_ms, spec, status, seen, &previous);
    Ok(())
}

fn retry(now_ms: u64, status: &mut Status) -> Result<(), String> {
    if status.r#override.take().is_some() {
        return Ok(());
    }
    match &mut status.switch {
        Some(switch) if status.phase == Phase::Coexisting => {
            switch.headroom_at = switch.headroom_at.map(|_| now_ms);
            Ok(())
        }
        _ => Err("there is nothing to try again: no version is held, and none is being started".to_owned()),
    }
}

/// Holds a version against the spec until the spec asks for another one.
pub(super) fn hold(now_ms: u64, spec: &Spec, status: &mut Status, version: &str, reason: &str) {
    status.r#override = Some(Override {
        version: version.to_owned(),
        for_spec_version: spec.version.clone(),
        reason: reason.to_owned(),
        at: now_ms,
    });
}
