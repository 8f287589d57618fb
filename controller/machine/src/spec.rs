//! What an operator asks for: the `spec` of a VersionFlag. Pure.

pub(crate) mod attach;
pub(crate) mod check;
mod choice;
pub(crate) mod fence;
pub(crate) mod health;
pub(crate) mod probe;
mod target_failure;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Millis;
use crate::schema::{rule, text_rule};

pub use attach::Attachment;
pub use check::{Builtin, Check, Percent, Prometheus, Webhook, number};
pub use choice::{
    CleanupPolicy, Headroom, InboundProxies, Laggards, Management, OnExpiry, OnFail, OnTimeout, ProbeMode,
    PromotionMode, Provider, Replicas, SwitchMode, TargetFailureAction, When,
};
pub use fence::{FenceSpec, SwitchSpec};
pub use health::HealthCheckSpec;
pub use probe::ProbeSpec;
pub use target_failure::OnTargetFailure;

/// The spec. Everything but `version` and `services` has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule(fence::PREVIEW, fence::NO_PREVIEW)))]
pub struct Spec {
    /// The version that is wanted: changing it asks for the switch.
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = text_rule(LABEL, NO_LABEL)))]
    pub version: String,
    /// What is switched together, under one record.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub services: Vec<Service>,
    /// The label that tells versions apart where workloads have labels.
    #[serde(default = "default_label")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = text_rule("self == oldSelf", FIXED)))]
    pub version_label: String,
    /// Narrows who has to ack.
    #[serde(default, skip_serializing_if = "Callers::is_empty")]
    pub callers: Callers,
    /// Nothing moves while this is set.
    #[serde(default)]
    pub suspend: bool,
    /// Both versions side by side.
    #[serde(default)]
    pub coexistence: Coexistence,
    /// When the new version is let in.
    #[serde(default)]
    pub promotion: Promotion,
    /// Questions that the new version has to answer before or after the flip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub checks: Vec<Check>,
    /// Requests that reach the new version before the flip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewSpec>,
    /// The flip.
    #[serde(default)]
    pub switch: SwitchSpec,
    /// Waiting for traffic to have moved.
    #[serde(default)]
    pub settle: Settle,
    /// What becomes of the old version.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// How requests are marked.
    #[serde(default)]
    pub routing: Routing,
    /// What to do when the new version fails after the flip.
    #[serde(default)]
    pub on_target_failure: OnTargetFailure,
}

fn default_label() -> String {
    "version".to_owned()
}

const LABEL: &str = "self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')";
const HEADER: &str = "self.matches('^[a-z0-9._-]+$')";
const ROUTING_HEADER: &str = "self.matches('^x-[a-z0-9._-]*version[a-z0-9._-]*$')";
const HOST: &str = "self.all(host, host.matches('^([A-Za-z0-9._-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?$'))";
const NO_LABEL: &str =
    "has to be a label value: letters, digits, '-', '_' and '.', starting and ending with a letter or digit";
const FIXED: &str = "cannot be changed: delete this VersionFlag and make another one";
pub(crate) const NO_HEADER: &str = "is not a lower-case HTTP header name";
/// Whatever the header is, proxies overwrite it.
pub(crate) const NO_ROUTING_HEADER: &str =
    "has to begin with x- and to contain the word version, in lower case: proxies overwrite that header";
pub(crate) const NO_HOST: &str = "has to be a host, with a port or without: filters match neither patterns nor URLs";

/// One service of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Service {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The hosts by which callers name it; without any, its name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "set"),
        extend("x-kubernetes-validations" = rule(HOST, NO_HOST))
    )]
    #[schemars(inner(length(max = 253)))]
    pub hosts: BTreeSet<String>,
    /// Envoy clusters by version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, BTreeSet<String>>,
}

/// Narrows who has to ack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Callers {
    /// Where the callers are; without any, in the namespace of the flag.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: BTreeSet<String>,
    /// Which pods they are.
    #[serde(skip_serializing_if = "PodSelector::is_empty")]
    pub pods: PodSelector,
    /// Gateways of Istio's that lead requests to the services, besides those in the namespaces above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub gateways: Vec<Gateway>,
}

/// Pods of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Gateway {
    /// Where they are; without it, in the namespace of the flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// They have all of these labels.
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// At least one: without labels every pod would be a gateway.
fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": 16, "additionalProperties": { "type": "string" },
    })
}

/// Pods by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct PodSelector {
    /// They have all of these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

impl Callers {
    /// Whether nothing is narrowed.
    pub fn is_empty(&self) -> bool {
        *self == Callers::default()
    }

    /// The namespaces that are named, or have a gateway, for a flag of `namespace`.
    pub fn places<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        let gateways = self.gateways.iter().map(|gateway| gateway.namespace(namespace));
        self.namespaces.iter().map(String::as_str).chain(gateways)
    }
}

impl Gateway {
    /// The namespace of its pods, for a flag of `namespace`.
    pub fn namespace<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(namespace)
    }
}

