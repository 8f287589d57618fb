//! A VersionFlag as it was read, or why it cannot be: one that cannot must not hide all others.
//! Pure.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::resource::{ResourceStatus, VersionFlag, time};
use machine::mismatch;
use machine::reason::{Problem, Reason};
use machine::status::Status;
use machine::time::UnixMs;

/// What is shown of why something cannot be read.
const SHOWN: usize = 200;

/// One object of the kind, whatever is in it.
// Nearly all are flags: a box would only cost.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone)]
pub enum Reading {
    /// It makes sense.
    Flag(VersionFlag),
    /// It does not, to this controller.
    Unreadable(Unreadable),
}

/// A VersionFlag that this controller cannot read. Nothing is done with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// This much is always known.
    pub metadata: ObjectMeta,
    /// What has to be put right.
    pub problem: Problem,
    /// The Services that its spec names, so that no other flag takes them meanwhile.
    pub services: Vec<String>,
    /// What its status says now.
    observed_generation: Option<i64>,
    blocked_by: Option<String>,
    conditions: Vec<Condition>,
}

impl Reading {
    /// From JSON. Only without metadata it is an error.
    pub fn of(mut value: Value) -> Result<Reading, serde_json::Error> {
        // Large, and of no use here.
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let metadata = ObjectMeta::deserialize(value.get("metadata").unwrap_or(&Value::Null))?;
        let mut status = value.as_object_mut().and_then(|all| all.remove("status"));
        let machine = status.as_mut().and_then(Value::as_object_mut).and_then(|all| all.remove("machine"));
        let machine =
            machine.filter(|machine| !machine.is_null()).map_or(Ok(None), |value| machine_of(&metadata, value));
        // All of it but the machine is made from the machine, and can be made again.
        let said = |status: Option<Value>| {
            status.map(|status| serde_json::from_value::<ResourceStatus>(status).unwrap_or_default())
        };
        let unreadable = |metadata, problem, value: &Value, status| {
            let said: ResourceStatus = said(status).unwrap_or_default();
            let services = services(value);
            let ResourceStatus { observed_generation, blocked_by, conditions, .. } = said;
            Reading::Unreadable(Unreadable { metadata, problem, services, observed_generation, blocked_by, conditions })
        };
        let machine = match machine {
            Ok(machine) => machine,
            Err(problem) => return Ok(unreadable(metadata, problem, &value, status)),
        };
        match serde_path_to_error::deserialize::<_, VersionFlag>(&value) {
            Ok(mut flag) => {
                flag.status = said(status).map(|status| ResourceStatus { machine: machine.map(Arc::new), ..status });
                Ok(Reading::Flag(flag))
            }
            Err(error) => {
                let why = mismatch::sentence(&error.path().to_string(), &error.inner().to_string());
                Ok(unreadable(metadata, spec_problem(&why), &value, status))
            }
        }
    }

    /// The flag, if it can be read.
    pub fn flag(&self) -> Option<&VersionFlag> {
        match self {
            Reading::Flag(flag) => Some(flag),
            Reading::Unreadable(_) => None,
        }
    }

    /// By this the oldest of several comes first.
    pub fn age(&self) -> (Option<Timestamp>, Option<&str>) {
        let metadata = self.meta();
        (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.uid.as_deref())
    }

    /// The Services that it is about.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        let (flag, other): (&[_], &[_]) = match self {
            Reading::Flag(flag) => (&flag.spec.services, &[]),
            Reading::Unreadable(other) => (&[], &other.services),
        };
        flag.iter().map(|service| service.name.as_str()).chain(other.iter().map(String::as_str))
    }
}

/// What is remembered. That of an object which had the name before says nothing, whoever wrote it.
fn machine_of(metadata: &ObjectMeta, value: Value) -> Result<Option<Status>, Problem> {
    let other = value.get("uid").and_then(Value::as_str).is_some_and(|uid| metadata.uid.as_deref() != Some(uid));
    match serde_json::from_value(value) {
        Ok(machine) => Ok(Some(machine)),
        Err(_) if other => Ok(None),
        Err(error) => {
            let message = format!(
                "status.machine was written by a newer controller: upgrade this one, which does not understand it ({})",
                why(&error)
            );
            Err(Problem::new(Reason::NewerController, message))
        }
    }
}

/// The list of everything that would be right is left out.
fn spec_problem(why: &str) -> Problem {
    let why = why.split_once(": there are ").map_or(why, |(short, _)| short);
    let why: String = why.chars().take(SHOWN).collect();
    let message = format!(
        "the spec is not one that this controller understands ({why}): upgrade the controller, or take that out of the \
         spec"
    );
    Problem::new(Reason::UnreadableSpec, message)
}

/// Without the list of everything that would be right.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let short = text.split_once(", expected").map_or(text.as_str(), |(short, _)| short);
    short.chars().take(SHOWN).collect()
}

fn services(value: &Value) -> Vec<String> {
    let listed = value.pointer("/spec/services").and_then(Value::as_array);
    let names = listed.into_iter().flatten().filter_map(|service| service.get("name")?.as_str());
    names.map(str::to_owned).collect()
}

impl Unreadable {
    /// The merge patch by which its status says so of the spec as it is now, and keeps all else; `None`: it does already.
    pub fn patch(&self, now: UnixMs) -> Option<Value> {
        let Problem { reason, message, .. } = &self.problem;
        let reason = reason.name();
        let words = [("Ready", "False"), ("Stalled", "True")];
        let generation = self.metadata.generation;
        let said = |(kind, status): &(&str, &str)| {
            let is_of = |one: &Condition| one.observed_generation == generation && one.reason == reason;
            let mut those = self.conditions.iter().filter(|one| one.type_ == *kind && one.status == *status);
            those.any(|one| is_of(one) && one.message == *message)
        };
        let is_seen = self.observed_generation == generation;
        if is_seen && words.iter().all(said) && self.blocked_by.as_ref() == Some(message) {
            return None;
        }
        let replaced = ["Ready", "Stalled", "Reconciling"];
        let kept = self.conditions.iter().filter(|one| !replaced.contains(&one.type_.as_str())).cloned();
        let ours = words.iter().map(|(kind, status)| {
            let before = self.conditions.iter().find(|old| old.type_ == *kind && old.status == *status);
            Condition {
                type_: (*kind).to_owned(),
                status: (*status).to_owned(),
                observed_generation: generation,
                last_transition_time: before.map_or_else(|| time(now), |old| old.last_transition_time.clone()),
                reason: reason.to_owned(),
                message: message.clone(),
            }
        });
        let conditions: Vec<Condition> = kept.chain(ours).collect();
        let version = &self.metadata.resource_version;
        Some(json!({
            "metadata": { "resourceVersion": version },
            "status": { "observedGeneration": generation, "blockedBy": message, "conditions": conditions },
        }))
    }
}

impl<'de> Deserialize<'de> for Reading {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reading, D::Error> {
        Reading::of(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Resource for Reading {
    type DynamicType = <VersionFlag as Resource>::DynamicType;
    type Scope = <VersionFlag as Resource>::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        VersionFlag::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        VersionFlag::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        VersionFlag::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        VersionFlag::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Reading::Flag(flag) => flag.meta(),
            Reading::Unreadable(other) => &other.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Reading::Flag(flag) => flag.meta_mut(),
            Reading::Unreadable(other) => &mut other.metadata,
        }
    }
}
