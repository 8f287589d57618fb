//! What a filter is told at start: its plugin configuration. Pure.

use serde::{Deserialize, Serialize};

use crate::record::{Record, RecordError, check_name, check_version};
use crate::snapshot::{SnapshotError, check_flags};
use crate::{PROTOCOL, limits, proxy};

/// Where in the path of a request this filter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// By the listener's direction and the proxy: inbound observes, a gateway of Istio's is an edge,
    /// anything else is a caller.
    #[default]
    Auto,
    /// Beside a caller: chooses the version.
    Caller,
    /// Facing clients that are not trusted: chooses, and takes away what they send.
    Edge,
    /// In front of the called workload: observes what arrives.
    Inbound,
}

impl Role {
    /// The role of a filter that is configured like this, at a listener of this proxy.
    pub fn at(self, inbound: bool, node_id: &str) -> Role {
        match self {
            Role::Auto if inbound => Role::Inbound,
            Role::Auto if proxy::is_gateway(node_id) => Role::Edge,
            Role::Auto => Role::Caller,
            role => role,
        }
    }
}

/// The workload that a proxy stands beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    /// Name of the service, as in the flag's members.
    pub service: String,
    /// Its own version.
    pub version: String,
}

/// How to reach the flag service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FlagService {
    /// Envoy cluster.
    pub cluster: String,
    /// `:authority` of the requests.
    #[serde(default = "default_authority")]
    pub authority: String,
}

fn default_authority() -> String {
    "versionflag".to_owned()
}

/// The plugin configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Where the filter stands.
    #[serde(default)]
    pub role: Role,
    /// The routing header.
    #[serde(default = "default_header")]
    pub header: String,
    /// The workload beside the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The flag service; without it the flags below are all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<FlagService>,
    /// How long a fresh proxy holds requests for its first answer, in milliseconds, at most 10 s.
    #[serde(default = "default_first_answer")]
    pub first_answer_ms: u32,
    /// The flags as of the writing of this configuration.
    #[serde(default)]
    pub flags: Vec<Record>,
}

/// The routing header unless configured otherwise.
pub const HEADER: &str = "x-versionflag";

fn default_header() -> String {
    HEADER.to_owned()
}

fn default_first_answer() -> u32 {
    500
}

/// Whether this is a header name as HTTP/2 writes it.
pub fn is_header(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(token)
}

/// Why a configuration is refused. The last good one stays in effect.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Too large, not JSON of this shape, or flags that are not valid.
    #[error(transparent)]
    Flags(#[from] SnapshotError),
    /// Not JSON of this shape.
    #[error("not a versionflag configuration: {0}")]
    Json(serde_json::Error),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] RecordError),
    /// Not a header name.
    #[error("header {0:?} is not a lower-case HTTP header name, such as {HEADER:?}")]
    Header(String),
    /// Too long a wait.
    #[error("firstAnswerMs is {0}: at most 10000")]
    FirstAnswer(u32),
    /// A flag holds its gate: a proxy that starts while the controller is away would never open.
    #[error("flag {0:?} has gate `hold`, which a plugin configuration may not have")]
    Hold(String),
}

impl Config {
    /// Parses and validates. An empty text is the empty configuration.
    pub fn parse(bytes: &[u8]) -> Result<Config, ConfigError> {
        if bytes.len() > limits::SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge { bytes: bytes.len() }.into());
        }
        let config: Config = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        if config.protocol != PROTOCOL {
            return Err(SnapshotError::Protocol { found: config.protocol }.into());
        }
        if !is_header(&config.header) {
            return Err(ConfigError::Header(crate::shortened(&config.header)));
        }
        if config.first_answer_ms > 10_000 {
            return Err(ConfigError::FirstAnswer(config.first_answer_ms));
        }
        if let Some(workload) = &config.workload {
            check_name("workload.service", &workload.service)?;
            check_version("workload.version", &workload.version)?;
        }
        if let Some(service) = &config.service {
            check_name("service.cluster", &service.cluster)?;
            check_name("service.authority", &service.authority)?;
        }
        check_flags(&config.flags)?;
        if let Some(flag) = config.flags.iter().find(|flag| flag.gate == crate::record::Gate::Hold) {
            return Err(ConfigError::Hold(flag.name.clone()));
        }
        Ok(config)
    }
}
