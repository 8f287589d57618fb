//! Whether the routes in a cluster let the flag decide: those of others beside the controller's, or those
//! of the operator. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{DestinationRule, HttpRoute, Match, MeshObject, VirtualService, VirtualServiceSpec};
use super::ours;
use super::past::past;
use super::routes::{delegate_name, destination_rule, name, subset};
use super::rules::seen_from;
use crate::domain::Domain;
use machine::reason::{Problem, Reason};
use machine::spec::{Attachment, Management};

/// The routes and rules of a cluster.
#[derive(Debug, Clone, Default)]
pub struct IstioObjects {
    /// All VirtualServices that are seen.
    pub services: Vec<Arc<MeshObject<VirtualService>>>,
    /// All DestinationRules that are seen.
    pub rules: Vec<Arc<MeshObject<DestinationRule>>>,
}

/// What one Service needs.
#[derive(Debug, Clone, Copy)]
pub struct RouteNeeds<'a> {
    /// The cluster's.
    pub domain: &'a Domain,
    /// Namespace of the flag.
    pub namespace: &'a str,
    /// The Service.
    pub service: &'a str,
    /// The routing header.
    pub header: &'a str,
    /// The label that tells versions apart.
    pub label: &'a str,
    /// The versions that requests may be sent to.
    pub versions: &'a BTreeSet<String>,
    /// Where requests without a version go.
    pub active: &'a str,
    /// Its ports, as far as it is known.
    pub ports: &'a [i32],
    /// The namespaces of the callers.
    pub callers: &'a BTreeSet<String>,
    /// The namespaces of gateways elsewhere.
    pub gateway_places: &'a BTreeSet<String>,
    /// Istio's root namespace.
    pub root: &'a str,
    /// The Gateways to which routes are attached.
    pub gateways: &'a [Attachment],
}

pub(crate) fn conflict(message: String, snippet: String) -> Problem {
    Problem::new(Reason::RouteConflict, message).with_fix(snippet)
}

pub(crate) fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

fn in_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh")
}

impl RouteNeeds<'_> {
    /// Whether a host in an object of `place` is the Service.
    pub(crate) fn is(&self, host: &str, place: &str) -> bool {
        self.domain.means(host, place, self.service, self.namespace)
    }

    /// Whether a VirtualService of `place` has routes for the Service in the mesh.
    pub(crate) fn claims(&self, routes: &VirtualServiceSpec, place: &str) -> bool {
        in_mesh(&routes.gateways) && routes.hosts.iter().any(|host| self.is(host, place))
    }

    /// Whether any caller goes by a VirtualService of `place`, or a gateway does.
    pub(crate) fn sees(&self, routes: &VirtualServiceSpec, place: &str) -> bool {
        !in_mesh(&routes.gateways) || self.seen_by_any(&routes.export_to, place)
    }

    fn seen_by_any(&self, export_to: &[String], place: &str) -> bool {
        self.callers.iter().any(|caller| seen_from(export_to, place, caller))
    }

    fn seen_by_all(&self, export_to: &[String], place: &str) -> bool {
        self.callers.iter().all(|caller| seen_from(export_to, place, caller))
    }

    /// The versions of the Service that a route leads to, `None` for pods of any; nothing where it leads
    /// elsewhere.
    pub(super) fn leads(&self, route: &HttpRoute, place: &str, found: &IstioObjects) -> Vec<Option<String>> {
        let shares = route.route.iter().filter(|share| share.weight != Some(0));
        let ours = shares.filter(|share| self.is(&share.destination.host, place));
        ours.map(|share| self.version_of(&share.destination.subset, found)).collect()
    }

    /// Whether a condition is that the header has this value.
    pub(super) fn marks(&self, condition: &Match, version: &str) -> bool {
        condition.headers.get(self.header).and_then(|header| header.get("exact")?.as_str()) == Some(version)
    }

    /// Whether a route takes requests of a version by their header, without naming just that version.
    pub(super) fn catches(&self, route: &HttpRoute, version: &str) -> bool {
        route.r#match.iter().any(|one| {
            one.headers.get(self.header).is_some_and(|header| match (header.get("exact"), header.get("prefix")) {
                (Some(_), _) => false,
                (_, Some(prefix)) => prefix.as_str().is_none_or(|prefix| version.starts_with(prefix)),
                // An expression may match anything, and presence does.
                _ => true,
            })
        })
    }

    /// Whether requests of a version may meet it without having been told apart.
    pub(super) fn unmarked(&self, route: &HttpRoute) -> bool {
        route.r#match.is_empty() || route.r#match.iter().any(|one| !one.headers.contains_key(self.header))
    }
}

