//! The objects of the API that the mesh consists of, as Istio's injection would have written them.
//! Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use flag::PROTOCOL;
use flag::config::HEADER;
use flag::record::Record;
use serde_json::{Value, json};

use super::kubelet::LABEL;
use super::pod::SIDECAR;
use super::{APP_PORT, DISCOVERY, GRPC_APP_PORT, GRPC_PORT, REGISTRY, SERVICE_PORT};

/// What to deploy. Its name is `NAME-VERSION`, or the name alone without a version.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Of the service.
    pub name: String,
    /// The label `version` of its pods.
    pub version: Option<String>,
    /// How many pods.
    pub replicas: u32,
    /// Where it lives.
    pub namespace: String,
    /// Whether its pods have a sidecar.
    pub sidecar: bool,
    /// Worker threads of the sidecar.
    pub workers: u32,
    /// Whether its Service has a port for gRPC too.
    pub grpc: bool,
    /// The replica of istiod that the sidecar asks.
    pub istiod: SocketAddr,
    /// More variables of the sidecar.
    pub environment: Vec<(String, String)>,
    /// More annotations of its pods.
    pub annotations: Vec<(String, String)>,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            name: String::new(),
            version: None,
            replicas: 1,
            namespace: "default".to_owned(),
            sidecar: true,
            workers: 1,
            grpc: false,
            istiod: DISCOVERY,
            environment: Vec::new(),
            annotations: Vec::new(),
        }
    }
}

impl Workload {
    /// One pod, of no version, with a sidecar.
    pub fn named(name: &str) -> Workload {
        Workload { name: name.to_owned(), ..Workload::default() }
    }

    /// So many pods of a version.
    pub fn of(name: &str, version: &str, replicas: u32) -> Workload {
        Workload { version: Some(version.to_owned()), replicas, ..Workload::named(name) }
    }

    /// Of the Deployment.
    pub fn full_name(&self) -> String {
        match &self.version {
            Some(version) => format!("{}-{version}", self.name),
            None => self.name.clone(),
        }
    }

    fn labels(&self) -> Value {
        match &self.version {
            Some(version) => json!({ "app": self.name, "version": version }),
            None => json!({ "app": self.name }),
        }
    }

    /// The Deployment.
    pub(super) fn deployment(&self, envoy: &str, domain: &str) -> Value {
        let version = self.version.as_deref().unwrap_or("latest");
        let mut args = vec!["--version".to_owned(), version.to_owned(), "--listen".to_owned()];
        args.push(format!("0.0.0.0:{APP_PORT}"));
        if self.grpc {
            args.push(format!("--also-listen=0.0.0.0:{GRPC_APP_PORT}"));
        }
        let mut containers = vec![json!({
            "name": "app", "image": format!("app.example/{}:{version}", self.name),
            "args": args,
            "ports": [{ "name": "http", "containerPort": APP_PORT }],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": "http" } },
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
        })];
        if self.sidecar {
            containers.push(self.proxy("sidecar", envoy, domain));
        }
        self.deployment_of(containers, self.sidecar)
    }

