//! What of a Service keeps its versions from being switched. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::ResourceExt;
use machine::spec::Spec;

pub(super) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// What of a Service keeps its versions from being switched.
pub(super) fn cannot_be_switched(
    spec: &Spec,
    service: &Service,
    selector: &BTreeMap<String, String>,
) -> Option<String> {
    let (name, label) = (service.name_any(), &spec.version_label);
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    if headless && spec.routing.in_mesh() {
        return Some(format!(
            "Service {name} is headless (clusterIP: None): callers choose its pods by themselves, past all routes; give \
             it a cluster IP"
        ));
    }
    let only = selector.get(label).filter(|version| **version != spec.version)?;
    Some(format!(
        "Service {name} selects {label}: {only}, so that no other version ever serves it: take {label} out of its \
         selector, now that the routes of this flag lead to {only}"
    ))
}

pub(super) fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
}

/// What is wrong with a port that says of itself that it is not HTTP.
pub(super) fn not_http(service: &str, port: &ServicePort) -> Option<String> {
    const NAMES: [&str; 4] = ["http", "http2", "grpc", "grpc-web"];
    const PROTOCOLS: [&str; 6] = ["http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws"];
    let transport = port.protocol.as_deref().filter(|protocol| *protocol != "TCP");
    let (said, http) = match (transport, port.app_protocol.as_deref(), port.name.as_deref()) {
        (Some(protocol), _, _) => (protocol, false),
        (None, Some(protocol), _) => (protocol, PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str())),
        (None, None, Some(name)) => (name, NAMES.contains(&name) || is_prefixed(name, &NAMES)),
        (None, None, None) => ("", true),
    };
    let message = || {
        format!(
            "port {} of Service {service} is not HTTP by its word ({said}), and only HTTP can be switched: if it is, \
             set its appProtocol to http or grpc",
            port.port
        )
    };
    (!http).then(message)
}

/// What is wrong with a port that says nothing of itself, where Istio then takes it for none of HTTP: by its number, or
/// because clients speak TLS there, which no filter of theirs can see into.
pub(super) fn not_seen(service: &str, port: &ServicePort) -> Option<String> {
    let what = match port.port {
        443 => "TLS, in which no filter sees requests",
        25 | 53 | 3306 | 27017 => "TCP",
        _ => return None,
    };
    let silent = port.name.as_deref().is_none_or(str::is_empty) && port.app_protocol.is_none();
    silent.then(|| {
        format!(
            "port {} of Service {service} has neither a name nor an appProtocol, and is taken for {what}: if it is HTTP, \
             set its appProtocol to http or grpc",
            port.port
        )
    })
}

/// Whether a port's name is `PROTOCOL-ANYTHING`.
fn is_prefixed(name: &str, protocols: &[&str]) -> bool {
    protocols.iter().any(|protocol| name.strip_prefix(protocol).is_some_and(|rest| rest.starts_with('-')))
}
