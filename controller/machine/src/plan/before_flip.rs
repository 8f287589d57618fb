//! The phases before the flip: the new version is started, let in, and can be reached. Pure.

use super::settled::{ACKED_WITHIN, behind, missing_acks, names, not_reached};
use super::wait::{Wait, blocked};
use super::{Pass, fence, transitions, verdicts};
use crate::duration::Millis;
use crate::fleet::ledger::Laggard;
use crate::history::Happening;
use crate::observation::{Headroom, Keeper};
use crate::reason::{Problem, Reason};
use crate::spec::{self, Laggards, PromotionMode};
use crate::status::{Phase, Status, Switch};
use crate::time::UnixMs;

/// The new version is started beside the active one.
pub(super) fn coexisting(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    if let Some(problem) = held(pass, &switch) {
        return Wait::blocked(problem);
    }
    let Some(headroom_at) = switch.headroom_at else {
        return room(pass, status, switch);
    };
    let target = pass.seen.workload(&switch.to);
    let (timeout, min_ready) = (pass.spec.coexistence.ready_timeout, pass.spec.coexistence.min_ready);
    let deadline = headroom_at.plus(timeout);
    if target.ready
        && let Some(problem) = weak(pass, status, &switch)
    {
        // An autoscaler says how many there are: nothing here makes them more.
        let named = if target.autoscalers.is_empty() { deadline } else { pass.now };
        return Wait::named_from(pass.now, named, problem);
    }
    if let Some(since) = target.ready_since.filter(|_| target.ready) {
        let enough = since.plus(min_ready);
        if pass.now < enough && !goes_back_to(pass, &switch) {
            return Wait::until(format!("{} is ready and has to stay so for {min_ready}", switch.to), enough);
        }
    } else if !goes_back_to(pass, &switch) {
        if let Some((reason, why)) = target.failure(Reason::TargetExited) {
            return blocked(reason, format!("{} {why}", switch.to));
        }
        if pass.now >= deadline {
            let message = format!("{} has not become ready within {timeout}{}", switch.to, target.lacking());
            return blocked(Reason::TargetNotReady, message);
        }
        return Wait::until(format!("{} has to get ready within {timeout}{}", switch.to, target.lacking()), deadline);
    }
    switch.ready_at = Some(pass.now);
    status.switch = Some(switch);
    status.enter(pass.now, Phase::AwaitingPromotion);
    Wait::moved()
}

/// What is wrong outside, where it holds this switch. What goes back is held by nothing.
pub(super) fn held(pass: Pass<'_>, switch: &Switch) -> Option<Problem> {
    let problem = || pass.holding().cloned().or_else(|| changed_in_place(pass, switch));
    (!switch.rollback).then(problem).flatten()
}

/// Whether the version that serves is being replaced by whoever changed its workload: what is left of it is what
/// requests have, and a flip would end that sooner.
fn changed_in_place(pass: Pass<'_>, switch: &Switch) -> Option<Problem> {
    let left = pass.seen.workload(&switch.from);
    let object = left.relabelled.first().filter(|_| left.running)?;
    let (from, to) = (&switch.from, &switch.to);
    let message = format!(
        "{from} serves, and {object} now, so that its pods are replaced in place: undo that change, and give {to} a \
         workload of its own beside the one of {from}"
    );
    Some(Problem::new(Reason::ChangedInPlace, message).about([from.as_str(), object.as_str()]))
}

/// Whether a rollback goes on with what serves of its target: what requests go to now is not well, and less of the
/// one before is better than that.
pub(super) fn goes_back_to(pass: Pass<'_>, switch: &Switch) -> bool {
    switch.rollback && !pass.seen.workload(&switch.from).ready && pass.seen.workload(&switch.to).serves()
}

/// What the target lacks of the strength of the active version, whatever it is that scales both.
fn weak(pass: Pass<'_>, status: &Status, switch: &Switch) -> Option<Problem> {
    let like = status.strength_of_new(pass.spec.coexistence.replicas).filter(|_| !switch.rollback)?;
    let (target, active) = (pass.seen.workload(&switch.to), pass.seen.workload(like));
    let (service, has, needs) = active.strength.iter().find_map(|(service, needs)| {
        let has = target.strength.get(service).copied().unwrap_or_default();
        (has.asked < needs.asked).then_some((service, has.asked, needs.asked))
    })?;
    let keeps = match target.autoscalers.as_slice() {
        [] => String::new(),
        names => format!("; {} keeps it there: raise its lower bound to {needs}", names.join(", ")),
    };
    let message = format!("{} has {has} pods of {service}, and {like} has {needs}{keeps}", switch.to);
    Some(Problem::new(Reason::TargetWeak, message).about([switch.to.as_str(), service.as_str()]))
}

