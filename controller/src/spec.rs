//! What an operator asks for: the `spec` of a VersionFlag. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flag::record::{check_name, check_version};
use serde::{Deserialize, Serialize};

use crate::span::Span;

/// The spec. Everything but `version` and `services` has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Spec {
    /// The version that is wanted: changing it asks for the switch.
    pub version: String,
    /// What is switched together.
    pub services: Vec<Service>,
    /// The label that tells versions apart where workloads have labels.
    #[serde(default = "default_label")]
    pub version_label: String,
    /// Narrows who has to ack.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub callers: BTreeMap<String, serde_json::Value>,
    /// Nothing moves while this is set.
    #[serde(default)]
    pub suspend: bool,
    /// Both versions side by side.
    #[serde(default)]
    pub coexistence: Coexistence,
    /// When the new version is let in.
    #[serde(default)]
    pub promotion: Promotion,
    /// Questions to answer before or after the flip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<serde_json::Value>,
    /// Requests that reach the new version before the flip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// The flip.
    #[serde(default)]
    pub switch: Switch,
    /// Waiting for traffic to have moved.
    #[serde(default)]
    pub settle: Settle,
    /// What becomes of the old version.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// How requests are marked.
    #[serde(default)]
    pub routing: Routing,
    /// What to do when the new version dies after the flip.
    #[serde(default)]
    pub on_target_failure: OnTargetFailure,
}

fn default_label() -> String {
    "version".to_owned()
}

/// One service of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The hosts by which callers name it; without any, its name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
    /// Envoy clusters by version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, BTreeSet<String>>,
}

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $(#[$first_meta:meta])* $first:ident $(, $(#[$other_meta:meta])* $other:ident)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        pub enum $name { $(#[$first_meta])* #[default] $first $(, $(#[$other_meta])* $other)* }
    };
}

choice! {
    /// What a lack of headroom means.
    Headroom {
        /// The new version is not started.
        Require,
        /// It is started, and the lack logged.
        Warn,
        /// Nobody looks.
        Ignore,
    }
}
choice! {
    /// Who lets the new version in.
    PromotionMode {
        /// The controller, when it is ready.
        Automatic,
        /// A person.
        Manual,
    }
}
choice! {
    /// How the flip is done.
    SwitchMode {
        /// At once.
        Immediate,
        /// Callers wait while the old version drains.
        Fenced,
    }
}
choice! {
    /// What becomes of proxies that do not ack.
    Laggards {
        /// They are waited for.
        Wait,
        /// After the deadline the switch goes on without them.
        Proceed,
    }
}
choice! {
    /// What to do when traffic does not settle in time.
    OnTimeout {
        /// Say so, and go on waiting.
        Wait,
        /// Go on although requests are still open on the old version.
        Proceed,
        /// Back to the old version.
        Rollback,
    }
}
choice! {
    /// What becomes of the old version.
    CleanupPolicy {
        /// Stopped.
        ScaleToZero,
        /// Stopped and deleted.
        Delete,
        /// Kept.
        Retain,
    }
}
choice! {
    /// What to do when the new version dies after the flip.
    OnTargetFailure {
        /// Say so.
        Wait,
        /// Back to the old version.
        Rollback,
    }
}

/// Both versions side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Coexistence {
    /// After this the new version is reported as not getting ready.
    pub ready_timeout: Span,
    /// How long it has to have been ready without a break.
    pub min_ready: Span,
    /// How many of it; `MatchActive` or `AsDeclared` where replicas exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<String>,
    /// What a lack of headroom means.
    pub headroom: Headroom,
}

impl Default for Coexistence {
    fn default() -> Self {
        let (ready_timeout, min_ready) = (Span(600_000), Span(10_000));
        Coexistence { ready_timeout, min_ready, replicas: None, headroom: Headroom::Require }
    }
}

/// When the new version is let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Promotion {
    /// Who lets it in.
    pub mode: PromotionMode,
    /// How long it waits, ready, before it is let in by itself.
    pub after: Span,
}

/// Which requests reach the new version while it is ready and waits to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Preview {
    /// A request header.
    pub header: String,
    /// The value that it has to have. Whoever knows it can choose: make it hard to guess.
    pub value: String,
}

/// The flip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Switch {
    /// How it is done.
    pub mode: SwitchMode,
    /// What becomes of proxies that do not ack.
    pub laggards: Laggards,
    /// When they are named.
    pub ack_timeout: Span,
}

impl Default for Switch {
    fn default() -> Self {
        Switch { mode: SwitchMode::Immediate, laggards: Laggards::Wait, ack_timeout: Span(300_000) }
    }
}

/// Waiting for traffic to have moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settle {
    /// How long nothing may reach the old version.
    pub quiet_period: Span,
    /// How long the new version serves alone at least.
    pub bake: Span,
    /// When a switch that does not settle is reported.
    pub timeout: Span,
    /// And what is done about it.
    pub on_timeout: OnTimeout,
}

impl Default for Settle {
    fn default() -> Self {
        Settle { quiet_period: Span(10_000), bake: Span(0), timeout: Span(600_000), on_timeout: OnTimeout::Wait }
    }
}

/// What becomes of the old version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Cleanup {
    /// What is done with it.
    pub policy: CleanupPolicy,
    /// How long it stays for a rollback.
    pub retain_for: Span,
}

impl Default for Cleanup {
    fn default() -> Self {
        Cleanup { policy: CleanupPolicy::ScaleToZero, retain_for: Span(3_600_000) }
    }
}

/// How requests are marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Routing {
    /// The header that routes match.
    pub header: String,
}

impl Default for Routing {
    fn default() -> Self {
        Routing { header: flag::config::HEADER.to_owned() }
    }
}

impl Service {
    /// The hosts by which callers name it.
    pub fn hosts(&self) -> BTreeSet<String> {
        if self.hosts.is_empty() { BTreeSet::from([self.name.clone()]) } else { self.hosts.clone() }
    }
}

impl Spec {
    /// Everything that is wrong with it, in sentences. Empty: it is valid.
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = vec![];
        let mut check = |result: Result<(), flag::record::RecordError>| {
            if let Err(error) = result {
                wrong.push(error.to_string());
            }
        };
        check(check_version("spec.version", &self.version));
        // The members make a record of their own, with every version that they name.
        let mut versions: BTreeSet<String> =
            self.services.iter().flat_map(|service| service.clusters.keys().cloned()).collect();
        versions.insert(self.version.clone());
        if versions.iter().all(|version| check_version("version", version).is_ok()) {
            check(crate::step::record_of("spec", "spec", 1, &self.version, &versions, None, self).map(|_| ()));
        }
        check(check_name("spec.versionLabel", &self.version_label));
        let headers =
            [("routing", Some(&self.routing.header)), ("preview", self.preview.as_ref().map(|one| &one.header))];
        for (part, header) in headers {
            if let Some(header) = header.filter(|header| !flag::config::is_header(header)) {
                wrong.push(format!("spec.{part}.header {header:?} is not a lower-case HTTP header name"));
            }
        }
        if let Some(preview) = &self.preview {
            wrong.extend(check_name("spec.preview.value", &preview.value).err().map(|error| error.to_string()));
        }
        if self.switch.mode == SwitchMode::Fenced {
            wrong.push("spec.switch.mode Fenced is not supported yet: use Immediate".to_owned());
        }
        wrong
    }
}
