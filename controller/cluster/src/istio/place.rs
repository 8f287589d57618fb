//! What proxies have to know to find themselves in a record, from the Services of a cluster. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag::record::Record;
use k8s_openapi::api::core::v1::Service;

use super::routes::clusters;
use crate::domain::Domain;
use crate::gateway_api::routes as gateway;
use machine::observation::Place;
use machine::spec::{Provider, Spec};

/// The selectors of a flag's Services. One that is not there just now has the selector it had.
pub fn place(namespace: &str, spec: &Spec, services: &[Arc<Service>], before: Option<&Record>) -> Place {
    let selector = |name: &String| {
        let labels = find(namespace, name, services).and_then(|service| service.spec.as_ref()?.selector.as_ref());
        let labels = labels.map(|labels| labels.iter().map(|(key, value)| format!("{key}={value}")).collect());
        let known = before.iter().flat_map(|record| &record.members).find(|member| member.service == *name);
        labels.or_else(|| known.map(|member| member.selector.clone())).unwrap_or_default()
    };
    let selectors: BTreeMap<String, BTreeSet<String>> =
        spec.services.iter().map(|service| (service.name.clone(), selector(&service.name))).collect();
    Place { namespace: namespace.to_owned(), selectors }
}

/// The spec with everything by which Istio's proxies name the Services and their versions.
pub fn complete(
    domain: &Domain,
    namespace: &str,
    spec: &Spec,
    services: &[Arc<Service>],
    versions: &BTreeSet<String>,
    before: Option<&Record>,
) -> Spec {
    let mut spec = spec.clone();
    for service in &mut spec.services {
        service.hosts.extend(domain.hosts(&service.name, namespace));
        let known = before.iter().flat_map(|record| &record.members).find(|member| member.service == service.name);
        let listed = versions.iter().map(String::as_str);
        let found = match find(namespace, &service.name, services) {
            Some(whole) if spec.routing.provider == Provider::GatewayAPI => {
                gateway::clusters(domain, namespace, whole, services, &spec.version_label, listed)
            }
            Some(whole) => clusters(domain, &service.name, namespace, &gateway::ports(whole), listed),
            None => known.map(|member| member.clusters.clone()).unwrap_or_default(),
        };
        for (version, names) in found {
            service.clusters.entry(version).or_insert(names);
        }
    }
    spec
}

fn find<'a>(namespace: &str, name: &str, services: &'a [Arc<Service>]) -> Option<&'a Service> {
    let is = |service: &&Arc<Service>| {
        service.metadata.namespace.as_deref() == Some(namespace) && service.metadata.name.as_deref() == Some(name)
    };
    services.iter().find(is).map(Arc::as_ref)
}
