//! One VersionFlag of the cluster: what is remembered of it, and one turn of its state machine.
//! I/O: through the writer and the flag service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ::flag::config::Role;
use ::flag::ledger::Fleet;
use kube::ResourceExt;

use super::lease::Leadership;
use super::resource::{REQUEST, ResourceStatus, VersionFlag};
use super::status::{Problem, Seen, derive, unsupported};
use super::workloads::{Objects, Workloads};
use super::write::{Writer, is_conflict};
use super::{headroom, proxies};
use crate::audit::{Audit, news};
use crate::envoy::{self, Filter};
use crate::fault;
use crate::observation::{Headroom, Observation, Request};
use crate::service::{FlagView, Hub, Post, now_ms};
use crate::spec::{Replicas, Spec};
use crate::status::{Phase, Status};
use crate::step::{Effect, Plan, step};

/// Transitions in a row before the next flag has its turn.
const PASSES: usize = 32;

/// What a turn works with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) objects: &'a Objects,
    pub(super) hub: &'a Hub,
    pub(super) writer: &'a Writer,
    pub(super) leadership: &'a Leadership,
    pub(super) filter_path: &'a Path,
    pub(super) flag_service_cluster: &'a str,
    /// A service of it belongs to an older flag: says which.
    pub(super) claimed: Option<&'a str>,
    pub(super) audit: &'a Audit,
}

/// Why a turn ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("its files for the proxies cannot be made: {0}")]
    Files(#[from] serde_json::Error),
    #[error("this replica acts no more")]
    Deposed,
}

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
    /// What is in the ConfigMap.
    files: BTreeMap<String, String>,
    /// The audit log has what was remembered at the start.
    told: bool,
}

/// One look at everything that concerns the flag.
struct Look {
    now_ms: u64,
    spec: Spec,
    workloads: Workloads,
    expected: BTreeSet<String>,
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
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Everything that can be done now. In how many milliseconds to look again.
    pub(super) async fn turn(&mut self, cached: &VersionFlag, around: &Surroundings<'_>) -> Result<u64, TurnError> {
        if newer(cached, &self.resource) {
            self.take_over(cached.clone());
        }
        if !std::mem::replace(&mut self.told, true) {
            around.audit.tell(now_ms(), None, &self.machine);
        }
        for _ in 0..PASSES {
            let look = self.look(around);
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
            let before = self.resource.status.clone();
            let status = derive(&Seen {
                now_ms: look.now_ms,
                generation: self.resource.metadata.generation,
                spec: &look.spec,
                machine: &plan.status,
                fleet: &look.seen.fleet,
                versions: &look.seen.versions,
                workloads: &look.workloads,
                problem: look.problem.as_ref(),
                before: before.as_ref(),
            });
            let current = before.as_ref().is_some_and(|before| before.same_but_wording(&status));
            if !current && !self.persist(status, around).await? {
                continue;
            }
            if moved {
                self.tell(&plan.status, around).await;
                self.machine = plan.status;
                continue;
            }
            self.show(&look, plan.waiting, around);
            for effect in in_order(plan.effects) {
                self.act(&look, effect, around).await?;
            }
            return Ok(plan.requeue_ms.unwrap_or(u64::MAX));
        }
        Ok(1)
    }

