//! The routes that the controller writes for Istio: one a version, and the active version for requests
//! that have none. Pure.

use crate::names::{MANAGED_BY, MANAGER};
use std::collections::{BTreeMap, BTreeSet};

use flag::record::{Record, check_version};
use flag::route;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::object::{DestinationRule, Kind, MeshObject, VirtualService};
use super::ours;
use crate::domain::Domain;

/// Bytes of the name of a subset: a DNS label.
const SUBSET_BYTES: usize = 63;

/// The subset of a version. Versions that are no DNS labels have other names, that do not collide.
pub fn subset(version: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if check_version("version", version).is_ok() && version.bytes().all(plain) {
        return version.to_owned();
    }
    let hash = short_hash(version);
    let plain = version.to_ascii_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    format!("{}-{hash}", plain.chars().take(SUBSET_BYTES - hash.len() - 1).collect::<String>())
}

/// What tells names apart that would be alike, or too long.
pub fn short_hash(text: &str) -> String {
    flag::digest::hex_prefix(text.as_bytes(), 4)
}

/// The Envoy clusters of the versions whose subset has another name.
pub fn clusters<'a>(
    domain: &Domain,
    service: &str,
    namespace: &str,
    ports: &[i32],
    versions: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<String, BTreeSet<String>> {
    let host = domain.host(service, namespace);
    let renamed = versions.into_iter().map(|version| (version, subset(version)));
    let renamed = renamed.filter(|(version, subset)| version != subset && !ports.is_empty());
    let of = |subset: &str| ports.iter().map(|port| format!("outbound|{port}|{subset}|{host}")).collect();
    renamed.map(|(version, subset)| (version.to_owned(), of(&subset))).collect()
}

/// The name of what is written for a Service: it belongs to one flag only.
pub fn name(service: &str) -> String {
    format!("{MANAGER}-{service}")
}

/// The name of the routes that a VirtualService of a gateway can delegate to.
pub fn delegate_name(service: &str) -> String {
    format!("{}-delegate", name(service))
}

/// The same for one port, where a Service has several: a gateway would go on with the port of its listener.
pub fn delegate_of_port(service: &str, port: i32) -> String {
    format!("{}-{port}", delegate_name(service))
}

/// Metadata of what is written.
pub fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

/// What the routes of one Service are made from.
#[derive(Debug, Clone, Copy)]
pub struct RouteSource<'a> {
    /// The cluster's.
    pub domain: &'a Domain,
    /// Namespace of the flag.
    pub namespace: &'a str,
    /// The Service.
    pub service: &'a str,
    /// The routing header.
    pub header: &'a str,
    /// Its versions, and which of them is active.
    pub record: &'a Record,
    /// The namespaces that the routes are for.
    pub export_to: &'a [String],
}

/// The routes of one Service of a record.
pub fn virtual_service(source: &RouteSource<'_>) -> MeshObject<VirtualService> {
    let host = source.domain.host(source.service, source.namespace);
    let spec = json!({ "hosts": [host], "exportTo": source.export_to, "http": http(source, None) });
    MeshObject::new(metadata(source.namespace, &name(source.service)), spec)
}

/// The same for VirtualServices that know the host and the paths themselves, and delegate. With one port it is said;
/// with several there is one for each, beside that of before.
pub fn delegates(source: &RouteSource<'_>, ports: &[i32]) -> Vec<MeshObject<VirtualService>> {
    let of = |name: String, port| {
        let spec = json!({ "exportTo": source.export_to, "http": http(source, port) });
        MeshObject::new(metadata(source.namespace, &name), spec)
    };
    let only = match ports {
        [port] => Some(*port),
        _ => None,
    };
    let several = if only.is_some() { &[] } else { ports };
    let of_ports = several.iter().map(|port| of(delegate_of_port(source.service, *port), Some(*port)));
    [of(delegate_name(source.service), only)].into_iter().chain(of_ports).collect()
}

fn http(source: &RouteSource<'_>, port: Option<i32>) -> Vec<Value> {
    let RouteSource { header, record, .. } = *source;
    let name = route::name(record);
    let host = source.domain.host(source.service, source.namespace);
    let to = |version: &str| {
        let mut destination = json!({ "host": host, "subset": subset(version) });
        if let (Some(port), Some(fields)) = (port, destination.as_object_mut()) {
            fields.insert("port".to_owned(), json!({ "number": port }));
        }
        json!([{ "destination": destination }])
    };
    let marked = record.versions.iter().map(|version| {
        json!({
            "name": name,
            "match": [{ "headers": { header: { "exact": version } } }],
            "route": to(version),
        })
    });
    marked.chain([json!({ "name": name, "route": to(&record.active) })]).collect()
}

/// The versions that a VirtualService written here leads to by the header.
pub fn routed(found: &MeshObject<VirtualService>, header: &str) -> BTreeSet<String> {
    let conditions = found.looked_at().http.iter().flat_map(|route| &route.r#match);
    let values = conditions.filter_map(|one| one.headers.get(header)?.get("exact")?.as_str());
    values.map(str::to_owned).collect()
}

/// The subsets of one Service, for these namespaces.
// Six: a Service, its versions, and who sees them.
pub fn destination_rule<'a>(
    domain: &Domain,
    namespace: &str,
    service: &str,
    label: &str,
    versions: impl IntoIterator<Item = &'a str>,
    export_to: &[String],
) -> MeshObject<DestinationRule> {
    let subsets = versions.into_iter().map(|version| json!({ "name": subset(version), "labels": { label: version } }));
    let subsets = subsets.collect::<Vec<_>>();
    let spec = json!({ "host": domain.host(service, namespace), "exportTo": export_to, "subsets": subsets });
    MeshObject::new(metadata(namespace, &name(service)), spec)
}

/// Whether the controller may write an object: there is none, or it is its own.
pub fn may_write<K: Kind>(found: Option<&MeshObject<K>>) -> bool {
    found.is_none_or(ours)
}
