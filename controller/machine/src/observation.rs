//! What is seen of the world in one pass. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flag::probe::Probe;
use flag::record::Gate;
use serde::{Deserialize, Serialize};

use crate::action::Request;
use crate::checks::CheckAnswers;
use crate::fleet::ledger::Fleet;
use crate::fleet::traffic::OpenRequests;
use crate::history::{Entry, Happening};
use crate::order::Order;
use crate::reach::Reach;
use crate::reason::{Problem, Reason, SENTENCE, shortened};
use crate::time::UnixMs;

/// One version's workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionState {
    /// It is known how to start it.
    pub declared: bool,
    /// Something of it runs, even while it is stopping.
    pub running: bool,
    /// The share of it that the spec asks for serves, and it is not being stopped.
    pub ready: bool,
    /// Since when it has been ready without a break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<UnixMs>,
    /// When it was started, if that was here and is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<UnixMs>,
    /// What it lacks to be ready, in words, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// How it ended, if it did so by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exited: Option<String>,
    /// When it is started again, if it ended and that is not now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start: Option<UnixMs>,
    /// Why it is not started, and what to do about it, if somebody else is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barred: Option<String>,
    /// What people should know of it beside that, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Something of it is there that can be deleted, whether it runs or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exists: bool,
    /// It is meant not to run: what of it still does is ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// What of it still runs although it is meant not to, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ending: Vec<String>,
    /// What it consists of, by kind, name and uid, where somebody else may make more of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub workloads: BTreeSet<String>,
    /// How strong it is in each service, where that is told apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub strength: BTreeMap<String, Strength>,
    /// Who else says how many pods it has, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub autoscalers: Vec<String>,
    /// The epoch at which everything of it was marked to be kept; absent: something of it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_at: Option<u64>,
    /// What made it, and makes another version now, by name and with that version: it is being replaced in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relabelled: Vec<String>,
}

/// How strong one version is in one service, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Strength {
    /// How many it is asked to have.
    pub asked: u32,
    /// How many serve.
    pub serving: u32,
}

impl VersionState {
    /// Whether it runs, or it is known how to start it.
    pub(crate) fn can_run(&self) -> bool {
        self.declared || self.running
    }

    /// Why it does not run, or not for long, if that is known: the reason, where it has one of its own, and what comes
    /// after its name in a sentence.
    pub(crate) fn failure(&self, otherwise: Reason) -> Option<(Reason, String)> {
        let barred = self.barred.as_ref().map(|why| (Reason::NotStarted, format!("is not started: {why}")));
        barred.or_else(|| Some((otherwise, format!("does not stay up: {}", self.exited.as_ref()?))))
    }

    /// Whether somebody serves in every service, at full strength or not.
    pub fn serves(&self) -> bool {
        let everywhere = !self.strength.is_empty() && self.strength.values().all(|one| one.serving > 0);
        self.ready || (everywhere && !self.stopped)
    }

    /// What it lacks to be ready, for the end of a sentence.
    pub(crate) fn lacking(&self) -> String {
        self.lacks.as_ref().map(|lacks| format!(": {lacks}")).unwrap_or_default()
    }

    /// Whether somebody serves in this service, at full strength or not.
    pub fn serves_in(&self, service: &str) -> bool {
        self.ready || self.strength.get(service).is_some_and(|one| one.serving > 0)
    }
}

/// Something that happened outside of the state machine, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// When it happened.
    pub at: UnixMs,
    /// What kind of thing it was.
    pub event: Happening,
    /// What happened, in one sentence.
    pub message: String,
}

impl Occurrence {
    /// Whether this entry of a history is of it.
    pub fn is(&self, entry: &Entry) -> bool {
        (self.at, self.event) == (entry.at, entry.event) && shortened(self.message.clone(), SENTENCE) == entry.message
    }
}

/// Whether there is room for one version more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Headroom {
    /// There is.
    Fits,
    /// There is not.
    Short {
        /// What is short, with its numbers.
        message: String,
    },
    /// Nobody can tell.
    #[default]
    Unknown,
}

/// Who keeps a version that serves running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeper {
    /// The controller: it starts again what ended.
    #[default]
    Controller,
    /// The platform. Whoever makes the version smaller, while nothing is switched, means it.
    Platform,
}

