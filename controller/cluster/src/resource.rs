//! The custom resource VersionFlag: its definition, and its status as people read it. Pure.

use crate::names::MANAGER;
use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use machine::action::Action;
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

/// The spec as the custom resource has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource)]
#[serde(transparent)]
// Each column names its own type.
#[allow(clippy::duplicated_attributes)]
#[kube(
    group = "versionflag.io",
    version = "v1alpha1",
    kind = "VersionFlag",
    namespaced,
    shortname = "vf",
    doc = "Switches the version of a service by one flag, and removes the old one after traffic has settled.",
    status = "ResourceStatus",
    derive = "PartialEq",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.activeVersion"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Proxies", type_ = "string", json_path = ".status.proxies.summary"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Blocked-By", type_ = "string", json_path = ".status.blockedBy"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct ResourceSpec(pub Spec);

impl Deref for ResourceSpec {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        &self.0
    }
}

impl DerefMut for ResourceSpec {
    fn deref_mut(&mut self) -> &mut Spec {
        &mut self.0
    }
}

impl JsonSchema for ResourceSpec {
    fn schema_name() -> Cow<'static, str> {
        Spec::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Spec::json_schema(generator)
    }
}

/// The definition that a cluster needs to take VersionFlags.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = VersionFlag::crd();
    definition.metadata.labels = Some([("app.kubernetes.io/name".to_owned(), MANAGER.to_owned())].into());
    definition
}

/// The same as it is applied.
pub fn definition_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let yaml = serde_saphyr::to_string(&definition())?;
    Ok(format!("# Made by `make manifests`: do not edit.\n{yaml}"))
}

/// A point in time as Kubernetes writes it: in whole seconds.
pub fn time(at: UnixMs) -> Time {
    let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// The same the other way; before 1970 is then.
pub fn unix_ms(at: Timestamp) -> UnixMs {
    UnixMs(u64::try_from(at.as_millisecond()).unwrap_or_default())
}

/// The status of one flag.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
// It has one writer. Without a list of who owns each field of it every write takes a fifth less time, those
// that ask for a flip included, and the object is a quarter smaller.
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ResourceStatus {
    /// The generation of the spec that this says something of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_version: Option<String>,
    /// The version that is being switched to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// The version that served before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    /// The epoch of the record that the proxies are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What keeps it from moving on, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<String>,
    /// A version that is held against the spec.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldStatus>,
    /// Every version that has workloads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub versions: Vec<VersionStatus>,
    /// Who has to ack, and who did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxiesStatus>,
    /// Workloads that requests are or may be sent to: they must neither be deleted nor scaled to zero.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub protected_workloads: Vec<String>,
    /// The switch under way, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchStatus>,
    /// The last request by hand that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_request: Option<LastRequestStatus>,
    /// What happened lately, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryStatus>,
    /// What is so, and what is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// What the controller remembers. Do not edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub machine: Option<Arc<Status>>,
}

/// A version that is held against the spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatus {
    /// The version that is held.
    pub version: String,
    /// The `spec.version` that it overrides; another one ends it.
    pub for_spec_version: String,
    /// Why.
    pub reason: String,
    /// Since when.
    #[schemars(schema_with = "date_time")]
    pub at: Time,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// Its name.
    pub name: String,
    /// What it is to the flag.
    pub role: VersionRole,
    /// Whether as much of it serves as `coexistence.ready` asks for.
    pub ready: bool,
    /// How many pods it is asked to have.
    pub replicas: i32,
    /// HorizontalPodAutoscalers that scale it too. While it has pods, the controller leaves their
    /// number to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub autoscalers: Vec<String>,
    /// Field managers that apply the number of pods too, such as a GitOps tool: they would undo what
    /// the controller does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<String>,
}

/// What a version is to the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VersionRole {
    /// Requests go to it.
    Active,
    /// It is being switched to.
    Target,
    /// It was left, and is removed when traffic has settled.
    Old,
    /// It has to be removed, when its turn comes.
    Leftover,
    /// The flag does not touch it.
    Other,
}

/// Who has to ack, and who did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxiesStatus {
    /// How many have to.
    pub expected: i32,
    /// How many did.
    pub acked: i32,
    /// Both, such as `3/3`.
    pub summary: String,
    /// The first of those that did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub laggards: Vec<LaggardStatus>,
}

/// A proxy that has to ack and did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaggardStatus {
    /// `POD.NAMESPACE`.
    pub proxy: String,
    /// What is known of it.
    pub why: String,
}

/// One switch, or the removal of a version that serves no more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchStatus {
    /// The version that is left.
    pub from: String,
    /// The version that is gone to.
    pub to: String,
    /// It takes back another switch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// Nothing is switched: `from` is only removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removal: bool,
    /// It was asked for.
    #[schemars(schema_with = "date_time")]
    pub started_at: Time,
    /// `to` had been ready for long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub ready_at: Option<Time>,
    /// The record with `to` was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub flipped_at: Option<Time>,
    /// All proxies had acked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub acked_at: Option<Time>,
    /// Traffic had moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub settled_at: Option<Time>,
    /// For how long both versions got new requests, as far as reports show it: from the report with the
    /// first request to `to` to that with the last one to `from`. Absent: it was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_ms: Option<i64>,
    /// How requests were held, in mode Fenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceOfSwitch>,
    /// Until when `from` stays for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub retain_until: Option<Time>,
    /// `from` was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub removed_at: Option<Time>,
}

/// How requests were held: by the hold under way, or else by the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceOfSwitch {
    /// How often a hold was begun, since a person asked to try again.
    pub attempts: i64,
    /// The hold under way was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub held_at: Option<Time>,
    /// Nothing was open on `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub committed_at: Option<Time>,
    /// What waited was let go to `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub opened_at: Option<Time>,
    /// For how long requests were held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_ms: Option<i64>,
    /// How many waited at most, as far as reports showed it.
    pub most_waiting: i64,
    /// Why the last hold was given up that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
    /// Nothing is held again before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub retry_at: Option<Time>,
}

/// The last request by hand that was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRequestStatus {
    /// Its id.
    pub id: String,
    /// What it asked for.
    pub action: Action,
    /// Why it was refused; absent: it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// When.
    #[schemars(schema_with = "date_time")]
    pub at: Time,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryStatus {
    /// When.
    #[schemars(schema_with = "date_time")]
    pub at: Time,
    /// One CamelCase word.
    pub event: String,
    /// One sentence.
    pub message: String,
    /// Epoch of the record by then.
    pub epoch: i64,
}

fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
                "message": { "type": "string", "maxLength": 32768 },
            },
        },
    })
}
