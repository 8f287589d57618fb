//! What must never happen, whatever the house does.

use flag::record::Gate;
use machine::checks::Verdict;
use machine::fleet::ledger::Quiet;
use machine::observation::Keeper;
use machine::plan::Effect;
use machine::publication::Publication;
use machine::spec::{CleanupPolicy, Management};
use machine::status::{Phase, Status};

use super::{House, Look};

impl House {
    /// A status is written.
    pub(super) fn guard_write(&self, next: &Status) {
        assert!(next.epoch() >= self.disk.epoch(), "the epoch on disk falls");
        if let (Some(one), Some(other)) = (&self.disk.record, &next.record) {
            assert!(one == other || other.epoch > one.epoch, "an epoch is used twice");
            assert_eq!(other.active, next.active_version);
        }
    }

    /// The status in memory changes.
    pub(super) fn guard_transition(&self, next: &Status) {
        check_transition(&self.memory, next);
        assert!(next.record == self.memory.record || *next == self.disk, "a record is adopted before it is written");
        let forward = next.switch.as_ref().is_some_and(|switch| !switch.removal && !switch.rollback);
        self.guard_fence(next);
        let goes = matches!(next.phase, Phase::Switching | Phase::Committing);
        let flips = goes && next.active_version != self.memory.active_version;
        assert!(!flips || self.is_ready(&next.active_version), "flipped to what does not serve");
        if flips && forward {
            // C08, F09.
            let (from, to) = (self.pods(&self.memory.active_version), self.pods(&next.active_version));
            assert!(to >= from, "flipped to {to} pods, and the traffic of now needs {from}");
            // C03: what a leader that was deposed may still stop has changed since that one saw it.
            let kept = self.protected.get(&next.active_version);
            let platform = self.keeper == Keeper::Platform;
            let before_hold = next.phase == Phase::Committing && kept.is_some_and(|kept| *kept < self.memory.epoch());
            let kept = before_hold || kept == Some(&self.memory.epoch());
            assert!(!platform || kept, "flipped to what is not protected");
            // F18, T3.
            let cut_off = self.proxies.all.iter().filter(|one| one.cut_off.as_ref() == Some(&next.active_version));
            assert_eq!(cut_off.count(), 0, "flipped to what a proxy does not reach");
            let acked = self.proxies.fleet(self.now, &self.spec, &self.memory, None).acked;
            assert_eq!(acked, self.proxies.all.len(), "flipped although a proxy may not know the new version");
        }
        if next.phase == Phase::Removing && next.phase != self.memory.phase && forward {
            let passed = self.spec.checks.is_empty() || self.verdict.0 == Verdict::Passed;
            assert!(passed, "removed although a check did not pass");
        }
    }

    /// Something is about to be done.
    pub(super) fn guard_effect(&self, look: &Look, effect: &Effect) {
        assert!(!self.spec_unknown, "acted without a spec");
        assert_eq!(self.memory, self.disk, "what is acted on was not written");
        assert!(self.asked.contains(effect), "the status on disk does not ask for {effect:?}");
        let record = self.disk.record.as_ref().unwrap();
        let names_versions = matches!(effect, Effect::Publish(_) | Effect::Route(_) | Effect::Configure(_));
        if names_versions && self.mesh.is_none() {
            assert!(self.proxies.clusters.is_superset(&record.versions), "{effect:?} before its clusters");
        }
        match effect {
            Effect::Protect { version, epoch } => {
                let target = self.disk.target_version.as_ref();
                assert_eq!((Some(version), epoch), (target, &record.epoch));
            }
            Effect::Start { version, like } => self.guard_start(version, like.as_deref()),
            Effect::Cluster { versions } => {
                let named = self.proxies.named();
                for version in self.proxies.clusters.difference(versions) {
                    let runs = self.running.contains_key(version) || self.ending.contains_key(version);
                    assert!(!runs && !named.contains(version), "the cluster of {version} went too early");
                }
            }
            Effect::Publish(publication) => self.guard_publication(publication),
            Effect::Configure(record) if record.gate == Gate::Hold => panic!("a configuration that holds"),
            Effect::Route(order) => {
                assert_eq!(&order.record, record);
                if let Some(mesh) = &self.mesh {
                    let back = self.disk.switch.as_ref().is_some_and(|switch| switch.rollback);
                    let problem = look.seen.problem.as_ref().filter(|problem| !back || problem.reason.holds());
                    assert!(problem.is_none() && look.spec.routing.management == Management::Managed);
                    mesh.guard(self.now, order);
                }
            }
            Effect::Configure(configured) => {
                assert_eq!(configured.as_ref(), record);
                assert!(look.seen.problem.as_ref().is_none_or(|problem| !problem.reason.bars_plugin()));
            }
            Effect::Stop { version } => self.guard_stop(look, version),
            Effect::Delete { version } => self.guard_delete(version),
        }
    }

    fn guard_publication(&self, publication: &Publication) {
        assert_eq!(Some(&publication.record), self.disk.record.as_ref(), "published before written");
        self.guard_opening(&publication.record);
        let known = self.proxies.all.iter().filter_map(|proxy| proxy.record.as_ref());
        for known in known.filter(|known| known.epoch == publication.record.epoch) {
            assert_eq!(known.hash, publication.record.hash, "one epoch has two contents");
        }
        // What was gone back to without a switch of its own was not marked before.
        let back = self.disk.switch.as_ref().filter(|switch| switch.rollback && self.disk.phase == Phase::Switching);
        if back.is_some_and(|switch| switch.promoted_at == Some(switch.started_at)) {
            let at = self.protected.get(&publication.record.active);
            assert_eq!(at, Some(&publication.record.epoch), "requests go back to what is not protected");
        }
    }