    fn look(&mut self, around: &Surroundings<'_>) -> Look {
        let now_ms = now_ms();
        let namespace = self.resource.namespace().unwrap_or_default();
        let wrong = self.resource.spec.validate();
        let valid = wrong.is_empty().then(|| self.resource.spec.clone());
        self.spec = valid.or_else(|| self.spec.take());
        let spec = with_hosts(self.spec.as_ref().unwrap_or(&self.resource.spec), &namespace);
        let workloads = Workloads::find(&namespace, &spec, around.objects);
        let expected = proxies::expected(&namespace, &spec, &around.objects.pods);
        let spec_error = (!wrong.is_empty()).then(|| wrong.join("; "));
        let invalid = spec_error.clone().filter(|_| self.spec.is_none());
        let problem = |reason, message| Problem { reason, message };
        let found = invalid.map(|message| problem("InvalidSpec", message));
        let found = found.or_else(|| around.claimed.map(|message| problem("ServiceTaken", message.to_owned())));
        let found = found.or_else(|| unsupported(&spec));
        let found = found.or_else(|| workloads.errors.first().map(|message| problem("Workloads", message.clone())));
        let versions = self.versions(now_ms, &workloads);
        let status = &self.machine;
        let asked = status.asked();
        let fleet = status.record.as_ref().map(|record| around.hub.fleet(now_ms, record, &expected, &asked));
        let seen = Observation {
            headroom: self.headroom(&namespace, &spec, &workloads, around.objects),
            versions,
            fleet: fleet.unwrap_or_else(|| Fleet::unknown(expected.len())),
            request: self.request(around.hub),
            spec_error,
        };
        Look { now_ms, spec, workloads, expected, problem: found, seen }
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

    fn headroom(&self, namespace: &str, spec: &Spec, workloads: &Workloads, objects: &Objects) -> Headroom {
        let asks = self.machine.switch.as_ref();
        let asks = asks.filter(|switch| self.machine.phase == Phase::Coexisting && switch.headroom_at.is_none());
        asks.map_or(Headroom::Unknown, |switch| {
            let scales = workloads.start(&switch.to, like(spec, &self.machine));
            headroom::look(namespace, &switch.to, &scales, objects)
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
            Ok(written) => {
                fault::point("after the status was written");
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
    async fn tell(&self, status: &Status, around: &Surroundings<'_>) {
        around.audit.tell(now_ms(), Some(&self.machine), status);
        for event in news(&self.machine.history, &status.history) {
            tracing::info!(flag = self.name, event = event.event, epoch = event.epoch, "{}", event.message);
            let warning = matches!(event.event.as_str(), "RolledBack" | "WithoutProof" | "WithoutAcks" | "GivenUp");
            around.writer.event(&self.resource, warning, &event.event, &event.message).await;
        }
        if let Some(blocked) = &status.blocked
            && self.machine.blocked.as_ref().is_none_or(|old| old.reason != blocked.reason)
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
            waiting: look.problem.as_ref().map_or(waiting, |problem| problem.message.clone()),
            now: look.now_ms,
        };
        around.hub.show(view);
    }

    async fn act(&mut self, look: &Look, effect: Effect, around: &Surroundings<'_>) -> Result<(), TurnError> {
        if !around.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        match effect {
            Effect::Publish(record) => {
                let audience = Some(look.expected.clone());
                if around.hub.publish(Post { audience, ..Post::of(&self.machine, &record) }) {
                    fault::point("after the record was published");
                }
            }
            Effect::Route(record) => {
                let routes = envoy::routes(&look.spec.routing.header, &record)?;
                self.write_files(BTreeMap::from([("routes.json".to_owned(), routes)]), around).await?;
            }
            Effect::Configure(record) => {
                let filter = Filter {
                    wasm: around.filter_path,
                    cluster: around.flag_service_cluster,
                    role: Role::Auto,
                    workload: None,
                    header: &look.spec.routing.header,
                };
                let mut files = BTreeMap::from([("filter.json".to_owned(), envoy::filter(filter.clone(), &record)?)]);
                for (name, workload) in sidecars(look) {
                    let filter = Filter { workload: Some(workload), ..filter.clone() };
                    files.insert(name, envoy::filter(filter, &record)?);
                }
                self.write_files(files, around).await?;
            }
            Effect::Start { version } => self.start(look, &version, around).await?,
            Effect::Stop { version } => {
                for scale in look.workloads.stop(&version) {
                    tracing::info!(flag = self.name, workload = %scale.object, "scaled to 0");
                    around.writer.scale(&scale).await?;
                    fault::point("after a workload was scaled down");
                }
            }
        }
        Ok(())
    }

    async fn start(&self, look: &Look, version: &str, around: &Surroundings<'_>) -> Result<(), TurnError> {
        let machine = &self.machine;
        let active = version == machine.active_version;
        let rollback = machine.switch.as_ref().is_some_and(|switch| switch.rollback);
        if active && rollback && machine.phase == Phase::Switching {
            let epoch = machine.epoch();
            let marked = |object: &&&super::workloads::Object| {
                let annotations = object.metadata().annotations.as_ref();
                annotations.and_then(|all| all.get(super::resource::KEPT_AT)).is_some_and(|at| *at == epoch.to_string())
            };
            for object in look.workloads.objects(version).iter().filter(|object| !marked(object)) {
                around.writer.keep(object, epoch).await?;
                fault::point("after a workload was marked to be kept");
            }
        }
        // Whoever scales the version that serves, and nothing else is going on, means it.
        if active && matches!(machine.phase, Phase::Adopting | Phase::Stable) {
            return Ok(());
        }
        let like = if active { None } else { like(&look.spec, machine) };
        for scale in look.workloads.start(version, like) {
            tracing::info!(flag = self.name, workload = %scale.object, replicas = scale.replicas, "scaled up");
            around.writer.scale(&scale).await?;
            fault::point("after a workload was scaled up");
        }
        Ok(())
    }

    async fn write_files(
        &mut self,
        mut files: BTreeMap<String, String>,
        around: &Surroundings<'_>,
    ) -> Result<(), TurnError> {
        files.retain(|name, text| self.files.get(name) != Some(text));
        if files.is_empty() {
            return Ok(());
        }
        let name = format!("versionflag-{}", self.resource.name_any());
        around.writer.files(&self.resource.namespace().unwrap_or_default(), &name, &files).await?;
        fault::point("after the files of the proxies were written");
        self.files.extend(files);
        Ok(())
    }
}

/// A version that is gone back to is marked, and what is needed started, before anything is sent there.
fn in_order(effects: Vec<Effect>) -> Vec<Effect> {
    let (mut first, rest): (Vec<_>, Vec<_>) =
        effects.into_iter().partition(|effect| matches!(effect, Effect::Start { .. }));
    first.extend(rest);
    first
}

/// The version whose strength a new one gets.
fn like<'a>(spec: &Spec, machine: &'a Status) -> Option<&'a str> {
    (spec.coexistence.replicas == Replicas::MatchActive).then_some(machine.active_version.as_str())
}

/// One file a version of a service, for the proxies beside it.
fn sidecars(look: &Look) -> BTreeMap<String, ::flag::config::Workload> {
    let groups = look.workloads.services.iter().flat_map(|(service, groups)| {
        groups
            .keys()
            .map(move |version| ::flag::config::Workload { service: service.clone(), version: version.clone() })
    });
    groups.map(|workload| (format!("{}-{}.json", workload.service, workload.version), workload)).collect()
}

/// The names of a Service that its callers may use. The short one only where all callers are of its
/// namespace: elsewhere it is another Service's.
fn with_hosts(spec: &Spec, namespace: &str) -> Spec {
    let mut spec = spec.clone();
    for service in spec.services.iter_mut().filter(|service| service.hosts.is_empty()) {
        let name = &service.name;
        let long = ["", ".svc", ".svc.cluster.local"].map(|end| format!("{name}.{namespace}{end}"));
        let near = spec.callers.namespaces.is_empty().then(|| name.clone());
        service.hosts = long.into_iter().chain(near).collect();
    }
    spec
}

/// Whether a cached object is later than one that was read or written. Resource versions are whole
/// numbers that grow.
fn newer(cached: &VersionFlag, known: &VersionFlag) -> bool {
    let version = |flag: &VersionFlag| flag.resource_version().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    version(cached) > version(known)
}
