//! What one pod says of itself. Pure.

use crate::names::{DEFAULT_ACCOUNT, PROXY_CONTAINER, REVISION_HASH, TEMPLATE_HASH};
use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

/// Reasons to wait that are part of every start.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether it has ended, for good.
pub fn ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The workload that made it, as `KIND/NAME`; `None`: something else did.
pub fn owner(pod: &Pod) -> Option<String> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let name = owner.name.strip_suffix(pod.metadata.labels.as_ref()?.get(TEMPLATE_HASH)?)?;
            Some(format!("Deployment/{}", name.strip_suffix('-')?))
        }
        "StatefulSet" => Some(format!("StatefulSet/{}", owner.name)),
        _ => None,
    }
}

/// The revision of the template that it was made from.
pub fn revision(pod: &Pod) -> Option<&str> {
    let labels = pod.metadata.labels.as_ref()?;
    labels.get(TEMPLATE_HASH).or_else(|| labels.get(REVISION_HASH)).map(String::as_str)
}

/// Whether Istio's proxy is in it.
pub fn has_sidecar(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let mut containers = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers.any(|container| container.name == PROXY_CONTAINER)
}

/// Its ServiceAccount.
pub fn account(pod: &Pod) -> &str {
    let named = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    named.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_ACCOUNT)
}

/// The addresses that it says it has, as they are compared.
pub fn addresses(pod: &Pod) -> BTreeSet<String> {
    let status = pod.status.iter();
    let all = status
        .flat_map(|status| status.pod_ip.iter().chain(status.pod_ips.iter().flatten().map(|address| &address.ip)));
    all.filter_map(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical().to_string())).collect()
}

/// Why what comes from this address does not come from the pod.
pub fn is_not_at(pod: &Pod, address: IpAddr) -> Option<String> {
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        return Some("that pod shares the address of its node".to_owned());
    }
    if ended(pod) {
        return Some("that pod has ended".to_owned());
    }
    let status = pod.status.iter();
    let addresses = status
        .flat_map(|status| status.pod_ip.iter().chain(status.pod_ips.iter().flatten().map(|address| &address.ip)));
    let parsed = |text: &String| text.parse::<IpAddr>().is_ok_and(|own| own.to_canonical() == address.to_canonical());
    (!addresses.clone().any(parsed)).then(|| match addresses.clone().next() {
        Some(own) => format!("that pod is at {own}"),
        None => "that pod has no address yet".to_owned(),
    })
}

/// The condition that says that it is ready, if it is.
pub fn readiness(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether it is ready.
pub fn ready(pod: &Pod) -> bool {
    readiness(pod).is_some()
}

/// What is wrong with it, if it does not only need more time.
pub fn failure(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let containers = init.chain(status.container_statuses.iter().flatten());
    containers.filter_map(container_failure).next()
}

fn container_failure(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    if let Some(reason) = waiting.filter(|reason| !STARTING.contains(reason)) {
        let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        let code = last.map(|last| format!(", its last exit code was {}", last.exit_code)).unwrap_or_default();
        return Some(format!("{reason} in container {}{code}", container.name));
    }
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    Some(format!("container {} ended with exit code {}", container.name, ended.exit_code))
}
