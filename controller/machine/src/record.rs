//! The record of a spec, as it is drafted: not sealed yet. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use flag::record::{Gate, Member, Preview, Record};

use crate::observation::{Observation, ServiceFacts};
use crate::spec::{Provider, Service, Spec};

/// What a record says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// Identity of the flag.
    pub uid: &'a str,
    /// The flag's name for people.
    pub name: &'a str,
    /// The epoch of the record.
    pub epoch: u64,
    /// The version that requests go to.
    pub active: &'a str,
    /// Every version that requests may go to.
    pub versions: &'a BTreeSet<String>,
    /// The version that the spec's preview leads to, while there is one.
    pub preview: Option<&'a str>,
    /// The record before; `None`: there is none.
    pub before: Option<&'a Record>,
}

impl Draft<'_> {
    /// Whether a service is one of the group: it was before, or the active version serves there. Or its requests would
    /// be led to nobody.
    fn takes_part(&self, service: &Service, seen: &Observation) -> bool {
        let before = self.before.is_none_or(|before| before.members.iter().any(|one| one.service == service.name));
        let told = !seen.workload(self.active).strength.is_empty();
        before || !told || seen.workload(self.active).serves_in(&service.name)
    }

    /// The record of this spec with what the platform knows of its services.
    pub fn record(&self, spec: &Spec, seen: &Observation) -> Record {
        let in_mesh = !seen.namespace.is_empty();
        let members = spec.services.iter().filter(|service| self.takes_part(service, seen));
        let members = members.map(|service| self.member(spec, service, seen.services.get(&service.name)));
        Record {
            uid: self.uid.to_owned(),
            name: self.name.to_owned(),
            namespace: seen.namespace.clone(),
            version_label: if in_mesh { spec.version_label.clone() } else { String::new() },
            epoch: self.epoch,
            active: self.active.to_owned(),
            gate: Gate::Open,
            members: members.collect(),
            versions: self.versions.clone(),
            preview: self.preview.zip(spec.preview.as_ref()).map(|(version, preview)| Preview {
                header: preview.header.clone(),
                value: preview.value.clone(),
                version: version.to_owned(),
            }),
            hash: String::new(),
        }
    }

    fn member(&self, spec: &Spec, service: &Service, facts: Option<&ServiceFacts>) -> Member {
        let facts = facts.map_or_else(|| Cow::Owned(ServiceFacts::default()), Cow::Borrowed);
        let clusters = self.versions.iter().filter_map(|version| {
            let known = service.clusters.get(version).or_else(|| facts.clusters.get(version)).cloned();
            let default = || (spec.routing.provider == Provider::External).then(|| service.clusters_of(version));
            Some((version.clone(), known.or_else(default)?))
        });
        Member {
            service: service.name.clone(),
            hosts: if facts.hosts.is_empty() { service.hosts() } else { facts.hosts.clone() },
            selector: facts.selector.clone(),
            clusters: clusters.collect::<BTreeMap<_, _>>(),
        }
    }
}
