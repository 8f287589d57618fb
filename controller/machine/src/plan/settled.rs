//! Whether the old version may be removed: the proof, in the order in which it is asked for. Pure.

use std::collections::BTreeSet;

use super::Pass;
use super::wait::Wait;
use crate::duration::Millis;
use crate::fleet::ledger::{Fleet, Laggard, Quiet, busy};
use crate::fleet::unmanaged::UnmanagedCaller;
use crate::reason::{Problem, Reason};
use crate::spec::{CleanupPolicy, Laggards, OnTimeout, Spec};
use crate::status::Switch;
use crate::time::UnixMs;

/// More than any healthy proxy takes to ack a record, and to report twice after it.
pub(super) const ACKED_WITHIN: Millis = Millis(2_000);
/// More than it takes to bring a configuration to every proxy, unless something is in its way.
const CONFIGURED_WITHIN: Millis = Millis(5_000);

/// Whether what a switch has left is deleted. What was given up, overtaken or rolled back is only
/// stopped: it may be asked for again.
pub(super) fn deletes(spec: &Spec, switch: &Switch) -> bool {
    spec.cleanup.policy == CleanupPolicy::Delete && switch.may_roll_back()
}

/// The first three, and how many more there are.
pub(super) fn listed(all: impl IntoIterator<Item = String, IntoIter: ExactSizeIterator>) -> String {
    let all = all.into_iter();
    let more = all.len().saturating_sub(3);
    let shown = all.take(3).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Laggards in words.
pub(super) fn names(laggards: &[Laggard]) -> String {
    listed(laggards.iter().map(|one| format!("{} ({})", one.proxy, one.why)))
}

/// Who goes past the flag, in words.
fn past_the_flag(old: &str, callers: &[UnmanagedCaller]) -> String {
    let listed = |names: BTreeSet<&str>| listed(names.into_iter().map(str::to_owned));
    let per_second = callers.iter().fold(0_u64, |sum, one| sum.saturating_add(one.per_second));
    let often = if per_second == 0 { String::new() } else { format!(" ({per_second} a second)") };
    let at = listed(callers.iter().map(|one| one.at.as_str()).collect());
    let from = listed(callers.iter().map(|one| one.from.as_str()).filter(|from| !from.is_empty()).collect());
    let from = if from.is_empty() { String::new() } else { format!(" from {from}") };
    format!(
        "requests{often} still reach {old} at {at}{from} that no filter sent there: such callers have no sidecar, or no \
         plugin, and {old} stays as long as they come"
    )
}

/// The problem that proxies are behind, about these proxies.
pub(super) fn behind(reason: Reason, message: String, laggards: &[Laggard]) -> Problem {
    Problem::new(reason, message).about(laggards.iter().map(|one| one.proxy.as_str()))
}

/// The problem that proxies do not reach the version that is gone to.
pub(super) fn not_reached(fleet: &Fleet, switch: &Switch) -> Problem {
    let message = format!("{} is not reached everywhere: {}", switch.to, names(&fleet.reach_laggards));
    behind(Reason::NotReached, message, &fleet.reach_laggards)
}

/// Proxies that have not acked, in words.
pub(super) fn missing_acks(fleet: &Fleet) -> String {
    if fleet.expected == 0 {
        return "no proxy is expected to ack, so nothing can be proved".to_owned();
    }
    format!("{} of {} proxies acked; missing: {}", fleet.acked, fleet.expected, names(&fleet.laggards))
}

/// Since when everything has held on which the removal of `switch.from` rests, if it has for the quiet period. The
/// error names what is missing.
pub(super) fn proved(pass: Pass<'_>, switch: &Switch) -> Result<UnixMs, Missing> {
    // Only the first thing that is missing is told of, and gone past where the operator asks for that. So what nothing
    // goes past comes before what is unknown, and that before what is seen.
    let steady = steady(pass, switch)?;
    told(pass)?;
    let quiet = quiet(pass, switch);
    if matches!(pass.seen.fleet.old, Quiet::Unknown) {
        return quiet;
    }
    drained(pass)?;
    nothing_strays(pass, switch)?;
    let quiet = quiet?;
    let quiet_period = pass.spec.settle.quiet_period;
    let enough = quiet.plus(quiet_period);
    if pass.now < enough {
        let what = format!("{} has to be quiet for {quiet_period}", switch.from);
        return Err(Missing { wake: Some(enough), ..Missing::new(Kind::Silence, Reason::NotQuiet, what) });
    }
    Ok(quiet.max(steady))
}

/// Since when the new version has been ready and reached, if it has for the quiet period, and nothing outside holds the
/// removal. Whoever has not acked has not reached it either, and is waited for with the acks.
fn steady(pass: Pass<'_>, switch: &Switch) -> Result<UnixMs, Missing> {
    let (target, fleet) = (pass.seen.workload(&switch.to), &pass.seen.fleet);
    if !target.ready {
        let message = format!("{} is active but not ready", switch.to);
        return Err(Missing::new(Kind::Broken, Reason::TargetNotReady, message).blocks());
    }
    if let Some(problem) = pass.holding() {
        return Err(Missing::of(Kind::Held, problem.clone()).blocks());
    }
    if fleet.reach_broken {
        return Err(Missing::of(Kind::Broken, not_reached(fleet, switch)).blocks());
    }
    if fleet.reach_laggards.iter().any(|one| !fleet.lags(&one.proxy)) {
        return Err(Missing::of(Kind::Held, not_reached(fleet, switch)));
    }
    let since = target.ready_since.unwrap_or(pass.now).max(UnixMs(fleet.reached_since));
    let quiet_period = pass.spec.settle.quiet_period;
    let enough = since.plus(quiet_period);
    if pass.now < enough {
        let what = format!("{} has to be ready and reached without a break for {quiet_period}", switch.to);
        return Err(Missing { wake: Some(enough), ..Missing::new(Kind::Unsteady, Reason::NotQuiet, what) });
    }
    Ok(since)
}

/// Whether `switch.from` may go now. Once it was told to stop, on the whole proof, a break takes nothing back: it is
/// enough that the proof holds anew.
pub(super) fn may_go(pass: Pass<'_>, switch: &Switch) -> Result<(), Missing> {
    if pass.seen.workload(&switch.from).stopped { proved(pass, switch).map(drop) } else { holds(pass, switch) }
}

/// Whether what was proved when the switch settled still is, and has been ever since.
pub(super) fn holds(pass: Pass<'_>, switch: &Switch) -> Result<(), Missing> {
    let settled_at = switch.settled_at.unwrap_or(pass.now);
    // Whatever has held since then had held for a quiet period when it settled.
    let broke = |since: UnixMs| since.plus(pass.spec.settle.quiet_period) > settled_at;
    let broken = |what: String| Missing::new(Kind::Broken, Reason::NotQuiet, what).blocks();
    if let Some(since) = pass.seen.workload(&switch.to).ready_since.filter(|since| broke(*since)) {
        let ago = pass.now.since(since);
        return Err(broken(format!("{} is known to be ready without a break for the last {ago} only", switch.to)));
    }
    let reached = UnixMs(pass.seen.fleet.reached_since);
    if broke(reached) {
        let ago = pass.now.since(reached);
        return Err(broken(format!("{} is known to be reached without a break for the last {ago} only", switch.to)));
    }
    match proved(pass, switch) {
        // What the operator went past, he still does.
        Err(missing) if switch.waived && missing.may_be_waived(pass.spec) => Ok(()),
        Err(missing) if matches!(missing.kind, Kind::Silence | Kind::Unsteady) => {
            Err(Missing { kind: Kind::Broken, ..missing })
        }
        Err(missing) => Err(missing),
        Ok(since) if broke(since) && !switch.waived => {
            let ago = pass.now.since(since);
            Err(broken(format!("{} is known to be unused for the last {ago} only", switch.from)))
        }
        Ok(_) => Ok(()),
    }
}

/// Whether every proxy has said that the record, its configuration and its routes are current.
fn told(pass: Pass<'_>) -> Result<(), Missing> {
    let fleet = &pass.seen.fleet;
    if !fleet.all_acked() {
        return Err(Missing::of(Kind::Unknown, behind(Reason::Laggards, missing_acks(fleet), &fleet.laggards)));
    }
    if !fleet.config_laggards.is_empty() {
        let message = format!("configuration is not current at {}", names(&fleet.config_laggards));
        return Err(Missing::of(Kind::Unknown, behind(Reason::ConfigLaggards, message, &fleet.config_laggards)));
    }
    if let Some(problem) = &pass.seen.routes {
        let blocks = !problem.reason.passes();
        // Whoever goes past what is unknown does not mean to act on what others share.
        let kind = if problem.reason == Reason::OtherFlagUnread { Kind::Held } else { Kind::Unknown };
        return Err(Missing { blocks, ..Missing::of(kind, problem.clone()) });
    }
    if !fleet.route_laggards.is_empty() {
        let message = format!("routes are not current: {}", names(&fleet.route_laggards));
        return Err(Missing::of(Kind::Unknown, behind(Reason::RouteLaggards, message, &fleet.route_laggards)));
    }
    Ok(())
}

/// Whether no proxy has sent requests past the flag.
fn nothing_strays(pass: Pass<'_>, switch: &Switch) -> Result<(), Missing> {
    let fleet = &pass.seen.fleet;
    if !fleet.strays.is_empty() {
        let (from, strays) = (&switch.from, names(&fleet.strays));
        let message = format!(
            "requests have gone to {from} where the flag does not move them, and would fail without it: {strays}. Put \
             the routes right: it ends when each worker has seen a request to the same place go another way, or the proxy \
             is started anew"
        );
        return Err(Missing::of(Kind::Silence, behind(Reason::PastTheFlag, message, &fleet.strays)).blocks());
    }
    Ok(())
}

/// Whether no proxy may have connections left from before its filter came, which nothing here has seen.
fn drained(pass: Pass<'_>) -> Result<(), Missing> {
    let late = &pass.seen.fleet.late_filters;
    let Some(last) = late.iter().map(|one| UnixMs(one.came_ms)).max() else { return Ok(()) };
    let drain = pass.spec.drain_time();
    let names = listed(late.iter().map(|one| one.proxy.clone()));
    let message = format!(
        "connections from before the filter came may live on, and their requests are not seen, for {drain} \
         (settle.drainTime): at {names}"
    );
    let problem = Problem::new(Reason::FilterCameLate, message).about(late.iter().map(|one| one.proxy.as_str()));
    Err(Missing { wake: Some(last.plus(drain)), ..Missing::of(Kind::Unknown, problem) })
}

/// Since when the old version has had no request, after the acks.
fn quiet(pass: Pass<'_>, switch: &Switch) -> Result<UnixMs, Missing> {
    let (fleet, from) = (&pass.seen.fleet, &switch.from);
    match fleet.old {
        Quiet::Unknown if !fleet.unplaced.is_empty() => {
            let message = format!(
                "it is not known which version serves some requests that have not left their proxy yet: {}",
                names(&fleet.unplaced)
            );
            Err(Missing::of(Kind::Unknown, behind(Reason::QuietUnknown, message, &fleet.unplaced)))
        }
        Quiet::Unknown => {
            let message = format!("it is not known yet whether {from} is still used");
            Err(Missing::new(Kind::Unknown, Reason::QuietUnknown, message))
        }
        Quiet::Busy { .. } if !fleet.unmanaged.is_empty() => {
            let message = past_the_flag(from, &fleet.unmanaged);
            let names = fleet.unmanaged.iter().flat_map(|one| [one.at.as_str(), one.from.as_str()]);
            let problem = Problem::new(Reason::CallersWithoutFilter, message).about(names);
            Err(Missing::of(Kind::Silence, problem).blocks())
        }
        Quiet::Busy { .. } if !fleet.members.is_empty() && fleet.senders.is_empty() => {
            let members = listed(fleet.members.iter().cloned());
            let message = format!("only {from} itself still calls {from}, from {members}: such calls end with it");
            let problem = Problem::new(Reason::CallsItself, message).about(fleet.members.iter().map(String::as_str));
            Err(Missing::of(Kind::Silence, problem))
        }
        Quiet::Busy { open } => {
            let what = busy(open, from);
            let by = if fleet.senders.is_empty() { String::new() } else { listed(fleet.senders.iter().cloned()) };
            let what = if by.is_empty() { what } else { format!("{what}, by {by}") };
            Err(Missing::of(Kind::Silence, Problem::new(Reason::NotQuiet, what).about([from.as_str()])))
        }
        Quiet::Since(since) => Ok(UnixMs(since).max(switch.acked_at.unwrap_or(switch.started_at))),
    }
}

/// What kind of thing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that has to hold without a break does not, or did not.
    Broken,
    /// It has lasted, but not for long enough.
    Unsteady,
    /// Something holds it that was not there, or was not known.
    Held,
    /// A word from somebody: what happened meanwhile will be known then.
    Unknown,
    /// No requests to the old version, for long enough.
    Silence,
}

