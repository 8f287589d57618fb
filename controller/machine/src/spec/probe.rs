//! How proxies try whether they reach a new version. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ProbeMode;
use crate::duration::Millis;
use crate::schema::text_rule;

const STATUSES: &str = "self.matches('^[1-5][0-9]{2}(-[1-5][0-9]{2})?$')";
/// What [`STATUSES`] asks for.
pub(crate) const NO_STATUSES: &str = "has to be a status or a range of them, such as 200 or 200-399";
const PATH: &str = "self.startsWith('/')";
/// What [`PATH`] asks for.
pub(crate) const NO_PATH: &str = "has to begin with /";

/// How every worker of every caller tries whether it reaches the new version, before requests go there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ProbeSpec {
    /// Whether it does.
    pub mode: ProbeMode,
    /// What is asked for, by GET; without it, what the readiness check of the version asks for, on the same port.
    /// Where neither is known nothing is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = text_rule(PATH, NO_PATH)))]
    pub path: Option<String>,
    /// The statuses that are an answer of the version.
    #[schemars(length(max = 7), extend("x-kubernetes-validations" = text_rule(STATUSES, NO_STATUSES)))]
    pub expect: String,
    /// How long an answer may take.
    pub timeout: Millis,
}

impl Default for ProbeSpec {
    fn default() -> Self {
        ProbeSpec { mode: ProbeMode::Require, path: None, expect: "200-399".to_owned(), timeout: Millis(1_000) }
    }
}

impl ProbeSpec {
    /// The lowest and the highest status that is expected; `None`: it is no range.
    pub(crate) fn statuses(&self) -> Option<(u32, u32)> {
        let status = |text: &str| text.parse().ok().filter(|status| (100..600).contains(status) && text.len() == 3);
        let (lowest, highest) = self.expect.split_once('-').unwrap_or((&self.expect, &self.expect));
        status(lowest).zip(status(highest)).filter(|(lowest, highest)| lowest <= highest)
    }

    /// What is wrong with it.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut wrong = vec![];
        if self.statuses().is_none() {
            wrong.push(format!("spec.coexistence.probe.expect {:?} {NO_STATUSES}", self.expect));
        }
        if let Some(path) = self.path.as_ref().filter(|path| !path.starts_with('/')) {
            wrong.push(format!("spec.coexistence.probe.path {path:?} {NO_PATH}"));
        }
        if let Some(error) = self.path.as_ref().and_then(|path| flag::record::check_name("path", path).err()) {
            wrong.push(format!("spec.coexistence.probe: {error}"));
        }
        if !(1..=10_000).contains(&self.timeout.0) {
            wrong.push(format!("spec.coexistence.probe.timeout is {}: it may be 1ms to 10s", self.timeout));
        }
        wrong
    }
}
