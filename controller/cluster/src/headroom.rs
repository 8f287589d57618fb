//! Whether the nodes and the quotas have room for more pods. Pure.
//!
//! Each pod is put on the first node that takes it: node selectors, taints and requests count;
//! affinities, volumes and priorities do not. A pod that finds no node after all stays pending, and
//! its version does not get ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, ResourceQuota, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pods;
use super::scaled_object::Scale;
use super::workloads::{Objects, Workloads};
use machine::observation::Headroom;
use machine::quantity::{parse, show};

/// Amounts in thousandths by resource.
type Amounts = BTreeMap<String, u64>;

/// Whether the pods that `scales` asks for find room, with what is put beside them when they are admitted.
pub fn look(namespace: &str, version: &str, scales: &[Scale], beside: &PodSpec, objects: &Objects) -> Headroom {
    let needs: Vec<(usize, PodSpec, Amounts)> = scales
        .iter()
        .filter_map(|scale| {
            let more = scale.replicas.saturating_sub(scale.object.replicas());
            let spec = with(scale.object.template()?.spec.as_ref()?, beside);
            let request = sum_of(&spec, requests_of);
            Some((usize::try_from(more).unwrap_or(0), spec, request))
        })
        .collect();
    let quotas = objects.quotas.iter().filter(|quota| quota.metadata.namespace.as_deref() == Some(namespace));
    if let Some(message) = quotas.filter_map(|quota| exceeds(version, &needs, quota)).next() {
        return Headroom::Short { message };
    }
    let Some(nodes) = objects.nodes.as_deref().filter(|nodes| !nodes.is_empty()) else {
        return Headroom::Unknown;
    };
    let mut free: Vec<(&Node, Amounts)> = nodes
        .iter()
        .filter(|node| node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true)))
        .map(|node| (node.as_ref(), free_of(node, &objects.pods)))
        .collect();
    let before = free.clone();
    for (count, spec, request) in &needs {
        let placed = (0..*count).take_while(|_| place(spec, request, &mut free)).count();
        if placed < *count {
            let allowed: Vec<&Amounts> =
                before.iter().filter(|(node, _)| allows(node, spec)).map(|(_, free)| free).collect();
            let message = format!(
                "{version} needs {count} more pods of {}, and {placed} fit: of {} schedulable nodes {} take them, with \
                 {} free",
                list(request),
                before.len(),
                allowed.len(),
                if allowed.is_empty() { "nothing".to_owned() } else { each(request, &allowed) },
            );
            return Headroom::Short { message };
        }
    }
    Headroom::Fits
}

/// The containers that a pod has and its template does not: whoever admits pods, such as Istio, has added them. Looked
/// for in the pods of these versions, of the first one that has any.
pub fn injected(workloads: &Workloads, versions: &[&str]) -> PodSpec {
    let Some((pod, version)) = versions.iter().find_map(|version| Some((workloads.pods(version).next()?, version)))
    else {
        return PodSpec::default();
    };
    let objects = workloads.objects(version);
    let templates: Vec<&PodSpec> = objects.iter().filter_map(|one| one.template()?.spec.as_ref()).collect();
    let added = |one: &&Container| !templates.iter().any(|template| has(template, &one.name));
    let spec = pod.spec.as_ref();
    PodSpec {
        containers: spec.iter().flat_map(|spec| &spec.containers).filter(added).cloned().collect(),
        init_containers: Some(
            spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).filter(added).cloned().collect(),
        ),
        ..PodSpec::default()
    }
}

fn has(spec: &PodSpec, name: &str) -> bool {
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|one| one.name == name)
}

/// A template with what is put beside its containers.
fn with(template: &PodSpec, beside: &PodSpec) -> PodSpec {
    let new = |one: &&Container| !has(template, &one.name);
    let mut spec = template.clone();
    spec.containers.extend(beside.containers.iter().filter(new).cloned());
    // A sidecar that is an init container comes first.
    let first = beside.init_containers.iter().flatten().filter(new).cloned();
    spec.init_containers = Some(first.chain(spec.init_containers.into_iter().flatten()).collect());
    spec
}

