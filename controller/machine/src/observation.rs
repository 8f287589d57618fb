//! What is seen of the world in one pass. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::ledger::Fleet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checks::Answers;

/// One version's workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// It is known how to start it.
    pub declared: bool,
    /// Something of it runs, even while it is stopping.
    pub running: bool,
    /// It serves at full strength, and is not being stopped.
    pub ready: bool,
    /// Since when, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<u64>,
    /// How it ended, if it did so by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exited: Option<String>,
    /// Something of it is there that can be deleted, whether it runs or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exists: bool,
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

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let the new version in.
    Promote,
    /// Back to the version before.
    Rollback,
    /// Give up a switch that was not flipped yet.
    Abort,
    /// End an override, and try again.
    Retry,
    /// Let nothing move.
    Suspend,
    /// Let things move again.
    Resume,
}

impl Action {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Promote => "promote",
            Action::Rollback => "rollback",
            Action::Abort => "abort",
            Action::Retry => "retry",
            Action::Suspend => "suspend",
            Action::Resume => "resume",
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by who asks; answered once.
    pub id: String,
    /// What is asked for.
    pub action: Action,
}

/// Where the services are, where proxies can know by themselves which of their pods they stand beside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Their namespace; empty: proxies are told instead.
    pub namespace: String,
    /// The labels of their pods, each as `key=value`, by service.
    pub selectors: BTreeMap<String, BTreeSet<String>>,
}

/// What is wrong with the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteProblem {
    /// One CamelCase word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// What would put it right, as YAML; empty: words suffice.
    pub snippet: String,
}

impl RouteProblem {
    /// There are no routes yet that hold anything back.
    pub const PENDING: &'static str = "RoutesPending";
    /// What is there holds back what has no route yet.
    pub const WARMING: &'static str = "RoutesWarming";

    /// It passes by itself in a moment.
    pub fn passes(&self) -> bool {
        [RouteProblem::PENDING, RouteProblem::WARMING].contains(&self.reason)
    }
}

/// Everything that is seen in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// By version.
    pub versions: BTreeMap<String, Workload>,
    /// Room for the version that is wanted.
    pub headroom: Headroom,
    /// What the proxies say of the record last written.
    pub fleet: Fleet,
    /// The request to answer.
    pub request: Option<Request>,
    /// What is wrong with the spec as it was edited last; the one before is in force.
    pub spec_error: Option<String>,
    /// The last answers to the checks that are asked now.
    pub checks: Answers,
    /// Where the services are.
    pub place: Place,
    /// What is wrong with the routes. While something is, requests are moved to no other version, and no
    /// version is removed.
    pub routes: Option<RouteProblem>,
}

impl Observation {
    /// What is seen when nobody has reported.
    pub fn unknown() -> Observation {
        Observation {
            versions: BTreeMap::new(),
            headroom: Headroom::Unknown,
            fleet: Fleet::unknown(0),
            request: None,
            spec_error: None,
            checks: Answers::new(),
            place: Place::default(),
            routes: None,
        }
    }

    /// One version's workload; nothing is known to run where it was not seen.
    pub fn workload(&self, version: &str) -> Workload {
        self.versions.get(version).cloned().unwrap_or_default()
    }
}
