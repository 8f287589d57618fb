//! What the doctor looks at, and how selectors are read. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::Value;

use cluster::domain::Domain;
use cluster::istio::object::{
    AuthorizationPolicy, DestinationRule, MeshObject, PeerAuthentication, Sidecar, TrafficExtension, WasmPlugin,
};
use cluster::labels::match_all;
use cluster::pods::has_sidecar;
use cluster::resource::VersionFlag;

/// Which ports of a pod its sidecar stands before.
const INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";

/// The labels of an object.
pub(super) type LabelSet = BTreeMap<String, String>;

/// Whether a replica of the controller acts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Leader {
    /// There is no Lease.
    #[default]
    Nobody,
    /// It is nobody's.
    GivenBack,
    /// Its holder did not renew it while it was watched.
    Silent(String),
    /// Its holder did.
    Leads,
    /// Nobody may look.
    Unknown,
}

/// Something that the controller has to be allowed to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Right {
    pub(super) verb: &'static str,
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) subresource: &'static str,
    /// What gives it.
    pub(super) manifest: &'static str,
}

/// Everything that is looked at. What could not be read is empty, and in `unread`.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The namespace that is looked at.
    pub(super) namespace: String,
    /// The controller's.
    pub(super) home: String,
    /// How the cluster names its Services.
    pub(super) domain: Domain,
    /// Port of the flag service.
    pub(super) port: i32,
    pub(super) definition: Option<CustomResourceDefinition>,
    /// The one that belongs to this program.
    pub(super) current: CustomResourceDefinition,
    pub(super) leader: Leader,
    /// Rights that the controller lacks.
    pub(super) denied: Vec<Right>,
    /// Kinds that the cluster lacks, and flags need.
    pub(super) missing_kinds: Vec<&'static str>,
    pub(super) flags: Vec<VersionFlag>,
    /// The two namespaces.
    pub(super) namespaces: Vec<Namespace>,
    /// Pods of the namespace.
    pub(super) pods: Vec<Pod>,
    /// Pods of the controller.
    pub(super) controllers: Vec<Pod>,
    pub(super) services: Vec<Service>,
    pub(super) deployments: Vec<Deployment>,
    pub(super) stateful_sets: Vec<StatefulSet>,
    /// Of both namespaces.
    pub(super) network_policies: Vec<NetworkPolicy>,
    /// Of the namespace and the root.
    pub(super) sidecars: Vec<MeshObject<Sidecar>>,
    /// Of the controller's namespace and the root.
    pub(super) authorizations: Vec<MeshObject<AuthorizationPolicy>>,
    pub(super) authentications: Vec<MeshObject<PeerAuthentication>>,
    /// Of all three.
    pub(super) rules: Vec<MeshObject<DestinationRule>>,
    /// Of the namespace and the root.
    pub(super) plugins: Vec<MeshObject<WasmPlugin>>,
    pub(super) extensions: Vec<MeshObject<TrafficExtension>>,
    /// Namespaces of callers that lack the Secret to pull the filter with, which is named beside.
    pub(super) without_secret: BTreeSet<(String, String)>,
    /// Deployments of istiod.
    pub(super) planes: Vec<Deployment>,
    /// What could not be read, and why.
    pub(super) unread: Vec<(&'static str, String)>,
}

impl Facts {
    /// The labels of one of the namespaces.
    pub(super) fn labels_of(&self, namespace: &str) -> LabelSet {
        let found = self.namespaces.iter().find(|one| one.metadata.name.as_deref() == Some(namespace));
        found.and_then(|one| one.metadata.labels.clone()).unwrap_or_default()
    }

    /// Whether flags of the namespace go by Istio. Without flags that is what they would do.
    pub(super) fn in_mesh(&self) -> bool {
        self.flags.is_empty() || self.flags.iter().any(|flag| flag.spec.routing.in_mesh())
    }

    /// A pod of the controller's before which its sidecar stands. One that only writes certificates does not.
    pub(super) fn behind_sidecar(&self) -> Option<&Pod> {
        let intercepted = |pod: &&Pod| pod.annotations().get(INBOUND_PORTS).is_none_or(|ports| !ports.is_empty());
        self.controllers.iter().filter(|pod| has_sidecar(pod)).find(intercepted)
    }

