//! One VersionFlag of the cluster: what is remembered of it, and one turn of its state machine.
//! I/O: through the writer and the flag service.

mod execute;
mod gateway;
mod mesh;
mod observe;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kube::ResourceExt;
use machine::fleet::traffic::Traffic;

pub(super) use self::mesh::Headers;
use self::observe::{Look, awaited};
use super::cache::Cache;
use super::domain::Domain;
use super::hosts::Taken;
use super::istio::mesh::{Mesh, MeshError};
use super::lease::Leadership;
use super::prune::Trim;
use super::resource::{ResourceStatus, VersionFlag};
use super::status::{Problem, Seen, derive};
use super::writer::{Writer, is_conflict, refusal};
use machine::plan::{Effect, Plan, step, upcoming};
use machine::spec::Spec;
use machine::status::{Phase, Status};
use service::audit::{Audit, news};
use service::check_runner::Runner;
use service::clock::now_ms;
use service::failpoint;
use service::{FlagView, Hub};

/// Transitions in a row before the next flag has its turn.
const PASSES: usize = 32;

/// Between two writes for the words of what blocks alone.
const REWORD_MS: u64 = 2_000;
/// How long what was only seen waits for something that was decided, to be written with it.
const NEWS_MS: u64 = 1_000;

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
    pub(super) domain: &'a Domain,
    /// The header that the oldest flag of each namespace with Istio's filter asks for, and its name.
    pub(super) headers: &'a Headers,
    /// The flags that name a host which another one has.
    pub(super) taken: &'a Taken,
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
    machine: Arc<Status>,
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
    untold: Option<Arc<Status>>,
    /// When its status was written here last, in Unix milliseconds.
    written_ms: u64,
    /// Since when there has been something to write that can wait.
    news_since: Option<u64>,
    /// Files to write before anything is stopped.
    gathered: BTreeMap<String, String>,
    /// What the API server did not let it do in its last turn.
    refused: Option<Problem>,
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
                .unwrap_or_else(|| Status::new(&uid, &name, now_ms).into()),
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
            news_since: None,
            gathered: BTreeMap::new(),
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
        let callers = self.spec.as_ref().unwrap_or(&self.resource.spec).all_callers();
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

    /// What changes the record is written at once. What else was decided has no effect before it is acted on,
    /// so that a status that is only passed through is never written. What was only seen is acted on at once,
    /// and written with the next decision, or after a while.
    async fn passes(&mut self, claimed: Option<&str>, around: &Surroundings<'_>) -> Result<Option<u64>, TurnError> {
        for _ in 0..PASSES {
            let look = self.look(claimed, around);
            // Without a spec that was ever valid here, or anything to go on with.
            let idle = self.spec.is_none() || (look.problem.is_some() && self.machine.record.is_none());
            let plan = if idle {
                Plan { status: Status::clone(&self.machine), effects: vec![], requeue_ms: None, waiting: String::new() }
            } else {
                step(look.now_ms, &look.spec, &self.machine, &look.seen)
            };
            let moved = plan.status != *self.machine && !plan.status.same_but_wording(&self.machine);
            if plan.status != *self.machine && !moved {
                self.machine = plan.status.into();
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
            if self.must_write(look.now_ms, before.as_ref(), &status) && !self.persist(status, around).await? {
                continue;
            }
            if moved {
                self.move_to(plan.status, around);
                continue;
            }
            self.share();
            self.awaited = awaited(&self.machine, &look);
            self.show(&look, plan.waiting, around);
            self.gathered.clear();
            for effect in in_order(plan.effects) {
                let done = self.act(&look, effect, around).await;
                if let Err(TurnError::Api(error)) = &done {
                    self.refused = refusal(error).map(refused).or_else(|| self.refused.take());
                }
                done?;
            }
            self.write_gathered(around).await?;
            // What is written of it is out of date.
            if self.refused.take().is_some() {
                continue;
            }
            let warm_ms = self.warm_ms.map(|warm| warm.saturating_sub(look.now_ms));
            let news_ms = self.news_since.map(|since| since.saturating_add(NEWS_MS).saturating_sub(look.now_ms));
            return Ok(plan.requeue_ms.into_iter().chain(warm_ms).chain(news_ms).min());
        }
        Ok(Some(1))
    }

    /// Whether the status has to be written before anything is done.
    fn must_write(&mut self, now_ms: u64, before: Option<&ResourceStatus>, status: &ResourceStatus) -> bool {
        let Some(before) = before.filter(|before| before.same_decisions(status)) else {
            self.news_since = None;
            return true;
        };
        if !before.same_but_wording(status) {
            let since = *self.news_since.get_or_insert(now_ms);
            let due = now_ms.saturating_sub(since) >= NEWS_MS;
            self.news_since = self.news_since.filter(|_| !due);
            return due;
        }
        self.news_since = None;
        now_ms.saturating_sub(self.written_ms) >= REWORD_MS && !before.blocked_alike(status)
    }

    /// What is remembered is kept once: there may be many flags.
    fn share(&mut self) {
        let written = self.resource.status.as_mut().and_then(|status| status.machine.as_mut());
        if let Some(written) = written.filter(|written| **written == self.machine) {
            *written = Arc::clone(&self.machine);
        }
    }

    fn move_to(&mut self, status: Status, around: &Surroundings<'_>) {
        if let Some(seconds) = status.flipped_since(&self.machine) {
            around.hub.flipped(seconds);
        }
        let before = std::mem::replace(&mut self.machine, status.into());
        self.untold.get_or_insert(before);
    }

    /// Writes the status. False: somebody else did meanwhile, and everything has to be looked at again.
    async fn persist(&mut self, status: ResourceStatus, around: &Surroundings<'_>) -> Result<bool, TurnError> {
        if !around.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        failpoint::point("before the status is written");
        match around.writer.status(&self.resource, status).await {
            Ok(mut written) => {
                failpoint::point("after the status was written");
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
            self.machine = Arc::clone(theirs);
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
            status: Arc::clone(&self.machine),
            fleet: look.seen.fleet.clone(),
            versions: look.seen.versions.clone(),
            checks: look.seen.checks.clone(),
            waiting: look.problem.as_ref().map_or(waiting, |problem| problem.message.clone()),
            next: upcoming(&look.spec, &self.machine),
            callers: look.expected.clone(),
            traffic: Traffic::default(),
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

fn refused(why: &str) -> Problem {
    let message = format!("the API server does not let the controller go on: {why}");
    Problem { reason: "Forbidden", message }
}

/// Whether a cached object is later than one that was read or written. Resource versions are whole
/// numbers that grow.
fn newer(cached: &VersionFlag, known: &VersionFlag) -> bool {
    let version = |flag: &VersionFlag| flag.resource_version().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    version(cached) > version(known)
}
