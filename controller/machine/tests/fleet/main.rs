//! What the proxies together say, from their reports.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

mod counted;
mod doubt;
mod fence;
mod ledger;
mod properties;
mod reach;
mod traffic;
mod unmanaged;

use std::collections::{BTreeMap, BTreeSet};

use flag::record::{Gate, Member, Record};

/// A valid, sealed record of `reviews`.
fn record(epoch: u64, active: &str) -> Record {
    let cluster = |version: &str| (version.to_owned(), BTreeSet::from([format!("reviews-{version}")]));
    let draft = Record {
        uid: "u-1".to_owned(),
        name: "bookinfo/reviews".to_owned(),
        namespace: String::new(),
        version_label: String::new(),
        epoch,
        active: active.to_owned(),
        gate: Gate::Open,
        members: vec![Member {
            service: "reviews".to_owned(),
            hosts: BTreeSet::from(["reviews".to_owned(), "reviews.bookinfo.svc.cluster.local".to_owned()]),
            selector: BTreeSet::new(),
            clusters: BTreeMap::from([cluster("v1"), cluster("v2")]),
        }],
        versions: BTreeSet::from(["v1".to_owned(), "v2".to_owned()]),
        preview: None,
        hash: String::new(),
    };
    draft.seal().expect("a valid record")
}

/// Metadata of a node that has none.
fn nowhere(_: &[&str]) -> Option<String> {
    None
}
