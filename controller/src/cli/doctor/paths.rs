//! Whether pods of a namespace reach the flag service: what Istio shows them, and what policies let pass. Pure.

use cluster::names::MANAGER;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::facts::{
    Authentication, Authorization, AuthorizationRule, Facts, LabelSet, RuleHost, Selected, SidecarSpec, labels, selects,
};
use super::judge::{Finding, error, some};
use cluster::istio::object::{MeshObject, Sidecar};
use cluster::leader::{MTLS_NAME, NAME};
use cluster::pods::has_sidecar;

/// Sidecars whose egress hides the flag service.
pub(super) fn sidecars(facts: &Facts) -> Vec<Finding> {
    let host = facts.domain.host(MANAGER, &facts.home);
    let own_default = facts
        .sidecars
        .iter()
        .any(|one| one.namespace() == facts.namespace && one.read::<SidecarSpec>().workload_selector.is_none());
    let hidden = facts.sidecars.iter().filter(|one| {
        let spec: SidecarSpec = one.read();
        // That of the root namespace is for those who have none.
        let concerns = one.namespace() == facts.namespace || !own_default && spec.workload_selector.is_none();
        let mut hosts = spec.egress.iter().flat_map(|egress| &egress.hosts);
        let shown = spec.egress.is_empty() || hosts.any(|entry| shows(entry, &facts.namespace, &facts.home, &host));
        concerns && !shown
    });
    let finding = |one: &MeshObject<Sidecar>| {
        let message = format!("Sidecar {} hides the flag service from its pods", one.name());
        error("sidecar", message, format!("add \"{}/{host}\" to its spec.egress[].hosts", facts.home))
    };
    hidden.map(finding).collect()
}

/// Whether an entry `NAMESPACE/HOST` of a Sidecar in `here` shows a host of `home`.
fn shows(entry: &str, here: &str, home: &str, host: &str) -> bool {
    let (place, name) = entry.split_once('/').unwrap_or(("*", entry));
    let place = match place {
        "*" => true,
        "." => here == home,
        other => other == home,
    };
    place && matches_host(name, host)
}

fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => host.ends_with(end),
        None => pattern == host,
    }
}

/// NetworkPolicies that let nothing pass from the pods to the flag service.
pub(super) fn network(facts: &Facts) -> Vec<Finding> {
    let controller = facts
        .controllers
        .first()
        .map_or_else(|| LabelSet::from([("app.kubernetes.io/name".to_owned(), MANAGER.to_owned())]), labels);
    let (here, home) = (facts.labels_of(&facts.namespace), facts.labels_of(&facts.home));
    let of = |namespace: &str| {
        let namespace = namespace.to_owned();
        facts.network_policies.iter().filter(move |one| one.namespace().as_deref() == Some(&namespace))
    };
    let mut shut: Vec<(String, BTreeSet<String>)> = vec![];
    let mut refused: Vec<String> = vec![];
    for pod in facts.pods.iter().filter(|pod| concerns(facts, pod)) {
        let own = labels(pod);
        let egress: Vec<&NetworkPolicy> =
            of(&facts.namespace).filter(|policy| applies(policy, "Egress", &own)).collect();
        let leaves = egress.iter().flat_map(|policy| policy.spec.iter().flat_map(|spec| spec.egress.iter().flatten()));
        let port = (facts.port, if facts.mtls() { MTLS_NAME } else { NAME });
        let to = Side { namespace: &facts.home, labels: &home, pod: &controller };
        if !egress.is_empty()
            && !leaves
                .into_iter()
                .any(|rule| to.passes(rule.to.as_deref(), rule.ports.as_deref(), &facts.namespace, port))
        {
            shut.push((pod.name_any(), egress.iter().map(|policy| policy.name_any()).collect()));
        }
        let ingress: Vec<&NetworkPolicy> =
            of(&facts.home).filter(|policy| applies(policy, "Ingress", &controller)).collect();
        let enters =
            ingress.iter().flat_map(|policy| policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten()));
        let from = Side { namespace: &facts.namespace, labels: &here, pod: &own };
        if !ingress.is_empty()
            && !enters
                .into_iter()
                .any(|rule| from.passes(rule.from.as_deref(), rule.ports.as_deref(), &facts.home, port))
        {
            refused.push(pod.name_any());
        }
    }
    shut_out(facts, &shut, &refused)
}

/// What is said of pods from which nothing leaves, and of those from which nothing enters.
fn shut_out(facts: &Facts, shut: &[(String, BTreeSet<String>)], refused: &[String]) -> Vec<Finding> {
    let mut findings = vec![];
    if let Some((_, policies)) = shut.first() {
        let policies = policies.iter().cloned().collect::<Vec<_>>().join(", ");
        let names: Vec<String> = shut.iter().map(|(name, _)| name.clone()).collect();
        let message = format!(
            "NetworkPolicy {policies} in {} lets nothing pass to the flag service from {}",
            facts.namespace,
            some(&names)
        );
        let fix = format!(
            "add an egress rule to namespace {}, port {} (namespaceSelector kubernetes.io/metadata.name: {})",
            facts.home, facts.port, facts.home
        );
        findings.push(error("network", message, fix));
    }
    if !refused.is_empty() {
        let message =
            format!("NetworkPolicies in {} let nothing pass to the controller from {}", facts.home, some(refused));
        findings.push(error("network", message, "apply manifests/kubernetes/network-policy.yaml"));
    }
    findings
}

