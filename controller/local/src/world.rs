//! One flag on one machine: what is seen of it, written of it and done for it. I/O: files, processes, the flag
//! service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use machine::checks::Questions;
use machine::envoy;
use machine::fleet::ledger::{Fleet, FleetQuestion};
use machine::fleet::traffic::Traffic;
use machine::observation::{Headroom, Keeper, Observation, ServiceFacts};
use machine::plan::{Effect, Pass, Plan, upcoming};
use machine::reach::{self, Reach};
use machine::reconcile::World;
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::audit::Audit;
use service::check_runner::CheckRunner;
use service::clock::now;
use service::failpoint;
use service::{FlagView, Hub};

use super::file::{File, VersionCommand};
use super::files;
use super::headroom;
use super::process::{ProcessError, Supervisor};
use super::store::{Store, StoreError};

/// A flag of this machine, and everything that it lives in.
pub(crate) struct Machine {
    /// The operator's file, as it was valid last.
    pub(crate) file: File,
    /// What is wrong with the file as it is now.
    pub(crate) spec_error: Option<String>,
    pub(crate) store: Store,
    /// The status as it is on disk.
    pub(crate) written: Status,
    pub(crate) supervisor: Supervisor,
    pub(crate) hub: Arc<Hub>,
    pub(crate) files: files::FileWriter,
    pub(crate) audit: Audit,
    pub(crate) checks: Arc<CheckRunner>,
}

/// One look at this machine.
pub(crate) struct Seen {
    now: UnixMs,
    spec: Spec,
    expected: BTreeSet<String>,
    observation: Observation,
}

impl World for Machine {
    type Seen = Seen;
    type Error = StoreError;

    fn observe(&mut self) -> Seen {
        let now = now();
        let (spec, expected) = (self.file.spec.clone(), self.expected());
        let (name, status) = (&self.file.metadata.name, &self.store.state.status);
        let services = self.services();
        let probe = reach::probe(&spec, status, &services);
        let asked = FleetQuestion { probe: probe.clone(), ..status.asked() };
        let fleet = status.record.as_ref().map(|record| self.hub.reports.fleet(now, record, &expected, &asked));
        let fleet = fleet.unwrap_or_else(|| Fleet::unknown(0));
        let answered = status.last_request.as_ref().map(|last| last.id.as_str());
        let observation = Observation {
            versions: self.versions(),
            headroom: self.headroom(),
            request: self.hub.requests.next_request(name, answered),
            spec_error: self.spec_error.clone(),
            checks: self.checks.run_due_checks(now, name, Questions::of(&spec, status), &fleet),
            fleet,
            services,
            probe,
            keeper: Keeper::Controller,
            ..Observation::unknown()
        };
        Seen { now, spec, expected, observation }
    }

    fn pass(seen: &Seen) -> Pass<'_> {
        Pass { now: seen.now, spec: &seen.spec, seen: &seen.observation }
    }

    fn status(&self) -> &Status {
        &self.store.state.status
    }

    fn adopt(&mut self, status: Status) {
        self.store.state.status = status;
    }

    /// No other controller writes: the state file is locked.
    async fn persist(&mut self, _: &Seen, plan: &Plan) -> Result<bool, StoreError> {
        if !plan.status.same_but_wording(&self.written) {
            self.store.state.status.clone_from(&plan.status);
            self.store.save()?;
            let before = std::mem::replace(&mut self.written, plan.status.clone());
            self.announce(&before);
        }
        Ok(true)
    }

    fn show(&mut self, seen: &Seen, plan: &Plan) {
        self.hub.show_flag(FlagView {
            name: self.file.metadata.name.clone(),
            spec_version: seen.spec.version.clone(),
            status: Arc::new(plan.status.clone()),
            fleet: seen.observation.fleet.clone(),
            versions: seen.observation.versions.clone(),
            checks: seen.observation.checks.clone(),
            waiting: plan.waiting.clone(),
            next: upcoming(&seen.spec, &plan.status),
            callers: seen.expected.clone(),
            traffic: Traffic::default(),
            now: seen.now,
        });
        self.hub.readiness.mark_flags_observed();
    }

    /// Only the state file's errors end the controller: what it cannot remember it must not do.
    async fn execute(&mut self, seen: &Seen, effect: Effect) -> Result<(), StoreError> {
        let versions = &self.file.local.versions;
        match effect {
            // Nobody else stops anything here, and a process leaves nothing that could be deleted.
            Effect::Protect { .. } | Effect::Delete { .. } => {}
            Effect::Start { version, .. } => {
                if let Some(how) = versions.get(&version) {
                    match self.supervisor.start(seen.now.0, &mut self.store, &version, how) {
                        Ok(()) => {}
                        Err(ProcessError::Store(error)) => return Err(error),
                        Err(error) => tracing::error!(version, %error, "cannot be started"),
                    }
                }
            }
            Effect::Publish(publication) => {
                if self.hub.publish(*publication) {
                    failpoint::point("after the record was published");
                }
            }
            Effect::Route(order) => {
                let routes = self.file.local.filter_config.as_ref().and_then(|filter| filter.routes.clone());
                if let Some(path) = routes {
                    let text = envoy::routes(&seen.spec.routing.header, &order.record);
                    self.write(order.record.epoch, text.map(|text| BTreeMap::from([(path, text)])));
                }
            }
            Effect::Configure(record) => {
                let texts = files::filters(&self.file.local, &seen.spec.routing.header, &record);
                self.write(record.epoch, texts);
            }
            Effect::Stop { version } => {
                let how = versions.get(&version).map(|version| version.stop.clone()).unwrap_or_default();
                self.supervisor.stop(seen.now.0, &mut self.store, &version, &how)?;
            }
        }
        Ok(())
    }

    async fn complete(&mut self, _: &Seen) -> Result<bool, StoreError> {
        Ok(true)
    }
}

