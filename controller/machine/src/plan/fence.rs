//! The fence of a switch: when new requests are held, when they go to the new version, and when that is given up. Pure.
//!
//! A hold ends by itself in each proxy. So both of its decisions come well before that, by this controller's clock and
//! by nobody else's word, or it is given up, by which nothing is lost.

use flag::record::Gate;

use super::before_flip::{goes_back_to, held, lost};
use super::settled::{ACKED_WITHIN, behind, missing_acks, names};
use super::wait::Wait;
use super::{Pass, suspended, transitions, wanted};
use crate::duration::Millis;
use crate::fleet::fence::FleetFence;
use crate::fleet::ledger::Laggard;
use crate::history::Happening;
use crate::reason::{Problem, Reason, SENTENCE, shortened};
use crate::spec::{FenceSpec, InboundProxies};
use crate::status::{FenceStatus, Phase, Status, Switch};
use crate::time::UnixMs;

/// Between a hold that was given up and the next one: twice as long after each.
const FIRST_BACKOFF: Millis = Millis(1_000);
const LONGEST_BACKOFF: Millis = Millis(60_000);

/// Why nothing is held any more.
const LEAVING: &str = "this controller ends";

/// Whether requests are held for a switch. What is gone back to because the other one is not ready is not: requests
/// fail meanwhile, and a hold would only make more of them wait for that.
pub(super) fn applies(pass: Pass<'_>, switch: &Switch) -> bool {
    pass.spec.switch.is_fenced() && !switch.removal && !goes_back_to(pass, switch)
}

/// What a fence has left goes on refusing all when the switch is left in its turn, until every proxy has acked: see
/// [`Status::shut`].
pub(super) fn shut(pass: Pass<'_>, status: &mut Status) {
    let left = status.switch.as_ref().filter(|switch| switch.opened() && !pass.seen.fleet.all_acked());
    if let Some(switch) = left {
        status.shut.insert(switch.from.clone());
    }
}

/// Everything that a flip needs is there: requests are held, if that may be tried now.
pub(super) fn begin(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    if let Some(wait) = not_yet(pass, status, &switch) {
        return wait;
    }
    let (asked, known) = (&pass.spec.switch.fence, switch.fence.take().unwrap_or_default());
    let attempts = known.attempts.saturating_add(1);
    let message = format!(
        "new requests wait while {} drains, for {} at most: attempt {attempts} of {}",
        switch.from, asked.max_hold, asked.attempts
    );
    switch.fence = Some(FenceStatus {
        attempts,
        held_at: Some(pass.now),
        led_since: Some(pass.seen.leads_since),
        max_hold: asked.max_hold,
        aborted: known.aborted,
        ..FenceStatus::default()
    });
    status.switch = Some(switch);
    status.note(pass.now, Happening::Held, message);
    status.enter(pass.now, Phase::Holding);
    Wait::moved()
}

/// Why nothing can be held yet, if so.
fn not_yet(pass: Pass<'_>, status: &Status, switch: &Switch) -> Option<Wait> {
    let (seen, asked) = (pass.seen, &pass.spec.switch.fence);
    if seen.leaving {
        return Some(Wait::on(LEAVING));
    }
    let named = |reason, message, laggards: &[Laggard]| {
        let problem = behind(reason, message, laggards);
        Some(Wait::named_from(pass.now, status.phase_since.plus(ACKED_WITHIN), problem))
    };
    if let Some(fence) = &switch.fence {
        let why = fence.aborted.as_deref().unwrap_or_default();
        if fence.attempts >= asked.attempts {
            let message = format!(
                "requests were held {} of {} times in vain, the last time because {why}",
                fence.attempts, asked.attempts
            );
            return Some(Wait::blocked(Problem::new(Reason::FenceAborted, message).about([switch.from.as_str()])));
        }
        if let Some(at) = fence.retry_at.filter(|at| pass.now < *at) {
            return Some(Wait::until(format!("requests are held again later: {why}"), at));
        }
    }
    let drain = format!("{}, half of `switch.fence.maxHold`", FenceSpec::drain(asked.max_hold));
    let Some(fence) = &seen.fleet.fence else {
        return named(Reason::FenceUnable, "no proxy has shown yet that it can hold requests".to_owned(), &[]);
    };
    if !fence.unable.is_empty() {
        let message = format!("requests cannot be held everywhere: {}", names(&fence.unable));
        return named(Reason::FenceUnable, message, &fence.unable);
    }
    if asked.inbound == InboundProxies::Required
        && let Some(problem) = uncovered(pass, switch)
    {
        return Some(Wait::blocked(problem));
    }
    if !fence.long.is_empty() {
        let message = format!("{} would not drain within {drain}: {}", switch.from, names(&fence.long));
        return Some(Wait::blocked(behind(Reason::LongStreams, message, &fence.long)));
    }
    if !fence.unwatched.is_empty() {
        // Looking takes so long, and that is nobody's fault.
        let late = status.phase_since.plus(FenceSpec::drain(asked.max_hold)).plus(ACKED_WITHIN);
        let who = names(&fence.unwatched);
        let message = format!("it is seen first whether streams on {} end within {drain}: {who}", switch.from);
        let problem = behind(Reason::FenceUnable, message, &fence.unwatched);
        return Some(Wait::named_from(pass.now, late, problem));
    }
    let other = seen.other_fence.as_ref()?;
    let message = format!("{other} holds requests of the same callers: one after the other");
    let problem = Problem::new(Reason::FenceTurn, message).about([other.as_str()]);
    Some(Wait::named_from(pass.now, status.phase_since.plus(ACKED_WITHIN), problem))
}

