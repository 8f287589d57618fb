//! Ingress gateways of a mesh, by Istio's API and by the Gateway API. I/O: writes them and waits.

use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Mesh, Pod, SERVICE_PORT, Workload};

impl Mesh<'_> {
    /// A gateway for hosts of the mesh, on port 80 of its Service.
    pub async fn gateway(&self, name: &str) -> Result<Rc<Pod>> {
        let workload = Workload::named(name);
        let gateway = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": { "name": name, "namespace": workload.namespace },
            "spec": {
                "selector": { "app": name },
                "servers": [{ "hosts": ["*"], "port": { "number": SERVICE_PORT, "name": "http", "protocol": "HTTP" } }],
            },
        });
        self.run_gateway(&workload, &[gateway]).await
    }

    /// The same by the Gateway API, in a namespace of its own, whose routes alone may be attached. Its definitions
    /// are there.
    pub async fn attachable_gateway(&self, name: &str, namespace: &str) -> Result<Rc<Pod>> {
        let workload = Workload { namespace: namespace.to_owned(), ..Workload::named(name) };
        let place = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": namespace, "labels": { "versionflag.io/callers": "true" },
        } });
        self.apply_all(vec![place]).await?;
        let (version, host) = ("gateway.networking.k8s.io/v1", format!("{name}.{namespace}.svc.{}", self.domain));
        let class = json!({
            "apiVersion": version, "kind": "GatewayClass", "metadata": { "name": "istio" },
            "spec": { "controllerName": "istio.io/gateway-controller" },
        });
        let gateway = json!({
            "apiVersion": version, "kind": "Gateway", "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "gatewayClassName": "istio",
                // Istio runs no pods of its own for it.
                "addresses": [{ "type": "Hostname", "value": host }],
                "listeners": [{ "name": "http", "port": SERVICE_PORT, "protocol": "HTTP" }],
            },
        });
        self.run_gateway(&workload, &[class, gateway]).await
    }

    async fn run_gateway(&self, workload: &Workload, more: &[Value]) -> Result<Rc<Pod>> {
        let pods = [workload.account(), workload.service(), workload.gateway(&self.envoy, &self.domain)];
        self.apply_all([&pods, more].concat()).await?;
        self.is_ready(workload).await?;
        self.steps.done(&workload.name);
        self.pod(&workload.name)
    }
}
