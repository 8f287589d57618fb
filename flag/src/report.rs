//! What a proxy reports. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::count::Totals;
use crate::instance::FlagState;
use crate::record::check_name;
use crate::{PROTOCOL, answers, limits};

/// One report. A proxy sends one at a time, and begins the next round after the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Report {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Name of the proxy: Envoy's node id.
    pub proxy: String,
    /// Chosen anew at every start of the proxy.
    pub boot: String,
    /// Grows by one with every report of a boot.
    pub seq: u64,
    /// Revision of the snapshot in effect; empty: none yet.
    #[serde(default)]
    pub revision: String,
    /// The live VM instances, by id.
    pub instances: Vec<u32>,
    /// Whether every one of them answered this round. Without it nothing below counts.
    pub complete: bool,
    /// By uid.
    #[serde(default)]
    pub flags: BTreeMap<String, FlagState>,
}

/// Why a report is not believed. Each has a short [`reason`](ReportError::reason) for metrics.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Too large.
    #[error("{0} bytes are too many: at most {max} are read", max = limits::REPORT_BYTES)]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("not a report: {0}")]
    Json(#[from] serde_json::Error),
    /// Another protocol.
    #[error("protocol {0} is not understood here: {PROTOCOL} is. Upgrade the older side, the controller first")]
    Protocol(u32),
    /// Out of bounds or contradicting itself.
    #[error("the report cannot be true: {0}")]
    Implausible(String),
    /// The sender is not who the report says.
    #[error("the report is of {claimed:?}, but its sender is {sender}")]
    Sender {
        /// Who the report is of.
        claimed: String,
        /// Who sent it.
        sender: String,
    },
    /// Not later than what is known.
    #[error("the report of {proxy:?} is not later than the last one: boot {boot:?}, seq {seq}")]
    Stale {
        /// The proxy.
        proxy: String,
        /// Its boot.
        boot: String,
        /// Its sequence number.
        seq: u64,
    },
}

impl ReportError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            ReportError::TooLarge(_) => "too_large",
            ReportError::Json(_) => "malformed",
            ReportError::Protocol(_) => "protocol",
            ReportError::Implausible(_) => "implausible",
            ReportError::Sender { .. } => "sender",
            ReportError::Stale { .. } => "stale",
        }
    }
}

impl Report {
    /// Parses and validates.
    pub fn parse(bytes: &[u8]) -> Result<Report, ReportError> {
        if bytes.len() > limits::REPORT_BYTES {
            return Err(ReportError::TooLarge(bytes.len()));
        }
        let report: Report = serde_json::from_slice(bytes)?;
        if report.protocol != PROTOCOL {
            return Err(ReportError::Protocol(report.protocol));
        }
        report.check().map_err(ReportError::Implausible)?;
        Ok(report)
    }

    fn check(&self) -> Result<(), String> {
        check_name("proxy", &self.proxy).map_err(|error| error.to_string())?;
        check_name("boot", &self.boot).map_err(|error| error.to_string())?;
        if self.flags.len() > limits::FLAGS {
            return Err(format!("{} flags", self.flags.len()));
        }
        if self.instances.is_empty() || self.instances.len() > limits::INSTANCES as usize {
            return Err(format!("{} VM instances", self.instances.len()));
        }
        for (uid, state) in &self.flags {
            if state.epoch > limits::EPOCH_MAX {
                return Err(format!("flag {uid:?}: epoch {} was never written", state.epoch));
            }
            check_totals(&state.sent, limits::VERSIONS * 4)
                .and_then(|()| check_totals(&state.arrived, limits::VERSIONS * 4))
                .and_then(|()| check_strangers(&state.strangers))
                .and_then(|()| check_answers(&state.answers))
                .map_err(|why| format!("flag {uid:?}: {why}"))?;
        }
        Ok(())
    }
}

fn check_answers(answers: &BTreeMap<String, Totals>) -> Result<(), String> {
    match answers.keys().find(|key| answers::split(key).is_none()) {
        Some(key) => Err(format!("answers of {key:?}")),
        None => check_totals(answers, limits::VERSIONS * 4 * answers::BUCKETS),
    }
}

fn check_strangers(strangers: &BTreeMap<String, Totals>) -> Result<(), String> {
    let long = strangers.keys().find(|address| address.len() > limits::NAME_BYTES);
    match long {
        Some(address) => Err(format!("{} bytes of an address", address.len())),
        None => check_totals(strangers, (limits::STRANGERS + 1) * limits::INSTANCES as usize),
    }
}

fn check_totals(totals: &BTreeMap<String, Totals>, max: usize) -> Result<(), String> {
    if totals.len() > max {
        return Err(format!("{} versions", totals.len()));
    }
    match totals.iter().find(|(_, totals)| totals.open().is_none()) {
        Some((version, totals)) => {
            Err(format!("{} requests to {version:?} started, but {} finished", totals.started, totals.finished))
        }
        None => Ok(()),
    }
}
