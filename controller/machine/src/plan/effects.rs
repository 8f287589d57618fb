//! What a status asks for, again and again until the world is like it. Pure.

use super::{Effect, settle};
use crate::observation::Observation;
use crate::spec::Spec;
use crate::status::{Phase, Status};

/// How long the configuration of the proxies waits for the acks of a flip: writing it makes each
/// proxy reconfigure, which is not wanted in the milliseconds in which the flip spreads.
const CONFIGURE_AFTER_MS: u64 = 1_000;

pub(super) fn effects(now_ms: u64, spec: &Spec, status: &Status, seen: &Observation) -> Vec<Effect> {
    let Some(record) = &status.record else {
        return vec![];
    };
    let mut effects = vec![Effect::Publish(Box::new(record.clone())), Effect::Route(Box::new(record.clone()))];
    let spreading = status.phase == Phase::Switching
        && !settle::all_acked(&seen.fleet)
        && now_ms.saturating_sub(status.phase_since) < CONFIGURE_AFTER_MS;
    if !spreading {
        effects.push(Effect::Configure(Box::new(record.clone())));
    }
    effects.push(Effect::Start { version: status.active_version.clone() });
    let Some(switch) = status.switch.as_ref().filter(|_| !super::suspended(spec, status)) else {
        return effects;
    };
    match status.phase {
        Phase::Coexisting | Phase::AwaitingPromotion | Phase::ProvingRoutes if switch.headroom_at.is_some() => {
            effects.push(Effect::Start { version: switch.to.clone() });
        }
        // What was just left must be there to be gone back to; what was rolled back need not.
        Phase::Switching | Phase::Settling | Phase::Retaining if switch.may_roll_back() => {
            effects.push(Effect::Start { version: switch.from.clone() });
        }
        Phase::Removing
            if switch.from != status.active_version && settle::settled(now_ms, spec, switch, seen).is_ok() =>
        {
            let (version, left) = (switch.from.clone(), seen.workload(&switch.from));
            if left.running {
                effects.push(Effect::Stop { version });
            } else if left.exists && settle::deletes(spec, switch) {
                effects.push(Effect::Delete { version });
            }
        }
        _ => {}
    }
    effects
}
