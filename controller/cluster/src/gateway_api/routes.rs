//! The routes of the Gateway API that the controller writes, and the Services of versions that they lead to.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag::limits;
use flag::record::Record;
use flag::route;
use k8s_openapi::api::core::v1::{self, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::attach::Attached;
use crate::domain::Domain;
use crate::istio::object::{HTTPRoute, MeshObject, Service};
use crate::istio::routes::{metadata, name, short_hash, subset};

/// Bytes of a name: a DNS label.
const NAME_BYTES: usize = 63;

/// The Service of one version.
pub fn service_name(service: &str, version: &str) -> String {
    let name = format!("{service}-{}", subset(version));
    if name.len() <= NAME_BYTES {
        return name;
    }
    ending(&name, &format!("-{}", short_hash(&name)))
}

/// As much of a name as fits before this end.
pub(super) fn ending(name: &str, end: &str) -> String {
    let kept: String = name.chars().take(NAME_BYTES.saturating_sub(end.len())).collect();
    format!("{}{end}", kept.trim_end_matches('-'))
}

/// The Service of this name, among those of its namespace.
pub fn find<'a>(services: &'a [Arc<v1::Service>], name: &str) -> Option<&'a v1::Service> {
    services.iter().find(|service| service.metadata.name.as_deref() == Some(name)).map(Arc::as_ref)
}

fn selector(service: &v1::Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref()
}

/// The ports of a Service.
pub fn ports(service: &v1::Service) -> Vec<i32> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.port).collect()
}

/// The version that a Service stands for: it selects what the whole one does, of that version, on all its ports.
pub fn version_of<'a>(one: &'a v1::Service, whole: &v1::Service, label: &str) -> Option<&'a str> {
    let mut labels = selector(one)?.clone();
    let version = selector(one)?.get(label)?;
    labels.remove(label);
    let has = ports(one);
    (Some(&labels) == selector(whole) && ports(whole).iter().all(|port| has.contains(port))).then_some(version.as_str())
}

/// Whose version a Service is that would be that of a version of `service` by its name: `reviews` with `v2-canary` and
/// `reviews-v2` with `canary` have one name.
pub fn taken_by<'a>(
    services: &'a [Arc<v1::Service>],
    one: &'a v1::Service,
    service: &str,
    label: &str,
) -> Option<(&'a str, &'a str)> {
    let others = services.iter().filter(|other| other.metadata.name.as_deref() != Some(service));
    let mut stands = others.filter_map(|other| Some((other.metadata.name.as_deref()?, version_of(one, other, label)?)));
    stands.find(|(other, version)| one.metadata.name.as_deref() == Some(&service_name(other, version)))
}

/// The Service of a version as it is written: like the whole one, of pods with the label.
pub fn service(namespace: &str, whole: &v1::Service, label: &str, version: &str) -> MeshObject<Service> {
    let mut selects = selector(whole).cloned().unwrap_or_default();
    selects.insert(label.to_owned(), version.to_owned());
    let ports = whole.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<ServicePort> = ports.map(|port| ServicePort { node_port: None, ..port.clone() }).collect();
    let name = service_name(whole.metadata.name.as_deref().unwrap_or_default(), version);
    MeshObject::new(metadata(namespace, &name), json!({ "selector": selects, "ports": ports }))
}

/// A Service as it is, to be compared with what is wanted.
pub fn as_object(found: &v1::Service) -> MeshObject<Service> {
    MeshObject::new(found.metadata.clone(), serde_json::to_value(&found.spec).unwrap_or_default())
}

/// The name of what is written for a port of a Service.
pub fn route_name(service: &str, port: i32) -> String {
    format!("{}-{port}", name(service))
}

/// One of the HTTPRoutes of a Service of a record.
pub fn http_route(
    namespace: &str,
    service: &str,
    attached: &Attached<'_>,
    header: &str,
    record: &Record,
) -> MeshObject<HTTPRoute> {
    let (path, port) = (attached.path(), attached.port);
    let marked = record.versions.iter().map(|version| (Some(version), version));
    let rules = marked.chain([(None, &record.active)]).enumerate().map(|(index, (marked, version))| {
        let mut rule = rule(path, &service_name(service, version), port, header, marked);
        if let Some(fields) = rule.as_object_mut() {
            fields.insert("name".to_owned(), json!(route::rule_name(record, index)));
        }
        rule
    });
    MeshObject::new(metadata(namespace, &attached.name), attached.spec(namespace, service, rules.collect()))
}

/// A route of all requests to a port of a Service.
pub fn spec(service: &str, port: i32, rules: Vec<Value>) -> Value {
    json!({ "parentRefs": [{ "group": "", "kind": "Service", "name": service, "port": port }], "rules": rules })
}

/// A rule that leads to the Service of a version; with `marked` only requests that have this in the header. All
/// fields that have a default are there, so that what was written and what is found are alike.
pub fn rule(path: &str, to: &str, port: i32, header: &str, marked: Option<&String>) -> Value {
    let path = json!({ "type": "PathPrefix", "value": path });
    let condition = match marked {
        Some(version) => {
            json!({ "path": path, "headers": [{ "type": "Exact", "name": header, "value": version }] })
        }
        None => json!({ "path": path }),
    };
    let backend = json!({ "group": "", "kind": "Service", "name": to, "port": port, "weight": 1 });
    json!({ "matches": [condition], "backendRefs": [backend] })
}

/// The versions that a route written here leads to by the header.
pub fn routed(found: &MeshObject<HTTPRoute>, header: &str) -> BTreeSet<String> {
    let rules = &found.looked_at().rules;
    let conditions = rules.iter().flat_map(|rule| &rule.matches);
    conditions.filter_map(|condition| condition.marks(header)).map(str::to_owned).collect()
}

/// Whether a Service has an endpoint that is ready, on any of its ports, by the slices of its namespace.
pub fn has_endpoints(service: &str, slices: &[Arc<EndpointSlice>]) -> bool {
    let of_service = |slice: &&Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("kubernetes.io/service-name")).is_some_and(|name| name == service)
    };
    slices
        .iter()
        .filter(of_service)
        .filter(|slice| slice.ports.iter().flatten().next().is_some())
        .flat_map(|slice| &slice.endpoints)
        .any(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false))
}

/// The Envoy clusters of the versions: those of every Service that stands for one.
// Six: a Service among all others, in a cluster of this domain.
pub fn clusters<'a>(
    domain: &Domain,
    namespace: &str,
    whole: &v1::Service,
    services: &[Arc<v1::Service>],
    label: &str,
    versions: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<String, BTreeSet<String>> {
    let service = whole.metadata.name.as_deref().unwrap_or_default();
    let clusters = |version: &str| {
        let stands = |one: &&Arc<v1::Service>| version_of(one, whole, label) == Some(version);
        let theirs = services.iter().filter(stands).filter_map(|one| one.metadata.name.clone());
        let names = [service_name(service, version)].into_iter().chain(theirs);
        let of = |name: String| {
            let host = domain.host(&name, namespace);
            ports(whole).into_iter().map(move |port| format!("outbound|{port}||{host}"))
        };
        names.flat_map(of).take(limits::CLUSTERS).collect::<BTreeSet<_>>()
    };
    let found = versions.into_iter().map(|version| (version.to_owned(), clusters(version)));
    found.filter(|(_, clusters)| !clusters.is_empty()).collect()
}