/// Why the target is no longer what it was when it was ready, if it is not.
pub(super) fn lost(pass: Pass<'_>, status: &Status, switch: &Switch) -> Option<String> {
    if goes_back_to(pass, switch) {
        return None;
    }
    let target = pass.seen.workload(&switch.to);
    if !target.ready {
        return Some(format!("{} is not ready any more{}", switch.to, target.lacking()));
    }
    // Since the very moment in which it had been ready for long enough, it has not been so for long enough.
    let anew = pass.spec.coexistence.min_ready > Millis(0) && !switch.rollback;
    let late = |(since, at): &(UnixMs, UnixMs)| since > at || (since == at && anew);
    if let Some((_, at)) = target.ready_since.zip(switch.ready_at).filter(late) {
        return Some(match pass.seen.leads_since > at {
            true => {
                format!("nobody has watched {} since this controller began: it shows again that it is ready", switch.to)
            }
            false => format!("{} was not ready in between", switch.to),
        });
    }
    weak(pass, status, switch).map(|problem| problem.message)
}

/// Whether the new version may be started.
fn room(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    // Without routes that hold them back, its pods would be sent requests as soon as they are ready.
    let routes = pass.seen.routes.as_ref();
    if let Some(problem) = routes.filter(|problem| problem.reason != Reason::RoutesWarming) {
        return Wait::problem(problem);
    }
    let asks = |headroom| pass.spec.coexistence.headroom == headroom;
    match &pass.seen.headroom {
        Headroom::Short { message } if asks(spec::Headroom::Require) => {
            let problem = Problem::new(Reason::HeadroomShort, message).about([switch.to.as_str()]);
            return Wait::blocked(problem);
        }
        Headroom::Unknown if asks(spec::Headroom::Require) => {
            return blocked(Reason::HeadroomUnknown, format!("it is not known whether {} fits", switch.to));
        }
        Headroom::Short { message } if asks(spec::Headroom::Warn) => {
            status.note(pass.now, Happening::HeadroomShort, message.clone());
        }
        _ => {}
    }
    switch.headroom_at = Some(pass.now);
    status.switch = Some(switch);
    Wait::moved()
}

/// The new version is ready and waits to be let in.
pub(super) fn awaiting_promotion(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    if let Some(why) = lost(pass, status, &switch) {
        transitions::wait_for_target(pass.now, status, switch, why);
        return Wait::moved();
    }
    if switch.promoted_at.is_none() && !switch.rollback {
        let promotion = &pass.spec.promotion;
        if promotion.mode == PromotionMode::Manual {
            let message = format!("{} is ready and waits to be promoted by hand", switch.to);
            return blocked(Reason::AwaitingPromotion, message);
        }
        let due = switch.ready_at.unwrap_or(pass.now).plus(promotion.after);
        if pass.now < due {
            return Wait::until(format!("{} is let in after {}", switch.to, promotion.after), due);
        }
    }
    if let Some(wait) = verdicts::missing(pass, status, &switch, UnixMs(0), Millis(0)) {
        return wait;
    }
    switch.promoted_at = switch.promoted_at.or(Some(pass.now));
    status.switch = Some(switch);
    status.enter(pass.now, Phase::ProvingRoutes);
    Wait::moved()
}

/// Proxies show that they have the record that names the new version, and that their routes resolve it.
pub(super) fn proving_routes(pass: Pass<'_>, status: &mut Status, switch: Switch) -> Wait {
    if let Some(problem) = held(pass, &switch) {
        return Wait::blocked(problem);
    }
    // What waits here for a fence need not any more.
    if pass.spec.switch.is_fenced() && goes_back_to(pass, &switch) {
        transitions::flip(pass, status, switch);
        return Wait::moved();
    }
    if let Some(why) = lost(pass, status, &switch) {
        transitions::wait_for_target(pass.now, status, switch, why);
        return Wait::moved();
    }
    let (fleet, fenced) = (&pass.seen.fleet, fence::applies(pass, &switch));
    let overdue = pass.now >= status.phase_since.plus(pass.spec.switch.ack_timeout);
    // Whoever does not ack holds nothing back.
    let without = overdue && pass.spec.switch.laggards == Laggards::Proceed && !fenced;
    let named = status.phase_since.plus(ACKED_WITHIN);
    if !fleet.all_acked() && !without {
        return Wait::named_from(pass.now, named, behind(Reason::Laggards, missing_acks(fleet), &fleet.laggards));
    }
    if let Some(problem) = &pass.seen.routes {
        return Wait::problem(problem);
    }
    if !fleet.route_laggards.is_empty() {
        let laggards = &fleet.route_laggards;
        let message = format!("routes do not resolve {} everywhere: {}", switch.to, names(laggards));
        return Wait::named_from(pass.now, named, behind(Reason::RoutesNotProven, message, laggards));
    }
    // Whoever is gone past without its ack is gone past without this, too; not who said that it does not reach it.
    let passed = |one: &Laggard| without && fleet.lags(&one.proxy);
    if fleet.reach_laggards.iter().any(|one| !passed(one)) {
        return Wait::named_from(pass.now, named, not_reached(fleet, &switch));
    }
    let target = pass.seen.workload(&switch.to);
    if pass.seen.keeper == Keeper::Platform && target.kept_at != Some(status.epoch()) {
        return Wait::on(format!("{} has to be marked to be kept", switch.to));
    }
    if fenced {
        return fence::begin(pass, status, switch);
    }
    if !fleet.all_acked() {
        status.note(pass.now, Happening::WithoutAcks, missing_acks(fleet));
    }
    transitions::flip(pass, status, switch);
    Wait::moved()
}
