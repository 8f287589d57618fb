//! The routes that the controller writes for Istio: one a version, and the active version for requests
//! that have none. Pure.

use crate::names::{MANAGED_BY, MANAGER};
use std::collections::{BTreeMap, BTreeSet};

use flag::record::{Record, check_version};
use flag::route;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::object::{DestinationRule, MeshObject, VirtualService, VirtualServiceSpec};
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

/// Metadata of what is written.
pub fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

/// The routes of one Service of a record.
pub fn virtual_service(
    domain: &Domain,
    namespace: &str,
    service: &str,
    header: &str,
    record: &Record,
) -> MeshObject<VirtualService> {
    let host = domain.host(service, namespace);
    let spec = json!({ "hosts": [host], "http": http(&host, header, record) });
    MeshObject::new(metadata(namespace, &name(service)), spec)
}

/// The same for a VirtualService that knows the host and the paths itself, and delegates.
pub fn delegate(
    domain: &Domain,
    namespace: &str,
    service: &str,
    header: &str,
    record: &Record,
) -> MeshObject<VirtualService> {
    let spec = json!({ "http": http(&domain.host(service, namespace), header, record) });
    MeshObject::new(metadata(namespace, &delegate_name(service)), spec)
}

fn http(host: &str, header: &str, record: &Record) -> Vec<Value> {
    let name = route::name(record);
    let to = |version: &str| json!([{ "destination": { "host": host, "subset": subset(version) } }]);
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
    let routes = found.read::<VirtualServiceSpec>().http;
    let conditions = routes.iter().flat_map(|route| &route.r#match);
    let values = conditions.filter_map(|one| one.headers.get(header)?.get("exact")?.as_str());
    values.map(str::to_owned).collect()
}

/// The subsets of one Service.
pub fn destination_rule<'a>(
    domain: &Domain,
    namespace: &str,
    service: &str,
    label: &str,
    versions: impl IntoIterator<Item = &'a str>,
) -> MeshObject<DestinationRule> {
    let subsets = versions.into_iter().map(|version| json!({ "name": subset(version), "labels": { label: version } }));
    let spec = json!({ "host": domain.host(service, namespace), "subsets": subsets.collect::<Vec<_>>() });
    MeshObject::new(metadata(namespace, &name(service)), spec)
}

/// Whether the controller may write an object: there is none, or it is its own.
pub fn may_write<K>(found: Option<&MeshObject<K>>) -> bool {
    found.is_none_or(ours)
}