    /// The Secret with which proxies pull the filter.
    pub(super) fn pull_secret(&self) -> Option<String> {
        let containers = self.controllers.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
        let said = |container: &Container| {
            let of_env = container.env.iter().flatten().find(|one| one.name == "VERSIONFLAG_PLUGIN_PULL_SECRET");
            let of_args = container.args.iter().flatten().find_map(|arg| arg.strip_prefix("--plugin-pull-secret="));
            of_args.map(str::to_owned).or_else(|| of_env?.value.clone())
        };
        containers.into_iter().find_map(said).filter(|name| !name.is_empty())
    }

    /// The namespaces whose proxies have the filter.
    pub(super) fn caller_namespaces(&self) -> BTreeSet<String> {
        let flags = self.flags.iter().filter(|flag| flag.spec.routing.in_mesh());
        let others = flags
            .flat_map(|flag| flag.spec.all_callers().places(&self.namespace).map(str::to_owned).collect::<Vec<_>>());
        others.chain([self.namespace.clone()]).collect()
    }

    /// Whether the controller believes certificates, and no address alone.
    pub(super) fn mtls(&self) -> bool {
        let containers = self.controllers.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
        let asked = |container: &Container| {
            container.env.iter().flatten().any(|one| one.name == "VERSIONFLAG_MTLS_CERTS")
                || container.args.iter().flatten().any(|arg| arg.starts_with("--mtls-certs"))
        };
        containers.into_iter().any(asked)
    }
}

/// The labels of a pod.
pub(super) fn labels(pod: &Pod) -> LabelSet {
    pod.metadata.labels.clone().unwrap_or_default()
}

/// Whether a selector of Kubernetes' takes these labels; an empty one takes all.
pub(super) fn selects(selector: &LabelSelector, labels: &LabelSet) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let holds = |one: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement| {
        let value = labels.get(&one.key);
        let among = || value.is_some_and(|value| one.values.iter().flatten().any(|it| it == value));
        match one.operator.as_str() {
            "In" => among(),
            "NotIn" => !among(),
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    };
    equal && selector.match_expressions.iter().flatten().all(holds)
}

/// A selector of Istio's.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Selected {
    #[serde(alias = "matchLabels")]
    pub(super) labels: LabelSet,
}

impl Selected {
    pub(super) fn takes(&self, labels: &LabelSet) -> bool {
        match_all(labels, &self.labels)
    }
}

/// What is looked at of a Sidecar.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SidecarSpec {
    pub(super) workload_selector: Option<Selected>,
    pub(super) egress: Vec<Egress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Egress {
    pub(super) hosts: Vec<String>,
}

/// What is looked at of an AuthorizationPolicy.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authorization {
    pub(super) selector: Option<Selected>,
    pub(super) action: Option<String>,
    pub(super) rules: Vec<AuthorizationRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthorizationRule {
    pub(super) from: Vec<From>,
    pub(super) to: Vec<To>,
    pub(super) when: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct From {
    pub(super) source: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct To {
    pub(super) operation: BTreeMap<String, Vec<String>>,
}

/// What is looked at of a PeerAuthentication.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Authentication {
    pub(super) selector: Option<Selected>,
    pub(super) mtls: Mode,
    pub(super) port_level_mtls: BTreeMap<String, Mode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mode {
    pub(super) mode: Option<String>,
}

/// What is looked at of a DestinationRule.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RuleHost {
    pub(super) host: String,
    pub(super) traffic_policy: TrafficPolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TrafficPolicy {
    tls: Mode,
    port_level_settings: Vec<PortSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PortSettings {
    port: Port,
    tls: Mode,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    number: i32,
}

impl TrafficPolicy {
    /// How callers speak TLS to a port. Settings of a port hold in place of all others.
    pub(super) fn mode(&self, port: i32) -> Option<&str> {
        let of_port = self.port_level_settings.iter().find(|one| one.port.number == port);
        of_port.map_or(&self.tls, |one| &one.tls).mode.as_deref()
    }
}
