//! What the HTTPRoutes of a Service are attached to: the Service itself, port by port, and Gateways. And what
//! these say of them. Pure.

use k8s_openapi::api::core::v1;
use serde_json::{Value, json};

use super::object::RouteStatus;
use super::routes::{ending, ports, route_name};
use crate::istio::object::{HTTPRoute, Kind, MeshObject};
use crate::istio::routes::short_hash;
use machine::reason::{Problem, Reason};
use machine::spec::Attachment;

/// One HTTPRoute of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached<'a> {
    /// Its name.
    pub name: String,
    /// The port of the Service.
    pub port: i32,
    /// The Gateway; without one it is attached to the Service.
    pub gateway: Option<&'a Attachment>,
}

/// All HTTPRoutes of a Service, and what is wrong with those that are not among them.
pub fn all<'a>(namespace: &str, whole: &v1::Service, gateways: &'a [Attachment]) -> (Vec<Attached<'a>>, Vec<String>) {
    let service = whole.metadata.name.as_deref().unwrap_or_default();
    let of_port = |port| Attached { name: route_name(service, port), port, gateway: None };
    let mut found: Vec<Attached<'_>> = ports(whole).into_iter().map(of_port).collect();
    let mut wrong = vec![];
    for gateway in gateways.iter().filter(|one| one.is_of(service)) {
        let title = title(namespace, gateway);
        match port(whole, gateway.port) {
            Err(why) => wrong.push(format!("spec.routing.gateways, Gateway {title}: Service {service} {why}")),
            Ok(port) => {
                let name = gateway_route_name(namespace, service, port, gateway);
                if found.iter().any(|one| one.name == name) {
                    wrong.push(format!(
                        "spec.routing.gateways names Gateway {title} twice for path {} of Service {service}: put all \
                         hostnames into one of them",
                        gateway.path
                    ));
                } else {
                    found.push(Attached { name, port, gateway: Some(gateway) });
                }
            }
        }
    }
    (found, wrong)
}

/// `NAMESPACE/NAME` of a Gateway.
fn title(namespace: &str, gateway: &Attachment) -> String {
    format!("{}/{}", gateway.namespace(namespace), gateway.name)
}

/// The port that is meant, or what is wrong with the Service.
fn port(whole: &v1::Service, wanted: Option<i32>) -> Result<i32, String> {
    let ports = ports(whole);
    let listed = || ports.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    match (wanted, ports.as_slice()) {
        (Some(port), all) if all.contains(&port) => Ok(port),
        (None, [port]) => Ok(*port),
        (_, []) => Err("has no port".to_owned()),
        (Some(port), _) => Err(format!("has no port {port}: it has {}", listed())),
        (None, _) => Err(format!("has several ports, {}: name one of them in port", listed())),
    }
}

/// The name of what is written for a Gateway. Hostnames may change without another one.
fn gateway_route_name(namespace: &str, service: &str, port: i32, gateway: &Attachment) -> String {
    let section = gateway.section_name.as_deref().unwrap_or_default();
    let name = route_name(service, port);
    let hash = short_hash(&format!("{name} {}/{section} {}", title(namespace, gateway), gateway.path));
    ending(&name, &format!("-gateway-{hash}"))
}

impl Attached<'_> {
    /// What the paths of its requests begin with.
    pub fn path(&self) -> &str {
        self.gateway.map_or("/", |gateway| &gateway.path)
    }

    /// The spec of it with these rules.
    pub fn spec(&self, namespace: &str, service: &str, rules: Vec<Value>) -> Value {
        let Some(gateway) = self.gateway else { return super::routes::spec(service, self.port, rules) };
        let mut parent = json!({
            "group": HTTPRoute::GROUP, "kind": "Gateway",
            "namespace": gateway.namespace(namespace), "name": gateway.name,
        });
        if let (Some(fields), Some(section)) = (parent.as_object_mut(), &gateway.section_name) {
            fields.insert("sectionName".to_owned(), json!(section));
        }
        // Also without any, or those of before would stay.
        json!({ "parentRefs": [parent], "hostnames": gateway.hostnames, "rules": rules })
    }

    /// What its Gateway has against it, as it is.
    pub fn refusal(&self, route: &MeshObject<HTTPRoute>) -> Option<Problem> {
        let title = title(route.namespace(), self.gateway?);
        let said = RouteStatus::of(&route.status);
        if said.parents.is_empty() {
            let message = format!(
                "nobody answers for Gateway {title}, to which HTTPRoute {} is attached: there is no such Gateway, or \
                 none of a class of Istio's",
                route.name()
            );
            return Some(Problem::new(Reason::GatewayUnknown, message));
        }
        // What is said of the route of before is no answer.
        let current =
            said.parents.iter().flat_map(|parent| &parent.conditions).filter(|one| {
                one.observed_generation.is_none() || one.observed_generation == route.metadata.generation
            });
        let mut no = current.filter(|one| one.status == "False");
        let refused = no.find(|one| ["Accepted", "ResolvedRefs"].contains(&one.r#type.as_str()))?;
        let what = if refused.r#type == "Accepted" { "does not accept" } else { "does not resolve" };
        let message =
            format!("Gateway {title} {what} HTTPRoute {} ({}): {}", route.name(), refused.reason, refused.message);
        Some(Problem::new(Reason::GatewayRefused, message))
    }
}
