//! The house as the loop sees it: every write and act is guarded, and may be the last one of its controller.

use machine::observation::{ClusterFacts, Observation, ServiceFacts};
use machine::plan::{Effect, Pass, Plan, plan};
use machine::reach::Reach;
use machine::reconcile::World;
use machine::status::Status;
use machine::time::UnixMs;

use super::{Died, House, Look, STOPS_IN_MS, VERSIONS};

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Goes,
    /// Somebody else has written before it.
    Conflicts,
    /// It is done, after so many milliseconds.
    Takes(u64),
}

impl World for House {
    type Seen = Look;
    type Error = Died;

    fn observe(&mut self) -> Look {
        let versions = VERSIONS.map(|version| (version.to_owned(), self.workload(version))).into();
        let services = match &mut self.mesh {
            Some(mesh) => mesh.look(self.now, &versions),
            // As a controller on one machine sees them.
            None => {
                let known = || Reach { readiness: Some("/ready".to_owned()), ..Reach::default() };
                let reach = || VERSIONS.map(|version| (version.to_owned(), known())).into();
                let facts = || ServiceFacts { reach: reach(), ..ServiceFacts::default() };
                self.spec.services.iter().map(|service| (service.name.clone(), facts())).collect()
            }
        };
        let probe = self.probe(&services);
        let mut seen = Observation {
            versions,
            headroom: self.room.clone(),
            fleet: self.proxies.fleet(self.now, &self.spec, &self.memory, probe.as_ref()),
            request: self.request.clone(),
            spec_error: self.spec_error.then(|| "an edit".to_owned()),
            checks: self.answers(),
            problem: self.problem.clone(),
            spec_unknown: self.spec_unknown,
            keeper: self.keeper,
            leads_since: UnixMs(self.controllers),
            given_out: self.published.as_ref().map(|published| published.record.gate),
            other_fence: self.other_fence.clone(),
            services,
            probe,
            ..Observation::unknown()
        };
        if let Some(mesh) = &self.mesh {
            "shop".clone_into(&mut seen.namespace);
            seen.routes = mesh.problem(&self.memory);
        } else {
            let named = (self.wrote == (true, true)).then(|| self.proxies.named());
            seen.clusters = Some(ClusterFacts { there: self.proxies.clusters.clone(), named });
        }
        Look { now: self.now, spec: self.spec.clone(), seen }
    }

    fn pass(look: &Look) -> Pass<'_> {
        Pass { now: UnixMs(look.now), spec: &look.spec, seen: &look.seen }
    }

    fn status(&self) -> &Status {
        &self.memory
    }

    fn adopt(&mut self, status: Status) {
        self.guard_transition(&status);
        if status.phase != self.memory.phase {
            self.trail.push(status.phase);
        }
        self.memory = status;
        // It was proved when it was decided, and is acted on when it was written.
        if let Write::Takes(ms) = self.write
            && self.memory == self.disk
        {
            self.write = Write::Goes;
            self.pass_time(ms);
        }
    }

    async fn persist(&mut self, _: &Look, plan: &Plan) -> Result<bool, Died> {
        assert!(plan.status == self.memory || plan.effects.is_empty(), "a pass either changes the status or acts");
        if plan.status == self.disk {
            return Ok(true);
        }
        if self.write == Write::Conflicts {
            self.write = Write::Goes;
            return Ok(false);
        }
        self.survives(false)?;
        self.guard_write(&plan.status);
        self.disk = plan.status.clone();
        self.survives(true)?;
        Ok(true)
    }

    fn show(&mut self, look: &Look, shown: &Plan) {
        self.asked = plan(House::pass(look), &self.disk).effects;
        assert!(!shown.waiting.is_empty() || self.spec_unknown, "nobody is told what is waited for");
    }

    async fn execute(&mut self, look: &Look, effect: Effect) -> Result<(), Died> {
        self.survives(false)?;
        self.guard_effect(look, &effect);
        match effect {
            Effect::Protect { version, epoch } => {
                self.protected.insert(version, epoch);
            }
            Effect::Start { version, like } => {
                let like = like.map_or(1, |like| self.pods(&like));
                let pods = self.pods(&version).max(like).max(1);
                self.pods.insert(version.clone(), pods);
                self.ending.remove(&version);
                self.running.entry(version).or_insert(self.now);
            }
            Effect::Cluster { versions } => self.proxies.clusters = versions,
            Effect::Publish(publication) => self.published = Some(*publication),
            Effect::Route(order) => match &mut self.mesh {
                Some(mesh) => mesh.write(self.now, &order),
                None => {
                    self.proxies.file_of_routes(&order.record);
                    self.wrote.0 = true;
                }
            },
            Effect::Configure(record) => {
                self.proxies.configured = Some(*record);
                self.wrote.1 = true;
            }
            Effect::Stop { version } => {
                self.running.remove(&version);
                self.steady.remove(&version);
                self.died.remove(&version);
                self.ending.insert(version.clone(), self.now + STOPS_IN_MS);
                self.stops.push(version);
            }
            Effect::Delete { version } => {
                self.deleted.insert(version);
            }
        }
        self.survives(true)
    }

    async fn complete(&mut self, _: &Look) -> Result<bool, Died> {
        Ok(!std::mem::take(&mut self.again))
    }
}
