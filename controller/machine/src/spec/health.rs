//! Requests that are no traffic. Pure.

use std::collections::BTreeSet;

use flag::health::HealthChecks;
use flag::record::check_name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::rule;

const MOST: usize = 16;
const AGENTS: &str = "self.all(agent, agent != '')";
const NO_AGENT: &str = "has to be what a user-agent begins with: an empty one would mean every request";
const PATHS: &str = "self.all(path, path.startsWith('/'))";
const NO_PATH: &str = "has to begin with /";

/// Health checks and scrapes that reach the pods of a version without a proxy before them. They do not keep the old
/// version from being quiet, and are counted apart. What a filter has sent is traffic, whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HealthCheckSpec {
    /// What their header `user-agent` begins with.
    #[schemars(
        length(max = MOST),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rule(AGENTS, NO_AGENT)),
        inner(length(max = 253))
    )]
    pub user_agents: BTreeSet<String>,
    /// Their paths, without a query.
    #[schemars(
        length(max = MOST),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rule(PATHS, NO_PATH)),
        inner(length(max = 253))
    )]
    pub paths: BTreeSet<String>,
}

impl Default for HealthCheckSpec {
    fn default() -> Self {
        let agents = ["ELB-HealthChecker/", "GoogleHC/", "Prometheus/", "kube-probe/"];
        HealthCheckSpec { user_agents: agents.map(str::to_owned).into(), paths: BTreeSet::new() }
    }
}

impl HealthCheckSpec {
    /// As proxies are told.
    pub(crate) fn of_flag(&self, uid: &str) -> HealthChecks {
        HealthChecks {
            flag: uid.to_owned(),
            user_agents: self.user_agents.iter().cloned().collect(),
            paths: self.paths.iter().cloned().collect(),
        }
    }

    /// What is wrong with it.
    pub(crate) fn validate(&self) -> Vec<String> {
        let at = "spec.settle.healthChecks";
        let mut wrong = vec![];
        for (name, all, why) in [("userAgents", &self.user_agents, NO_AGENT), ("paths", &self.paths, NO_PATH)] {
            if all.len() > MOST {
                wrong.push(format!("{at}.{name} has {}: at most {MOST}", all.len()));
            }
            let bad = |one: &&String| one.is_empty() || name == "paths" && !one.starts_with('/');
            wrong.extend(all.iter().filter(bad).map(|one| format!("{at}.{name} {one:?} {why}")));
            let named = all.iter().filter(|one| !one.is_empty()).filter_map(|one| check_name(name, one).err());
            wrong.extend(named.map(|error| format!("{at}: {error}")));
        }
        wrong
    }
}
