//! When a version is ready, and how often it is asked. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use machine::duration::Millis;

/// Whose listener shows that a version is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ListenerOf {
    /// One of the version's own processes.
    #[default]
    Own,
    /// Whoever listens: a container runtime does so for what it runs.
    Any,
}

/// When a version is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Ready {
    /// A GET of this has to be answered with 2xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// This service of gRPC has to be SERVING by `grpc.health.v1`; empty: the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// This program has to end with 0, and the version to take connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// How often it is asked; unless given every 200ms, and every 600ms while it is ready and no switch is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Millis>,
    /// How long an answer may take.
    pub timeout: Millis,
    /// Whose the listener has to be.
    pub listener: ListenerOf,
}

impl Default for Ready {
    fn default() -> Self {
        let (interval, timeout) = (None, Millis(1_000));
        Ready { path: None, grpc: None, command: None, interval, timeout, listener: ListenerOf::Own }
    }
}

impl Ready {
    /// How long after one question comes the next one. `calm`: it passed the last one, and nothing rests on the next.
    pub(crate) fn pause(&self, calm: bool) -> Millis {
        // Three failures in a row are noticed within a second.
        self.interval.unwrap_or(if calm { Millis(600) } else { Millis(200) })
    }
}
