//! When the old version may be removed. Pure.

use std::collections::BTreeSet;

use crate::fleet::ledger::{Fleet, Laggard, Quiet};
use crate::fleet::unmanaged::Stranger;

use crate::observation::Observation;
use crate::spec::{CleanupPolicy, Laggards, OnTimeout, Spec};
use crate::status::Switch;

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
fn past_the_flag(old: &str, strangers: &[Stranger]) -> String {
    let listed = |names: BTreeSet<&str>| listed(names.into_iter().map(str::to_owned));
    let per_second = strangers.iter().fold(0_u64, |sum, one| sum.saturating_add(one.per_second));
    let often = if per_second == 0 { String::new() } else { format!(" ({per_second} a second)") };
    let at = listed(strangers.iter().map(|one| one.at.as_str()).collect());
    let from = listed(strangers.iter().map(|one| one.from.as_str()).filter(|from| !from.is_empty()).collect());
    let from = if from.is_empty() { String::new() } else { format!(" from {from}") };
    format!(
        "requests{often} still reach {old} at {at}{from} that no filter sent there: such callers have no sidecar, or no \
         plugin, and {old} stays as long as they come"
    )
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
pub(super) fn settled(now_ms: u64, spec: &Spec, switch: &Switch, seen: &Observation) -> Result<Proof, NotSettled> {
    let overdue = switch.acked_at.is_some_and(|acked| now_ms.saturating_sub(acked) >= spec.settle.timeout.0);
    let proceed = overdue && spec.settle.on_timeout == OnTimeout::Proceed;
    match proved(now_ms, spec, switch, seen) {
        Ok(()) => Ok(Proof::Whole),
        // Only what the operator asked for in so many words goes past what is not proved.
        Err(missing) if proceed && missing.what.may_be_waived(spec) => Ok(Proof::Waived(missing.message)),
        Err(missing) => Err(missing),
    }
}

fn proved(now_ms: u64, spec: &Spec, switch: &Switch, seen: &Observation) -> Result<(), NotSettled> {
    let (fleet, from) = (&seen.fleet, &switch.from);
    let quiet_period = spec.settle.quiet_period;
    if !seen.workload(&switch.to).ready {
        let message = format!("{} is active but not ready", switch.to);
        return Err(NotSettled::new(What::Target, "TargetNotReady", message).blocks());
    }
    if !all_acked(fleet) {
        return Err(NotSettled::new(What::Proof, "Laggards", missing_acks(fleet)).blocks());
    }
    if !fleet.config_laggards.is_empty() {
        let message = format!("configuration is not current at {}", names(&fleet.config_laggards));
        return Err(NotSettled::new(What::Proof, "ConfigLaggards", message));
    }
    if let Some(problem) = &seen.routes {
        let missing = NotSettled::new(What::Proof, problem.reason, problem.message.clone());
        return Err(if problem.passes() { missing } else { missing.blocks() });
    }
    if !fleet.route_laggards.is_empty() {
        let message = format!("routes are not current: {}", names(&fleet.route_laggards));
        return Err(NotSettled::new(What::Proof, "RouteLaggards", message));
    }
    let since = match fleet.old {
        Quiet::Unknown => {
            let message = format!("it is not known whether {from} is still used");
            return Err(NotSettled::new(What::Proof, "QuietUnknown", message).blocks());
        }
        Quiet::Busy { .. } if !fleet.strangers.is_empty() => {
            let message = past_the_flag(from, &fleet.strangers);
            return Err(NotSettled::new(What::Silence, "CallersWithoutFilter", message).blocks());
        }
        Quiet::Busy { open } => {
            let message = format!("{open} requests are open on {from}, or some were sent lately");
            return Err(NotSettled::new(What::Silence, "NotQuiet", message));
        }
        Quiet::Since(since) => since.max(switch.acked_at.unwrap_or(switch.started_at)),
    };
    let enough = since.saturating_add(quiet_period.0);
    if now_ms < enough {
        let message = format!("{from} has to be quiet for {quiet_period}");
        return Err(NotSettled { wake_ms: Some(enough), ..NotSettled::new(What::Silence, "NotQuiet", message) });
    }
    Ok(())
}

/// What kind of thing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The new version.
    Target,
    /// A word from a proxy.
    Proof,
    /// No requests to the old version.
    Silence,
}

impl What {
    fn may_be_waived(self, spec: &Spec) -> bool {
        match self {
            What::Target => false,
            What::Proof => spec.switch.laggards == Laggards::Proceed,
            What::Silence => true,
        }
    }
}

/// What is missing.
#[derive(Debug)]
pub(super) struct NotSettled {
    pub(super) what: What,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Time alone does not help.
    pub(super) blocks: bool,
    pub(super) wake_ms: Option<u64>,
}

impl NotSettled {
    fn new(what: What, reason: &'static str, message: String) -> NotSettled {
        NotSettled { what, reason, message, blocks: false, wake_ms: None }
    }

    fn blocks(self) -> NotSettled {
        NotSettled { blocks: true, ..self }
    }
}
