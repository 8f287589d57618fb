//! What belongs to the version that a switch leaves: the workloads that were there when requests were taken from it,
//! whatever the Services select since. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use machine::status::LeftVersion;

use super::labels::match_all;
use super::pods;
use super::scaled_object::ScaledObject;
use super::workloads::{Objects, VersionGroup, Workloads};

impl Workloads {
    /// Takes exactly the remembered workloads for the version: what was selected since is somebody else's, and what is
    /// not selected any more still has to go. Where all of them were made anew, those serve until something is removed.
    pub fn keep_to(&mut self, left: LeftVersion<'_>, namespace: &str, objects: &Objects) {
        let version = left.version;
        let is_of_it = |object: &ScaledObject| left.workloads.contains(&object.identity());
        if !left.goes && !objects.in_namespace(namespace).any(|object| is_of_it(&object)) {
            return;
        }
        let mut others: Vec<ScaledObject> = vec![];
        for group in self.services.values_mut().filter_map(|groups| groups.get_mut(version)) {
            let all = std::mem::take(&mut group.objects);
            let (of_it, other) = all.into_iter().partition(is_of_it);
            (group.objects, others) = (of_it, [others, other].concat());
        }
        let selected: BTreeSet<String> = self.objects(version).into_iter().map(ScaledObject::identity).collect();
        let lost: Vec<ScaledObject> = objects
            .in_namespace(namespace)
            .filter(|object| is_of_it(object) && !selected.contains(&object.identity()))
            .collect();
        let kept: Vec<ScaledObject> = self.objects(version).into_iter().chain(&lost).cloned().collect();
        let has = |all: &[ScaledObject], pod: &Pod| all.iter().any(|one| makes(one, pod));
        for group in self.services.values_mut().filter_map(|groups| groups.get_mut(version)) {
            // A pod that nobody's workload makes is of the version all the same.
            group.pods.retain(|pod| has(&kept, pod) || !has(&others, pod));
        }
        let Some(groups) = self.services.values_mut().next().filter(|_| !lost.is_empty()) else { return };
        let group: &mut VersionGroup = groups.entry(version.to_owned()).or_default();
        let known: BTreeSet<String> = group.pods.iter().map(|pod| pod.name_any()).collect();
        let here = objects.pods.iter().filter(|pod| pod.namespace().as_deref() == Some(namespace));
        let made = here.filter(|pod| has(&lost, pod) && !pods::ended(pod) && !known.contains(&pod.name_any()));
        group.pods.extend(made.map(Arc::clone));
        group.objects.extend(lost);
    }
}

/// Whether a pod may be of a workload: it has all labels that the workload's pods have.
fn makes(object: &ScaledObject, pod: &Pod) -> bool {
    object.labels().is_some_and(|labels| !labels.is_empty() && match_all(pod.labels(), labels))
}