/// Something of one version that routes can lead to: a subset, or a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Since when it has been there, as far as this controller has seen it.
    pub since: UnixMs,
    /// Since when it has had somebody who serves; `None`: nobody does.
    pub serving_since: Option<UnixMs>,
}

/// What the platform knows of one service of the spec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceFacts {
    /// The hosts by which callers name it, those of the spec among them.
    pub hosts: BTreeSet<String>,
    /// Envoy clusters by version, where the spec names none.
    pub clusters: BTreeMap<String, BTreeSet<String>>,
    /// The labels of its pods, each as `key=value`; empty where proxies are told which pods they stand beside.
    pub selector: BTreeSet<String>,
    /// What routes can lead to, by version.
    pub destinations: BTreeMap<String, Destination>,
    /// How each version can be reached, as far as it is known.
    pub reach: BTreeMap<String, Reach>,
    /// The versions that each route object written here leads to, by name of the object.
    pub routed: BTreeMap<String, BTreeSet<String>>,
}

/// The clusters that proxies read from a file, where the controller writes that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterFacts {
    /// The versions that have clusters there.
    pub there: BTreeSet<String>,
    /// The versions that routes and filters may name as proxies read them now; `None`: nobody knows.
    pub named: Option<BTreeSet<String>>,
}

/// Everything that is seen in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// By version.
    pub versions: BTreeMap<String, VersionState>,
    /// Room for the version that is wanted.
    pub headroom: Headroom,
    /// What the proxies say of the record last written.
    pub fleet: Fleet,
    /// The request to answer.
    pub request: Option<Request>,
    /// What is asked for of one version, to be answered.
    pub order: Option<Order>,
    /// The requests that are open on each version, where an order asks.
    pub open: OpenRequests,
    /// What happened outside; what is in the history already is not taken in again.
    pub occurred: Vec<Occurrence>,
    /// What is wrong with the spec as it was edited last; the one before is in force.
    pub spec_error: Option<String>,
    /// The last answers to the checks that are asked now.
    pub checks: CheckAnswers,
    /// The namespace by which proxies find out which pods they stand beside; empty where they are told.
    pub namespace: String,
    /// What is known of each service of the spec, by name.
    pub services: BTreeMap<String, ServiceFacts>,
    /// The clusters of the proxies; `None`: they are somebody else's.
    pub clusters: Option<ClusterFacts>,
    /// What the proxies are asked to reach.
    pub probe: Option<Probe>,
    /// The proxies that are sent the record; `None`: every proxy that asks.
    pub audience: Option<BTreeSet<String>>,
    /// What has to be put right outside of the state machine.
    pub problem: Option<Problem>,
    /// What is wrong with the routes. While something is, requests are moved to no other version, and no
    /// version is removed.
    pub routes: Option<Problem>,
    /// No spec was ever valid since this controller began, so that nothing can be planned.
    pub spec_unknown: bool,
    /// Who keeps a version that serves running, where nothing is switched.
    pub keeper: Keeper,
    /// Since when this controller leads. Another time is another controller.
    pub leads_since: UnixMs,
    /// This controller is about to end.
    pub leaving: bool,
    /// The gate of the record that this controller's flag service gives out; `None`: it gives out none yet.
    pub given_out: Option<Gate>,
    /// Another flag that holds requests of callers of this one, by name.
    pub other_fence: Option<String>,
    /// What of a version has no proxy beside it that has to ack, by name; one that is not here is not known.
    pub uncovered: BTreeMap<String, BTreeSet<String>>,
}

impl Observation {
    /// What is seen when nobody has reported.
    pub fn unknown() -> Observation {
        Observation {
            versions: BTreeMap::new(),
            headroom: Headroom::Unknown,
            fleet: Fleet::unknown(0),
            request: None,
            order: None,
            open: OpenRequests::default(),
            occurred: vec![],
            spec_error: None,
            checks: CheckAnswers::new(),
            namespace: String::new(),
            services: BTreeMap::new(),
            clusters: None,
            probe: None,
            audience: None,
            problem: None,
            routes: None,
            spec_unknown: false,
            keeper: Keeper::Controller,
            leads_since: UnixMs(0),
            leaving: false,
            given_out: None,
            other_fence: None,
            uncovered: BTreeMap::new(),
        }
    }

    /// One version's workload; nothing is known to run where it was not seen.
    pub fn workload(&self, version: &str) -> VersionState {
        self.versions.get(version).cloned().unwrap_or_default()
    }
}
