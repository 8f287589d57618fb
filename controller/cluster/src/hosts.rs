//! Which VersionFlags name a host that another one has. A proxy refuses all that it is sent where two
//! flags have the same host, so that only one of both may be in force. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::domain::Domain;
use super::istio::plugin::namespaces;
use super::reading::Reading;
use super::resource::VersionFlag;
use machine::spec::{Provider, Service, Spec};

/// What is wrong with a flag, by its uid.
pub type Taken = BTreeMap<String, String>;

/// Who has a host: first of all whose record names it, then the oldest.
type Rank<'a> = (bool, Option<Timestamp>, Option<&'a str>);

struct HostClaim<'a> {
    rank: Rank<'a>,
    flag: &'a VersionFlag,
    service: &'a str,
}

/// The flags whose hosts others have already. Those that no proxy is sent together may have the same.
pub fn taken<'a>(domain: &Domain, flags: impl Iterator<Item = &'a Reading> + Clone) -> Taken {
    let mut holders: BTreeMap<(String, String), HostClaim<'_>> = BTreeMap::new();
    for (place, host, claim) in flags.clone().flat_map(|reading| claimed(domain, reading)) {
        match holders.entry((place, host)) {
            Entry::Vacant(free) => drop(free.insert(claim)),
            Entry::Occupied(mut held) if held.get().rank > claim.rank => drop(held.insert(claim)),
            Entry::Occupied(_) => {}
        }
    }
    let mut taken = Taken::new();
    for (place, host, claim) in flags.flat_map(|reading| claimed(domain, reading)) {
        let at = (place, host);
        let uid = claim.flag.uid().unwrap_or_default();
        // Within one flag the spec itself is not valid.
        if let Some(holder) = holders.get(&at).filter(|holder| holder.flag.uid().as_ref() != Some(&uid)) {
            let (host, name) = (&at.1, holder.flag.name_any());
            let (place, theirs, ours) = (holder.flag.namespace().unwrap_or_default(), holder.service, claim.service);
            taken.entry(uid).or_insert_with(|| {
                format!(
                    "host {host} of Service {ours} belongs to VersionFlag {place}/{name} already, for Service {theirs}: \
                     take it out of spec.services[].hosts of one of both, or put both Services into one VersionFlag"
                )
            });
        }
    }
    taken
}

/// Every place and host that a flag claims.
fn claimed<'a>(domain: &Domain, reading: &'a Reading) -> impl Iterator<Item = (String, String, HostClaim<'a>)> {
    let (created, uid) = reading.age();
    reading.flag().into_iter().flat_map(move |flag| {
        let (recorded, places) = (recorded(flag), places(flag));
        hosts(domain, flag).into_iter().flat_map(move |(service, host)| {
            let rank = (!recorded.contains(host.as_str()), created, uid);
            let at = move |place: String| (place, host.clone(), HostClaim { rank, flag, service });
            places.clone().into_iter().map(at)
        })
    })
}

/// The hosts of a flag's Services, each with its Service.
fn hosts<'a>(domain: &Domain, flag: &'a VersionFlag) -> Vec<(&'a str, String)> {
    let namespace = flag.namespace().unwrap_or_default();
    let services = flag.spec.services.iter();
    let of = services.flat_map(|service| {
        let hosts = host_names(domain, &flag.spec, service, &namespace);
        hosts.into_iter().map(|host| (service.name.as_str(), flag::host::normalize(&host).into_owned()))
    });
    of.collect()
}

/// The names of a Service that its callers may use: those of the spec, those that all namespaces know it
/// by, and the short one only where all callers are of its namespace: elsewhere it is another Service's.
pub(super) fn host_names(domain: &Domain, spec: &Spec, service: &Service, namespace: &str) -> BTreeSet<String> {
    let Service { name, hosts, .. } = service;
    let long = domain.hosts(name, namespace).into_iter();
    match spec.routing.provider {
        Provider::Istio => long.chain(hosts.iter().cloned()).collect(),
        _ if hosts.is_empty() => {
            let near = spec.callers.namespaces.is_empty().then(|| name.clone());
            long.chain(near).collect()
        }
        _ => hosts.clone(),
    }
}

/// Where the proxies are that are sent the flag.
fn places(flag: &VersionFlag) -> BTreeSet<String> {
    let callers = flag.spec.all_callers();
    let gateways = callers.gateways.iter().filter_map(|gateway| gateway.namespace.clone());
    gateways.chain(namespaces(&flag.namespace().unwrap_or_default(), &callers)).collect()
}

/// The hosts that proxies were given for it.
fn recorded(flag: &VersionFlag) -> BTreeSet<&str> {
    let machine = flag.status.as_ref().and_then(|status| status.machine.as_ref());
    let machine = machine.filter(|machine| Some(&machine.uid) == flag.meta().uid.as_ref());
    let record = machine.and_then(|machine| machine.record.as_ref());
    record.iter().flat_map(|record| &record.members).flat_map(|member| &member.hosts).map(String::as_str).collect()
}

/// What of a flag others may have to know.
pub(super) fn claims(reading: &Reading) -> (Option<i64>, Option<&str>) {
    let status = reading.flag().and_then(|flag| flag.status.as_ref());
    let record = status.and_then(|status| status.machine.as_ref()?.record.as_ref());
    (reading.meta().generation, record.map(|record| record.hash.as_str()))
}
