//! One flag on one machine: what is seen of it, written of it and done for it. I/O: files, processes, the flag
//! service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use machine::action::Action;
use machine::checks::Questions;
use machine::fleet::ledger::{Fleet, FleetQuestion};
use machine::history::Happening;
use machine::observation::{Headroom, Keeper, Observation, ServiceFacts, VersionState};
use machine::plan::{Effect, Pass, Plan, upcoming};
use machine::reach::{self, Reach};
use machine::reason::{Problem, Reason};
use machine::reconcile::World;
use machine::spec::{Service, Spec};
use machine::status::{Blocked, LastRequest, Phase, Status};
use machine::time::UnixMs;
use service::audit::Audit;
use service::check_runner::CheckRunner;
use service::clock::now;
use service::failpoint;
use service::{FlagView, Hub};

use super::file::{File, VersionCommand};
use super::headroom;
use super::process::restart;
use super::proxy_files::ProxyFiles;
use super::shared_files::SharedFiles;
use super::store::{Store, StoreError};
use super::supervisor::{Supervisor, rests};

/// What all flags of this machine have in common.
pub(crate) struct Around {
    pub(crate) hub: Arc<Hub>,
    pub(crate) files: Arc<Mutex<SharedFiles>>,
    pub(crate) audit: Audit,
    pub(crate) checks: Arc<CheckRunner>,
}

/// A flag of this machine, and everything that it lives in.
pub(crate) struct Machine {
    /// The operator's file, as it was valid last.
    pub(crate) file: File,
    /// What is wrong with the file as it is now.
    pub(crate) spec_error: Option<String>,
    /// Why what it shares with other flags is left as it is.
    pub(crate) held: Option<String>,
    pub(crate) store: Store,
    /// The status as it is on disk.
    written: Status,
    pub(crate) supervisor: Supervisor,
    pub(crate) hub: Arc<Hub>,
    files: ProxyFiles,
    pub(crate) audit: Audit,
    pub(crate) checks: Arc<CheckRunner>,
    /// Failed writes that the metrics have.
    counted: u64,
    /// It was looked at, and people are shown it.
    pub(crate) is_shown: bool,
}

/// One look at this machine.
pub(crate) struct Seen {
    began: Instant,
    now: UnixMs,
    spec: Spec,
    expected: BTreeSet<String>,
    observation: Observation,
}

impl World for Machine {
    type Seen = Seen;
    type Error = StoreError;

