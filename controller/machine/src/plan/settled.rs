//! Whether the old version may be removed: the proof, in the order in which it is asked for. Pure.

use std::collections::BTreeSet;

use super::Pass;
use crate::duration::Millis;
use crate::fleet::ledger::{Fleet, Laggard, Quiet};
use crate::fleet::unmanaged::UnmanagedCaller;
use crate::reason::{Problem, Reason};
use crate::spec::{CleanupPolicy, Laggards, OnTimeout, Spec};
use crate::status::Switch;
use crate::time::UnixMs;

/// More than any healthy proxy takes to ack a record, and to report twice after it.
pub(super) const ACKED_WITHIN: Millis = Millis(2_000);

/// Whether every expected proxy has exactly the record last written.
pub(super) fn all_acked(fleet: &Fleet) -> bool {
    fleet.expected > 0 && fleet.acked == fleet.expected && fleet.laggards.is_empty()
}

/// Whether what a switch has left is deleted. What was given up, overtaken or rolled back is only
/// stopped: it may be asked for again.
pub(super) fn deletes(spec: &Spec, switch: &Switch) -> bool {
    spec.cleanup.policy == CleanupPolicy::Delete && switch.may_roll_back()
}

/// The first three, and how many more there are.
fn listed(all: impl ExactSizeIterator<Item = String>) -> String {
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

/// Proxies that have not acked, in words.
pub(super) fn missing_acks(fleet: &Fleet) -> String {
    if fleet.expected == 0 {
        return "no proxy is expected to ack, so nothing can be proved".to_owned();
    }
    format!("{} of {} proxies acked; missing: {}", fleet.acked, fleet.expected, names(&fleet.laggards))
}

/// Why the old version may be removed.
#[derive(Debug)]
pub(super) enum Proof {
    /// Everything was shown.
    Whole,
    /// The operator asked to go on without it after a deadline: what is missing.
    Waived(String),
}

/// Whether traffic has moved from `switch.from` for good. The error names what is missing.
pub(super) fn settled(pass: Pass<'_>, switch: &Switch) -> Result<Proof, Missing> {
    let settle = &pass.spec.settle;
    let overdue = switch.acked_at.is_some_and(|acked| pass.now.since(acked) >= settle.timeout);
    let proceed = overdue && settle.on_timeout == OnTimeout::Proceed;
    match proved(pass, switch) {
        Ok(()) => Ok(Proof::Whole),
        // Only what the operator asked for in so many words goes past what is not proved.
        Err(missing) if proceed && missing.kind.may_be_waived(pass.spec) => Ok(Proof::Waived(missing.problem.message)),
        Err(missing) => Err(missing),
    }
}

fn proved(pass: Pass<'_>, switch: &Switch) -> Result<(), Missing> {
    if !pass.seen.workload(&switch.to).ready {
        let message = format!("{} is active but not ready", switch.to);
        return Err(Missing::new(Kind::Target, Reason::TargetNotReady, message).blocks());
    }
    told(pass)?;
    quiet(pass, switch)
}

/// Whether every proxy has said that the record, its configuration and its routes are current.
fn told(pass: Pass<'_>) -> Result<(), Missing> {
    let fleet = &pass.seen.fleet;
    if !all_acked(fleet) {
        return Err(Missing::of(Kind::Proof, behind(Reason::Laggards, missing_acks(fleet), &fleet.laggards)).blocks());
    }
    if !fleet.config_laggards.is_empty() {
        let message = format!("configuration is not current at {}", names(&fleet.config_laggards));
        return Err(Missing::of(Kind::Proof, behind(Reason::ConfigLaggards, message, &fleet.config_laggards)));
    }
    if let Some(problem) = &pass.seen.routes {
        let blocks = !problem.reason.passes();
        return Err(Missing { kind: Kind::Proof, problem: problem.clone(), blocks, wake: None });
    }
    if !fleet.route_laggards.is_empty() {
        let message = format!("routes are not current: {}", names(&fleet.route_laggards));
        return Err(Missing::of(Kind::Proof, behind(Reason::RouteLaggards, message, &fleet.route_laggards)));
    }
    Ok(())
}

/// Whether the old version has had no request for the quiet period.
fn quiet(pass: Pass<'_>, switch: &Switch) -> Result<(), Missing> {
    let (fleet, from, quiet_period) = (&pass.seen.fleet, &switch.from, pass.spec.settle.quiet_period);
    let since = match fleet.old {
        Quiet::Unknown => {
            let message = format!("it is not known whether {from} is still used");
            return Err(Missing::new(Kind::Proof, Reason::QuietUnknown, message).blocks());
        }
        Quiet::Busy { .. } if !fleet.unmanaged.is_empty() => {
            let message = past_the_flag(from, &fleet.unmanaged);
            let names = fleet.unmanaged.iter().flat_map(|one| [one.at.as_str(), one.from.as_str()]);
            let problem = Problem::new(Reason::CallersWithoutFilter, message).about(names);
            return Err(Missing::of(Kind::Silence, problem).blocks());
        }
        Quiet::Busy { open } => {
            let message = format!("{open} requests are open on {from}, or some were sent lately");
            return Err(Missing::of(Kind::Silence, Problem::new(Reason::NotQuiet, message).about([from.as_str()])));
        }
        Quiet::Since(since) => UnixMs(since).max(switch.acked_at.unwrap_or(switch.started_at)),
    };
    let enough = since.plus(quiet_period);
    if pass.now < enough {
        let message = format!("{from} has to be quiet for {quiet_period}");
        return Err(Missing { wake: Some(enough), ..Missing::new(Kind::Silence, Reason::NotQuiet, message) });
    }
    Ok(())
}

/// What kind of thing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The new version.
    Target,
    /// A word from a proxy.
    Proof,
    /// No requests to the old version.
    Silence,
}

impl Kind {
    fn may_be_waived(self, spec: &Spec) -> bool {
        match self {
            Kind::Target => false,
            Kind::Proof => spec.switch.laggards == Laggards::Proceed,
            Kind::Silence => true,
        }
    }
}

/// What the proof lacks.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) kind: Kind,
    pub(super) problem: Problem,
    /// Time alone does not help.
    pub(super) blocks: bool,
    /// When time alone may help.
    pub(super) wake: Option<UnixMs>,
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
}
