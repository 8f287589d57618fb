//! Whether what people ask for by hand is granted. Pure.

use super::Pass;
use super::fence::{interrupt, try_again};
use super::transitions::{begin, give_up, hold, roll_back};
use crate::action::{Action, Request};
use crate::history::Happening;
use crate::status::{LastRequest, Phase, Status};
use crate::time::UnixMs;

/// Answers a request, once.
pub(super) fn answer(pass: Pass<'_>, status: &mut Status, request: &Request) {
    let outcome = is_current(status, request).and_then(|()| act(pass, status, request.action));
    if outcome.is_ok() {
        status.note(pass.now, Happening::Requested, format!("{} was asked for", request.action.name()));
    }
    let (id, refused) = (request.id.clone(), outcome.err());
    status.answer(LastRequest { id, action: request.action, refused, at: pass.now });
}

/// A request is about the switch that was seen by who asks: two people who ask at once do not undo one another.
fn is_current(status: &Status, request: &Request) -> Result<(), String> {
    let about = request.switch.filter(|_| !matches!(request.action, Action::Suspend | Action::Resume));
    let begun = status.switch.as_ref().map(|switch| switch.started_at);
    match about {
        Some(about) if Some(about) != begun => {
            let now = status
                .switch
                .as_ref()
                .map_or("none is under way".to_owned(), |one| format!("it is from {} to {} now", one.from, one.to));
            Err(format!("it was asked about another switch: {now}; look again"))
        }
        _ => Ok(()),
    }
}

fn act(pass: Pass<'_>, status: &mut Status, action: Action) -> Result<(), String> {
    let goes = matches!(action, Action::Suspend | Action::Resume | Action::Rollback);
    let stopped = super::suspended(pass.spec, status) && !goes;
    if stopped {
        return Err("the flag is suspended: resume it first".to_owned());
    }
    match action {
        Action::Promote => promote(pass.now, status),
        Action::Rollback => rollback(pass, status),
        Action::Abort if status.phase.holds() => {
            let_go(pass, status, "aborted by request");
            Ok(())
        }
        Action::Abort => {
            if !status.phase.before_flip() {
                return Err(match status.phase {
                    // What was given up before is stopped now.
                    _ if status.switch.as_ref().is_some_and(|switch| switch.removal) => {
                        "no switch is under way".to_owned()
                    }
                    Phase::Switching | Phase::Settling | Phase::Retaining | Phase::Removing => {
                        "the flag is flipped already: use rollback".to_owned()
                    }
                    _ => "no switch is under way".to_owned(),
                });
            }
            stay(pass, status, &status.active_version.clone(), "aborted by request");
            give_up(pass.now, status);
            Ok(())
        }
        Action::Retry => retry(pass, status),
        Action::Suspend if status.suspended => Err("it is suspended already".to_owned()),
        Action::Suspend => {
            status.suspended = true;
            Ok(())
        }
        Action::Resume if status.suspended => {
            status.suspended = false;
            Ok(())
        }
        Action::Resume if pass.spec.suspend => Err("spec.suspend is true: set it to false".to_owned()),
        Action::Resume => Err("it is not suspended".to_owned()),
    }
}

/// Stays at a version, whatever the spec asks for. Where it asks for that one, nothing has to be held against it.
fn stay(pass: Pass<'_>, status: &mut Status, version: &str, why: &str) {
    if version == pass.spec.version {
        status.r#override = None;
    } else {
        hold(pass, status, version, why);
    }
}

/// Gives up a hold. The switch itself is given up once requests go on.
fn let_go(pass: Pass<'_>, status: &mut Status, why: &str) {
    if let Some(from) = status.switch.as_ref().map(|switch| switch.from.clone()) {
        stay(pass, status, &from, why);
    }
    interrupt(pass, status, why);
}

fn promote(now: UnixMs, status: &mut Status) -> Result<(), String> {
    let phase = status.phase;
    if try_again(status) {
        return Ok(());
    }
    match &mut status.switch {
        Some(switch) if phase == Phase::AwaitingPromotion => {
            switch.promoted_at = Some(now);
            Ok(())
        }
        Some(switch) if phase == Phase::Coexisting => Err(format!("{} is not ready yet", switch.to)),
        _ => Err(format!("nothing waits for a promotion: the phase is {}", phase.name())),
    }
}

fn rollback(pass: Pass<'_>, status: &mut Status) -> Result<(), String> {
    let rests = status.switch.as_ref().is_none_or(|switch| switch.rollback || status.phase == Phase::Stable);
    if let Some(held) = status.r#override.as_ref().filter(|_| rests) {
        let (held, against, why) = (&held.version, &held.for_spec_version, &held.reason);
        return Err(format!("{held} is held against {against} already ({why}): `retry` goes forward again"));
    }
    if status.phase.holds() {
        let_go(pass, status, "rolled back by request");
        return Ok(());
    }
    if status.phase.before_flip() {
        return Err("nothing has been switched yet: use abort".to_owned());
    }
    let under_way = matches!(status.phase, Phase::Switching | Phase::Settling | Phase::Retaining | Phase::Removing);
    if let Some(switch) = status.switch.as_ref().filter(|switch| under_way && !switch.removal) {
        can_be_started(pass, &switch.from)?;
        roll_back(pass, status, "rolled back by request");
        return Ok(());
    }
    let Some(previous) = status.previous_version.clone().filter(|previous| *previous != status.active_version) else {
        return Err("there is no previous version to go back to".to_owned());
    };
    can_be_started(pass, &previous)?;
    let (why, left) = ("rolled back by request", status.active_version.clone());
    hold(pass, status, &previous, why);
    begin(pass, status, &previous);
    status.note(pass.now, Happening::RolledBack, format!("from {left} to {previous}, once that is ready: {why}"));
    Ok(())
}

fn can_be_started(pass: Pass<'_>, version: &str) -> Result<(), String> {
    let why = || format!("the previous version, {version}, can no longer be started: it is not declared");
    if pass.seen.workload(version).can_run() { Ok(()) } else { Err(why()) }
}

/// Who waits for its next start is started at once by whoever starts it.
fn retry(pass: Pass<'_>, status: &mut Status) -> Result<(), String> {
    let (now, waits) = (pass.now, pass.seen.versions.values().any(|one| one.next_start.is_some()));
    if try_again(status) || status.r#override.take().is_some() {
        return Ok(());
    }
    match &mut status.switch {
        Some(switch) if status.phase == Phase::Coexisting => {
            switch.headroom_at = switch.headroom_at.map(|_| now);
            Ok(())
        }
        _ if waits => Ok(()),
        _ => Err("there is nothing to try again: no version is held, and none is being started".to_owned()),
    }
}