/// What of both versions has no proxy beside it, or may have none.
fn uncovered(pass: Pass<'_>, switch: &Switch) -> Option<Problem> {
    let all = [&switch.from, &switch.to];
    let bare = all.into_iter().find_map(|version| match pass.seen.uncovered.get(version) {
        None => Some(format!("it is not known whether all of {version} has a proxy beside it")),
        Some(bare) if bare.is_empty() => None,
        Some(bare) => {
            let listed = super::settled::listed(bare.iter().cloned());
            Some(format!("{version} has workloads without a proxy beside them that reports: {listed}"))
        }
    })?;
    let message = format!("{bare}; `switch.fence.inbound: Required` asks for one");
    Some(Problem::new(Reason::NoInbound, message).about(all.map(String::as_str)))
}

/// New requests wait, and the old version drains.
pub(super) fn holding(pass: Pass<'_>, status: &mut Status, switch: Switch) -> Wait {
    let fence = switch.fence.clone().unwrap_or_default();
    if let Some(since) = fence.going_back_at {
        return going_back(pass, status, switch, &fence, since);
    }
    let until = fence.held_at.unwrap_or_default().plus(FenceSpec::drain(fence.max_hold));
    let why = in_the_way(pass, status, &switch, &fence).or_else(|| out_of_place(pass));
    if let Some(why) = why.or_else(|| over(pass, &switch.from, &fence, until)) {
        abort(pass, status, switch, why);
        return Wait::moved();
    }
    // The proof, in the very pass that decides.
    if !is_drained(pass) || !pass.seen.fleet.reach_laggards.is_empty() {
        return Wait::until(missing(pass, &switch.from), until);
    }
    commit(pass, status, switch);
    Wait::moved()
}

/// What waits goes to the new version next, once nothing can arrive at the old one any more.
pub(super) fn committing(pass: Pass<'_>, status: &mut Status, mut switch: Switch) -> Wait {
    let fence = switch.fence.clone().unwrap_or_default();
    let until = deadline(&fence, 3, 4);
    if let Some(why) = in_the_way(pass, status, &switch, &fence).or_else(|| over(pass, &switch.from, &fence, until)) {
        abort(pass, status, switch, why);
        return Wait::moved();
    }
    if !is_drained(pass) {
        return Wait::until(missing(pass, &switch.from), until);
    }
    let held_ms = fence.held_at.map(|at| pass.now.since(at).0);
    let most_waiting = fence.most_waiting.max(waiting(pass));
    switch.fence = Some(FenceStatus { opened_at: Some(pass.now), held_ms, most_waiting, ..fence });
    transitions::flip(pass, status, switch);
    Wait::moved()
}