/// What the proof lacks.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) kind: Kind,
    pub(super) problem: Problem,
    /// Time alone does not help.
    blocks: bool,
    /// When time alone may help.
    wake: Option<UnixMs>,
}

impl Missing {
    fn new(kind: Kind, reason: Reason, message: String) -> Missing {
        Missing::of(kind, Problem::new(reason, message))
    }

    fn of(kind: Kind, problem: Problem) -> Missing {
        Missing { kind, problem, blocks: false, wake: None }
    }

    fn blocks(self) -> Missing {
        Missing { blocks: true, ..self }
    }

    /// Whether going back would help: a version that only calls itself serves nobody.
    pub(super) fn may_roll_back(&self) -> bool {
        self.problem.reason != Reason::CallsItself
    }

    /// Whether the operator asked to go on without it after a deadline.
    pub(super) fn may_be_waived(&self, spec: &Spec) -> bool {
        let proceeds = spec.settle.on_timeout == OnTimeout::Proceed;
        match self.kind {
            Kind::Broken | Kind::Unsteady | Kind::Held => false,
            Kind::Unknown => proceeds && spec.switch.laggards == Laggards::Proceed,
            Kind::Silence => proceeds,
        }
    }

    /// What is waited for: a moment in silence, named when that was too long, or when the deadline has passed.
    pub(super) fn wait(self, now: UnixMs, from: UnixMs, overdue: bool, deadline: UnixMs) -> Wait {
        if self.blocks || overdue {
            return Wait { wake: self.wake, ..Wait::blocked(self.problem) };
        }
        if matches!(self.kind, Kind::Unknown | Kind::Held) {
            return Wait::named_from(now, from.plus(CONFIGURED_WITHIN), self.problem);
        }
        Wait { wake: self.wake.or(Some(deadline).filter(|deadline| *deadline > now)), ..Wait::on(self.problem.message) }
    }
}
