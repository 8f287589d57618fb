//! What a filter is told at start: its plugin configuration. Pure.

use serde::Serialize;

use crate::json::{self, JsonError};
use crate::record::{Record, RecordError, check_name, check_version};
use crate::snapshot::{SnapshotError, check_flags};
use crate::{PROTOCOL, limits, proxy, read_fields, read_words};

/// Where in the path of a request this filter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
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
    /// The role of a filter that is configured like this in a proxy; what is left to the listener's
    /// direction stays `Auto`.
    pub fn in_proxy(self, node_id: &str) -> Role {
        if self == Role::Auto && proxy::is_gateway(node_id) { Role::Edge } else { self }
    }
}

/// The workload that a proxy stands beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Name of the service, as in the flag's members.
    pub service: String,
    /// Its own version.
    pub version: String,
}

/// How to reach the flag service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagService {
    /// Envoy cluster.
    pub cluster: String,
    /// `:authority` of the requests.
    pub authority: String,
}

/// The plugin configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Where the filter stands.
    pub role: Role,
    /// The routing header.
    pub header: String,
    /// The workload beside the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The flag service; without it the flags below are all there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<FlagService>,
    /// How long a fresh proxy holds requests for its first answer, in milliseconds, at most 10 s.
    pub first_answer_ms: u32,
    /// The flags as of the writing of this configuration.
    pub flags: Vec<Record>,
}

/// What an empty text stands for.
const EMPTY: &[u8] = br#"{"protocol":1}"#;

/// The routing header unless configured otherwise.
pub const HEADER: &str = "x-versionflag";

read_words! { Role { "auto": Auto, "caller": Caller, "edge": Edge, "inbound": Inbound } }

read_fields! { Workload { service: "service", version: "version" } }

read_fields! { FlagService { cluster: "cluster", authority: "authority" or "versionflag".to_owned() } }

read_fields! { Config {
    protocol: "protocol",
    role: "role" or Role::Auto,
    header: "header" or HEADER.to_owned(),
    workload: "workload" or None,
    service: "service" or None,
    first_answer_ms: "firstAnswerMs" or 500,
    flags: "flags" or vec![],
} }

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
    Json(JsonError),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] RecordError),
    /// Not a header name.
    #[error("header {} is not a lower-case HTTP header name, such as \"{HEADER}\"", crate::quoted(.0))]
    Header(String),
    /// Too long a wait.
    #[error("firstAnswerMs is {0}: at most 10000")]
    FirstAnswer(u32),
    /// A flag holds its gate: a proxy that starts while the controller is away would never open.
    #[error("flag {} has gate `hold`, which a plugin configuration may not have", crate::quoted(.0))]
    Hold(String),
}

impl Config {
    /// Parses and validates. An empty text is the empty configuration.
    pub fn parse(bytes: &[u8]) -> Result<Config, ConfigError> {
        if bytes.len() > limits::SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge { bytes: bytes.len() }.into());
        }
        let bytes = if bytes.is_empty() { EMPTY } else { bytes };
        let config: Config = json::parse(bytes).map_err(ConfigError::Json)?;
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