/// Takes a fence that was opened back, if that took so long to be written that a hold may run out before all have heard
/// of it, and nobody has heard of it yet. Whether it did.
pub(super) fn take_back(pass: Pass<'_>, status: &mut Status, switch: &Switch) -> bool {
    let Some(fence) = switch.fence.clone().filter(|fence| fence.opened_at.is_some()) else { return false };
    // Another controller may have given it out.
    let unheard = fence.led_since == Some(pass.seen.leads_since) && pass.seen.given_out == Some(Gate::Hold);
    let in_time = fence.held_at.is_some_and(|at| pass.now >= at) && pass.now < deadline(&fence, 7, 8);
    if !unheard || in_time {
        return false;
    }
    let took = fence.opened_at.map_or(Millis(0), |at| pass.now.since(at));
    let fence = Some(FenceStatus { opened_at: None, ..fence });
    let why = format!("the last decision took {took} to be written, which is too long for what waits");
    abort(pass, status, Switch { flipped_at: None, fence, ..switch.clone() }, why);
    true
}

/// A part of the longest hold, from when it was decided: each proxy's began later, and ends later.
fn deadline(fence: &FenceStatus, part: u64, of: u64) -> UnixMs {
    fence.held_at.unwrap_or_default().plus(Millis(fence.max_hold.0.saturating_mul(part) / of))
}

/// Whether everybody has the record of now, holds, and has nothing open on the old version.
fn is_drained(pass: Pass<'_>) -> bool {
    let fleet = &pass.seen.fleet;
    fleet.all_acked() && fleet.fence.as_ref().is_some_and(|fence| fence.drained)
}

fn waiting(pass: Pass<'_>) -> u64 {
    pass.seen.fleet.fence.as_ref().map_or(0, |fence| fence.waiting)
}

/// Why a hold is given up at once, whatever time is left.
fn in_the_way(pass: Pass<'_>, status: &Status, switch: &Switch, fence: &FenceStatus) -> Option<String> {
    let asked = wanted(pass.spec, status);
    if suspended(pass.spec, status) {
        return Some("the flag is suspended".to_owned());
    }
    if asked != switch.to {
        return Some(format!("{asked} is asked for, and not {}", switch.to));
    }
    let fleet = &pass.seen.fleet;
    // Which of both clocks is right is nothing to rely on: it is the same controller, or it is not.
    let led = || fence.led_since != Some(pass.seen.leads_since);
    let leads = || led().then(|| "this controller began again, or another one leads by now".to_owned());
    let back =
        || fence.held_at.is_none_or(|at| pass.now < at).then(|| "the controller's clock was set back".to_owned());
    let shown = |laggards: fn(&FleetFence) -> &Vec<Laggard>| {
        fleet.fence.as_ref().map(laggards).filter(|laggards| !laggards.is_empty())
    };
    let ran_out = || shown(|fence| &fence.expired).map(|all| format!("a hold has run out: {}", names(all)));
    let routeless = || {
        let all = shown(|fence| &fence.routeless)?;
        Some(format!("what waits would not reach {}: {}", switch.to, names(all)))
    };
    let changed = || (!applies(pass, switch)).then(|| "it is not to be fenced any more".to_owned());
    let outside = || held(pass, switch).map(|problem| problem.message);
    let not_reached = || fleet.reach_broken.then(|| super::settled::not_reached(fleet, switch).message);
    let leaves = || pass.seen.leaving.then(|| LEAVING.to_owned());
    leads()
        .or_else(leaves)
        .or_else(back)
        .or_else(ran_out)
        .or_else(routeless)
        .or_else(changed)
        .or_else(outside)
        .or_else(not_reached)
        .or_else(|| lost(pass, status, switch))
}

/// What is wrong with the routes, while they are still to lead to the old version by default.
fn out_of_place(pass: Pass<'_>) -> Option<String> {
    pass.seen.routes.as_ref().map(|problem| problem.message.clone())
}

fn over(pass: Pass<'_>, from: &str, fence: &FenceStatus, until: UnixMs) -> Option<String> {
    let so_far = fence.held_at.map_or(Millis(0), |at| pass.now.since(at));
    (pass.now >= until).then(|| format!("after {so_far}: {}", missing(pass, from)))
}

