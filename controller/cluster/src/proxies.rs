//! Who has to ack. Pure.

use crate::names::{PROXY, PROXY_CONTAINER};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use machine::fleet::ledger::{Laggard, LateFilter};
use machine::fleet::unmanaged::UnmanagedCaller;
use machine::reason::{Problem, Reason};
use machine::time::UnixMs;

use super::labels::match_all;
use super::liveness::{Lives, is_placed};
use super::pods;
use super::workloads::{Objects, Workloads};
use machine::spec::{Callers, Spec};

/// Laggards that are explained.
const EXPLAINED: usize = 10;

/// The proxies that have to ack a flag of `namespace`: those of all pods that say that theirs runs
/// the filter and that are not proven to do nothing.
pub fn expected(namespace: &str, spec: &Spec, objects: &Objects) -> BTreeSet<String> {
    let callers = objects.pods.iter().filter(|pod| calls(namespace, spec, pod));
    callers.filter(|pod| lives(spec, objects, pod).may_act()).filter_map(|pod| name(pod)).collect()
}

/// Those and the others that may be about to start: each is told of a flip although nobody may wait for it.
pub fn audience(namespace: &str, spec: &Spec, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter(|pod| calls(namespace, spec, pod) && is_there(pod)).filter_map(|pod| name(pod)).collect()
}

/// The same where the proxies are sidecars of Istio's and its gateways. The pods of the services count
/// whoever the callers are: what arrives there has to be seen.
pub fn expected_in_mesh(namespace: &str, spec: &Spec, workloads: &Workloads, objects: &Objects) -> BTreeSet<String> {
    let expected = sidecars(namespace, spec, workloads, objects);
    expected.filter(|pod| lives(spec, objects, pod).may_act()).filter_map(|pod| name(pod)).collect()
}

/// The pods whose sidecars have to ack while they may act. One may come several times.
fn sidecars<'a>(
    namespace: &'a str,
    spec: &'a Spec,
    workloads: &'a Workloads,
    objects: &'a Objects,
) -> impl Iterator<Item = &'a Arc<Pod>> {
    let narrowed = |pod: &Pod| match_all(pod.labels(), &spec.callers.pods.match_labels);
    let callers = objects.pods.iter().filter(move |pod| in_mesh(namespace, spec, pod) && narrowed(pod));
    let gateways = spec.all_callers().into_owned();
    let gateways = objects.pods.iter().filter(move |pod| is_gateway(namespace, &gateways, pod));
    let called = workloads.services.values().flat_map(|groups| groups.values().flat_map(|group| &group.pods));
    callers.chain(gateways).chain(called).filter(|pod| pods::has_sidecar(pod))
}

/// A proxy in the mesh that has to ack, and of which no report is believed: it has the address of its node, where
/// others are too.
pub fn unbelieved(namespace: &str, spec: &Spec, workloads: &Workloads, objects: &Objects) -> Option<Problem> {
    let shares = |pod: &&Arc<Pod>| pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let mut shared = sidecars(namespace, spec, workloads, objects).filter(shares);
    let name = shared.find(|pod| lives(spec, objects, pod).may_act()).and_then(|pod| name(pod))?;
    let message = format!(
        "{name} has to ack, and what it reports cannot be believed, because it has the address of its node \
         (hostNetwork): take that away, or narrow spec.callers so that it is none"
    );
    Some(Problem::new(Reason::HostNetwork, message))
}

/// Callers that a controller of the one namespace `watched` does not see.
pub fn unseen(watched: Option<&str>, namespace: &str, spec: &Spec) -> Option<Problem> {
    let (watched, callers) = (watched?, spec.all_callers());
    let place = callers.places(namespace).find(|place| *place != watched)?;
    let message = format!(
        "there are callers in namespace {place}, and this controller looks after {watched} only: it would not wait for \
         them. Run one for all namespaces, or take them out of the spec"
    );
    Some(Problem::new(Reason::CallersUnseen, message))
}

/// What a proxy takes to have its filter when it starts, and what a plugin takes to come to those that start, in
/// milliseconds. Who takes longer is taken for one that ran without.
const STARTS_WITHIN: u64 = 5_000;