/// Whether nothing but the header is asked for.
fn is_whole(condition: &Match) -> bool {
    let nothing = |(key, value): (&String, &Value)| {
        key == "name" || (key == "uri" && *value == json!({ "prefix": "/" })) || value.is_null()
    };
    condition.headers.len() == 1 && condition.more.iter().all(nothing)
}

/// What keeps the controller's own routes of a Service from deciding alone.
pub fn managed(wanted: &RouteNeeds<'_>, found: &IstioObjects) -> Option<Problem> {
    for object in &found.services {
        let place = object.namespace();
        if place == wanted.namespace
            && object.metadata.name.as_deref().is_some_and(|it| is_own_name(wanted.service, it))
        {
            if ours(object) {
                continue;
            }
            let message = format!("VirtualService {} has a name that the controller needs: rename it", object.name());
            return Some(conflict(message, String::new()));
        }
        let routes = object.looked_at();
        if !wanted.sees(routes, place) {
            continue;
        }
        if wanted.claims(routes, place) {
            let message = format!(
                "VirtualService {} has routes for Service {} too: delete it, or set spec.routing.management to \
                 UserProvided and keep the routes there",
                object.name(),
                wanted.service
            );
            return Some(conflict(message, String::new()));
        }
        if let Some(problem) = past(wanted, object, found, Management::Managed) {
            return Some(problem);
        }
    }
    wanted.rule_in_the_way(found)
}

fn is_own_name(service: &str, object: &str) -> bool {
    let delegate = delegate_name(service);
    let of_port = |rest: &str| rest.strip_prefix('-').is_some_and(|port| port.parse::<u16>().is_ok());
    object == name(service) || object == delegate || object.strip_prefix(&delegate).is_some_and(of_port)
}

/// What is missing in the operator's routes of a Service.
pub fn user_provided(wanted: &RouteNeeds<'_>, found: &IstioObjects) -> Option<Problem> {
    let missing =
        |message: String, snippet: &Value| Some(Problem::new(Reason::RouteMissing, message).with_fix(yaml(snippet)));
    let read = found.services.iter().map(|object| (object, object.looked_at()));
    let mut claiming = read.filter(|(object, routes)| {
        wanted.claims(routes, object.namespace()) && wanted.seen_by_any(&routes.export_to, object.namespace())
    });
    let host = wanted.domain.host(wanted.service, wanted.namespace);
    let Some((object, routes)) = claiming.next() else {
        let routes: Vec<Value> = wanted.versions.iter().map(|version| route(wanted, version, &host)).collect();
        let default = json!({ "route": [{ "destination": { "host": host, "subset": subset(wanted.active) } }] });
        let snippet = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": wanted.service, "namespace": wanted.namespace },
            "spec": { "hosts": [host], "http": routes.into_iter().chain([default]).collect::<Vec<_>>() },
        });
        return missing(format!("there is no VirtualService for Service {}", wanted.service), &snippet);
    };
    if let Some((other, _)) = claiming.next() {
        let message = format!(
            "VirtualServices {} and {} both have routes for Service {}: Istio takes one of them, so delete the other",
            object.name(),
            other.name(),
            wanted.service
        );
        return Some(conflict(message, String::new()));
    }
    let place = object.namespace();
    if !wanted.seen_by_all(&routes.export_to, place) {
        let message =
            format!("VirtualService {} is not seen by all callers of Service {}", object.name(), wanted.service);
        return missing(message, &json!({ "exportTo": ["*"] }));
    }
    for version in wanted.versions {
        // The route needs the subset, so that comes first.
        if let Some((client, instead)) = wanted.without_subset(version, found) {
            let versions = [version.as_str()];
            let rule = destination_rule(wanted.domain, wanted.namespace, wanted.service, wanted.label, versions, &[]);
            let rule = json!({ "host": host, "subsets": rule.spec.get("subsets") });
            let message = match instead.filter(|name| !name.starts_with(&format!("{}/", wanted.namespace))) {
                Some(other) => format!(
                    "callers of Service {} in {client} go by DestinationRule {other}, which has no subset for {version}",
                    wanted.service
                ),
                None => format!("no DestinationRule of Service {} has a subset for {version}", wanted.service),
            };
            return missing(message, &rule);
        }
        if let Err(why) = resolves(wanted, routes, place, version, found) {
            let message = format!(
                "VirtualService {} does not resolve {version} of Service {}: {why}",
                object.name(),
                wanted.service
            );
            return missing(message, &json!({ "http": [route(wanted, version, &host)] }));
        }
    }
    default_route(wanted, object, routes, found, &host)
        .or_else(|| found.services.iter().find_map(|other| past(wanted, other, found, Management::UserProvided)))
}

