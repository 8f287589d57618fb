//! Checks before and after the flip: what is asked when, and what an answer means ([`verdict`]). Pure.

pub mod verdict;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::{Check, Spec, When};
use crate::status::{Phase, Status};
use crate::time::UnixMs;

/// What is known of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The new version is fine.
    Passed,
    /// It is not.
    Failed,
    /// There is no answer, or one that says nothing. Never a pass.
    Inconclusive,
}

/// One check's last verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckAnswer {
    /// What it was.
    pub verdict: Verdict,
    /// The numbers behind it, or why there are none.
    pub message: String,
    /// Since when it has been so.
    pub since: UnixMs,
}

/// The last verdicts by the names of the checks.
pub type CheckAnswers = BTreeMap<String, CheckAnswer>;

/// What is asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions {
    /// The checks.
    pub checks: Vec<Check>,
    /// At which moment of the switch.
    pub when: When,
    /// The epoch that the answers are about.
    pub epoch: u64,
    /// The version that is left.
    pub from: String,
    /// The version that is asked about.
    pub to: String,
}

impl Questions {
    /// What has to be asked where the flag stands; `None`: nothing.
    pub fn of(spec: &Spec, status: &Status) -> Option<Questions> {
        let switch = status.switch.as_ref().filter(|switch| switch.may_roll_back())?;
        let when = When::at(status.phase)?;
        let checks: Vec<Check> = spec.checks.iter().filter(|check| check.when == when).cloned().collect();
        let (from, to) = (switch.from.clone(), switch.to.clone());
        (!checks.is_empty()).then(|| Questions { checks, when, epoch: status.epoch(), from, to })
    }

    /// Whether the proxies have to measure answers for it.
    pub fn measures(&self) -> bool {
        self.checks.iter().any(|check| check.builtin.is_some())
    }
}

impl When {
    /// Which checks count where the flag stands; `None`: none do.
    pub(crate) fn at(phase: Phase) -> Option<When> {
        match phase {
            Phase::AwaitingPromotion => Some(When::BeforeFlip),
            Phase::Switching | Phase::Settling | Phase::Retaining => Some(When::AfterFlip),
            _ => None,
        }
    }
}
