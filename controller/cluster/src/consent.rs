//! Whether other namespaces let a flag have their callers, their gateways and the hosts of their Services: the filter is
//! written there, and leads requests as the flag says. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::domain::Domain;
use super::names::CALLERS;
use super::resource::VersionFlag;

/// What namespaces have agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consents {
    /// The operator lets every flag have callers everywhere; or no other namespace is seen at all.
    NotAsked,
    /// The namespaces of the cluster cannot be read.
    Unknown,
    /// By namespace, what its label says.
    Known(BTreeMap<String, Option<String>>),
}

impl Consents {
    /// What is known by these namespaces; every cluster has some.
    pub fn of(namespaces: BTreeMap<String, Option<String>>) -> Consents {
        if namespaces.is_empty() { Consents::Unknown } else { Consents::Known(namespaces) }
    }

    /// Why a flag may not have what it asks for.
    pub fn refusal(&self, domain: &Domain, flag: &VersionFlag) -> Option<String> {
        let namespace = flag.namespace().unwrap_or_default();
        let agreed = match self {
            Consents::NotAsked => return None,
            Consents::Unknown => &BTreeMap::new(),
            Consents::Known(agreed) => agreed,
        };
        let asked = foreign(domain, flag, &namespace, agreed);
        let agrees = |place: &String| {
            let word = agreed.get(place).and_then(Option::as_deref);
            word.is_some_and(|word| word == "true" || word == namespace)
        };
        let (place, what) = asked.into_iter().find(|(place, _)| !agrees(place))?;
        if *self == Consents::Unknown {
            return Some(format!(
                "the controller may not read namespaces, so that nobody knows whether {place} agrees to {what}: apply \
                 manifests/kubernetes"
            ));
        }
        Some(format!(
            "namespace {place} does not agree to {what}: somebody who may label it runs `kubectl label namespace {place} \
             {CALLERS}={namespace}`, or {CALLERS}=true for VersionFlags of all namespaces"
        ))
    }
}

/// The other namespaces that a flag has something of, and what.
fn foreign(
    domain: &Domain,
    flag: &VersionFlag,
    namespace: &str,
    known: &BTreeMap<String, Option<String>>,
) -> BTreeMap<String, String> {
    let callers = flag.spec.all_callers();
    let gateways = callers.gateways.iter().filter_map(|gateway| gateway.namespace.clone());
    let gateways = gateways.map(|place| (place, "being in spec.callers.gateways or spec.routing.gateways".to_owned()));
    let places = callers.namespaces.iter().map(|place| (place.clone(), "being in spec.callers.namespaces".to_owned()));
    let hosts: BTreeSet<&String> = flag.spec.services.iter().flat_map(|service| &service.hosts).collect();
    let hosts = hosts.into_iter().filter_map(|host| {
        let place = namespace_of(domain, host, known)?;
        Some((place, format!("its host {host} being in spec.services[].hosts")))
    });
    hosts.chain(gateways).chain(places).filter(|(place, _)| place != namespace).collect()
}

/// The namespace of a Service that a host is a name of. `a.b` is one where there is a namespace `b`.
fn namespace_of(domain: &Domain, host: &str, known: &BTreeMap<String, Option<String>>) -> Option<String> {
    let host = flag::host::normalize(host).into_owned();
    let service = host.strip_suffix(&format!(".svc.{domain}")).or_else(|| host.strip_suffix(".svc"));
    if let Some((_, place)) = service.and_then(|service| service.rsplit_once('.')) {
        return Some(place.to_owned());
    }
    let (name, place) = host.split_once('.')?;
    (!name.is_empty() && known.contains_key(place)).then(|| place.to_owned())
}
