//! What is done after what is waited for, and when at the earliest. Pure.

use serde::{Deserialize, Serialize};

use super::settled::deletes;
use super::suspended;
use crate::duration::Millis;
use crate::spec::{CleanupPolicy, PromotionMode, Spec};
use crate::status::{Phase, Status};
use crate::time::UnixMs;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upcoming {
    /// In words.
    pub what: String,
    /// Not before this; absent: as soon as nothing is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<UnixMs>,
}

/// The next thing that changes where requests go or what runs; `None`: nothing does by itself.
pub fn upcoming(spec: &Spec, status: &Status) -> Option<Upcoming> {
    let switch = status.switch.as_ref().filter(|_| !suspended(spec, status))?;
    let next = |what: String, at: Option<UnixMs>| Some(Upcoming { what, at });
    let (from, to) = (&switch.from, &switch.to);
    let manual = spec.promotion.mode == PromotionMode::Manual && !switch.rollback && switch.promoted_at.is_none();
    let stays = spec.cleanup.policy == CleanupPolicy::Retain && !switch.removal;
    let goes = |at| next(format!("{from} is {}", if deletes(spec, switch) { "deleted" } else { "stopped" }), at);
    match status.phase {
        Phase::Adopting | Phase::Stable => None,
        Phase::Coexisting if manual => next(format!("{to} waits for a promotion"), None),
        Phase::Coexisting | Phase::AwaitingPromotion | Phase::ProvingRoutes => {
            let after = switch.ready_at.filter(|_| !manual && !switch.rollback);
            let after = after.map(|ready| ready.plus(spec.promotion.after));
            next(format!("requests go to {to}"), after.filter(|_| status.phase == Phase::AwaitingPromotion))
        }
        Phase::Holding if switch.fence.as_ref().is_some_and(|fence| fence.going_back_at.is_some()) => {
            next(format!("requests go to {from} again"), None)
        }
        Phase::Holding | Phase::Committing => next(format!("requests go to {to}"), None),
        Phase::Switching | Phase::Settling | Phase::Retaining if stays => next(format!("{from} stays"), None),
        Phase::Switching | Phase::Settling => {
            let since = switch.acked_at.or(switch.flipped_at).unwrap_or(switch.started_at);
            let bake = if switch.removal { Millis(0) } else { spec.settle.bake };
            let retain = if switch.removal { Millis(0) } else { spec.cleanup.retain_for };
            goes(Some(since.plus(spec.settle.quiet_period.max(bake)).plus(retain)))
        }
        Phase::Retaining => goes(switch.retain_until),
        Phase::Removing => goes(None),
    }
}