    fn guard_start(&self, version: &str, like: Option<&str>) {
        assert!(!self.deleted.contains(version), "what was deleted is asked for");
        let switch = self.disk.switch.as_ref();
        let ends = switch.is_some_and(|switch| like == Some(&switch.from) || like == Some(&switch.to));
        assert!(like.is_none_or(|like| ends && like != version), "{version} is to be like {like:?}");
        // C02: what was stopped on a whole proof is started again only to be switched to.
        let wanted = self.disk.target_version.as_deref() == Some(version) || self.disk.active_version == version;
        assert!(wanted || !self.ending.contains_key(version), "{version} is started again while it ends");
        assert!(!self.disk.ending.contains(version), "{version} was stopped on a whole proof");
    }

    /// The whole proof, in the very pass; and what it is to prove.
    fn guard_stop(&self, look: &Look, version: &str) {
        let (fleet, active) = (&look.seen.fleet, &self.disk.active_version);
        assert_ne!(version, active, "the active version is stopped");
        assert_eq!(self.disk.phase, Phase::Removing, "the intent was not on disk");
        assert!(self.disk.switch.as_ref().is_some_and(|switch| switch.from == version));
        assert_eq!((fleet.acked, fleet.laggards.len()), (fleet.expected, 0), "an ack is missing");
        assert_eq!((fleet.config_laggards.len(), fleet.route_laggards.len()), (0, 0), "something is not current");
        assert_eq!(look.seen.routes, None, "the routes do not fit");
        let cut_off = self.proxies.all.iter().filter(|one| one.cut_off.as_ref() == Some(active));
        assert_eq!(cut_off.count(), 0, "a proxy does not reach what stays");
        let switch = self.disk.switch.as_ref().unwrap();
        // T1: without a break, from a quiet period before it settled until now.
        let from = switch.settled_at.unwrap().0 - 2_000;
        assert!(switch.removal || self.now >= from + 7_000, "it did not stay for retainFor");
        assert!(matches!(fleet.old, Quiet::Since(t) if t <= from), "not quiet without a break");
        assert!(switch.acked_at.unwrap().0 <= from, "not quiet since the acks");
        assert!(self.steady.get(active).is_some_and(|since| *since <= from), "the new version was not always ready");
        assert!(self.is_ready(active), "nothing else is ready");
        let record = self.disk.record.as_ref().unwrap();
        assert!(!record.versions.contains(version), "a proxy could still choose what is stopped");
        for proxy in &self.proxies.all {
            let chosen = proxy.record.as_ref().unwrap();
            assert!(!chosen.versions.contains(version), "a proxy can still choose what is stopped");
            let config = proxy.config.as_ref().unwrap();
            assert_ne!(config.active, version, "a proxy that starts anew would choose what is stopped");
        }
        if let Some(mesh) = &self.mesh {
            assert!(!mesh.leads_to(version), "a route leads to what is stopped");
        }
    }

    fn guard_delete(&self, version: &str) {
        assert_eq!(self.spec.cleanup.policy, CleanupPolicy::Delete);
        let switch = self.disk.switch.as_ref().unwrap();
        assert!(!switch.rollback && !switch.removal && version == switch.from, "{switch:?}");
        assert_eq!((self.disk.phase, self.running.contains_key(version)), (Phase::Removing, false));
        assert_ne!(version, self.disk.active_version, "the active version is deleted");
    }
}

fn check_transition(before: &Status, after: &Status) {
    use Phase::*;
    assert!(after.epoch() >= before.epoch(), "the epoch falls");
    if let (Some(one), Some(other)) = (&before.record, &after.record) {
        assert!(one == other || other.epoch > one.epoch, "an epoch is used twice");
        assert_eq!(other.active, after.active_version);
    }
    let (from, to) = (before.phase, after.phase);
    let next: &[Phase] = match from {
        Adopting => &[Stable, Coexisting],
        Stable => &[Coexisting, Settling],
        Coexisting => &[AwaitingPromotion, Stable],
        AwaitingPromotion => &[ProvingRoutes, Coexisting, Stable],
        ProvingRoutes => &[Switching, Holding, Coexisting, Stable],
        Holding => &[Committing, ProvingRoutes],
        Committing => &[Switching, Holding],
        Switching => &[Settling, Coexisting, Switching, ProvingRoutes, Holding],
        Settling => &[Retaining, Removing, Coexisting, Switching, ProvingRoutes],
        Retaining => &[Removing, Settling, Coexisting, Switching, ProvingRoutes, Stable],
        Removing => &[Stable, Settling, Coexisting],
    };
    assert!(from == to || next.contains(&to), "{from:?} to {to:?} skips a phase");
    // C01: once a record is published, nothing becomes active without a switch.
    if before.active_version != after.active_version && before.record.is_some() {
        let fenced = matches!((from, to), (Holding, Committing) | (Committing | Switching, Holding));
        assert!(to == Switching || fenced, "the active version changes without a switch");
    }
    if to == Removing && from == Settling {
        assert!(after.switch.as_ref().is_some_and(|switch| switch.removal), "retaining was skipped");
    }
}
