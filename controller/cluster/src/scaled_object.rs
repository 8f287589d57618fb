//! A Deployment or a StatefulSet, as far as it says which version it is and how many pods it has. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use flag::record::check_version;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::labels::match_all;
use crate::names::KEPT_AT;

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

    /// Why it is not at full strength.
    pub(crate) fn lacks(&self) -> Option<String> {
        let replicas = self.replicas();
        let (observed, updated, available, kept_back) = match self {
            ScaledObject::Deployment(one) => {
                let status = one.status.clone().unwrap_or_default();
                (status.observed_generation, status.updated_replicas, status.available_replicas, 0)
            }
            ScaledObject::StatefulSet(one) => {
                let status = one.status.clone().unwrap_or_default();
                let strategy = one.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
                let partition = strategy.and_then(|one| one.rolling_update.as_ref()?.partition).unwrap_or(0);
                (status.observed_generation, status.updated_replicas, status.available_replicas, partition)
            }
        };
        let (updated, available) = (updated.unwrap_or(0), available.unwrap_or(0));
        if self.is_ending() {
            Some("is being deleted".to_owned())
        } else if observed < self.metadata().generation {
            Some("was changed, and its controller has not seen that yet".to_owned())
        } else if updated < replicas.saturating_sub(kept_back) {
            Some(format!("has {updated} of {replicas} pods of its current template"))
        } else if available < replicas {
            Some(format!("has {available} of {replicas} pods available"))
        } else {
            None
        }
    }
}