/// Whether a policy is about this direction of pods with these labels.
fn applies(policy: &NetworkPolicy, direction: &str, labels: &LabelSet) -> bool {
    policy.spec.as_ref().is_some_and(|spec| {
        let typed = match &spec.policy_types {
            Some(types) => types.iter().any(|it| it == direction),
            // As the API fills it in.
            None => direction == "Ingress" || spec.egress.is_some(),
        };
        typed && spec.pod_selector.as_ref().is_none_or(|selector| selects(selector, labels))
    })
}

/// The pod at the other end of a rule.
struct Side<'a> {
    namespace: &'a str,
    labels: &'a LabelSet,
    pod: &'a LabelSet,
}

impl Side<'_> {
    /// Whether a rule of a policy in `place` lets it pass.
    fn passes(
        &self,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
        place: &str,
        (port, called): (i32, &str),
    ) -> bool {
        let peer = |peer: &NetworkPolicyPeer| {
            // Which addresses pods have is not looked at.
            peer.ip_block.is_some()
                || peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, self.pod))
                    && match &peer.namespace_selector {
                        Some(selector) => selects(selector, self.labels),
                        None => place == self.namespace,
                    }
        };
        let fits = |one: &NetworkPolicyPort| {
            let tcp = one.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            tcp && match (&one.port, one.end_port) {
                (None, _) => true,
                (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&port),
                (Some(IntOrString::Int(number)), None) => *number == port,
                (Some(IntOrString::String(name)), _) => name == called,
            }
        };
        peers.is_none_or(|peers| peers.is_empty() || peers.iter().any(peer))
            && ports.is_none_or(|ports| ports.is_empty() || ports.iter().any(fits))
    }
}

/// Whether a pod speaks to the flag service.
fn concerns(facts: &Facts, pod: &Pod) -> bool {
    let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let ended = matches!(ended, Some("Succeeded" | "Failed"));
    let proxied = if facts.in_mesh() { has_sidecar(pod) } else { pod.labels().contains_key("versionflag.io/proxy") };
    proxied && !ended
}

/// Policies of a controller behind a sidecar that refuse the pods. Without one nobody asks them.
pub(super) fn authorization(facts: &Facts) -> Option<Finding> {
    let controller = facts.behind_sidecar().map(labels)?;
    let of = |action: &str| {
        let all = facts.authorizations.iter().map(|object| (object.name(), object.read::<Authorization>()));
        let these = all.filter(|(_, policy)| policy.action.as_deref().unwrap_or("ALLOW") == action);
        let these = these.filter(|(_, policy)| policy.selector.as_ref().is_none_or(|it| it.takes(&controller)));
        these.collect::<Vec<_>>()
    };
    let takes = |rule: &AuthorizationRule| rule_takes(rule, &facts.namespace, facts.port);
    let fix = format!("let it allow namespace {} on port {}", facts.namespace, facts.port);
    let denies =
        of("DENY").into_iter().find(|(_, policy)| policy.rules.iter().any(|rule| rule.when.is_empty() && takes(rule)));
    if let Some((name, _)) = denies {
        let message = format!("AuthorizationPolicy {name} denies the flag service to {}", facts.namespace);
        return Some(error("authorization", message, fix));
    }
    let allows = of("ALLOW");
    let refused = !allows.is_empty() && !allows.iter().any(|(_, policy)| policy.rules.iter().any(takes));
    let names: Vec<String> = allows.into_iter().map(|(name, _)| name).collect();
    let message =
        || format!("AuthorizationPolicy {} does not allow {} the flag service", names.join(", "), facts.namespace);
    refused.then(|| error("authorization", message(), fix))
}

/// Whether a rule may take requests of pods of a namespace to this port.
fn rule_takes(rule: &AuthorizationRule, namespace: &str, port: i32) -> bool {
    let has = |values: Option<&Vec<String>>, fits: &dyn Fn(&str) -> bool| {
        values.is_none_or(|values| values.iter().any(|value| value == "*" || fits(value)))
    };
    let from = |source: &BTreeMap<String, Vec<String>>| {
        has(source.get("namespaces"), &|it| it == namespace)
            && has(source.get("principals"), &|it| it.contains(&format!("/ns/{namespace}/")))
            && source.get("notNamespaces").is_none_or(|not| !not.iter().any(|it| it == namespace || it == "*"))
    };
    let to = |operation: &BTreeMap<String, Vec<String>>| has(operation.get("ports"), &|it| it == port.to_string());
    (rule.from.is_empty() || rule.from.iter().any(|one| from(&one.source)))
        && (rule.to.is_empty() || rule.to.iter().any(|one| to(&one.operation)))
}

