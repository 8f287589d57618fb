//! The phases before the flip: the new version is started, let in, and can be reached. Pure.

use super::settled::{ACKED_WITHIN, behind, names};
use super::wait::{Wait, blocked};
use super::{Pass, transitions, verdicts};
use crate::duration::Millis;
use crate::history::Happening;
use crate::observation::Headroom;
use crate::reason::{Problem, Reason};
use crate::spec::{self, PromotionMode};
use crate::status::{Phase, Status, Switch};
use crate::time::UnixMs;

/// The new version is started beside the active one.
pub(super) fn coexisting(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    let Some(headroom_at) = switch.headroom_at else {
        return room(pass, status, switch);
    };
    let target = pass.seen.workload(&switch.to);
    let min_ready = pass.spec.coexistence.min_ready;
    if let Some(since) = target.ready_since.filter(|_| target.ready) {
        let enough = since.plus(min_ready);
        if pass.now < enough {
            return Wait::until(format!("{} is ready and has to stay so for {min_ready}", switch.to), enough);
        }
        switch.ready_at = Some(pass.now);
        status.switch = Some(switch);
        status.enter(pass.now, Phase::AwaitingPromotion);
        return Wait::moved();
    }
    let timeout = pass.spec.coexistence.ready_timeout;
    if let Some(how) = target.exited {
        return blocked(Reason::TargetExited, format!("{} does not stay up: {how}", switch.to));
    }
    let deadline = headroom_at.plus(timeout);
    if pass.now >= deadline {
        let message = format!("{} has not become ready within {timeout}", switch.to);
        return blocked(Reason::TargetNotReady, message);
    }
    Wait::until(format!("{} has to get ready", switch.to), deadline)
}

/// Whether the new version may be started.
fn room(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    // Without routes that hold them back, its pods would be sent requests as soon as they are ready.
    let routes = pass.seen.routes.as_ref();
    if let Some(problem) = routes.filter(|problem| problem.reason != Reason::RoutesWarming) {
        return Wait::problem(problem);
    }
    let starts = !pass.seen.workload(&switch.to).running;
    let asks = |headroom| starts && pass.spec.coexistence.headroom == headroom;
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
    if !pass.seen.workload(&switch.to).ready {
        transitions::wait_for_target(pass.now, status, switch);
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

/// Proxies show that their routes resolve the new version.
pub(super) fn proving_routes(pass: Pass<'_>, status: &mut Status, switch: Switch) -> Wait {
    if !pass.seen.workload(&switch.to).ready {
        transitions::wait_for_target(pass.now, status, switch);
        return Wait::moved();
    }
    if let Some(problem) = &pass.seen.routes {
        return Wait::problem(problem);
    }
    let laggards = &pass.seen.fleet.route_laggards;
    if !laggards.is_empty() {
        let message = format!("routes do not resolve {} everywhere: {}", switch.to, names(laggards));
        let named = status.phase_since.plus(ACKED_WITHIN);
        return Wait::named_from(pass.now, named, behind(Reason::RoutesNotProven, message, laggards));
    }
    transitions::flip(pass.now, status, switch);
    Wait::moved()
}
