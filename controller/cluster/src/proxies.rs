//! Who has to ack. Pure.

use crate::names::PROXY;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use machine::fleet::unmanaged::UnmanagedCaller;

use super::labels::match_all;
use super::pods;
use super::workloads::Workloads;
use machine::spec::{Callers, Spec};

/// The proxies that have to ack a flag of `namespace`: those of all pods that say that theirs runs
/// the filter and that are not proven stopped.
pub fn expected(namespace: &str, spec: &Spec, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter(|pod| calls(namespace, spec, pod) && runs(pod)).filter_map(|pod| name(pod)).collect()
}

/// The same where the proxies are sidecars of Istio's and its gateways. The pods of the services count
/// whoever the callers are: what arrives there has to be seen.
pub fn expected_in_mesh(namespace: &str, spec: &Spec, workloads: &Workloads, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    let narrowed = |pod: &Pod| match_all(pod.labels(), &spec.callers.pods.match_labels);
    let callers = pods.iter().filter(|pod| in_mesh(namespace, spec, pod) && narrowed(pod));
    let gateways = spec.all_callers();
    let gateways = pods.iter().filter(|pod| is_gateway(namespace, &gateways, pod));
    let called = workloads.services.values().flat_map(|groups| groups.values().flat_map(|group| &group.pods));
    names_of_sidecars(callers.chain(gateways).chain(called))
}

/// Every proxy whose plugin has the flag: it is told of a flip although nobody may wait for it.
pub fn audience_in_mesh(namespace: &str, spec: &Spec, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    let gateways = spec.all_callers();
    let there = |pod: &&Arc<Pod>| in_mesh(namespace, spec, pod) || is_gateway(namespace, &gateways, pod);
    names_of_sidecars(pods.iter().filter(there))
}

fn names_of_sidecars<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> BTreeSet<String> {
    pods.filter(|pod| pods::has_sidecar(pod) && runs(pod)).filter_map(|pod| name(pod)).collect()
}

fn in_mesh(namespace: &str, spec: &Spec, pod: &Pod) -> bool {
    let place = pod.namespace().unwrap_or_default();
    place == namespace || spec.callers.namespaces.contains(&place)
}

fn is_gateway(namespace: &str, callers: &Callers, pod: &Pod) -> bool {
    let place = pod.namespace().unwrap_or_default();
    let mut gateways = callers.gateways.iter();
    gateways.any(|gateway| gateway.namespace(namespace) == place && match_all(pod.labels(), &gateway.match_labels))
}

/// The name by which a pod's proxy reports: `POD.NAMESPACE`.
pub fn name(pod: &Pod) -> Option<String> {
    Some(format!("{}.{}", pod.metadata.name.as_ref()?, pod.metadata.namespace.as_ref()?))
}

/// Says of each address of a caller without a filter which pod has it.
pub fn name_callers<'a>(callers: &mut [UnmanagedCaller], pods: impl Iterator<Item = &'a Arc<Pod>>) {
    for pod in pods {
        // What has got its name is no address any more.
        for from in callers.iter_mut().map(|caller| &mut caller.from) {
            if let Ok(address) = from.trim_matches(['[', ']']).parse()
                && pods::is_not_at(pod, address).is_none()
                && let Some(name) = name(pod)
            {
                *from = format!("{name} ({from})");
            }
        }
    }
}

fn calls(namespace: &str, spec: &Spec, pod: &Pod) -> bool {
    let (callers, labels) = (&spec.callers, pod.labels());
    let place = pod.namespace().unwrap_or_default();
    let here = if callers.namespaces.is_empty() { place == namespace } else { callers.namespaces.contains(&place) };
    here && labels.contains_key(PROXY) && match_all(pod.labels(), &callers.pods.match_labels)
}

/// Whether a proxy in it may still run, or runs soon. One that is terminating does until it is
/// gone; one that has no node yet has never started, and starts with the record of that time.
fn runs(pod: &Pod) -> bool {
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    placed && !pods::ended(pod)
}