/// Whether requests without a version go to the active one.
fn default_route(
    wanted: &RouteNeeds<'_>,
    object: &MeshObject<VirtualService>,
    routes: &VirtualServiceSpec,
    found: &IstioObjects,
    host: &str,
) -> Option<Problem> {
    let place = object.namespace();
    let strays = routes.http.iter().any(|route| {
        let to = wanted.leads(route, place, found);
        wanted.unmarked(route) && to.iter().any(|to| to.as_deref() != Some(wanted.active))
    });
    let default =
        json!({ "http": [{ "route": [{ "destination": { "host": host, "subset": subset(wanted.active) } }] }] });
    let message = || {
        format!(
            "requests to Service {} without a version do not go to {}, which is active: correct VirtualService {}",
            wanted.service,
            wanted.active,
            object.name()
        )
    };
    strays.then(|| Problem::new(Reason::RouteDefault, message()).with_fix(yaml(&default)))
}

fn route(wanted: &RouteNeeds<'_>, version: &str, host: &str) -> Value {
    json!({
        "match": [{ "headers": { wanted.header: { "exact": version } } }],
        "route": [{ "destination": { "host": host, "subset": subset(version) } }],
    })
}

/// Whether requests of a version get there. The error says why not.
fn resolves(
    wanted: &RouteNeeds<'_>,
    routes: &VirtualServiceSpec,
    place: &str,
    version: &str,
    found: &IstioObjects,
) -> Result<(), String> {
    let none = || Err(format!("it has no route for the header {}: {version}", wanted.header));
    if !routes.http.iter().any(|route| route.r#match.iter().any(|one| wanted.marks(one, version))) {
        return none();
    }
    for route in &routes.http {
        let marked = || route.r#match.iter().filter(|one| wanted.marks(one, version));
        let to = wanted.leads(route, place, found);
        if marked().next().is_some() {
            if to.is_empty() || to.iter().any(|to| to.as_deref() != Some(version)) {
                return Err(format!("its route for {version} leads elsewhere"));
            }
            if marked().any(is_whole) {
                return Ok(());
            }
        } else if wanted.catches(route, version) && to.iter().any(|to| to.as_deref() != Some(version)) {
            return Err(format!("a route for other values of the header comes before that for {version}"));
        } else if wanted.unmarked(route) {
            if !to.is_empty() {
                return Err(format!("a route without the header comes before that for {version}"));
            }
            if route.r#match.is_empty() {
                break;
            }
        }
    }
    none()
}
