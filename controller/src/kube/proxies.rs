//! Who has to ack. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::pods;
use super::resource::PROXY;
use crate::spec::Spec;

/// The proxies that have to ack a flag of `namespace`: those of all pods that say that theirs runs
/// the filter and that are not proven stopped.
pub fn expected(namespace: &str, spec: &Spec, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter(|pod| calls(namespace, spec, pod) && runs(pod)).filter_map(|pod| name(pod)).collect()
}

/// The name by which a pod's proxy reports: `POD.NAMESPACE`.
pub fn name(pod: &Pod) -> Option<String> {
    Some(format!("{}.{}", pod.metadata.name.as_ref()?, pod.metadata.namespace.as_ref()?))
}

fn calls(namespace: &str, spec: &Spec, pod: &Pod) -> bool {
    let (callers, labels) = (&spec.callers, pod.labels());
    let place = pod.namespace().unwrap_or_default();
    let here = if callers.namespaces.is_empty() { place == namespace } else { callers.namespaces.contains(&place) };
    here && labels.contains_key(PROXY)
        && callers.pods.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a proxy in it may still run, or runs soon. One that is terminating does until it is
/// gone; one that has no node yet has never started, and starts with the record of that time.
fn runs(pod: &Pod) -> bool {
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    placed && !pods::ended(pod)
}
