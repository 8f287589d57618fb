//! One VersionFlag of the cluster: what is remembered of it, and one turn of its state machine.
//! I/O: through the writer and the flag service.

mod act;
mod gateway;
mod mesh;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ::flag::ledger::Fleet;
use kube::ResourceExt;

use self::act::like;
pub(super) use self::mesh::Headers;
use super::cache::Cache;
use super::istio::mesh::{Mesh, MeshError};
use super::istio::place;
use super::istio::routes::long_hosts;
use super::lease::Leadership;
use super::resource::{REQUEST, ResourceStatus, VersionFlag};
use super::status::{Problem, Seen, cannot_begin, derive, unsupported};
use super::trim::Trim;
use super::workloads::Workloads;
use super::write::{Writer, is_conflict, refusal};
use super::{headroom, proxies};
use crate::audit::{Audit, news};
use crate::checks::Questions;
use crate::checks::runner::Runner;
use crate::fault;
use crate::observation::{Headroom, Observation, Place, Request};
use crate::service::{FlagView, Hub, Post, now_ms};
use crate::spec::Spec;
use crate::status::{Phase, Status};
use crate::step::{Effect, Plan, step};

/// Transitions in a row before the next flag has its turn.
const PASSES: usize = 32;

/// Between two writes for the words of what blocks alone.
const REWORD_MS: u64 = 2_000;

/// What a turn works with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) cache: &'a Cache,
    pub(super) hub: &'a Hub,
    pub(super) writer: &'a Writer,
    pub(super) leadership: &'a Leadership,
    pub(super) checks: &'a Arc<Runner>,
    pub(super) filter_path: &'a Path,
    pub(super) flag_service_cluster: &'a str,
    pub(super) mesh: &'a Mesh,
    /// The header that the oldest flag of each namespace with Istio's filter asks for, and its name.
    pub(super) headers: &'a Headers,
    pub(super) audit: &'a Audit,
}

