//! What `GET /v1/status` shows of each flag. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use machine::checks::CheckAnswers;
use machine::fleet::ledger::{Fleet, Laggard};
use machine::fleet::traffic::Traffic;
use machine::observation::VersionState;
use machine::plan::Upcoming;
use machine::reason::Reason;
use machine::status::Status;
use machine::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::flip_times::FlipTimes;
use crate::lock::lock;

/// One flag as `GET /v1/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagView {
    /// The flag's name; in a cluster NAMESPACE/NAME.
    pub name: String,
    /// The version that the spec asks for.
    pub spec_version: String,
    /// The status of the state machine, as it was persisted.
    pub status: Arc<Status>,
    /// What the proxies together say of the flag's record.
    pub fleet: Fleet,
    /// The workload of each version, by the version's name.
    pub versions: BTreeMap<String, VersionState>,
    /// The last answers to the flag's checks, by the check's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: CheckAnswers,
    /// What has to be put right first, if the driver has found something: it counts before what the status says.
    #[serde(skip)]
    pub problem: Option<Reason>,
    /// One sentence: what the flag waits for.
    pub waiting: String,
    /// What is done after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Upcoming>,
    /// The names of the proxies that have to ack.
    #[serde(skip)]
    pub callers: BTreeSet<String>,
    /// Proxies that were refused lately and are none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Laggard>,
    /// Where the time of its last flip went, if this controller has published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<FlipTimes>,
    /// The command that helps, or takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The requests to the versions, as of `now`.
    #[serde(default)]
    pub traffic: Traffic,
    /// When this was so.
    pub now: UnixMs,
}

impl FlagView {
    /// A flag of which no more is known than this.
    pub fn of(name: String, status: Arc<Status>, fleet: Fleet, now: UnixMs) -> FlagView {
        FlagView {
            name,
            spec_version: String::new(),
            status,
            fleet,
            versions: BTreeMap::new(),
            checks: BTreeMap::new(),
            problem: None,
            waiting: String::new(),
            next: None,
            callers: BTreeSet::new(),
            refused: vec![],
            flip: None,
            advice: None,
            traffic: Traffic::default(),
            now,
        }
    }

    /// What keeps the flag from moving on.
    pub(crate) fn blocked(&self) -> Option<Reason> {
        let problem = self.problem.filter(|reason| !reason.passes());
        problem.or_else(|| self.status.blocked.as_ref().map(|blocked| blocked.reason))
    }

    /// The versions that requests are or were sent to, and those that may be.
    pub(crate) fn versions_at_work(&self) -> BTreeSet<&str> {
        let Status { active_version, target_version, switch, .. } = &*self.status;
        let named = target_version.iter().chain(switch.iter().map(|switch| &switch.from)).chain([active_version]);
        let all = self.versions.keys().chain(named).map(String::as_str);
        all.filter(|version| !version.is_empty()).collect()
    }

    /// The same without what lets whoever knows it choose a version.
    pub(crate) fn without_secrets(&self) -> FlagView {
        let mut view = self.clone();
        let has_preview = view.status.record.as_ref().is_some_and(|record| record.preview.is_some());
        let status = has_preview.then(|| Arc::make_mut(&mut view.status));
        if let Some(preview) = status.and_then(|status| status.record.as_mut()?.preview.as_mut()) {
            "(hidden)".clone_into(&mut preview.value);
        }
        view
    }
}

/// The views of all flags, as the driver saw them last.
#[derive(Debug, Default)]
pub(crate) struct Views {
    by_flag: Mutex<BTreeMap<String, Arc<FlagView>>>,
}

impl Views {
    /// Replaces the view of a flag.
    pub(crate) fn replace(&self, view: Arc<FlagView>) {
        lock(&self.by_flag).insert(view.name.clone(), view);
    }

    /// Shows a flag no longer. What was shown.
    pub(crate) fn remove(&self, flag: &str) -> Option<Arc<FlagView>> {
        lock(&self.by_flag).remove(flag)
    }

    /// Whether there is a flag of this name.
    pub(crate) fn has(&self, flag: &str) -> bool {
        lock(&self.by_flag).contains_key(flag)
    }

    /// The views of all flags, or of one.
    pub(crate) fn shown(&self, flag: Option<&str>) -> Vec<Arc<FlagView>> {
        let wanted = |view: &&Arc<FlagView>| flag.is_none_or(|flag| view.name == flag);
        lock(&self.by_flag).values().filter(wanted).cloned().collect()
    }
}
