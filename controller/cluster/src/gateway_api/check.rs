//! Whether the routes of the Gateway API in a cluster let the flag decide: those of others beside the
//! controller's, or those of the operator. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use serde_json::{Value, json};

use super::attach;
use super::object::{Condition, Rest, RouteSpec};
use super::routes::{find, ports, rule, service, service_name, spec, taken_by, version_of};
use crate::istio::check::{RouteNeeds, conflict, yaml};
use crate::istio::object::{GRPCRoute, HTTPRoute, Kind, MeshObject, VirtualService};
use crate::istio::ours;
use machine::reason::{Problem, Reason};

/// What a cluster holds.
#[derive(Debug, Clone, Default)]
pub struct GatewayObjects {
    /// All HTTPRoutes that are seen.
    pub http: Vec<Arc<MeshObject<HTTPRoute>>>,
    /// All GRPCRoutes that are seen.
    pub grpc: Vec<Arc<MeshObject<GRPCRoute>>>,
    /// All VirtualServices that are seen: Istio goes by these first.
    pub virtual_services: Vec<Arc<MeshObject<VirtualService>>>,
    /// The Services of the flag's namespace.
    pub services: Vec<Arc<v1::Service>>,
}

/// A route of either kind.
struct Route<'a> {
    /// Its kind, and `NAMESPACE/NAME`.
    title: String,
    namespace: String,
    name: String,
    ours: bool,
    routes: &'a RouteSpec,
}

impl<'a> Route<'a> {
    fn of<K: Kind<Spec = RouteSpec>>(object: &'a Arc<MeshObject<K>>) -> Route<'a> {
        Route {
            title: format!("{} {}", K::KIND, object.name()),
            namespace: object.namespace().to_owned(),
            name: object.metadata.name.clone().unwrap_or_default(),
            ours: ours(object),
            routes: object.looked_at(),
        }
    }

    fn all(found: &'a GatewayObjects) -> impl Iterator<Item = Route<'a>> {
        found.http.iter().map(Route::of).chain(found.grpc.iter().map(Route::of))
    }
}

/// One condition, and the versions of the Service that it leads to: `None` for pods of any.
struct Case {
    condition: Condition,
    leads: Vec<Option<String>>,
}

/// What routes lack.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lack {
    /// A rule for this version, with these other conditions.
    Version(String, Rest),
    /// Requests without a version do not go to the active one.
    Default,
    /// A rule takes several values of the header, and comes first where it stands first.
    Caught,
}

/// A flag's Service among everything that there is.
struct ServiceRouting<'a> {
    wanted: &'a RouteNeeds<'a>,
    found: &'a GatewayObjects,
    whole: &'a v1::Service,
}

