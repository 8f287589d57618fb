//! What is decided about Istio.

pub(crate) mod check;
mod keys;

mod plugin;
mod plugins;
mod routes;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use flag::record::{Gate, Member, Record};

/// For all namespaces.
fn everybody() -> Vec<String> {
    vec!["*".to_owned()]
}

/// The record of reviews in namespace shop.
pub(crate) fn record(uid: &str, epoch: u64, active: &str, versions: &[&str]) -> Record {
    let record = Record {
        uid: uid.to_owned(),
        name: format!("shop/{uid}"),
        namespace: "shop".to_owned(),
        version_label: "version".to_owned(),
        epoch,
        active: active.to_owned(),
        gate: Gate::Open,
        members: vec![Member {
            service: uid.to_owned(),
            hosts: BTreeSet::from([format!("{uid}.shop.svc.cluster.local")]),
            selector: BTreeSet::from([format!("app={uid}")]),
            clusters: BTreeMap::new(),
        }],
        versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        preview: None,
        hash: String::new(),
    };
    record.seal().unwrap()
}
