//! A Deployment or a StatefulSet, as far as it says which version it is and how many pods it has. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use flag::record::check_version;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::labels::match_all;
use crate::names::KEPT_AT;
use machine::spec::Percent;

/// Something with replicas.
#[derive(Debug, Clone)]
pub enum ScaledObject {
    /// A Deployment.
    Deployment(Arc<Deployment>),
    /// A StatefulSet.
    StatefulSet(Arc<StatefulSet>),
}

/// A change of the number of replicas.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Of what, as it was seen: the change is only right while that is so.
    pub object: ScaledObject,
    /// To how many.
    pub replicas: i32,
}

impl std::fmt::Display for ScaledObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind(), self.metadata().name.as_deref().unwrap_or_default())
    }
}

impl ScaledObject {
    /// `Deployment` or `StatefulSet`.
    pub fn kind(&self) -> &'static str {
        match self {
            ScaledObject::Deployment(_) => "Deployment",
            ScaledObject::StatefulSet(_) => "StatefulSet",
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &kube::core::ObjectMeta {
        match self {
            ScaledObject::Deployment(one) => &one.metadata,
            ScaledObject::StatefulSet(one) => &one.metadata,
        }
    }

    /// Kind, name and uid: another one of the same name is another one.
    pub fn identity(&self) -> String {
        format!("{self} {}", self.metadata().uid.as_deref().unwrap_or_default())
    }

    /// How many pods it is asked to have.
    pub fn replicas(&self) -> i32 {
        let asked = match self {
            ScaledObject::Deployment(one) => one.spec.as_ref().and_then(|spec| spec.replicas),
            ScaledObject::StatefulSet(one) => one.spec.as_ref().and_then(|spec| spec.replicas),
        };
        asked.unwrap_or(1)
    }

    /// What its pods are made from.
    pub fn template(&self) -> Option<&PodTemplateSpec> {
        match self {
            ScaledObject::Deployment(one) => one.spec.as_ref().map(|spec| &spec.template),
            ScaledObject::StatefulSet(one) => one.spec.as_ref().map(|spec| &spec.template),
        }
    }

    pub(crate) fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.template()?.metadata.as_ref()?.labels.as_ref()
    }

    pub(crate) fn selected(&self, selector: &BTreeMap<String, String>) -> bool {
        self.labels().is_some_and(|labels| match_all(labels, selector))
    }

    pub(crate) fn version(&self, label: &str) -> Result<String, String> {
        let version = self.labels().and_then(|labels| labels.get(label));
        let missing = || format!("its pod template has no label {label}, so that it belongs to no version");
        let version = version.ok_or_else(missing)?;
        check_version("its version", version).map_err(|error| error.to_string())?;
        Ok(version.clone())
    }

    /// The epoch at which it was marked to be kept.
    pub fn kept_at(&self) -> Option<u64> {
        self.metadata().labels.as_ref()?.get(KEPT_AT)?.parse().ok()
    }

    /// Whether its deletion was asked for.
    pub fn is_ending(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }

    /// Pods that it has made, of any generation.
    pub(crate) fn created(&self) -> i32 {
        match self {
            ScaledObject::Deployment(one) => one.status.as_ref().and_then(|status| status.replicas).unwrap_or(0),
            ScaledObject::StatefulSet(one) => one.status.as_ref().map_or(0, |status| status.replicas),
        }
    }

    /// The revision of its current template, as its pods have it in a label; `None`: that is not known just now.
    pub fn revision(&self) -> Option<&str> {
        match self {
            ScaledObject::Deployment(one) => {
                let status =
                    one.status.as_ref().filter(|status| status.observed_generation >= one.metadata.generation)?;
                let progress = status.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing")?;
                // Its controller names the ReplicaSet of the template: NAME-REVISION.
                let set = progress.message.as_deref()?.split('"').nth(1)?;
                set.strip_prefix(one.metadata.name.as_deref()?)?.strip_prefix('-')
            }
            ScaledObject::StatefulSet(one) => {
                let status =
                    one.status.as_ref().filter(|status| status.observed_generation >= one.metadata.generation)?;
                status.update_revision.as_deref()
            }
        }
    }

    /// What its controller says of pods that the API server did not let it make.
    fn refused(&self) -> Option<String> {
        let ScaledObject::Deployment(one) = self else { return None };
        let mut conditions = one.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let failure = conditions.find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
        let message = failure.message.as_deref().unwrap_or_default();
        Some(format!("{}: {}", failure.reason.as_deref().unwrap_or_default(), shortened(message)))
    }

    /// Why this share of it is not there.
    pub(crate) fn lacks(&self, share: Percent) -> Option<String> {
        let (replicas, state) = (self.replicas(), self.state());
        let needed = needed(share, replicas);
        let asks = if needed < replicas { format!(", and {needed} are needed") } else { String::new() };
        let refused = || self.refused().map(|why| format!("; {why}")).unwrap_or_default();
        if self.is_ending() {
            Some("is being deleted".to_owned())
        } else if state.observed < self.metadata().generation {
            Some("was changed, and its controller has not seen that yet".to_owned())
        } else if state.updated < needed.saturating_sub(state.kept_back) {
            Some(format!("has {} of {replicas} pods of its current template{asks}{}", state.updated, refused()))
        } else if state.earlier > 0 {
            Some(format!("has {} pods of an earlier template still", state.earlier))
        } else if state.available < needed {
            Some(format!("has {} of {replicas} pods available{asks}{}", state.available, refused()))
        } else {
            None
        }
    }

    fn state(&self) -> State {
        match self {
            ScaledObject::Deployment(one) => {
                let status = one.status.clone().unwrap_or_default();
                let updated = status.updated_replicas.unwrap_or(0);
                State {
                    observed: status.observed_generation,
                    updated,
                    available: status.available_replicas.unwrap_or(0),
                    kept_back: 0,
                    // Those are among the available ones.
                    earlier: status.replicas.unwrap_or(0).saturating_sub(updated),
                }
            }
            ScaledObject::StatefulSet(one) => {
                let status = one.status.clone().unwrap_or_default();
                let strategy = one.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
                State {
                    observed: status.observed_generation,
                    updated: status.updated_replicas.unwrap_or(0),
                    available: status.available_replicas.unwrap_or(0),
                    kept_back: strategy.and_then(|one| one.rolling_update.as_ref()?.partition).unwrap_or(0),
                    earlier: 0,
                }
            }
        }
    }
}

/// What its controller says of a workload, in pods.
struct State {
    observed: Option<i64>,
    updated: i32,
    available: i32,
    /// Those of an earlier template that are meant to stay.
    kept_back: i32,
    /// Those of an earlier template that are meant to go.
    earlier: i32,
}

/// How many of so many pods this share is: at least one, if there are any.
pub(crate) fn needed(share: Percent, replicas: i32) -> i32 {
    u32::try_from(replicas).map_or(replicas, |count| i32::try_from(share.of(count)).unwrap_or(replicas))
}

/// What is shown of what somebody else says.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 300;
    text.chars().take(SHOWN).collect()
}