/// Why a turn ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("its files for the proxies cannot be made: {0}")]
    Files(#[from] serde_json::Error),
    #[error(transparent)]
    Mesh(#[from] MeshError),
    #[error("this replica acts no more")]
    Deposed,
}

/// SHA-256 of a file: the files of many flags are too large to be kept.
type Hash = [u8; 32];

/// One flag, as its leader remembers it.
#[derive(Debug)]
pub(super) struct Flag {
    /// `NAMESPACE/NAME`.
    name: String,
    /// As it was read or written last.
    resource: VersionFlag,
    machine: Status,
    /// The last spec that was valid.
    spec: Option<Spec>,
    /// Since when each version has been ready.
    ready_since: BTreeMap<String, u64>,
    /// The hash of each file in the ConfigMap.
    files: BTreeMap<String, Hash>,
    /// The audit log has what was remembered at the start.
    told: bool,
    /// The proxies that it waits for a report of.
    awaited: BTreeSet<String>,
    /// Why its routes are not written.
    unwritten: Option<String>,
    /// When more routes may be written, in Unix milliseconds.
    warm_ms: Option<u64>,
    /// What was remembered when its news were told last, if it has moved since.
    untold: Option<Status>,
    /// When its status was written here last, in Unix milliseconds.
    written_ms: u64,
    /// What the API server did not let it do in its last turn.
    refused: Option<Problem>,
}

/// One look at everything that concerns the flag.
struct Look {
    now_ms: u64,
    spec: Spec,
    workloads: Workloads,
    expected: BTreeSet<String>,
    /// Who is sent its record.
    audience: BTreeSet<String>,
    problem: Option<Problem>,
    seen: Observation,
}

impl Flag {
    pub(super) fn new(resource: &VersionFlag, now_ms: u64) -> Flag {
        let name = format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any());
        let uid = resource.uid().unwrap_or_default();
        let remembered = resource.status.as_ref().and_then(|status| status.machine.clone());
        Flag {
            resource: resource.clone(),
            machine: remembered
                .filter(|machine| machine.uid == uid)
                .unwrap_or_else(|| Status::new(&uid, &name, now_ms)),
            name,
            spec: None,
            ready_since: BTreeMap::new(),
            files: BTreeMap::new(),
            told: false,
            awaited: BTreeSet::new(),
            unwritten: None,
            warm_ms: None,
            untold: None,
            written_ms: 0,
            refused: None,
        }
    }

    /// Whether it is on its way to another version.
    pub(super) fn is_moving(&self) -> bool {
        !matches!(self.machine.phase, Phase::Adopting | Phase::Stable)
    }

    /// Whether any proxy's report may move it.
    pub(super) fn awaits_reports(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Whether changes in these namespaces, or reports of these proxies, may move it. Those of its
    /// own namespace do.
    pub(super) fn concerns(&self, namespaces: &BTreeSet<String>, reported: &BTreeSet<String>) -> bool {
        let callers = &self.spec.as_ref().unwrap_or(&self.resource.spec).callers;
        let gateways = || callers.gateways.iter().filter_map(|gateway| gateway.namespace.as_ref());
        !callers.namespaces.is_disjoint(namespaces)
            || gateways().any(|namespace| namespaces.contains(namespace))
            || !self.awaited.is_disjoint(reported)
    }

    /// Everything that can be done now. In how many milliseconds to look again, if time alone may
    /// move it. `claimed` says which older flag a service of it belongs to.
    pub(super) async fn turn(
        &mut self,
        cached: &VersionFlag,
        claimed: Option<&str>,
        around: &Surroundings<'_>,
    ) -> Result<Option<u64>, TurnError> {
        if newer(cached, &self.resource) {
            self.take_over(cached.clone());
        }
        if !std::mem::replace(&mut self.told, true) {
            around.audit.tell(now_ms(), None, &self.machine);
        }
        let done = self.passes(claimed, around).await;
        // Nobody waits for that, and the proxies did for what was done. What is not written has not happened.
        if self.is_written()
            && let Some(before) = self.untold.take()
        {
            self.tell(&before, around).await;
        }
        done
    }

    /// Whether what is remembered now is what was written last.
    fn is_written(&self) -> bool {
        let written = self.resource.status.as_ref().and_then(|status| status.machine.as_ref());
        written.is_some_and(|written| written.same_but_wording(&self.machine))
    }

    /// What changes the record is written at once. What does not has no effect before it is acted on, so that
    /// a status that is only passed through is never written.
    async fn passes(&mut self, claimed: Option<&str>, around: &Surroundings<'_>) -> Result<Option<u64>, TurnError> {
        for _ in 0..PASSES {
            let look = self.look(claimed, around);
            // Without a spec that was ever valid here, or anything to go on with.
            let idle = self.spec.is_none() || (look.problem.is_some() && self.machine.record.is_none());
            let plan = if idle {
                Plan { status: self.machine.clone(), effects: vec![], requeue_ms: None, waiting: String::new() }
            } else {
                step(look.now_ms, &look.spec, &self.machine, &look.seen)
            };
            let moved = plan.status != self.machine && !plan.status.same_but_wording(&self.machine);
            if plan.status != self.machine && !moved {
                self.machine = plan.status;
                continue;
            }
            if moved && plan.status.epoch() == self.machine.epoch() {
                self.move_to(plan.status, around);
                continue;
            }
            let before = self.resource.status.clone();
            // Nobody has acked a record that is about to be written.
            let new = plan.status.record.as_ref().filter(|record| record.epoch != self.machine.epoch());
            let fleet = new.map(|new| around.hub.fleet(look.now_ms, new, &look.expected, &plan.status.asked()));
            let status = derive(&Seen {
                now_ms: look.now_ms,
                generation: self.resource.metadata.generation,
                spec: &look.spec,
                machine: &plan.status,
                fleet: fleet.as_ref().unwrap_or(&look.seen.fleet),
                versions: &look.seen.versions,
                checks: &look.seen.checks,
                workloads: &look.workloads,
                problem: look.problem.as_ref(),
                routes: look.seen.routes.as_ref(),
                before: before.as_ref(),
            });
            let reword = look.now_ms.saturating_sub(self.written_ms) >= REWORD_MS;
            let current = before
                .as_ref()
                .is_some_and(|before| before.same_but_wording(&status) && (!reword || before.blocked_alike(&status)));
            if !current && !self.persist(status, around).await? {
                continue;
            }
            if moved {
                self.move_to(plan.status, around);
                continue;
            }
            self.awaited = awaited(&self.machine, &look);
            self.show(&look, plan.waiting, around);
            for effect in in_order(plan.effects) {
                let done = self.act(&look, effect, around).await;
                if let Err(TurnError::Api(error)) = &done {
                    self.refused = refusal(error).map(refused).or_else(|| self.refused.take());
                }
                done?;
            }
            // What is written of it is out of date.
            if self.refused.take().is_some() {
                continue;
            }
            let warm_ms = self.warm_ms.map(|warm| warm.saturating_sub(look.now_ms));
            return Ok(plan.requeue_ms.into_iter().chain(warm_ms).min());
        }
        Ok(Some(1))
    }

    fn move_to(&mut self, status: Status, around: &Surroundings<'_>) {
        if let Some(seconds) = status.flipped_since(&self.machine) {
            around.hub.flipped(seconds);
        }
        let before = std::mem::replace(&mut self.machine, status);
        self.untold.get_or_insert(before);
    }

    fn look(&mut self, claimed: Option<&str>, around: &Surroundings<'_>) -> Look {
        let now_ms = now_ms();
        let namespace = self.resource.namespace().unwrap_or_default();
        let wrong = self.resource.spec.validate();
        let valid = wrong.is_empty().then(|| self.resource.spec.clone());
        self.spec = valid.or_else(|| self.spec.take());
        let spec = self.spec.as_ref().unwrap_or(&self.resource.spec).clone();
        let gateways = spec.callers.gateways.iter().filter_map(|gateway| gateway.namespace.as_ref());
        let others: BTreeSet<&String> = spec.callers.namespaces.iter().chain(gateways).collect();
        let objects = around.cache.near(&namespace, others);
        let workloads = Workloads::find(&namespace, &spec, &objects);
        let before = self.machine.record.as_ref();
        let (spec, place, expected, audience) = if spec.routing.in_mesh() {
            around.mesh.istio.want(spec.routing.provider);
            let versions = known_versions(&self.machine, &workloads, &spec.version);
            let expected = proxies::expected_in_mesh(&namespace, &spec, &workloads, &objects.pods);
            let mut audience = proxies::audience_in_mesh(&namespace, &spec, &objects.pods);
            audience.extend(expected.iter().cloned());
            let place = place::place(&namespace, &spec, &objects.services, before);
            (place::complete(&namespace, &spec, &objects.services, &versions, before), place, expected, audience)
        } else {
            let spec = with_hosts(&spec, &namespace);
            let expected = proxies::expected(&namespace, &spec, &objects.pods);
            (spec, Place::default(), expected.clone(), expected)
        };
        let spec_error = (!wrong.is_empty()).then(|| wrong.join("; "));
        let invalid = spec_error.clone().filter(|_| self.spec.is_none());
        let problem = |reason, message| Problem { reason, message };
        let found = invalid.map(|message| problem("InvalidSpec", message));
        let found = found.or_else(|| claimed.map(|message| problem("ServiceTaken", message.to_owned())));
        let found = found.or_else(|| unsupported(&spec));
        let found = found.or_else(|| mesh::problem(&self.name, &namespace, &spec, around));
        let found = found.or_else(|| workloads.errors.first().map(|message| problem("Workloads", message.clone())));
        let versions = self.versions(now_ms, &workloads);
        let status = &self.machine;
        let routes = mesh::routes(&namespace, &spec, status, &versions, self.unwritten.as_ref(), around);
        let found = found.or_else(|| cannot_begin(&spec, status, &versions)).or_else(|| self.refused.clone());
        let asked = status.asked();
        let fleet = status.record.as_ref().map(|record| around.hub.fleet(now_ms, record, &expected, &asked));
        let fleet = fleet.unwrap_or_else(|| Fleet::unknown(expected.len()));
        let seen = Observation {
            checks: around.checks.look(now_ms, &self.name, Questions::of(&spec, status), &fleet),
            headroom: self.headroom(&namespace, &spec, &workloads, around.cache),
            versions,
            fleet,
            request: self.request(around.hub),
            spec_error,
            place,
            routes,
        };
        Look { now_ms, spec, workloads, expected, audience, problem: found, seen }
    }

    fn versions(&mut self, now_ms: u64, workloads: &Workloads) -> BTreeMap<String, crate::observation::Workload> {
        let mut versions = BTreeMap::new();
        for version in workloads.versions() {
            let mut workload = workloads.observe(version);
            if workload.ready {
                workload.ready_since = Some(*self.ready_since.entry(version.to_owned()).or_insert(now_ms));
            } else {
                self.ready_since.remove(version);
            }
            versions.insert(version.to_owned(), workload);
        }
        versions
    }

    fn headroom(&self, namespace: &str, spec: &Spec, workloads: &Workloads, cache: &Cache) -> Headroom {
        let asks = self.machine.switch.as_ref();
        let asks = asks.filter(|switch| self.machine.phase == Phase::Coexisting && switch.headroom_at.is_none());
        asks.map_or(Headroom::Unknown, |switch| {
            let scales = workloads.start(&switch.to, like(spec, &self.machine));
            headroom::look(namespace, &switch.to, &scales, &cache.room(namespace))
        })
    }

    /// What people ask for, by the annotation or through the flag service.
    fn request(&self, hub: &Hub) -> Option<Request> {
        let answered = self.machine.last_request.as_ref().map(|last| last.id.as_str());
        let annotated = self.resource.annotations().get(REQUEST);
        let annotated = annotated.and_then(|text| serde_json::from_str::<Request>(text).ok());
        let annotated = annotated.filter(|request| Some(request.id.as_str()) != answered);
        annotated.or_else(|| hub.next_request(&self.name, answered))
    }

    /// Writes the status. False: somebody else did meanwhile, and everything has to be looked at again.
    async fn persist(&mut self, status: ResourceStatus, around: &Surroundings<'_>) -> Result<bool, TurnError> {
        if !around.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        fault::point("before the status is written");
        match around.writer.status(&self.resource, status).await {
            Ok(mut written) => {
                fault::point("after the status was written");
                written.trim();
                self.written_ms = now_ms();
                self.resource = written;
                Ok(true)
            }
            Err(error) if is_conflict(&error) => {
                if let Some(found) = around.writer.read(&self.resource).await? {
                    self.take_over(found);
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Somebody else has written. A later record than ours is another leader's; anything else that
    /// is not what was written here last is somebody's edit, and is undone by the next write.
    fn take_over(&mut self, found: VersionFlag) {
        let theirs = found.status.as_ref().and_then(|status| status.machine.as_ref());
        if let Some(theirs) = theirs.filter(|theirs| theirs.uid == self.machine.uid)
            && theirs.epoch() > self.machine.epoch()
        {
            tracing::info!(flag = self.name, epoch = theirs.epoch(), "another replica went on with it");
            self.machine = theirs.clone();
        }
        self.resource = found;
    }

    /// One line and one Event for each thing that happened.
    async fn tell(&self, before: &Status, around: &Surroundings<'_>) {
        let status = &self.machine;
        around.audit.tell(now_ms(), Some(before), status);
        for event in news(&before.history, &status.history) {
            tracing::info!(flag = self.name, event = event.event, epoch = event.epoch, "{}", event.message);
            let warning = matches!(event.event.as_str(), "RolledBack" | "WithoutProof" | "WithoutAcks" | "GivenUp");
            around.writer.event(&self.resource, warning, &event.event, &event.message).await;
        }
        if let Some(blocked) = &status.blocked
            && before.blocked.as_ref().is_none_or(|old| old.reason != blocked.reason)
        {
            tracing::warn!(flag = self.name, reason = blocked.reason, "{}", blocked.message);
            around.writer.event(&self.resource, true, &blocked.reason, &blocked.message).await;
        }
    }

    fn show(&self, look: &Look, waiting: String, around: &Surroundings<'_>) {
        let view = FlagView {
            name: self.name.clone(),
            spec_version: look.spec.version.clone(),
            status: self.machine.clone(),
            fleet: look.seen.fleet.clone(),
            versions: look.seen.versions.clone(),
            checks: look.seen.checks.clone(),
            waiting: look.problem.as_ref().map_or(waiting, |problem| problem.message.clone()),
            now: look.now_ms,
        };
        around.hub.show(view);
    }
}

/// A version that is gone back to is marked, and what is needed started, before anything is sent there.
fn in_order(effects: Vec<Effect>) -> Vec<Effect> {
    let (mut first, rest): (Vec<_>, Vec<_>) =
        effects.into_iter().partition(|effect| matches!(effect, Effect::Start { .. }));
    first.extend(rest);
    first
}

/// Every version that a record may name.
fn known_versions(machine: &Status, workloads: &Workloads, wanted: &str) -> BTreeSet<String> {
    let recorded = machine.record.iter().flat_map(|record| &record.versions);
    let found = workloads.versions().into_iter().map(str::to_owned);
    found.chain(recorded.cloned()).chain([wanted.to_owned()]).collect()
}

fn refused(why: &str) -> Problem {
    let message = format!("the API server does not let the controller go on: {why}");
    Problem { reason: "Forbidden", message }
}

/// The names of a Service that its callers may use. The short one only where all callers are of its
/// namespace: elsewhere it is another Service's.
fn with_hosts(spec: &Spec, namespace: &str) -> Spec {
    let mut spec = spec.clone();
    for service in spec.services.iter_mut().filter(|service| service.hosts.is_empty()) {
        let name = &service.name;
        let near = spec.callers.namespaces.is_empty().then(|| name.clone());
        service.hosts = long_hosts(name, namespace).into_iter().chain(near).collect();
    }
    spec
}

/// Whose reports a flag waits for: while acks or quiet are to be seen everybody's, otherwise those of
/// the proxies that have not acked.
fn awaited(machine: &Status, look: &Look) -> BTreeSet<String> {
    if Post::watches(machine.phase) {
        return look.expected.clone();
    }
    look.seen.fleet.laggards.iter().map(|laggard| laggard.proxy.clone()).collect()
}

/// Whether a cached object is later than one that was read or written. Resource versions are whole
/// numbers that grow.
fn newer(cached: &VersionFlag, known: &VersionFlag) -> bool {
    let version = |flag: &VersionFlag| flag.resource_version().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    version(cached) > version(known)
}
