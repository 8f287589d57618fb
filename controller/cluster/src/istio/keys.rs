//! What routes and rules are looked for by: the Services that they are about, so that nobody looks at those of a whole
//! cluster. Pure.

use std::collections::BTreeSet;

use super::object::{DestinationRule, Kind, MeshObject, VirtualService};
use crate::domain::Domain;
use crate::gateway_api::object::RouteSpec;

/// The key of a Service.
pub fn service(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}")
}

/// The key of what may be about any Service: a rule for a pattern of hosts.
pub const ANY: &str = "*";

/// The key of a VirtualService that others delegate to.
pub fn delegate(name: &str, namespace: &str) -> String {
    format!("{name}/{namespace}")
}

/// The Services that a VirtualService has routes for, leads to, or sends copies to, and what it delegates to.
pub fn of_routes(domain: &Domain, object: &MeshObject<VirtualService>) -> BTreeSet<String> {
    let (routes, place) = (object.looked_at(), object.namespace());
    let shares = routes.http.iter().flat_map(|route| route.route.iter().chain(&route.mirrors));
    let streams = routes.tls.iter().chain(&routes.tcp).flat_map(|route| &route.route);
    let to = shares.chain(streams).map(|share| &share.destination);
    let to = to.chain(routes.http.iter().filter_map(|route| route.mirror.as_ref())).map(|to| &to.host);
    let found = routes.hosts.iter().chain(to).filter_map(|host| domain.service_of(host, place));
    let delegates = routes.http.iter().filter_map(|route| route.delegate.as_ref()).map(|to| {
        let namespace = if to.namespace.is_empty() { place } else { &to.namespace };
        delegate(&to.name, namespace)
    });
    found.map(|(name, namespace)| service(&name, &namespace)).chain(delegates).collect()
}

/// The Service that a DestinationRule is for, or any.
pub fn of_rule(domain: &Domain, object: &MeshObject<DestinationRule>) -> BTreeSet<String> {
    if object.looked_at().host.starts_with('*') {
        return BTreeSet::from([ANY.to_owned()]);
    }
    let found = domain.service_of(&object.looked_at().host, object.namespace());
    found.map(|(name, namespace)| service(&name, &namespace)).into_iter().collect()
}

/// The namespaces of what a route of the Gateway API is for, or leads to, and its own.
pub fn of_route<K: Kind<Spec = RouteSpec>>(object: &MeshObject<K>) -> BTreeSet<String> {
    let routes = object.looked_at();
    let backends = routes.rules.iter().flat_map(|rule| &rule.backend_refs);
    let named = routes.parent_refs.iter().chain(backends).filter_map(|one| one.namespace.clone());
    named.chain([object.namespace().to_owned()]).collect()
}