/// Callers and the flag service that do not agree on mutual TLS.
pub(super) fn encryption(facts: &Facts) -> Vec<Finding> {
    let host = facts.domain.host(MANAGER, &facts.home);
    let (sidecar, mtls) = (facts.behind_sidecar().is_some(), facts.mtls());
    let accepted = accepted(facts);
    let strict = accepted.as_ref().filter(|(_, mode)| sidecar && mode == "STRICT");
    let mut findings = vec![];
    let rule = rule(facts, &host);
    let mode = rule.as_ref().and_then(|(_, rule)| rule.traffic_policy.mode(facts.port));
    let why = match mode {
        Some("ISTIO_MUTUAL") | None if mtls => None,
        Some(_) if mtls => Some("otherwise than by mutual TLS of the mesh, and it believes nothing else"),
        Some("DISABLE") if strict.is_some() => Some("in plain text, and that is refused there"),
        Some("DISABLE") | None => None,
        Some(_) => (!sidecar).then_some("by TLS, and it has no sidecar"),
    };
    if let Some(((name, _), why)) = rule.as_ref().zip(why) {
        let message = format!("DestinationRule {name} has callers speak to the flag service {why}");
        let fix = if mtls {
            format!("set ISTIO_MUTUAL for port {} of {host}, as manifests/kubernetes/mtls does", facts.port)
        } else {
            format!("leave trafficPolicy.tls out for {host}, by a DestinationRule of its own")
        };
        findings.push(error("tls", message, fix));
    }
    // Where nothing else is said, callers speak as the flag service takes it.
    if let Some((name, _)) = accepted.as_ref().filter(|(_, taken)| mtls && mode.is_none() && taken == "DISABLE") {
        let message = format!("PeerAuthentication {name} turns off the mutual TLS by which the controller believes");
        let fix = "apply the DestinationRule of manifests/kubernetes/mtls, or take the controller's pods out of it";
        findings.push(error("tls", message, fix));
    }
    let outside: Vec<String> = facts
        .pods
        .iter()
        .filter(|pod| !has_sidecar(pod) && pod.labels().contains_key("versionflag.io/proxy"))
        .map(ResourceExt::name_any)
        .collect();
    if let Some((name, _)) = strict.filter(|_| !outside.is_empty()) {
        let message = format!(
            "PeerAuthentication {name} refuses plain text at the flag service, and {} can speak nothing else",
            some(&outside)
        );
        let fix = format!("set portLevelMtls {}: PERMISSIVE for the controller's pods", facts.port);
        findings.push(error("tls", message, fix));
    }
    findings
}

/// The DestinationRule that holds for callers of the flag service: their namespace's goes before the controller's,
/// this before the mesh's, and the closest host before others.
fn rule(facts: &Facts, host: &str) -> Option<(String, RuleHost)> {
    let names = facts.domain.hosts(MANAGER, &facts.home);
    let about = facts.rules.iter().filter_map(|object| {
        let rule = object.read::<RuleHost>();
        let place = [facts.namespace.as_str(), &facts.home].iter().position(|one| object.namespace() == *one);
        let width = if rule.host.starts_with('*') { usize::MAX.saturating_sub(rule.host.len()) } else { 0 };
        (matches_host(&rule.host, host) || names.contains(&rule.host))
            .then(|| ((place.unwrap_or(usize::MAX), width), object.name(), rule))
    });
    about.min_by_key(|(rank, ..)| *rank).map(|(_, name, rule)| (name, rule))
}

/// The PeerAuthentication that says what the controller's sidecar takes, and what that is.
fn accepted(facts: &Facts) -> Option<(String, String)> {
    let controller = facts.controllers.iter().find(|pod| has_sidecar(pod)).map(labels)?;
    let mut all: Vec<(u8, String, Authentication)> = facts
        .authentications
        .iter()
        .map(|object| {
            let spec = object.read::<Authentication>();
            let here = object.namespace() == facts.home;
            // That of the pods goes before that of the namespace, and this before that of the mesh.
            (if spec.selector.is_some() { 0 } else { 2 - u8::from(here) }, object.name(), spec)
        })
        .filter(|(_, _, spec)| spec.selector.as_ref().is_none_or(|it: &Selected| it.takes(&controller)))
        .collect();
    all.sort_by_key(|(rank, ..)| *rank);
    let mode = |spec: &Authentication| {
        let port = spec.port_level_mtls.get(&facts.port.to_string()).and_then(|port| port.mode.clone());
        port.or_else(|| spec.mtls.mode.clone()).filter(|mode| mode != "UNSET")
    };
    all.into_iter().find_map(|(_, name, spec)| Some((name, mode(&spec)?)))
}