/// What is free on each of some nodes, of what is needed; the first three.
fn each(request: &Amounts, nodes: &[&Amounts]) -> String {
    let of_one = |free: &&Amounts| {
        let needed = request.keys().map(|name| (name.clone(), free.get(name).copied().unwrap_or(0)));
        list(&needed.collect())
    };
    let shown: Vec<String> = nodes.iter().take(3).map(of_one).collect();
    let more = if nodes.len() > 3 { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// `cpu 1 and memory 1Gi`, without the place that every pod takes.
fn list(amounts: &Amounts) -> String {
    let named = amounts.iter().filter(|(name, amount)| *name != "pods" || **amount == 0);
    let shown: Vec<String> = named.map(|(name, amount)| format!("{name} {}", show(name, *amount))).collect();
    if shown.is_empty() { "no requests".to_owned() } else { shown.join(" and ") }
}

fn place(spec: &PodSpec, request: &Amounts, free: &mut [(&Node, Amounts)]) -> bool {
    let fits = |free: &Amounts| request.iter().all(|(name, amount)| free.get(name).copied().unwrap_or(0) >= *amount);
    let Some((_, free)) = free.iter_mut().find(|(node, free)| allows(node, spec) && fits(free)) else {
        return false;
    };
    for (name, amount) in request {
        free.entry(name.clone()).and_modify(|free| *free = free.saturating_sub(*amount));
    }
    true
}

/// Whether a node takes a pod, room aside.
fn allows(node: &Node, spec: &PodSpec) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    spec.node_selector.iter().flatten().all(has)
        && taints
            .filter(|taint| taint.effect != "PreferNoSchedule")
            .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let any = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && any))
        && (any || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

fn free_of(node: &Node, pods: &[Arc<Pod>]) -> Amounts {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let mut free = amounts(allocatable);
    let name = node.metadata.name.as_deref();
    let here = pods.iter().filter(|pod| !pods::ended(pod)).filter_map(|pod| pod.spec.as_ref());
    for spec in here.filter(|spec| spec.node_name.is_some() && spec.node_name.as_deref() == name) {
        for (resource, amount) in sum_of(spec, requests_of) {
            free.entry(resource).and_modify(|free| *free = free.saturating_sub(amount));
        }
    }
    free
}

fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let all = quantities.into_iter().flatten();
    all.filter_map(|(name, quantity)| Some((name.clone(), parse(&quantity.0)?))).collect()
}

/// What a pod takes: its containers together, or what one that comes before them takes if that is more.
fn sum_of(spec: &PodSpec, of: fn(&Container) -> Amounts) -> Amounts {
    let mut total = spec.containers.iter().map(of).fold(Amounts::new(), sum);
    let (mut beside, mut start) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let request = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            beside = sum(beside, request);
            start = most(start, beside.clone());
        } else {
            start = most(start, sum(beside.clone(), request));
        }
    }
    total = most(sum(total, beside), start);
    total = sum(total, amounts(spec.overhead.as_ref()));
    total.insert("pods".to_owned(), 1_000);
    total
}

/// What it is limited to.
fn limits(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()))
}

/// What it requests. What it only has a limit of it requests as much of, says the API.
fn requests_of(container: &Container) -> Amounts {
    let mut request = limits(container);
    request.extend(amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
    request
}

fn sum(mut one: Amounts, other: Amounts) -> Amounts {
    for (name, amount) in other {
        let entry = one.entry(name).or_default();
        *entry = entry.saturating_add(amount);
    }
    one
}

fn most(mut one: Amounts, other: Amounts) -> Amounts {
    for (name, amount) in other {
        let entry = one.entry(name).or_default();
        *entry = amount.max(*entry);
    }
    one
}

/// What a quota does not allow. One that is only about some pods is not looked at.
fn exceeds(version: &str, needs: &[(usize, PodSpec, Amounts)], quota: &ResourceQuota) -> Option<String> {
    let spec = quota.spec.as_ref()?;
    if spec.scope_selector.is_some() || spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) {
        return None;
    }
    let status = quota.status.as_ref()?;
    let used = amounts(status.used.as_ref());
    amounts(status.hard.as_ref()).into_iter().find_map(|(name, hard)| {
        let free = hard.saturating_sub(used.get(&name).copied().unwrap_or(0));
        let needed = needs.iter().map(|(count, spec, request)| {
            let one = match name.as_str() {
                "count/pods" => request.get("pods").copied(),
                name if name.starts_with("limits.") => sum_of(spec, limits).get(name.strip_prefix("limits.")?).copied(),
                other => request.get(other.strip_prefix("requests.").unwrap_or(other)).copied(),
            };
            Some(one?.saturating_mul(u64::try_from(*count).ok()?))
        });
        let needed: u64 = needed.flatten().fold(0, u64::saturating_add);
        (needed > free).then(|| {
            let quota = quota.metadata.name.as_deref().unwrap_or_default();
            let (needed, free, hard) = (show(&name, needed), show(&name, free), show(&name, hard));
            format!("{version} needs {needed} more of {name}, ResourceQuota {quota} leaves {free} of {hard}")
        })
    })
}