    /// The Deployment of an ingress gateway.
    pub(super) fn gateway(&self, envoy: &str, domain: &str) -> Value {
        let mut deployment = self.deployment_of(vec![self.proxy("router", envoy, domain)], true);
        // As the pods of a Gateway of the Gateway API have it.
        deployment["spec"]["template"]["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] =
            json!(self.name);
        deployment
    }

    fn deployment_of(&self, containers: Vec<Value>, proxied: bool) -> Value {
        let labels = self.labels();
        let mut template = json!({
            "metadata": { "labels": labels, "annotations": {} },
            "spec": { "serviceAccountName": self.name, "containers": containers },
        });
        template["metadata"]["labels"][LABEL] = json!("true");
        for (key, value) in &self.annotations {
            template["metadata"]["annotations"][key] = json!(value);
        }
        if proxied {
            let metadata = &mut template["metadata"];
            metadata["labels"]["security.istio.io/tlsMode"] = json!("istio");
            metadata["labels"]["service.istio.io/canonical-name"] = json!(self.name);
            metadata["labels"]["service.istio.io/canonical-revision"] =
                json!(self.version.as_deref().unwrap_or("latest"));
            metadata["annotations"]["istio.io/rev"] = json!("default");
            let status = json!({ "containers": [SIDECAR], "initContainers": ["istio-init"], "revision": "default" });
            metadata["annotations"]["sidecar.istio.io/status"] = json!(status.to_string());
        }
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": self.full_name(), "namespace": self.namespace, "labels": labels },
            "spec": { "replicas": self.replicas, "selector": { "matchLabels": labels }, "template": template },
        })
    }

    pub(super) fn proxy(&self, kind: &str, envoy: &str, domain: &str) -> Value {
        let config = json!({
            "binaryPath": envoy,
            "concurrency": self.workers,
            "discoveryAddress": self.istiod.to_string(),
            "statusPort": 15020,
            // As long as a test would want to wait for it.
            "terminationDrainDuration": "1s",
        });
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let mut environment = vec![
            json!({ "name": "POD_NAME", "valueFrom": field("metadata.name") }),
            json!({ "name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace") }),
            json!({ "name": "INSTANCE_IP", "valueFrom": field("status.podIP") }),
            json!({ "name": "HOST_IP", "valueFrom": field("status.hostIP") }),
            json!({ "name": "SERVICE_ACCOUNT", "valueFrom": field("spec.serviceAccountName") }),
            json!({ "name": "PROXY_CONFIG", "value": config.to_string() }),
            json!({ "name": "TRUST_DOMAIN", "value": "cluster.local" }),
            json!({ "name": "ISTIO_META_CLUSTER_ID", "value": "Kubernetes" }),
            json!({ "name": "ISTIO_META_NODE_NAME", "valueFrom": field("spec.nodeName") }),
            json!({ "name": "ISTIO_META_INTERCEPTION_MODE", "value": "REDIRECT" }),
            json!({ "name": "ISTIO_META_WORKLOAD_NAME", "value": self.full_name() }),
            json!({ "name": "ISTIO_META_MESH_ID", "value": "cluster.local" }),
            // No DNS here: istiod is known by its address, and still has to prove its name.
            json!({ "name": "ISTIOD_SAN", "value": "istiod.istio-system.svc" }),
            json!({ "name": "WASM_INSECURE_REGISTRIES", "value": REGISTRY.to_string() }),
        ];
        environment.extend(self.environment.iter().map(|(name, value)| json!({ "name": name, "value": value })));
        json!({
            "name": SIDECAR, "image": "proxy.example/proxyv2:1.31",
            "args": ["proxy", kind, "--domain", format!("{}.svc.{domain}", self.namespace)],
            "env": environment,
            "ports": [{ "name": "http-envoy-prom", "containerPort": 15090 }],
            "readinessProbe": { "httpGet": { "path": "/healthz/ready", "port": 15021 } },
            "resources": { "requests": { "cpu": "100m", "memory": "128Mi" } },
        })
    }

    /// Its ServiceAccount, which is its identity in the mesh.
    pub(super) fn account(&self) -> Value {
        json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": self.name, "namespace": self.namespace } })
    }

    /// Its Service, of all versions.
    pub(super) fn service(&self) -> Value {
        let mut ports = vec![json!({ "name": "http", "port": SERVICE_PORT, "targetPort": APP_PORT })];
        if self.grpc {
            ports.push(json!({ "name": "grpc", "port": GRPC_PORT, "targetPort": GRPC_APP_PORT }));
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": { "app": self.name } },
            "spec": { "selector": { "app": self.name }, "ports": ports },
        })
    }
}

/// Subsets of a service by version, and routes to them.
pub fn routes(service: &str, versions: &[&str], http: Value) -> Value {
    let host = host(service);
    let subsets: Vec<_> =
        versions.iter().map(|version| json!({ "name": version, "labels": { "version": version } })).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
          "metadata": { "name": service, "namespace": "default" },
          "spec": { "host": host, "subsets": subsets } },
        { "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
          "metadata": { "name": service, "namespace": "default" },
          "spec": { "hosts": [host], "http": http } },
    ] })
}

/// For a switch by hand: all requests to one version.
pub fn routed_to(service: &str, versions: &[&str], active: &str) -> Value {
    routes(service, versions, json!([route(service, active)]))
}

/// What a VirtualService like that is changed by, to move all requests.
pub(super) fn reroute(service: &str, version: &str) -> Value {
    json!({ "spec": { "http": [route(service, version)] } })
}

/// For the filter: by its header, and without one to `default`.
pub fn routed_by_header(service: &str, versions: &[&str], default: &str) -> Value {
    let by_header = |version: &&str| {
        let mut route = route(service, version);
        route["match"] = json!([{ "headers": { HEADER: { "exact": version } } }]);
        route
    };
    let mut http: Vec<_> = versions.iter().map(by_header).collect();
    http.push(route(service, default));
    routes(service, versions, json!(http))
}

fn route(service: &str, version: &str) -> Value {
    json!({ "route": [{ "destination": { "host": host(service), "subset": version } }] })
}

fn host(service: &str) -> String {
    format!("{service}.default.svc.cluster.local")
}

/// The filter in every proxy of the namespace `default`, with this configuration.
pub fn plugin(image: &str, config: &Value) -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": { "name": "versionflag", "namespace": "default" },
        "spec": {
            "url": image,
            "failStrategy": "FAIL_OPEN",
            "match": [{ "mode": "CLIENT_AND_SERVER" }],
            "pluginConfig": config,
        },
    })
}

/// A configuration with one flag, of this service, and without the flag service.
pub fn flag_config(service: &str, versions: &[&str], active: &str, epoch: u64) -> Value {
    let clusters: BTreeMap<_, _> = versions
        .iter()
        .map(|version| (*version, [format!("outbound|{SERVICE_PORT}|{version}|{}", host(service))]))
        .collect();
    let record: Record = serde_json::from_value(json!({
        "uid": format!("uid-{service}"), "name": format!("default/{service}"), "epoch": epoch, "active": active,
        "members": [{ "service": service, "hosts": [service, host(service)], "clusters": clusters }],
        "versions": versions,
    }))
    .expect("a record");
    json!({ "protocol": PROTOCOL, "role": "auto", "flags": [record.seal().expect("a valid flag")] })
}
