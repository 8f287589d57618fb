//! Which requests are no traffic: health checks and scrapes go on for as long as a version runs. Pure.
//!
//! Only what arrives without a mark is asked about: what a filter has sent is traffic, whatever it says of itself.

use serde::Serialize;

use crate::read_fields;
use crate::record::{RecordError, check_name};

/// How health checks of one flag's versions are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthChecks {
    /// Uid of the flag.
    pub flag: String,
    /// What their header `user-agent` begins with.
    pub user_agents: Vec<String>,
    /// Their paths, without a query.
    pub paths: Vec<String>,
}

read_fields! { HealthChecks {
    flag: "flag",
    user_agents: "userAgents" or vec![],
    paths: "paths" or vec![],
    ..
} }

impl HealthChecks {
    /// Whether none of its names is such that it would mean every request.
    pub fn check(&self) -> Result<(), RecordError> {
        let mut names = self.user_agents.iter().chain(&self.paths);
        names.try_for_each(|name| check_name("health check", name))
    }

    /// Whether a request with these headers is one. A header that tells nothing is not read.
    pub fn matches(&self, header: impl Fn(&str) -> Option<String>) -> bool {
        let read = |asked: &[String], name: &str| if asked.is_empty() { None } else { header(name) };
        let agent = read(&self.user_agents, "user-agent").unwrap_or_default();
        if self.user_agents.iter().any(|one| agent.starts_with(one.as_str())) {
            return true;
        }
        let path = read(&self.paths, ":path").unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        self.paths.iter().any(|one| one == path)
    }
}
