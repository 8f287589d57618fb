//! What a proxy reports. Pure.

use serde::{Deserialize, Serialize};

use crate::count::Totals;
use crate::instance::{Findings, FlagState};
use crate::json::{self, JsonError};
use crate::named::Named;
use crate::record::check_name;
use crate::{PROTOCOL, answers, level, limits, stray};

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
    pub flags: Named<FlagState>,
    /// What level 2 adds, of the flags of which there is something.
    #[serde(skip)]
    pub findings: Vec<Findings>,
}

/// Bytes of a text that is only shown to people.
const TEXT_BYTES: usize = 512;

/// Why a report is not believed. Each has a short [`reason`](ReportError::reason) for metrics.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Too large.
    #[error("{0} bytes are too many: at most {max} are read", max = limits::REPORT_BYTES)]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("not a report: {0}")]
    Json(#[from] serde_json::Error),
    /// A part that a level adds is not JSON of its shape.
    #[error("not a report: {0}")]
    Part(#[from] JsonError),
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
            ReportError::Json(_) | ReportError::Part(_) => "malformed",
            ReportError::Protocol(_) => "protocol",
            ReportError::Implausible(_) => "implausible",
            ReportError::Sender { .. } => "sender",
            ReportError::Stale { .. } => "stale",
        }
    }
}

impl Report {
    /// What level 2 adds for a flag.
    pub fn found(&self, uid: &str) -> Option<&Findings> {
        self.findings.iter().find(|found| found.flag == uid)
    }

    /// Parses and validates.
    pub fn parse(bytes: &[u8]) -> Result<Report, ReportError> {
        if bytes.len() > limits::REPORT_BYTES {
            return Err(ReportError::TooLarge(bytes.len()));
        }
        let (first, second) = level::parts(bytes);
        let mut report: Report = serde_json::from_slice(first)?;
        report.findings = second.map(json::parse).transpose()?.unwrap_or_default();
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
        if self.findings.len() > limits::FLAGS {
            return Err(format!("findings of {} flags", self.findings.len()));
        }
        if self.instances.is_empty() || self.instances.len() > limits::INSTANCES as usize {
            return Err(format!("{} VM instances", self.instances.len()));
        }
        for found in &self.findings {
            check_findings(found).map_err(|why| format!("flag {:?}: {why}", found.flag))?;
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

fn check_findings(found: &Findings) -> Result<(), String> {
    if found.rival_epoch > limits::EPOCH_MAX {
        return Err(format!("epoch {} was never written", found.rival_epoch));
    }
    if let Some(fenced) = found.fenced.as_ref().filter(|fenced| fenced.epoch > limits::EPOCH_MAX) {
        return Err(format!("epoch {} was never written", fenced.epoch));
    }
    let probed = found.probed.iter().flat_map(|probed| &probed.clusters);
    let probed = probed.flat_map(|one| [&one.cluster, &one.outcome]);
    let strays = found.strays.iter().flat_map(|one| [&one.place, &one.route, &one.cluster, &one.version]);
    if found.probed.iter().any(|probed| probed.clusters.len() > limits::MEMBERS * limits::CLUSTERS)
        || found.strays.len() > stray::MOST * limits::VERSIONS * 4
    {
        return Err("too many clusters or strays".to_owned());
    }
    match probed.chain(strays).chain([&found.flag]).find(|text| text.len() > TEXT_BYTES) {
        Some(text) => Err(format!("{} bytes of a name", text.len())),
        None => Ok(()),
    }
}

fn check_answers(answers: &Named<Totals>) -> Result<(), String> {
    match answers.keys().find(|key| answers::split(key).is_none()) {
        Some(key) => Err(format!("answers of {key:?}")),
        None => check_totals(answers, limits::VERSIONS * 4 * answers::BUCKETS),
    }
}

fn check_strangers(strangers: &Named<Totals>) -> Result<(), String> {
    let long = strangers.keys().find(|address| address.len() > limits::NAME_BYTES);
    match long {
        Some(address) => Err(format!("{} bytes of an address", address.len())),
        None => check_totals(strangers, (limits::STRANGERS + 1) * limits::INSTANCES as usize),
    }
}

fn check_totals(totals: &Named<Totals>, max: usize) -> Result<(), String> {
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