impl Machine {
    fn versions(&self) -> BTreeMap<String, machine::observation::VersionState> {
        let (state, versions) = (&self.store.state, &self.file.local.versions);
        let known: BTreeSet<&String> = versions.keys().chain(state.processes.keys()).collect();
        let workload = |version: &str| self.supervisor.workload(&self.store, version, versions.contains_key(version));
        known.into_iter().map(|version| (version.clone(), workload(version))).collect()
    }

    /// How each version can be reached: by the clusters of the record, and as its readiness is asked for.
    fn services(&self) -> BTreeMap<String, ServiceFacts> {
        let readiness = |how: &VersionCommand| Reach { readiness: how.ready.path.clone(), ..Reach::default() };
        let versions = &self.file.local.versions;
        let reach: BTreeMap<_, _> = versions.iter().map(|(version, how)| (version.clone(), readiness(how))).collect();
        let facts = |name: &String| (name.clone(), ServiceFacts { reach: reach.clone(), ..ServiceFacts::default() });
        self.file.spec.services.iter().map(|service| facts(&service.name)).collect()
    }

    /// Whether there is room for a version that is about to be started.
    fn headroom(&self) -> Headroom {
        let state = &self.store.state;
        let starts = state.status.switch.as_ref();
        let starts = starts.filter(|switch| state.status.phase == Phase::Coexisting && switch.headroom_at.is_none());
        starts.map_or(Headroom::Unknown, |switch| {
            let running: Vec<String> = state.processes.keys().cloned().collect();
            headroom::look(&switch.to, &self.file.local.versions, &running)
        })
    }

    /// The proxies that have to ack: a sidecar only while its version runs.
    fn expected(&self) -> BTreeSet<String> {
        let runs = |version: &str| self.supervisor.workload(&self.store, version, true).running;
        let proxies = self.file.local.proxies.iter();
        let expected = proxies.filter(|proxy| proxy.sidecar.as_ref().is_none_or(|sidecar| runs(&sidecar.version)));
        expected.map(|proxy| proxy.id.clone()).collect()
    }

    fn write(&mut self, epoch: u64, texts: Result<BTreeMap<PathBuf, String>, serde_json::Error>) {
        let texts = match texts {
            Ok(texts) => texts,
            Err(error) => return tracing::error!(%error, "the files for Envoy cannot be made"),
        };
        for (path, text) in texts {
            match self.files.write(&path, text) {
                Ok(true) => {
                    tracing::info!(epoch, path = %path.display(), "configured");
                    failpoint::point("after the proxies were configured");
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%error, path = %path.display(), "cannot be written"),
            }
        }
    }

    /// Tells people what is new in the status that was written now.
    fn announce(&self, before: &Status) {
        let status = &self.written;
        self.audit.record_change(now(), Some(before), status);
        if before.phase != status.phase {
            let (from, to) = (before.phase.name(), status.phase.name());
            let (active, epoch) = (&status.active_version, status.epoch());
            let target = status.target_version.as_deref().unwrap_or_default();
            tracing::info!(from, to, active, target, epoch, "phase");
        }
        if let Some(blocked) = &status.blocked
            && before.blocked.as_ref().is_none_or(|old| old.reason != blocked.reason)
        {
            tracing::warn!(reason = blocked.reason.name(), message = blocked.message, "blocked");
        }
        if let Some(seconds) = status.flipped_since(before) {
            self.hub.observe_flip(seconds);
        }
    }
}