impl PodSelector {
    /// Whether every pod fits.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty()
    }
}

/// Both versions side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Coexistence {
    /// After this the new version is reported as not getting ready.
    pub ready_timeout: Millis,
    /// How long it has to have been ready without a break.
    pub min_ready: Millis,
    /// The share of its pods that a version needs to be ready, such as `95%`, of every service; the rest of them may
    /// be missing for as long as they like.
    #[schemars(extend("x-kubernetes-validations" = Percent::rules_of_some()))]
    pub ready: Percent,
    /// How many of it, where replicas exist.
    pub replicas: Replicas,
    /// What a lack of headroom means.
    pub headroom: Headroom,
    /// How proxies try whether they reach the new version.
    pub probe: ProbeSpec,
}

impl Default for Coexistence {
    fn default() -> Self {
        let (ready_timeout, min_ready) = (Millis(600_000), Millis(10_000));
        Coexistence {
            ready_timeout,
            min_ready,
            ready: Percent::WHOLE,
            replicas: Replicas::MatchActive,
            headroom: Headroom::Require,
            probe: ProbeSpec::default(),
        }
    }
}

impl Coexistence {
    /// What is wrong with its share.
    pub(crate) fn validate(&self) -> Option<String> {
        (self.ready.0 == 0).then(|| format!("spec.coexistence.ready {} {}", self.ready, check::NO_SHARE))
    }
}

/// When the new version is let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Promotion {
    /// Who lets it in.
    pub mode: PromotionMode,
    /// How long it waits, ready, before it is let in by itself.
    pub after: Millis,
}

/// Which requests reach the new version while it is ready and waits to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PreviewSpec {
    /// A request header.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = text_rule(HEADER, NO_HEADER)))]
    pub header: String,
    /// The value that it has to have. Whoever knows it can choose: make it hard to guess.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}

/// Waiting for traffic to have moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settle {
    /// How long nothing may reach the old version.
    pub quiet_period: Millis,
    /// How long the new version serves alone at least.
    pub bake: Millis,
    /// When a switch that does not settle is reported.
    pub timeout: Millis,
    /// And what is done about it.
    pub on_timeout: OnTimeout,
    /// Requests to the old version that are no traffic.
    pub health_checks: HealthCheckSpec,
    /// How long a proxy that got the filter while it ran may keep connections on the filters of before: its drain time.
    /// By default 45s in a mesh, as with Istio. Elsewhere nothing says whether a proxy ran before, so that by default it
    /// is 0s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_time: Option<Millis>,
}

impl Spec {
    /// How long connections may last that a proxy had before its filter came.
    pub fn drain_time(&self) -> Millis {
        /// Istio's, unless it is told another one.
        const IN_MESH: Millis = Millis(45_000);
        self.settle.drain_time.unwrap_or(if self.routing.in_mesh() { IN_MESH } else { Millis(0) })
    }
}

impl Default for Settle {
    fn default() -> Self {
        Settle {
            quiet_period: Millis(10_000),
            bake: Millis(0),
            timeout: Millis(600_000),
            on_timeout: OnTimeout::Wait,
            health_checks: HealthCheckSpec::default(),
            drain_time: None,
        }
    }
}

/// What becomes of the old version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Cleanup {
    /// What is done with it.
    pub policy: CleanupPolicy,
    /// How long it stays for a rollback.
    pub retain_for: Millis,
}

impl Default for Cleanup {
    fn default() -> Self {
        Cleanup { policy: CleanupPolicy::ScaleToZero, retain_for: Millis(3_600_000) }
    }
}

/// How requests are marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Routing {
    /// Who carries the routes out, where there is a choice.
    pub provider: Provider,
    /// Who writes them, where there is a choice.
    pub management: Management,
    /// The header that routes match.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = text_rule(ROUTING_HEADER, NO_ROUTING_HEADER)))]
    pub header: String,
    /// Gateways of the Gateway API to which the controller attaches routes of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub gateways: Vec<Attachment>,
}

impl Default for Routing {
    fn default() -> Self {
        let header = flag::config::HEADER.to_owned();
        Routing { provider: Provider::Istio, management: Management::Managed, header, gateways: vec![] }
    }
}

impl Routing {
    /// Whether the proxies are Istio's.
    pub fn in_mesh(&self) -> bool {
        matches!(self.provider, Provider::Istio | Provider::GatewayAPI)
    }
}

impl Service {
    /// The Envoy clusters of a version: those that are listed, or `SERVICE-VERSION`.
    pub fn clusters_of(&self, version: &str) -> BTreeSet<String> {
        let default = || BTreeSet::from([format!("{}-{version}", self.name)]);
        self.clusters.get(version).cloned().unwrap_or_else(default)
    }

    /// The hosts by which callers name it.
    pub fn hosts(&self) -> BTreeSet<String> {
        if self.hosts.is_empty() { BTreeSet::from([self.name.clone()]) } else { self.hosts.clone() }
    }
}
