//! Gateways of the Gateway API to which the controller attaches routes of its own. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Callers, Gateway, Management, Provider, Spec};
use crate::schema::text_rule;

/// Label of the pods of a Gateway, with its name.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

const HOSTNAME: &str = "self.matches('^([*][.])?[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')";
const NO_HOSTNAME: &str = "is not a hostname: small letters, digits, '-' and '.', with '*.' before it for all below it";
const PATH: &str = "self.matches('^/([A-Za-z0-9._~!$&()*+,;=:@%-]+/?)*$')";
const NO_PATH: &str = "is not a path: it begins with '/', and has no '//', '?' and '#'";

/// One Gateway, and which of its requests go to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attachment {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Where it is; without it, in the namespace of the flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// One of its listeners; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// The hosts of the requests; without any, those of the listener.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(schema_with = "hostnames")]
    pub hostnames: BTreeSet<String>,
    /// One of the services of the spec; without it, the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service: Option<String>,
    /// A port of it; without it, the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// What the paths of the requests begin with.
    #[serde(default = "root")]
    #[schemars(length(max = 1024), extend("x-kubernetes-validations" = text_rule(PATH, NO_PATH)))]
    pub path: String,
}

fn root() -> String {
    "/".to_owned()
}

fn hostnames(_: &mut SchemaGenerator) -> Schema {
    let rule = text_rule(HOSTNAME, NO_HOSTNAME);
    json_schema!({
        "type": "array", "maxItems": 16, "x-kubernetes-list-type": "set",
        "items": { "type": "string", "maxLength": 253, "x-kubernetes-validations": rule },
    })
}

impl Attachment {
    /// The namespace of the Gateway, for a flag of `namespace`.
    pub fn namespace<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(namespace)
    }

    /// Whether it is for a service. Without a name there is only one.
    pub fn is_of(&self, service: &str) -> bool {
        self.service.as_deref().is_none_or(|name| name == service)
    }

    /// Whether some requests are as much for the one as for the other.
    fn overlaps(&self, other: &Attachment) -> bool {
        let listener =
            self.section_name.is_none() || other.section_name.is_none() || self.section_name == other.section_name;
        let named = !self.hostnames.is_disjoint(&other.hostnames);
        (&self.namespace, &self.name, &self.path) == (&other.namespace, &other.name, &other.path)
            && listener
            && (named || self.hostnames.is_empty() && other.hostnames.is_empty())
    }

    fn pods(&self) -> Gateway {
        let match_labels = BTreeMap::from([(GATEWAY_NAME.to_owned(), self.name.clone())]);
        Gateway { namespace: self.namespace.clone(), match_labels }
    }
}

impl Spec {
    /// The callers, among them the pods of the Gateways that routes are attached to.
    pub fn all_callers(&self) -> Cow<'_, Callers> {
        let attached = &self.routing.gateways;
        if attached.is_empty() {
            return Cow::Borrowed(&self.callers);
        }
        let gateways = self.callers.gateways.iter().cloned().chain(attached.iter().map(Attachment::pods));
        Cow::Owned(Callers { gateways: gateways.collect(), ..self.callers.clone() })
    }
}

/// Everything that is wrong with these parts of a spec, in sentences.
pub(crate) fn validate(spec: &Spec) -> Vec<String> {
    let routing = &spec.routing;
    let mut wrong = vec![];
    let written = (routing.provider, routing.management) == (Provider::GatewayAPI, Management::Managed);
    if !routing.gateways.is_empty() && !written {
        wrong.push(
            "spec.routing.gateways is for provider GatewayAPI and management Managed: set both, or take it out, name the \
             pods in spec.callers.gateways, and lead there by routes of your own"
                .to_owned(),
        );
    }
    for (index, gateway) in routing.gateways.iter().enumerate() {
        let at = format!("spec.routing.gateways[{index}] ({})", gateway.name.chars().take(63).collect::<String>());
        if gateway.name.is_empty() || gateway.name.len() > 63 {
            wrong.push(format!("{at}: a Gateway has a name of at most 63 bytes"));
        }
        match &gateway.service {
            None if spec.services.len() > 1 => wrong.push(format!("{at}: name one of spec.services in service")),
            Some(name) if !spec.services.iter().any(|service| service.name == *name) => {
                wrong.push(format!("{at}: service {name:?} is not in spec.services"));
            }
            _ => {}
        }
        if gateway.port.is_some_and(|port| !(1..=65_535).contains(&port)) {
            wrong.push(format!("{at}: port has to be from 1 to 65535"));
        }
        let hostnames = gateway.hostnames.iter().filter(|name| !is_hostname(name));
        wrong.extend(hostnames.map(|name| format!("{at}: {name:?} {NO_HOSTNAME}")));
        if let Some(first) = routing.gateways.iter().take(index).position(|other| gateway.overlaps(other)) {
            wrong.push(format!("{at}: [{first}] is for the same requests: give one another path or other hostnames"));
        }
        if !is_path(&gateway.path) {
            wrong.push(format!("{at}: {:?} {NO_PATH}", gateway.path));
        }
    }
    wrong
}

fn is_hostname(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let (first, last) = (label.bytes().next(), label.bytes().next_back());
        first.is_some_and(plain) && last.is_some_and(plain) && label.bytes().all(|byte| plain(byte) || byte == b'-')
    };
    text.len() <= 253 && text.strip_prefix("*.").unwrap_or(text).split('.').all(is_label)
}

fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._~!$&()*+,;=:@%-".contains(&byte);
    text.starts_with('/') && text.len() <= 1024 && !text.contains("//") && text.bytes().all(plain)
}
