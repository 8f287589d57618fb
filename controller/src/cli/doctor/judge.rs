//! What would keep VersionFlags of a namespace from working, and what to do about it. Pure.

use cluster::names::MANAGER;
use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, LabelSet, Leader};
use super::paths::{authorization, encryption, network, sidecars};
use cluster::istio::object::{Kind, TrafficExtension, WasmPlugin};
use cluster::istio::ours;
use cluster::labels::match_all;
use cluster::pods::has_sidecar;

/// Pods that are named.
const NAMED: usize = 3;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// VersionFlags do not work.
    Error,
    /// They do, with less than one might think.
    Warning,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What was looked at, in a word.
    pub(super) check: &'static str,
    /// What is wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) fix: String,
}

pub(super) fn error(check: &'static str, message: String, fix: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, check, message, fix: fix.into() }
}

pub(super) fn warning(check: &'static str, message: String, fix: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, check, message, fix: fix.into() }
}

/// Everything that was found, the worst first.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all: Vec<Finding> = definition(facts).into_iter().chain(leader(facts)).chain(rights(facts)).collect();
    all.extend(network(facts));
    if facts.in_mesh() {
        all.extend(kinds(facts));
        all.extend(sidecars(facts));
        all.extend(authorization(facts));
        all.extend(encryption(facts));
        all.extend(plugins(facts));
        all.extend(secrets(facts));
        all.extend(planes(facts));
        all.extend(pods(facts));
    }
    all.extend(workloads(facts));
    all.extend(flags(facts));
    let unread = |(what, why): &(&'static str, String)| {
        warning("rights", format!("{what} cannot be read, and are not looked at: {why}"), "ask somebody who may")
    };
    all.extend(facts.unread.iter().map(unread));
    all.sort_by_key(|finding| finding.severity);
    all
}

fn definition(facts: &Facts) -> Option<Finding> {
    let crd = "kubectl apply --server-side -f manifests/kubernetes/crd.yaml";
    let Some(found) = &facts.definition else {
        if facts.unread.iter().any(|(what, _)| *what == "definitions of resources") {
            return None;
        }
        return Some(error(
            "crd",
            "the cluster has no VersionFlags".to_owned(),
            "kubectl apply -k manifests/kubernetes",
        ));
    };
    let fields = |definition| serde_json::to_value(definition).map(|value| properties(&value)).unwrap_or_default();
    let (found, current) = (fields(&found.spec), fields(&facts.current.spec));
    let lacks: Vec<&str> = current.difference(&found).take(NAMED).map(String::as_str).collect();
    let message =
        || format!("the definition of VersionFlags is older than this program: it lacks {}", lacks.join(", "));
    (!lacks.is_empty()).then(|| error("crd", message(), crd))
}

/// The paths of all fields of a definition's schema.
fn properties(definition: &Value) -> BTreeSet<String> {
    fn walk(schema: &Value, path: &str, all: &mut BTreeSet<String>) {
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{path}.{name}");
            walk(field, &path, all);
            all.insert(path.trim_start_matches('.').to_owned());
        }
        if let Some(items) = schema.get("items") {
            walk(items, path, all);
        }
    }
    let mut all = BTreeSet::new();
    for version in definition.get("versions").and_then(Value::as_array).into_iter().flatten() {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            walk(schema, "", &mut all);
        }
    }
    all
}

fn leader(facts: &Facts) -> Option<Finding> {
    let home = &facts.home;
    let look = format!("kubectl -n {home} get pods; kubectl -n {home} logs deployment/versionflag");
    match &facts.leader {
        Leader::Leads => None,
        Leader::Nobody => Some(error(
            "controller",
            format!("no controller has ever run in namespace {home}"),
            "install manifests/kubernetes, or name its namespace with --home",
        )),
        Leader::GivenBack => Some(error("controller", format!("no replica of the controller in {home} acts"), look)),
        Leader::Silent(holder) => {
            Some(error("controller", format!("{holder}, which should act in {home}, is silent"), look))
        }
        Leader::Unknown => Some(warning(
            "controller",
            format!("the Lease versionflag in {home} cannot be read: nobody knows whether a controller acts"),
            look,
        )),
    }
}

