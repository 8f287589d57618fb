//! Names of routes, by which a proxy shows which routes it has. Pure.
//!
//! `versionflag:NAME:v1,v2` says that the routes of the flag NAME resolve v1 and v2.
//! `versionflag:NAME:v1,v2:v1` also says where requests without a version go; routes that the
//! controller writes have this form. Istio puts the name of a VirtualService that delegates before
//! it. A route of any other name is not ours to judge; but `default` is Istio's own, where it has no
//! VirtualService.

use std::collections::BTreeSet;

use crate::record::Record;

const PREFIX: &str = "versionflag:";
const NO_VIRTUAL_SERVICE: &str = "default";

/// The name of the routes for a record.
pub fn name(record: &Record) -> String {
    let versions: Vec<&str> = record.versions.iter().map(String::as_str).collect();
    format!("{PREFIX}{}:{}:{}", record.name, versions.join(","), record.active)
}

/// The name of routes for these versions whose default is not known.
pub fn name_of_versions<'a>(name: &str, versions: impl IntoIterator<Item = &'a str>) -> String {
    let versions: Vec<&str> = versions.into_iter().collect();
    format!("{PREFIX}{name}:{}", versions.join(","))
}

/// What keeps a route in use from serving the record, and `wanted` besides.
pub fn lacks(route: &str, record: &Record, wanted: &str) -> Option<String> {
    if route == NO_VIRTUAL_SERVICE && !record.namespace.is_empty() {
        return Some("no VirtualService reached it yet".to_owned());
    }
    let (_, rest) = route.split_once(PREFIX)?.1.split_once(':')?;
    let (versions, default) = match rest.split_once(':') {
        Some((versions, default)) => (versions, Some(default)),
        None => (rest, None),
    };
    let versions: BTreeSet<&str> = versions.split(',').collect();
    if !versions.contains(wanted) {
        return Some(format!("its route {route:?} does not list {wanted}"));
    }
    let default = default?;
    if default != record.active {
        return Some(format!("requests without a version still go to {default} there (route {route:?})"));
    }
    let gone = versions.into_iter().find(|version| !record.versions.contains(*version))?;
    Some(format!("its route {route:?} still leads to {gone}"))
}