/// Takes out the proxies that have had their filter ever since they were started. Both times are by the clock of a
/// proxy's node. Where a plugin brings the filter, `since` is when the last of them was made, by the API server's clock:
/// who was started before that ran without it, however soon it came.
pub fn keep_late(late: &mut Vec<LateFilter>, since: Option<UnixMs>, spec: &Spec, objects: &Objects) {
    if late.is_empty() {
        return;
    }
    // All may be late at once: each pod is looked at once for all of them.
    let started = |pod: &Arc<Pod>| Some((name(pod)?, lives(spec, objects, pod).started_at()?));
    let started: BTreeMap<String, UnixMs> = objects.pods.iter().filter_map(started).collect();
    let could_have_it = since.map_or(0, |since| since.0.saturating_add(STARTS_WITHIN));
    late.retain(|one| {
        let at = started.get(&one.proxy);
        at.is_none_or(|at| at.0 < could_have_it || one.came_ms > at.0.saturating_add(STARTS_WITHIN))
    });
}

/// The pods of each version without a sidecar that has to ack. Elsewhere than in a mesh nobody knows whether a proxy
/// sees what arrives.
pub fn uncovered(
    spec: &Spec,
    workloads: &Workloads,
    expected: &BTreeSet<String>,
) -> BTreeMap<String, BTreeSet<String>> {
    let versions = workloads.versions().into_iter().filter(|_| spec.routing.in_mesh());
    let covered = |pod: &Pod| pods::has_sidecar(pod) && name(pod).is_some_and(|name| expected.contains(&name));
    let bare = |version: &str| workloads.pods(version).filter(|pod| !covered(pod)).map(ResourceExt::name_any).collect();
    versions.map(|version| (version.to_owned(), bare(version))).collect()
}

/// Says of each of the first laggards by which rule it is waited for, and until when.
pub fn explain(laggards: &mut [Laggard], namespace: &str, spec: &Spec, workloads: &Workloads, objects: &Objects) {
    let gateways = spec.all_callers();
    for laggard in laggards.iter_mut().take(EXPLAINED) {
        let called =
            workloads.services.iter().flat_map(|(service, groups)| groups.values().map(move |one| (service, one)));
        let mut called = called.flat_map(|(service, group)| group.pods.iter().map(move |pod| (service, pod)));
        let Some((pod, place)) = laggard.proxy.rsplit_once('.') else { continue };
        let is_it = |one: &Arc<Pod>| {
            one.metadata.name.as_deref() == Some(pod) && one.metadata.namespace.as_deref() == Some(place)
        };
        let (who, pod) = match (called.find(|(_, pod)| is_it(pod)), objects.pods.iter().find(|pod| is_it(pod))) {
            (Some((service, pod)), _) => (format!("beside Service {service}"), pod),
            (None, Some(pod)) if is_gateway(namespace, &gateways, pod) => ("a gateway".to_owned(), pod),
            (None, Some(pod)) => ("a caller".to_owned(), pod),
            (None, None) => continue,
        };
        laggard.why = format!("{}; {who}, waited for {}", laggard.why, lives(spec, objects, pod).until());
    }
}

fn lives<'a>(spec: &Spec, objects: &'a Objects, pod: &'a Pod) -> Lives<'a> {
    Lives::new(pod, spec.routing.in_mesh().then_some(PROXY_CONTAINER), objects.nodes.as_deref())
}

/// Every proxy whose plugin has the flag: it is told of a flip although nobody may wait for it.
pub fn audience_in_mesh(namespace: &str, spec: &Spec, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    let gateways = spec.all_callers();
    let there = |pod: &&Arc<Pod>| in_mesh(namespace, spec, pod) || is_gateway(namespace, &gateways, pod);
    let told = pods.iter().filter(there).filter(|pod| pods::has_sidecar(pod) && is_there(pod));
    told.filter_map(|pod| name(pod)).collect()
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

/// Says of each address of a caller without a filter which pod has it, of those that `at` finds by the address.
pub fn name_callers(callers: &mut [UnmanagedCaller], at: impl Fn(&str) -> Vec<Arc<Pod>>) {
    for from in callers.iter_mut().map(|caller| &mut caller.from) {
        let Ok(address) = from.trim_matches(['[', ']']).parse::<IpAddr>() else { continue };
        let pods = at(&address.to_canonical().to_string());
        let there = pods.iter().find(|pod| pods::is_not_at(pod, address).is_none());
        if let Some(name) = there.and_then(|pod| name(pod)) {
            *from = format!("{name} ({from})");
        }
    }
}

fn calls(namespace: &str, spec: &Spec, pod: &Pod) -> bool {
    let (callers, labels) = (&spec.callers, pod.labels());
    let place = pod.namespace().unwrap_or_default();
    let here = if callers.namespaces.is_empty() { place == namespace } else { callers.namespaces.contains(&place) };
    here && labels.contains_key(PROXY) && match_all(pod.labels(), &callers.pods.match_labels)
}

/// Whether it has a node, and has not ended.
fn is_there(pod: &Pod) -> bool {
    is_placed(pod) && !pods::ended(pod)
}