fn rights(facts: &Facts) -> Vec<Finding> {
    let manifests: BTreeSet<&str> = facts.denied.iter().map(|right| right.manifest).collect();
    let of = |manifest: &str| {
        let denied = facts.denied.iter().filter(|right| right.manifest == manifest);
        let names: Vec<String> = denied
            .map(|right| {
                let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
                let part = if right.subresource.is_empty() { String::new() } else { format!("/{}", right.subresource) };
                format!("{} {}{part}{group}", right.verb, right.resource)
            })
            .collect();
        let message = format!("the controller may not {} in {}", names.join(", "), facts.namespace);
        error("rights", message, format!("kubectl apply -k {manifest}"))
    };
    manifests.into_iter().map(of).collect()
}

fn kinds(facts: &Facts) -> Option<Finding> {
    let message = || format!("the cluster has no {}", facts.missing_kinds.join(", no "));
    let fix = "install what brings them: Istio, or the CRDs of the Gateway API; or set spec.routing.provider otherwise";
    (!facts.missing_kinds.is_empty()).then(|| error("kinds", message(), fix))
}

/// Plugins of others that are, or would be, the filter twice.
fn plugins(facts: &Facts) -> Vec<Finding> {
    let plugins = facts.plugins.iter().map(|it| (it.name(), it.spec.clone(), ours(it), WasmPlugin::KIND));
    let extensions = facts
        .extensions
        .iter()
        .map(|it| (it.name(), it.spec.get("wasm").cloned().unwrap_or_default(), ours(it), TrafficExtension::KIND));
    let all: Vec<_> = plugins.chain(extensions).collect();
    let mut findings = vec![];
    for (name, spec, _, kind) in all.iter().filter(|(_, _, ours, _)| !ours) {
        let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default();
        let needed = name == &format!("{}/{MANAGER}", facts.namespace);
        if needed || text("pluginName") == MANAGER || text("url").contains(MANAGER) {
            let message =
                format!("{kind} {name} is not the controller's, and would run the filter twice or in its place");
            findings.push(error("plugin", message, "delete it: the controller writes its own"));
        }
    }
    let own = |of: &str| {
        all.iter()
            .any(|(name, _, ours, kind)| *ours && *kind == of && name.starts_with(&format!("{}/", facts.namespace)))
    };
    if own(WasmPlugin::KIND) && own(TrafficExtension::KIND) {
        let message = format!("namespace {} has the filter as WasmPlugin and as TrafficExtension", facts.namespace);
        findings.push(error("plugin", message, "delete the WasmPlugin when no switch is under way"));
    }
    findings
}

/// Namespaces whose proxies cannot pull the filter.
fn secrets(facts: &Facts) -> Vec<Finding> {
    let finding = |(place, name): &(String, String)| {
        let message = format!("namespace {place} has no Secret {name}, with which its proxies pull the filter");
        error("plugin", message, format!("kubectl -n {place} create secret docker-registry {name} …, as elsewhere"))
    };
    facts.without_secret.iter().map(finding).collect()
}

