//! What the tests of this crate begin with.

use std::collections::{BTreeMap, BTreeSet};

use flag::record::{Gate, Member, Record};

/// A record of `reviews`, with v1 active, that is not sealed.
pub(crate) fn record() -> Record {
    Record {
        uid: "u-1".to_owned(),
        name: "reviews".to_owned(),
        namespace: String::new(),
        version_label: String::new(),
        epoch: 1,
        active: "v1".to_owned(),
        gate: Gate::Open,
        members: vec![Member {
            service: "reviews".to_owned(),
            hosts: BTreeSet::from(["reviews".to_owned()]),
            selector: BTreeSet::new(),
            clusters: BTreeMap::new(),
        }],
        versions: BTreeSet::from(["v1".to_owned()]),
        preview: None,
        hash: String::new(),
    }
}
