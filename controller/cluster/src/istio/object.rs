//! Objects of Istio's as they are read: whatever is in them makes sense as far as it is looked at.
//! Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::ours;
use crate::gateway_api::object::RouteSpec;
use crate::prune::Trim;

/// Which kind it is.
pub trait Kind: Send + Sync + 'static {
    /// Group of its API.
    const GROUP: &'static str;
    /// Version of its API.
    const VERSION: &'static str;
    /// Its name.
    const KIND: &'static str;
    /// Its name in paths.
    const PLURAL: &'static str;
    /// What is looked at of its spec; nothing where only some look at it.
    type Spec: DeserializeOwned + Default + Send + Sync;

    /// Group and version as objects have them.
    fn api_version() -> String {
        if Self::GROUP.is_empty() { Self::VERSION.to_owned() } else { format!("{}/{}", Self::GROUP, Self::VERSION) }
    }
}

macro_rules! kind {
    ($(#[$meta:meta])* $name:ident, $group:literal, $version:literal, $plural:literal) => {
        kind! { $(#[$meta])* $name, $group, $version, $plural, IgnoredAny }
    };
    ($(#[$meta:meta])* $name:ident, $group:literal, $version:literal, $plural:literal, $spec:ty) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}

        impl Kind for $name {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($name);
            const PLURAL: &'static str = $plural;
            type Spec = $spec;
        }
    };
}

kind! {
    /// Routes of a host.
    VirtualService, "networking.istio.io", "v1", "virtualservices", VirtualServiceSpec
}
kind! {
    /// Subsets of a host's pods.
    DestinationRule, "networking.istio.io", "v1", "destinationrules", DestinationRuleSpec
}
kind! {
    /// What the proxies of a namespace see.
    Sidecar, "networking.istio.io", "v1", "sidecars"
}
kind! {
    /// Who may reach pods.
    AuthorizationPolicy, "security.istio.io", "v1", "authorizationpolicies"
}
kind! {
    /// Whether pods take plain text.
    PeerAuthentication, "security.istio.io", "v1", "peerauthentications"
}
kind! {
    /// Routes of the Gateway API.
    HTTPRoute, "gateway.networking.k8s.io", "v1", "httproutes", RouteSpec
}
kind! {
    /// The same for gRPC.
    GRPCRoute, "gateway.networking.k8s.io", "v1", "grpcroutes", RouteSpec
}
kind! {
    /// Pods under one name.
    Service, "", "v1", "services"
}
kind! {
    /// A filter for the proxies of a namespace.
    WasmPlugin, "extensions.istio.io", "v1alpha1", "wasmplugins"
}
kind! {
    /// The same in an Istio that has it.
    TrafficExtension, "extensions.istio.io", "v1alpha1", "trafficextensions"
}

/// One object of a kind.
pub struct MeshObject<K: Kind> {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// Whatever is in it.
    pub spec: Value,
    /// What is said of it, where that is looked at.
    pub status: Value,
    /// The spec as far as it is looked at, once somebody has: routes of a whole mesh are asked for again and again.
    looked_at: OnceLock<K::Spec>,
}

impl<K: Kind> MeshObject<K> {
    /// One of this name and content.
    pub fn new(metadata: ObjectMeta, spec: Value) -> MeshObject<K> {
        MeshObject { metadata, spec, status: Value::Null, looked_at: OnceLock::new() }
    }

    /// The spec as far as it is looked at. What does not make sense is not there.
    pub fn looked_at(&self) -> &K::Spec {
        self.looked_at.get_or_init(|| self.read())
    }

    /// The spec as somebody else looks at it. What does not make sense is not there.
    pub fn read<T: for<'de> Deserialize<'de> + Default>(&self) -> T {
        T::deserialize(&self.spec).unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `NAMESPACE/NAME`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace(), self.metadata.name.as_deref().unwrap_or_default())
    }

    /// The value of one of its labels.
    pub fn label(&self, label: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(label).map(String::as_str)
    }
}

impl<K: Kind> Clone for MeshObject<K> {
    fn clone(&self) -> MeshObject<K> {
        MeshObject { status: self.status.clone(), ..MeshObject::new(self.metadata.clone(), self.spec.clone()) }
    }
}

impl<K: Kind> fmt::Debug for MeshObject<K> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", K::KIND, self.name(), self.spec)
    }
}

impl<K: Kind> Serialize for MeshObject<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Object", 4)?;
        object.serialize_field("apiVersion", &K::api_version())?;
        object.serialize_field("kind", K::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        object.end()
    }
}

impl<'de, K: Kind> Deserialize<'de> for MeshObject<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MeshObject<K>, D::Error> {
        #[derive(Deserialize)]
        struct Read {
            metadata: ObjectMeta,
            #[serde(default)]
            spec: Value,
            #[serde(default)]
            status: Value,
        }
        let read = Read::deserialize(deserializer)?;
        Ok(MeshObject { status: read.status, ..MeshObject::new(read.metadata, read.spec) })
    }
}

impl<K: Kind> Resource for MeshObject<K> {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        K::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K: Kind> Trim for MeshObject<K> {
    fn trim(&mut self) {
        // What gateways make of the routes that were written here.
        if K::KIND != HTTPRoute::KIND || !ours(self) {
            self.status = Value::Null;
        }
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.metadata.owner_references = None;
        self.metadata.finalizers = None;
    }
}

/// Whether everything that is wanted is so; there may be more. A list is wanted as it is.
pub fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value)))
        }
        (found, wanted) => found == wanted,
    }
}

/// What is looked at of a VirtualService.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VirtualServiceSpec {
    /// Which it is about.
    pub hosts: Vec<String>,
    /// Where it holds; without any, in the mesh.
    pub gateways: Vec<String>,
    /// Who sees it; without any, everybody.
    pub export_to: Vec<String>,
    /// In order.
    pub http: Vec<HttpRoute>,
    /// Of connections, by the name that TLS asks for.
    pub tls: Vec<StreamRoute>,
    /// Of connections.
    pub tcp: Vec<StreamRoute>,
}

/// A route of connections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamRoute {
    /// Where it leads.
    pub route: Vec<Weighted>,
}

/// One route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    /// Its name.
    pub name: String,
    /// Any of these; without any, always.
    pub r#match: Vec<Match>,
    /// Where it leads.
    pub route: Vec<Weighted>,
    /// It leads to another VirtualService.
    pub delegate: Option<Delegate>,
    /// Where a copy of each request goes.
    pub mirror: Option<RouteDestination>,
    /// The same for several.
    pub mirrors: Vec<Weighted>,
}

/// Another VirtualService.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; without it, that of the route.
    pub namespace: String,
}

/// All of these conditions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Match {
    /// Of headers.
    pub headers: BTreeMap<String, Value>,
    /// All others.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A share of the requests.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Weighted {
    /// Where they go.
    pub destination: RouteDestination,
    /// How many; with a single destination, all.
    pub weight: Option<i64>,
}

/// Pods.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    /// Of a Service.
    pub host: String,
    /// All of them without one.
    pub subset: String,
}

/// What is looked at of a DestinationRule.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DestinationRuleSpec {
    /// Which it is about.
    pub host: String,
    /// Who sees it; without any, everybody.
    pub export_to: Vec<String>,
    /// Parts of the pods.
    pub subsets: Vec<Subset>,
    /// Only for these clients.
    pub workload_selector: Option<Value>,
}

/// A part of the pods.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// They have all of these.
    pub labels: BTreeMap<String, String>,
}