/// An istiod that tells gateways of no cluster but those that their VirtualServices lead to: so not of the flag
/// service's.
fn planes(facts: &Facts) -> Option<Finding> {
    const FILTERS: &str = "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG";
    let callers = |flag: &cluster::resource::VersionFlag| !flag.spec.all_callers().gateways.is_empty();
    let asks = |one: &&Deployment| {
        let pods = one.spec.iter().filter_map(|spec| spec.template.spec.as_ref());
        let mut env = pods.flat_map(|pod| &pod.containers).flat_map(|container| container.env.iter().flatten());
        env.any(|one| one.name == FILTERS && one.value.as_deref().is_some_and(|it| it.eq_ignore_ascii_case("true")))
    };
    let found = facts.planes.iter().find(asks).filter(|_| facts.flags.iter().any(callers))?;
    let name = format!("{}/{}", found.namespace().unwrap_or_default(), found.name_any());
    let message =
        format!("{name} has {FILTERS}: gateways do not get the cluster of the flag service, and never report");
    let host = facts.domain.host(MANAGER, &facts.home);
    let port = facts.port;
    Some(error(
        "gateway",
        message,
        format!(
            "take it out, or lead to {host} port {port} by a VirtualService of each Gateway, for a host that nobody uses"
        ),
    ))
}

/// Pods whose requests nobody sees.
fn pods(facts: &Facts) -> Option<Finding> {
    let running: Vec<&Pod> = facts
        .pods
        .iter()
        .filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"))
        .collect();
    let without: Vec<String> = running.iter().filter(|pod| !has_sidecar(pod)).map(|pod| pod.name_any()).collect();
    if without.is_empty() {
        return None;
    }
    let fix = format!("kubectl label namespace {} istio-injection=enabled, and restart them", facts.namespace);
    let named = some(&without);
    Some(if without.len() == running.len() {
        error("pods", format!("nothing in {} has a sidecar: {named}", facts.namespace), fix)
    } else {
        warning("pods", format!("requests of {named} go past the flags, because there is no sidecar"), fix)
    })
}

/// Workloads of a version that no Service leads to.
fn workloads(facts: &Facts) -> Vec<Finding> {
    let label = facts.flags.first().map_or("version", |flag| flag.spec.version_label.as_str());
    let template = |kind: &str, name: String, template: Option<&LabelSet>| {
        template.filter(|labels| labels.contains_key(label)).map(|labels| (format!("{kind} {name}"), labels.clone()))
    };
    let deployments = facts.deployments.iter().filter_map(|one| {
        let metadata = one.spec.as_ref()?.template.metadata.as_ref();
        template("Deployment", one.name_any(), metadata.and_then(|it| it.labels.as_ref()))
    });
    let sets = facts.stateful_sets.iter().filter_map(|one| {
        let metadata = one.spec.as_ref()?.template.metadata.as_ref();
        template("StatefulSet", one.name_any(), metadata.and_then(|it| it.labels.as_ref()))
    });
    let selected = |labels: &LabelSet| {
        facts.services.iter().any(|service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|all| !all.is_empty() && match_all(labels, all))
        })
    };
    let lost = deployments.chain(sets).filter(|(_, labels)| !selected(labels));
    lost.map(|(name, _)| {
        let message = format!("{name} has the label {label}, and no Service selects its pods");
        warning("workloads", message, "give its pods the labels that the Service selects, or take the label away")
    })
    .collect()
}

/// What the controller says of the flags that are there.
fn flags(facts: &Facts) -> Vec<Finding> {
    let wrong = facts.flags.iter().flat_map(|flag| {
        let conditions = flag.status.iter().flat_map(|status| &status.conditions);
        let wrong = conditions.filter(|one| {
            one.type_ == "Stalled" && one.status == "True" || one.type_ == "RoutesReady" && one.status == "False"
        });
        wrong.map(move |one| (flag.name_any(), one))
    });
    wrong
        .map(|(name, one)| {
            let message = format!("VersionFlag {name} is {} ({}): {}", one.type_, one.reason, one.message);
            error("flag", message, format!("kubectl versionflag why {name} -n {}", facts.namespace))
        })
        .collect()
}

/// A few names of many.
pub(super) fn some(names: &[String]) -> String {
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let rest = names.len().saturating_sub(NAMED);
    let noun = if names.len() == 1 { "pod" } else { "pods" };
    if rest == 0 { format!("{noun} {first}") } else { format!("{noun} {first} and {rest} more") }
}