    fn observe(&mut self) -> Seen {
        let (began, now) = (Instant::now(), now());
        self.files.look(&self.file.local);
        let (spec, expected) = (self.file.spec.clone(), self.expected());
        let (name, status) = (&self.file.metadata.name, &self.store.state.status);
        let services = self.services();
        let probe = reach::probe(&spec, status, &services);
        let asked = status.asked(&spec);
        let asked = FleetQuestion {
            probe: probe.clone(),
            members: self.file.local.beside(&asked.old),
            drain_ms: spec.settle.drain_time.map_or(0, |drain| drain.0),
            ..asked
        };
        let fleet = status.record.as_ref().map(|record| self.hub.reports.fleet(now, record, &expected, &asked));
        let fleet = fleet.unwrap_or_else(|| Fleet::unknown(0));
        let orders = self.hub.orders.as_ref();
        let order = orders.and_then(|all| all.next_request(name, |id| status.answered_order(id).is_some()));
        let traffic = order.as_ref().map(|_| self.hub.reports.traffic_of(now, &status.uid, &expected));
        let open = traffic.map(|traffic| traffic.open()).unwrap_or_default();
        let observation = Observation {
            versions: self.versions(now),
            headroom: self.headroom(),
            request: self.hub.requests.next_request(name, |id| status.has_answered(id)),
            open,
            order,
            occurred: self.supervisor.occurred(|one| status.history.iter().any(|entry| one.is(entry))),
            routes: self.held().or_else(|| self.files.problem(&self.file.local)),
            clusters: self.files.clusters(&self.file.local, &self.store.state),
            spec_error: self.spec_error.clone(),
            checks: self.checks.run_due_checks(now, name, Questions::of(&spec, status), &fleet),
            fleet,
            services,
            probe,
            keeper: Keeper::Controller,
            leads_since: self.hub.leads_since(),
            leaving: self.hub.is_leaving(),
            given_out: self.hub.given_out(name, &status.uid),
            other_fence: self.hub.fences.other(&status.uid, &expected),
            uncovered: self.uncovered(&expected),
            ..Observation::unknown()
        };
        Seen { began, now, spec, expected, observation }
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
    async fn persist(&mut self, seen: &Seen, plan: &Plan) -> Result<bool, StoreError> {
        let status = &self.store.state.status;
        let begins = plan.status.phase.holds() && !status.phase.holds();
        if begins && !self.hub.fences.claim(&status.uid, &self.file.metadata.name, &seen.expected) {
            return Ok(false);
        }
        self.hub.stopwatch.decided(status, &plan.status, &seen.expected, seen.now, seen.began);
        if !plan.status.same_but_wording(&self.written) {
            let before = std::mem::replace(&mut self.store.state.status, plan.status.clone());
            if let Err(error) = self.store.save() {
                self.store.state.status = before;
                self.show(seen, plan);
                return Err(error);
            }
            let before = std::mem::replace(&mut self.written, plan.status.clone());
            self.hub.stopwatch.written(&plan.status.uid);
            self.announce(&before);
            if before.phase.holds() && plan.status.phase == Phase::Switching {
                failpoint::point("after a fence was opened");
            }
        }
        Ok(true)
    }

    fn stored(&self) -> Option<&Status> {
        Some(&self.written)
    }

    fn show(&mut self, seen: &Seen, plan: &Plan) {
        let (mut status, mut waiting) = (plan.status.clone(), plan.waiting.clone());
        if let Some((since, why)) = self.store.unwritten() {
            let message = format!("nothing more is decided: {why}");
            status.blocked = Some(Blocked { reason: Reason::StateNotWritten, message: message.clone(), since });
            waiting = message;
        }
        let (name, fleet) = (self.file.metadata.name.clone(), seen.observation.fleet.clone());
        self.hub.show_flag(FlagView {
            spec_version: seen.spec.version.clone(),
            versions: seen.observation.versions.clone(),
            checks: seen.observation.checks.clone(),
            waiting,
            next: upcoming(&seen.spec, &plan.status),
            callers: seen.expected.clone(),
            ..FlagView::of(name, Arc::new(status), fleet, seen.now)
        });
        self.is_shown = true;
    }

    /// An error is the state file's: what cannot be remembered is not done.
    async fn execute(&mut self, seen: &Seen, effect: Effect) -> Result<(), StoreError> {
        let versions = &self.file.local.versions;
        match effect {
            // Nobody else stops anything here, and a process leaves nothing that could be deleted.
            Effect::Protect { .. } | Effect::Delete { .. } => {}
            Effect::Start { version, .. } => {
                if let Some(how) = versions.get(&version) {
                    self.supervisor.start(seen.now.0, &mut self.store, &version, how);
                }
            }
            Effect::Cluster { versions } => {
                self.files.write_clusters(&self.hub, &self.file, &mut self.store, &versions)
            }
            Effect::Publish(publication) => {
                if self.hub.publish(*publication) {
                    failpoint::point("after the record was published");
                }
            }
            Effect::Route(order) => {
                self.files.write_routes(&self.hub, &self.file.local, &seen.spec.routing.header, &order.record);
            }
            Effect::Configure(record) => {
                self.files.write_filters(&self.hub, &self.file.local, &seen.spec.routing.header, &record);
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
    /// What was done before is on disk; nothing is known yet of what runs. Files of proxies stay as they are.
    pub(crate) fn new(file: File, store: Store, supervisor: Supervisor, around: &Around) -> Machine {
        let written = store.state.status.clone();
        let mut files = ProxyFiles::new(&file.metadata.name, Arc::clone(&around.files));
        files.join(&around.hub, &file, &store.state);
        let (hub, audit, checks) = (Arc::clone(&around.hub), around.audit.clone(), Arc::clone(&around.checks));
        let (spec_error, held, counted, is_shown) = (None, None, 0, false);
        Machine { file, spec_error, held, store, written, supervisor, hub, files, audit, checks, counted, is_shown }
    }

    /// The flag is not this controller's any more: its versions go on running, its state stays, and proxies read
    /// nothing of it.
    pub(crate) fn let_go(mut self) {
        let (now, before) = (now(), self.store.state.status.clone());
        let message =
            "the flag was taken out of the files: the controller lets go of it, and its versions go on running";
        tracing::warn!(flag = self.file.metadata.name, "{message}");
        self.store.state.status.note(now, Happening::Edited, message.to_owned());
        self.store.state.status.date_entries();
        self.store.note();
        self.audit.record_change(now, Some(&before), &self.store.state.status);
        self.files.leave(&self.hub);
        let name = &self.file.metadata.name;
        self.hub.forget_flag(name);
        // Nobody answers what was asked of it.
        let _ = self.hub.requests.next_request(name, |_| true);
        let _ = self.hub.orders.as_ref().and_then(|orders| orders.next_request(name, |_| true));
    }

    /// Whoever asks to go on, or to give up, has what waits for its next start tried at once.
    pub(crate) fn forgive(&mut self) {
        let asks = |last: &&LastRequest| last.refused.is_none() && matches!(last.action, Action::Retry | Action::Abort);
        if let Some(last) = self.store.state.status.last_request.as_ref().filter(asks) {
            self.supervisor.forgive(last.at, None);
        }
    }

    /// Goes by another file from now on.
    pub(crate) fn take_edit(&mut self, now: UnixMs, file: File) {
        let (old, new) = (&self.file.local.versions, &file.local.versions);
        let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let edited: Vec<&str> =
            all.into_iter().filter(|one| old.get(*one) != new.get(*one)).map(String::as_str).collect();
        edited.iter().for_each(|version| self.supervisor.forgive(now, Some(version)));
        let mut what = vec![];
        if file.spec.version != self.file.spec.version {
            what.push(format!("it asks for {} instead of {}", file.spec.version, self.file.spec.version));
        } else if file.spec != self.file.spec {
            what.push("spec".to_owned());
        }
        what.extend(edited.iter().map(|version| format!("local.versions.{version}")));
        what.extend(file.local.differs_from(&self.file.local).map(|field| format!("local.{field}")));
        let name = &self.file.metadata.name;
        let outdated = |version: &&&str| {
            let started = self.store.state.processes.get(**version).and_then(|process| process.started_as.as_ref());
            started.zip(new.get(**version)).is_some_and(|(started, how)| started.outdated(name, version, how).is_some())
        };
        what.extend(
            edited
                .iter()
                .filter(outdated)
                .map(|version| format!("{version} goes on as it was started until {}", restart(name, version))),
        );
        if !what.is_empty() {
            self.supervisor.note(now.0, Happening::Edited, format!("the file was edited: {}", what.join(", ")));
        }
        self.file = file;
        self.spec_error = None;
        self.files.join(&self.hub, &self.file, &self.store.state);
    }

    /// Whether nothing of it moves, and all that runs is meant to.
    pub(crate) fn rests(&self) -> bool {
        let (state, status) = (&self.store.state, &self.store.state.status);
        let settled = rests(status) && status.blocked.is_none() && status.restarts.is_empty();
        let serve = state.processes.contains_key(&status.active_version)
            && state.processes.values().all(|process| process.serves());
        settled && serve && self.store.unwritten().is_none() && self.files.problem(&self.file.local).is_none()
    }

    /// The problem that another flag is missing.
    fn held(&self) -> Option<Problem> {
        self.held.as_ref().map(|why| Problem::new(Reason::OtherFlagUnread, why))
    }

    /// Shows in the metrics what could not be written.
    pub(crate) fn show_store(&mut self) {
        let failures = self.store.failures();
        self.hub.count_write_failures("state", failures.saturating_sub(self.counted));
        self.counted = failures;
    }

    fn versions(&self, now: UnixMs) -> BTreeMap<String, VersionState> {
        let (state, versions) = (&self.store.state, &self.file.local.versions);
        let known: BTreeSet<&String> = versions.keys().chain(state.processes.keys()).collect();
        let workload = |version: &str| self.supervisor.workload(now.0, &self.store, version, versions.get(version));
        let mut found: BTreeMap<_, _> = known.into_iter().map(|version| (version.clone(), workload(version))).collect();
        if let Some(active) = found.get_mut(&state.status.active_version) {
            let problems = self.held().into_iter().chain(self.files.problem(&self.file.local));
            active.notes.extend(problems.map(|problem| problem.message));
        }
        found
    }

    /// How each version can be reached: by the clusters of the record, and as its readiness is asked for.
    fn services(&self) -> BTreeMap<String, ServiceFacts> {
        let readiness = |how: &VersionCommand| Reach { readiness: how.ready.path.clone(), ..Reach::default() };
        let versions = &self.file.local.versions;
        let reach: BTreeMap<_, _> = versions.iter().map(|(version, how)| (version.clone(), readiness(how))).collect();
        // A version that was taken out of the file is named until it is gone.
        let state = &self.store.state;
        let recorded = state.status.record.iter().flat_map(|record| &record.versions);
        let known: BTreeSet<&String> = versions.keys().chain(state.processes.keys()).chain(recorded).collect();
        let facts = |service: &Service| {
            let clusters = known.iter().map(|version| ((*version).clone(), service.clusters_of(version))).collect();
            (service.name.clone(), ServiceFacts { clusters, reach: reach.clone(), ..ServiceFacts::default() })
        };
        self.file.spec.services.iter().map(facts).collect()
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
        let runs = |version: &str| self.store.state.processes.contains_key(version);
        let proxies = self.file.local.proxies.iter();
        let expected = proxies.filter(|proxy| proxy.sidecar.as_ref().is_none_or(|sidecar| runs(&sidecar.version)));
        expected.map(|proxy| proxy.id.clone()).collect()
    }

    /// What of each version has no proxy beside it that has to ack: a version is one process.
    fn uncovered(&self, expected: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<String>> {
        let local = &self.file.local;
        let of = |version: &String| {
            let covered = !local.beside(version).is_disjoint(expected);
            (version.clone(), if covered { BTreeSet::new() } else { BTreeSet::from([version.clone()]) })
        };
        local.versions.keys().map(of).collect()
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
            self.hub.observe_flip(&status.uid, seconds);
        }
        if let Some((committed, seconds)) = status.hold_ended_since(before) {
            self.hub.observe_hold(committed, seconds);
        }
    }
}