impl ServiceRouting<'_> {
    /// The parents of a route that are the Service, by port; `None` for all of them.
    fn parents(&self, route: &Route<'_>) -> Vec<Option<i32>> {
        let RouteNeeds { service, namespace, .. } = self.wanted;
        let parents = route.routes.parent_refs.iter();
        parents.filter(|it| it.is_parent(&route.namespace, service, namespace)).map(|parent| parent.port).collect()
    }

    /// Whether a route of the Service concerns its callers: everybody, or those of the route's namespace.
    fn concerns(&self, route: &Route<'_>) -> bool {
        route.namespace == self.wanted.namespace || self.wanted.callers.contains(&route.namespace)
    }

    /// The version that a Service of the namespace stands for. Nothing where it has no pods of the flag.
    fn leads(&self, name: &str) -> Option<Option<String>> {
        if name == self.wanted.service {
            return Some(None);
        }
        let found = find(&self.found.services, name)?;
        version_of(found, self.whole, self.wanted.label).map(|version| Some(version.to_owned()))
    }

    fn cases(&self, route: &Route<'_>) -> Vec<Case> {
        let rules = route.routes.rules.iter().map(|rule| {
            let backends = rule.backend_refs.iter();
            let names = backends.filter_map(|backend| backend.backend(&route.namespace, self.wanted.namespace));
            (rule, names.filter_map(|name| self.leads(name)).collect::<Vec<_>>())
        });
        let all = rules.filter(|(_, leads)| !leads.is_empty()).flat_map(|(rule, leads)| {
            let always = rule.matches.is_empty().then(Condition::default);
            let conditions = rule.matches.iter().cloned().chain(always);
            conditions.map(move |condition| Case { condition, leads: leads.clone() })
        });
        all.collect()
    }

    /// What rules lack. The most exact one is taken, wherever it stands: so each that does not ask for the
    /// header needs one beside it for every version, and leads to the active one itself.
    fn lacks(&self, cases: &[Case], is_whole: bool) -> Option<Lack> {
        let header = self.wanted.header;
        let unmarked: Vec<&Case> = cases.iter().filter(|case| case.condition.marks(header).is_none()).collect();
        let everything = is_whole.then(Rest::default);
        for rest in unmarked.iter().map(|case| case.condition.rest(header)).chain(everything) {
            let missing = self.wanted.versions.iter().find(|version| {
                let fits =
                    |case: &&Case| case.condition.marks(header) == Some(version) && case.condition.rest(header) == rest;
                let mut fitting = cases.iter().filter(fits).peekable();
                fitting.peek().is_none()
                    || fitting.any(|case| case.leads.iter().any(|to| to.as_ref() != Some(*version)))
            });
            if let Some(version) = missing {
                return Some(Lack::Version(version.clone(), rest));
            }
        }
        if cases.iter().any(|case| case.condition.catches(header)) {
            return Some(Lack::Caught);
        }
        let strays = |case: &&Case| case.leads.iter().any(|to| to.as_deref() != Some(self.wanted.active));
        let nowhere = is_whole && !unmarked.iter().any(|case| case.condition.rest(header) == Rest::default());
        (nowhere || unmarked.iter().any(strays)).then_some(Lack::Default)
    }

    /// A version whose Service would have the name of that of a version of another one.
    fn two_of_one_name(&self) -> Option<Problem> {
        let RouteNeeds { service, namespace, label, .. } = self.wanted;
        self.wanted.versions.iter().find_map(|version| {
            let name = service_name(service, version);
            let one = find(&self.found.services, &name)?;
            let (other, its) = taken_by(&self.found.services, one, service, label)?;
            let message = format!(
                "Service {namespace}/{name} is that of {its} of Service {other}, and would be that of {version} of \
                 Service {service} too: give one of the versions another name"
            );
            Some(conflict(message, String::new()))
        })
    }

    /// A VirtualService that Istio goes by instead.
    fn virtual_service(&self) -> Option<Problem> {
        let RouteNeeds { service, namespace, .. } = self.wanted;
        self.found.virtual_services.iter().find_map(|object| {
            let (place, routes) = (object.namespace(), object.looked_at());
            let sees = self.wanted.sees(routes, place);
            if sees && self.wanted.claims(routes, place) {
                let message = format!(
                    "VirtualService {} has routes for Service {service}, and Istio goes by them, not by those of the \
                     Gateway API: delete it",
                    object.name()
                );
                return Some(conflict(message, String::new()));
            }
            if let Some(why) = self.wanted.blind(routes, place).filter(|_| sees) {
                let title = format!("VirtualService {} leads past the flag of Service {service}", object.name());
                return Some(conflict(format!("{title}: {why}"), String::new()));
            }
            let to = routes.http.iter().flat_map(|route| &route.route);
            let mut whole = to.filter(|share| share.weight != Some(0) && self.wanted.is(&share.destination.host, place));
            let message = format!(
                "VirtualService {} leads past the flag of Service {service}: lead there by an HTTPRoute with a rule for \
                 each version, or by VirtualService to the Services of the versions in {namespace}",
                object.name()
            );
            (sees && whole.next().is_some()).then(|| conflict(message, String::new()))
        })
    }

    /// A route for other requests, not one of those that are written, that leads to the Service past the flag.
    fn bypass(&self, written: &[String]) -> Option<Problem> {
        let RouteNeeds { service, active, .. } = self.wanted;
        Route::all(self.found).find_map(|route| {
            if route.ours && written.contains(&route.name) || !self.parents(&route).is_empty() {
                return None;
            }
            let port = self.port(&route)?;
            if route.ours {
                // Nobody writes it any more, and the next switch would make it wrong.
                let message = format!(
                    "{} was written for a Gateway, and spec.routing.gateways does not ask for it any more: delete it",
                    route.title
                );
                return Some(conflict(message, String::new()));
            }
            let lack = self.lacks(&self.cases(&route), false)?;
            let why = match &lack {
                Lack::Version(version, _) => format!("it has no rule for {version}"),
                Lack::Default => format!("requests without a version do not go to {active} there"),
                Lack::Caught => caught(self.wanted.header),
            };
            let message = format!("{} leads past the flag of Service {service}: {why}", route.title);
            Some(conflict(message, yaml(&json!({ "rules": [self.snippet(&lack, port)] }))))
        })
    }

    /// A route that sends copies of requests to the Service, past the flag.
    fn mirror(&self) -> Option<Problem> {
        let RouteNeeds { service, namespace, .. } = self.wanted;
        let route = Route::all(self.found).find(|route| {
            let filters = route.routes.rules.iter().flat_map(|rule| &rule.filters);
            let mut to = filters.filter_map(|filter| filter.request_mirror.as_ref());
            to.any(|to| {
                let name = to.backend_ref.backend(&route.namespace, namespace);
                name.is_some_and(|name| self.leads(name).is_some())
            })
        })?;
        let message = format!(
            "{} leads past the flag of Service {service}: it mirrors requests there, which keep an old version busy; take \
             the mirror out",
            route.title
        );
        Some(conflict(message, String::new()))
    }

    /// A port by which a route leads to the Service.
    fn port(&self, route: &Route<'_>) -> Option<i32> {
        let backends = route.routes.rules.iter().flat_map(|rule| &rule.backend_refs);
        let named = backends.filter(|one| {
            one.backend(&route.namespace, self.wanted.namespace).is_some_and(|name| self.leads(name).is_some())
        });
        named.filter_map(|one| one.port).next()
    }

    /// The rule that puts it right.
    fn snippet(&self, lack: &Lack, port: i32) -> Value {
        let RouteNeeds { header, active, .. } = self.wanted;
        let Lack::Version(version, rest) = lack else { return rule("/", &self.to(active), port, header, None) };
        let mut rule = rule("/", &self.to(version), port, header, Some(version));
        if let Some(condition) = rule.pointer_mut("/matches/0").and_then(Value::as_object_mut) {
            condition.extend(rest.more.clone());
            let others =
                rest.headers.iter().map(|one| json!({ "type": one.r#type, "name": one.name, "value": one.value }));
            if let Some(headers) = condition.get_mut("headers").and_then(Value::as_array_mut) {
                headers.extend(others);
            }
        }
        rule
    }

    /// The name of the Service of a version: that of one that is there, whatever it is.
    fn to(&self, version: &str) -> String {
        self.service_of(version).map_or_else(|| service_name(self.wanted.service, version), str::to_owned)
    }

    /// The Service that stands for a version.
    fn service_of(&self, version: &str) -> Option<&str> {
        let stands = |one: &&Arc<v1::Service>| version_of(one, self.whole, self.wanted.label) == Some(version);
        self.found.services.iter().find(stands)?.metadata.name.as_deref()
    }
}

fn caught(header: &str) -> String {
    format!("a rule takes several values of the header {header}: name each in a rule of its own, by type Exact")
}

fn missing(message: String, snippet: &Value) -> Option<Problem> {
    Some(Problem::new(Reason::RouteMissing, message).with_fix(yaml(snippet)))
}

/// What keeps the controller's own routes of a Service from deciding alone. Nothing is known of a Service that
/// is not there.
pub fn managed(wanted: &RouteNeeds<'_>, found: &GatewayObjects) -> Option<Problem> {
    let look = ServiceRouting { wanted, found, whole: find(&found.services, wanted.service)? };
    if let Some(problem) = look.virtual_service() {
        return Some(problem);
    }
    let (attached, wrong) = attach::all(wanted.namespace, look.whole, wanted.gateways);
    if let Some(message) = wrong.into_iter().next() {
        return Some(Problem::new(Reason::InvalidGateway, message));
    }
    let names: Vec<String> = attached.into_iter().map(|one| one.name).collect();
    for route in Route::all(found).filter(|route| !route.ours) {
        if route.namespace == wanted.namespace && names.contains(&route.name) {
            let message = format!("{} has a name that the controller needs: rename it", route.title);
            return Some(conflict(message, String::new()));
        }
        if look.concerns(&route) && !look.parents(&route).is_empty() {
            let message = format!(
                "{} has routes for Service {} too: delete it, or set spec.routing.management to UserProvided and keep \
                 the routes there",
                route.title, wanted.service
            );
            return Some(conflict(message, String::new()));
        }
    }
    if let Some(problem) = look.two_of_one_name() {
        return Some(problem);
    }
    let taken = wanted.versions.iter().find_map(|version| {
        let name = service_name(wanted.service, version);
        let taken = find(&found.services, &name).filter(|one| !is_ours(one))?;
        (version_of(taken, look.whole, wanted.label) != Some(version)).then_some((name, version))
    });
    if let Some((name, version)) = taken {
        let message = format!(
            "Service {}/{name} has a name that the controller needs, and is not all of {version} of Service {}: rename \
             it, or let it select that",
            wanted.namespace, wanted.service
        );
        let snippet = service(wanted.namespace, look.whole, wanted.label, version).spec;
        return Some(conflict(message, yaml(&snippet)));
    }
    look.mirror().or_else(|| look.bypass(&names))
}

/// Whether the controller wrote a Service.
pub fn is_ours(service: &v1::Service) -> bool {
    ours(&super::routes::as_object(service))
}

/// What is missing in the operator's routes of a Service.
pub fn user_provided(wanted: &RouteNeeds<'_>, found: &GatewayObjects) -> Option<Problem> {
    let RouteNeeds { namespace, service: name, header, active, .. } = *wanted;
    let look = ServiceRouting { wanted, found, whole: find(&found.services, name)? };
    if let Some(problem) = look.virtual_service() {
        return Some(problem);
    }
    // A rule needs its Service, so that comes first.
    if let Some(version) = wanted.versions.iter().find(|version| look.service_of(version).is_none()) {
        let wanted = service(namespace, look.whole, wanted.label, version);
        let snippet = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": service_name(name, version), "namespace": namespace }, "spec": wanted.spec,
        });
        return missing(format!("there is no Service for {version} of Service {name}"), &snippet);
    }
    for port in ports(look.whole) {
        let of_port = |route: &Route<'_>| {
            look.concerns(route) && look.parents(route).iter().any(|parent| parent.is_none_or(|it| it == port))
        };
        let mut claiming = Route::all(found).filter(of_port);
        let Some(route) = claiming.next() else {
            let rules = wanted.versions.iter().map(|version| rule("/", &look.to(version), port, header, Some(version)));
            let default = rule("/", &look.to(active), port, header, None);
            let snippet = json!({
                "apiVersion": HTTPRoute::api_version(), "kind": HTTPRoute::KIND,
                "metadata": { "name": format!("{name}-{port}"), "namespace": namespace },
                "spec": spec(name, port, rules.chain([default]).collect()),
            });
            return missing(format!("there is no HTTPRoute for port {port} of Service {name}"), &snippet);
        };
        if let Some(other) = claiming.next() {
            let message = format!(
                "{} and {} both have routes for port {port} of Service {name}: put all rules into one of them",
                route.title, other.title
            );
            return Some(conflict(message, String::new()));
        }
        let Some(lack) = look.lacks(&look.cases(&route), true) else { continue };
        let snippet = json!({ "rules": [look.snippet(&lack, port)] });
        return match lack {
            Lack::Version(version, _) => {
                missing(format!("{} does not resolve {version} of Service {name}", route.title), &snippet)
            }
            Lack::Caught => missing(format!("{}: {}", route.title, caught(header)), &snippet),
            Lack::Default => {
                let message = format!(
                    "requests to Service {name} without a version do not go to {active}, which is active: correct {}",
                    route.title
                );
                Some(Problem::new(Reason::RouteDefault, message).with_fix(yaml(&snippet)))
            }
        };
    }
    look.mirror().or_else(|| look.bypass(&[]))
}
