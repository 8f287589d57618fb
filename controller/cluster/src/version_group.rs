//! One version of one service: its workloads, its pods, and whether they serve. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use machine::observation::Strength;
use machine::spec::Percent;

use super::pods;
use super::scaled_object::{ScaledObject, needed};

/// One version of one service.
#[derive(Debug, Clone, Default)]
pub struct VersionGroup {
    /// Its workloads.
    pub objects: Vec<ScaledObject>,
    /// Its pods that have not ended, whoever made them.
    pub pods: Vec<Arc<Pod>>,
    /// How many of them the Service sends requests to, on all of its ports.
    pub endpoints: usize,
    /// A port of the Service that leads to none, or not to all, of its ready endpoints.
    pub unserved_port: Option<String>,
    /// Workloads that made pods of it and make another version now, each with that version.
    pub relabelled: BTreeSet<String>,
}

impl VersionGroup {
    pub(super) fn running(&self) -> bool {
        !self.pods.is_empty() || self.objects.iter().any(|object| object.replicas() > 0 || object.created() > 0)
    }

    pub(super) fn replicas(&self) -> i32 {
        self.objects.iter().map(ScaledObject::replicas).sum()
    }

    /// How many of its pods may be missing where this share of it is enough.
    pub(super) fn spare(&self, share: Percent) -> usize {
        let replicas = self.replicas();
        usize::try_from(replicas.saturating_sub(needed(share, replicas))).unwrap_or(0)
    }

    /// Whether nothing of it is meant to run.
    pub(super) fn is_stopped(&self) -> bool {
        self.objects.iter().all(|object| object.replicas() == 0 || object.is_ending())
    }

    /// The names of its pods that have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = String> {
        self.pods.iter().map(|pod| format!("pod {}", pod.name_any()))
    }

    /// Why this share of it does not serve.
    pub(super) fn lacks(&self, share: Percent) -> Option<String> {
        let replicas = self.replicas();
        let moved = || self.relabelled.first().map(|object| format!("{object} now, which made its pods"));
        let lacking =
            || self.objects.iter().find_map(|object| object.lacks(share).map(|why| format!("{object} {why}")));
        let nothing = || (replicas == 0).then(|| "has no pods".to_owned());
        let few = self.endpoints < usize::try_from(needed(share, replicas)).unwrap_or(0);
        let unserved = || {
            let ready = || format!("{} of {replicas} pods are ready endpoints", self.endpoints);
            few.then(|| self.unserved_port.clone().unwrap_or_else(ready))
        };
        moved().or_else(lacking).or_else(nothing).or_else(unserved)
    }

    /// How it ended, if nothing of it is available and at least one pod of its current template shows an error.
    pub(super) fn exited(&self) -> Option<String> {
        let live: Vec<_> = self.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        if live.iter().any(|pod| pods::ready(pod)) {
            return None;
        }
        let current: Vec<_> = live.into_iter().filter(|pod| !self.is_earlier(pod)).collect();
        let (pod, why) = current.iter().find_map(|pod| pods::failure(pod).map(|why| (pod, why)))?;
        Some(format!("0 of {} pods are available: {why} ({})", current.len(), pod.name_any()))
    }

    /// Whether its workload makes other pods by now.
    fn is_earlier(&self, pod: &Pod) -> bool {
        let Some(owner) = pods::owner(pod) else { return false };
        let maker = self.objects.iter().find(|object| object.to_string() == owner);
        let current = maker.and_then(ScaledObject::revision);
        current.is_some_and(|current| pods::revision(pod).is_some_and(|of_pod| of_pod != current))
    }
}

/// How strong a group is; none has no pods.
pub(super) fn strength(group: Option<&VersionGroup>) -> Strength {
    let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
    group.map_or_else(Strength::default, |group| Strength {
        asked: u32::try_from(group.replicas()).unwrap_or(0),
        serving: count(group.endpoints),
    })
}