/// What a hold waits for, in words.
fn missing(pass: Pass<'_>, from: &str) -> String {
    let fleet = &pass.seen.fleet;
    if !fleet.all_acked() {
        return missing_acks(fleet);
    }
    let none = FleetFence::default();
    let fence = fleet.fence.as_ref().unwrap_or(&none);
    let parts = [
        ("requests are not held at", &fence.not_holding),
        ("the fence is not shown by", &fence.unable),
        ("requests are open on it at", &fence.open),
        ("the new version is not reached by", &fleet.reach_laggards),
    ];
    let said = parts.iter().find(|(_, laggards)| !laggards.is_empty());
    said.map_or_else(
        || format!("{from} has to be seen without a request everywhere at one moment"),
        |(what, laggards)| format!("{from} has to drain: {what} {}", names(laggards)),
    )
}

fn commit(pass: Pass<'_>, status: &mut Status, mut switch: Switch) {
    let waiting = waiting(pass);
    let fence = switch.fence.get_or_insert_default();
    fence.committed_at = Some(pass.now);
    fence.most_waiting = fence.most_waiting.max(waiting);
    switch.workloads = pass.seen.workload(&switch.from).workloads;
    status.active_version.clone_from(&switch.to);
    let message = format!("nothing is open on {}: {waiting} requests wait for {}", switch.from, switch.to);
    status.switch = Some(switch);
    status.note(pass.now, Happening::Committed, message);
    status.enter(pass.now, Phase::Committing);
}

/// Gives a hold up. Where it was committed, what is beside the old version refuses all: it takes requests again before
/// any is let go to it.
pub(super) fn abort(pass: Pass<'_>, status: &mut Status, mut switch: Switch, why: String) {
    let waiting = waiting(pass);
    let fence = switch.fence.get_or_insert_default();
    let doublings = fence.attempts.saturating_sub(1).min(16);
    let backoff = Millis((FIRST_BACKOFF.0 << doublings).min(LONGEST_BACKOFF.0));
    fence.most_waiting = fence.most_waiting.max(waiting);
    fence.retry_at = Some(pass.now.plus(backoff));
    fence.aborted = Some(shortened(why.clone(), SENTENCE));
    status.note(pass.now, Happening::Aborted, format!("{} goes on serving: {why}", switch.from));
    if fence.committed_at.take().is_none() {
        let_go(pass.now, status, switch);
        return;
    }
    fence.going_back_at = Some(pass.now);
    status.active_version.clone_from(&switch.from);
    switch.workloads.clear();
    status.switch = Some(switch);
    status.enter(pass.now, Phase::Holding);
}

/// Waits until the old version takes requests again. No longer than requests are held at all.
fn going_back(pass: Pass<'_>, status: &mut Status, switch: Switch, fence: &FenceStatus, since: UnixMs) -> Wait {
    let until = since.plus(fence.max_hold).min(deadline(fence, 1, 1));
    if pass.now < since || pass.now >= until || pass.seen.fleet.all_acked() {
        let_go(pass.now, status, switch);
        return Wait::moved();
    }
    Wait::until(format!("{} has to take requests again: {}", switch.from, missing_acks(&pass.seen.fleet)), until)
}

fn let_go(now: UnixMs, status: &mut Status, mut switch: Switch) {
    if let Some(fence) = &mut switch.fence {
        // No proxy holds for longer, however late it is noticed.
        fence.held_ms = fence.held_at.take().map(|at| now.since(at).min(fence.max_hold).0);
        (fence.since, fence.going_back_at, fence.led_since) = (0, None, None);
    }
    status.switch = Some(switch);
    status.enter(now, Phase::ProvingRoutes);
}

/// Gives up the hold under way because of what is asked for, whichever phase it is in. False: there is none.
pub(super) fn interrupt(pass: Pass<'_>, status: &mut Status, why: &str) -> bool {
    let Some(switch) = status.switch.clone().filter(|_| status.phase.holds()) else { return false };
    if switch.fence.as_ref().is_none_or(|fence| fence.going_back_at.is_none()) {
        abort(pass, status, switch, why.to_owned());
    }
    true
}

/// Tries again, now, as often as the spec says. False: nothing was given up.
pub(super) fn try_again(status: &mut Status) -> bool {
    if !status.was_held_in_vain() {
        return false;
    }
    let Some(fence) = status.switch.as_mut().and_then(|switch| switch.fence.as_mut()) else { return false };
    (fence.attempts, fence.retry_at) = (0, None);
    true
}
