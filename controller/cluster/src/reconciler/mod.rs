//! One VersionFlag of the cluster: what is remembered of it, and one turn of its state machine.
//! I/O: through the writer, the mesh and the flag service.
//!
//! | module | does |
//! | --- | --- |
//! | `observe` | one look at everything that concerns the flag |
//! | `persist` | the status of the resource, written where it has to be |
//! | `execute` | what a plan says |
//! | `files` | the files of its proxies |
//! | `announce` | history and blockers, for people |

mod announce;
mod execute;
mod files;
mod observe;
mod persist;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::steadiness::Steadiness;
use kube::ResourceExt;
use machine::duration::Millis;
use machine::plan::{Effect, Pass, Plan};
use machine::reason::Problem;
use machine::reconcile::{World, reconcile};
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::clock::now;

use self::files::KnownFiles;
use self::observe::Seen;
use super::context::{Context, TurnError};
use super::providers::Files;
use super::resource::VersionFlag;

/// One flag, as its leader remembers it.
#[derive(Debug)]
pub(crate) struct Reconciler {
    /// `NAMESPACE/NAME` of the flag.
    name: String,
    /// The resource as it was read or written last.
    resource: VersionFlag,
    /// The status as it is remembered.
    status: Arc<Status>,
    /// The last spec that was valid.
    spec: Option<Spec>,
    /// Since when each version has been ready.
    steadiness: BTreeMap<String, Steadiness>,
    files: KnownFiles,
    /// Files to write before anything is stopped.
    gathered: Files,
    /// The audit log has the history from before this process.
    replayed: bool,
    /// The proxies that the flag waits for a report of.
    awaited: BTreeSet<String>,
    /// Why its routes are not written.
    unwritten: Option<String>,
    /// The status of the last announcement, if the flag has moved since.
    unannounced: Option<Arc<Status>>,
    /// When its status was written here last, by this leader.
    written_at: Option<UnixMs>,
    /// What blocked in the status that was written here last.
    worded: Option<Problem>,
    /// Since when there has been something to write that can wait.
    news_since: Option<UnixMs>,
    /// What the API server did not let it do in its last turn.
    refused: Option<Problem>,
}

impl Reconciler {
    /// Begins with what the resource remembers of itself.
    pub(crate) fn new(resource: &VersionFlag, now: UnixMs) -> Reconciler {
        let name = format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any());
        let uid = resource.uid().unwrap_or_default();
        let remembered = resource.status.as_ref().and_then(|status| status.machine.clone());
        Reconciler {
            resource: resource.clone(),
            status: remembered
                .filter(|machine| machine.uid == uid)
                .unwrap_or_else(|| Status::new(&uid, &name, now).into()),
            name,
            spec: None,
            steadiness: BTreeMap::new(),
            files: KnownFiles::default(),
            gathered: Files::new(),
            replayed: false,
            awaited: BTreeSet::new(),
            unwritten: None,
            unannounced: None,
            written_at: None,
            worded: None,
            news_since: None,
            refused: None,
        }
    }

    /// Whether the flag is on its way to another version.
    pub(crate) fn is_moving(&self) -> bool {
        !matches!(self.status.phase, Phase::Adopting | Phase::Stable)
    }

    /// Whether proxies hold requests for it.
    pub(crate) fn holds(&self) -> bool {
        self.status.phase.holds()
    }

    /// Whether any proxy's report may move it.
    pub(crate) fn awaits_reports(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Whether changes in these namespaces, or reports of these proxies, may move it. Those of its
    /// own namespace do.
    pub(crate) fn concerns(&self, namespaces: &BTreeSet<String>, reported: &BTreeSet<String>) -> bool {
        let callers = self.spec.as_ref().unwrap_or(&self.resource.spec).all_callers();
        let gateways = || callers.gateways.iter().filter_map(|gateway| gateway.namespace.as_ref());
        !callers.namespaces.is_disjoint(namespaces)
            || gateways().any(|namespace| namespaces.contains(namespace))
            || !self.awaited.is_disjoint(reported)
    }

    fn namespace(&self) -> String {
        self.resource.namespace().unwrap_or_default()
    }

    /// Everything that can be done now. In how long to look again, if time alone may move it. `claimed` says which
    /// older flag a service of it belongs to.
    pub(crate) async fn turn(
        &mut self,
        cached: &VersionFlag,
        claimed: Option<&str>,
        context: &Context<'_>,
    ) -> Result<Option<Millis>, TurnError> {
        if newer(cached, &self.resource) {
            self.take_over(cached.clone());
        }
        if !std::mem::replace(&mut self.replayed, true) {
            context.audit.record_change(now(), None, &self.status);
        }
        let done = reconcile(&mut Turn { flag: self, claimed, context }).await;
        // Nobody waits for that, and the proxies did for what was done. What is not written has not happened.
        if self.is_written()
            && let Some(before) = self.unannounced.take()
        {
            self.announce(&before, context).await;
        }
        Ok(done?.into_iter().chain(self.news_due()).min())
    }

    /// Somebody else has written. A later record than ours is another leader's. So is what is stored of the same record
    /// as long as nothing was written here: what this leader began with was a cache, and may have been old, and a
    /// suspension or an abort changes no record. Anything else is somebody's edit, and is undone by the next write.
    fn take_over(&mut self, found: VersionFlag) {
        let theirs = found.status.as_ref().and_then(|status| status.machine.as_ref());
        let begins = self.written_at.is_none();
        if let Some(theirs) = theirs.filter(|theirs| theirs.uid == self.status.uid)
            && (theirs.epoch() > self.status.epoch() || begins && theirs.record == self.status.record)
        {
            tracing::info!(flag = self.name, epoch = theirs.epoch(), "another replica went on with it");
            self.status = Arc::clone(theirs);
        }
        self.resource = found;
    }
}

/// Whether a cached object is later than one that was read or written. Resource versions are whole
/// numbers that grow.
fn newer(cached: &VersionFlag, known: &VersionFlag) -> bool {
    let version = |flag: &VersionFlag| flag.resource_version().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    version(cached) > version(known)
}

/// One turn of a flag.
struct Turn<'a> {
    flag: &'a mut Reconciler,
    claimed: Option<&'a str>,
    context: &'a Context<'a>,
}

impl World for Turn<'_> {
    type Seen = Seen;
    type Error = TurnError;

    fn observe(&mut self) -> Seen {
        self.flag.observe(self.claimed, self.context)
    }

    fn pass(seen: &Seen) -> Pass<'_> {
        Pass { now: seen.look.now, spec: &seen.look.spec, seen: &seen.observation }
    }

    fn status(&self) -> &Status {
        &self.flag.status
    }

    fn adopt(&mut self, status: Status) {
        self.flag.adopt(status, self.context);
    }

    async fn persist(&mut self, seen: &Seen, plan: &Plan) -> Result<bool, TurnError> {
        self.flag.persist(seen, plan, self.context).await
    }

    fn show(&mut self, seen: &Seen, plan: &Plan) {
        self.flag.show(seen, plan, self.context);
    }

    async fn execute(&mut self, seen: &Seen, effect: Effect) -> Result<(), TurnError> {
        self.flag.execute(seen, effect, self.context).await
    }

    async fn complete(&mut self, _: &Seen) -> Result<bool, TurnError> {
        self.flag.write_gathered(self.context).await?;
        // What is written of it is out of date.
        Ok(self.flag.refused.take().is_none())
    }
}

#[cfg(test)]
#[path = "../tests/reconciler.rs"]
mod tests;
