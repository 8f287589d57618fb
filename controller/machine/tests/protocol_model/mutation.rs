//! Faults that are put in at the seams of the world. Each breaks one law, so that every law is known to be able to fail.

use std::sync::Arc;

use machine::fleet::ledger::Quiet;
use machine::observation::Observation;
use machine::status::Phase;
use machine::time::UnixMs;

use crate::api::Why;
use crate::controller::Controller;
use crate::number;
use crate::world::{Protocol, State};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A proxy takes whatever record comes.
    TakesAny,
    /// The API server takes what is written over an older object.
    IgnoresVersions,
    /// A report leaves out the instances that do not answer.
    AcksWithoutOne,
    /// What is gone to is taken for ready and reached as soon as it is started.
    TrustsTarget,
    /// What is left is stopped as soon as requests are led away.
    StopsAtOnce,
    /// Nothing is marked before it is gone back to, and it is believed to be.
    ProtectsNothing,
    /// What was left is started whenever it does not run.
    StartsWhatIsLeft,
    /// A request that ends counts as ended twice.
    CountsTwice,
    /// What is not known of the old version is taken for quiet, for ever.
    UnknownIsQuiet,
    /// Everything but the active version is stopped when nothing else is to do.
    TidiesUp,
    /// Nothing is said of what is waited for.
    IsSilent,
    /// Nothing is published after the flip.
    PublishesNothing,
}

impl Controller {
    /// Adds what a plan with a fault would do.
    pub(crate) fn mutate(&mut self, state: &mut State, world: &Protocol) {
        let (status, workloads) = (Arc::clone(&self.memory.status), self.view.workloads);
        let left = status.switch.as_ref().map(|switch| number(&switch.from));
        match world.mutation {
            Some(Mutation::StopsAtOnce) if status.phase == Phase::Switching => {
                let of = left.unwrap();
                self.scale(state, of, 0, Why::Stop);
            }
            Some(Mutation::StartsWhatIsLeft) if status.phase == Phase::Removing => {
                let of = left.filter(|of| workloads[*of].replicas == 0);
                of.into_iter().for_each(|of| self.scale(state, of, 1, Why::Start));
            }
            Some(Mutation::TidiesUp) if status.phase == Phase::Stable => {
                let active = number(&status.active_version);
                let more = (0..3).filter(|of| *of != active && workloads[*of].replicas > 0);
                more.for_each(|of| self.scale(state, of, 0, Why::Stop));
            }
            _ => {}
        }
    }

    /// Sees what a controller with a fault would see.
    pub(crate) fn mistake(&self, seen: &mut Observation, world: &Protocol) {
        match world.mutation {
            Some(Mutation::TrustsTarget) => {
                let target = self.memory.status.target_version.as_ref();
                let target = target.and_then(|target| seen.versions.get_mut(target)).filter(|one| one.running);
                if let Some(one) = target {
                    (one.ready, one.ready_since) = (true, one.ready_since.or(Some(UnixMs(0))));
                }
                seen.fleet.reach_laggards.clear();
            }
            Some(Mutation::ProtectsNothing) => {
                let epoch = self.memory.status.epoch();
                seen.versions.values_mut().for_each(|one| one.kept_at = Some(epoch));
            }
            Some(Mutation::UnknownIsQuiet) if !self.memory.status.phase.before_flip() => {
                seen.fleet.old = Quiet::Since(0);
                seen.fleet.reached_since = 0;
                seen.versions.values_mut().for_each(|one| one.ready_since = one.ready_since.map(|_| UnixMs(0)));
            }
            _ => {}
        }
    }
}
