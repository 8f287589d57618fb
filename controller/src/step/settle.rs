//! When the old version may be removed. Pure.

use flag::ledger::{Fleet, Laggard, Quiet};

use crate::observation::Observation;
use crate::spec::{Laggards, OnTimeout, Spec};
use crate::status::Switch;

/// Whether every expected proxy has exactly the record last written.
pub(super) fn all_acked(fleet: &Fleet) -> bool {
    fleet.expected > 0 && fleet.acked == fleet.expected && fleet.laggards.is_empty()
}

/// Laggards in words.
pub(super) fn names(laggards: &[Laggard]) -> String {
    let shown: Vec<String> = laggards.iter().take(3).map(|one| format!("{} ({})", one.proxy, one.why)).collect();
    let more = laggards.len().saturating_sub(3);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// Proxies that have not acked, in words.
pub(super) fn missing_acks(fleet: &Fleet) -> String {
    if fleet.expected == 0 {
        return "no proxy is expected to ack, so nothing can be proved".to_owned();
    }
    format!("{} of {} proxies acked; missing: {}", fleet.acked, fleet.expected, names(&fleet.laggards))
}

/// Whether traffic has moved from `switch.from` for good. The error names what is missing, and
/// whether that is more than a matter of time.
pub(super) fn settled(now_ms: u64, spec: &Spec, switch: &Switch, seen: &Observation) -> Result<(), NotSettled> {
    let overdue = switch.acked_at.is_some_and(|acked| now_ms.saturating_sub(acked) >= spec.settle.timeout.0);
    // Only what the operator asked for in so many words goes past what is not proved.
    let past_busy = overdue && spec.settle.on_timeout == OnTimeout::Proceed;
    let past_laggards = past_busy && spec.switch.laggards == Laggards::Proceed;
    let fleet = &seen.fleet;
    if !seen.workload(&switch.to).ready {
        return Err(NotSettled::blocked("TargetNotReady", format!("{} is active but not ready", switch.to)));
    }
    if past_laggards {
        return Ok(());
    }
    if !all_acked(fleet) {
        return Err(NotSettled::blocked("Laggards", missing_acks(fleet)));
    }
    if !fleet.config_laggards.is_empty() {
        let message = format!("configuration is not current at {}", names(&fleet.config_laggards));
        return Err(NotSettled::waiting("ConfigLaggards", message));
    }
    match fleet.old {
        Quiet::Unknown => {
            Err(NotSettled::blocked("QuietUnknown", format!("it is not known whether {} is still used", switch.from)))
        }
        _ if past_busy => Ok(()),
        Quiet::Busy { open } => Err(NotSettled::waiting(
            "NotQuiet",
            format!("{open} requests are open on {}, or some were sent lately", switch.from),
        )),
        Quiet::Since(since) if now_ms.saturating_sub(since) < spec.settle.quiet_period.0 => {
            let mut wait = NotSettled::waiting(
                "NotQuiet",
                format!("{} has to be quiet for {}", switch.from, spec.settle.quiet_period),
            );
            wait.wake_ms = Some(since.saturating_add(spec.settle.quiet_period.0));
            Err(wait)
        }
        Quiet::Since(_) => Ok(()),
    }
}

/// What is missing.
#[derive(Debug)]
pub(super) struct NotSettled {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Time alone does not help.
    pub(super) blocks: bool,
    pub(super) wake_ms: Option<u64>,
}

impl NotSettled {
    fn blocked(reason: &'static str, message: String) -> NotSettled {
        NotSettled { reason, message, blocks: true, wake_ms: None }
    }

    fn waiting(reason: &'static str, message: String) -> NotSettled {
        NotSettled { reason, message, blocks: false, wake_ms: None }
    }
}
