//! Namespace `shop` of a cluster with Istio's definitions: two services whose pods have sidecars, a controller
//! with the rights of the manifests, and flags with short times. I/O: through the cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Cluster, Sidecars, istio_crds};
use crate::process::{Process, program};
use crate::wait::wait_for;

/// The longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Where the flag service is.
pub const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 19, 128, 11)), 7070);
/// Where the filter would be.
pub const PLUGIN: &str = "oci://registry.example/versionflag@sha256:\
     0000000000000000000000000000000000000000000000000000000000000000";

fn deployment(service: &str, version: &str, replicas: u32) -> Value {
    let labels = json!({ "app": service, "version": version });
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("{service}.example/{name}:1"),
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
        })
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": format!("{service}-{version}"), "namespace": "shop" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [container("app"), container("istio-proxy")] },
            },
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 9080 }] },
    })
}

/// A flag of one service.
pub fn flag(name: &str) -> Value {
    json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "version": "v1", "services": [{ "name": name }],
            "coexistence": { "minReady": "200ms" },
            "settle": { "quietPeriod": "300ms" },
            "cleanup": { "retainFor": "0s" },
        },
    })
}

/// Two services, each with v1 running and v2 at rest.
fn world() -> Value {
    let parts =
        ["reviews", "ratings"].map(|name| [service(name), deployment(name, "v1", 1), deployment(name, "v2", 0)]);
    json!({ "apiVersion": "v1", "kind": "List", "items": parts.concat() })
}

/// Istio's definitions.
pub async fn install_istio(cluster: &Cluster<'_>) -> Result<()> {
    cluster.install_crds(&istio_crds()?).await
}

/// Everything but the flags.
pub async fn start(cluster: &Cluster<'_>) -> Result<()> {
    cluster.add_node("one", "8", "16Gi").await?;
    cluster.install().await?;
    cluster.apply_manifests("kubernetes/istio").await?;
    cluster.apply_manifests("kubernetes/istio/routes").await?;
    cluster.kubectl(&["create", "namespace", "shop"]).await?;
    cluster.apply(&world().to_string()).await?;
    Ok(())
}

/// The controller with the rights of the manifests.
pub async fn controller(cluster: &Cluster<'_>, log: &str, args: &[&str]) -> Result<Process> {
    let mut command = Command::new(program("versionflag")?);
    command
        .args(["controller", "--identity", "one", "--home", "versionflag", "--listen", &SERVICE.to_string()])
        .args(args)
        .env("KUBECONFIG", cluster.kubeconfig_as("versionflag", "versionflag").await?);
    Process::start(cluster.dir(), log, command)
}

/// An object of the namespace.
pub async fn get(cluster: &Cluster<'_>, kind: &str, name: &str) -> Result<Value> {
    let text = cluster.kubectl(&["get", kind, name, "--namespace=shop", "--output=json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Changes the spec of a flag.
pub async fn patch(cluster: &Cluster<'_>, flag: &str, spec: Value) -> Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    let args = ["patch", "versionflag", flag, "--namespace=shop", "--type=merge", "--patch", &patch];
    cluster.kubectl(&args).await.map(drop)
}

/// Waits for a phase with this version active.
pub async fn reaches(cluster: &Cluster<'_>, flag: &str, phase: &str, version: &str) -> Result<Value> {
    wait_for(&format!("{flag}: {phase} at {version}"), LIMIT, async || {
        let found = get(cluster, "versionflag", flag).await?;
        let status = &found["status"];
        ensure!(status["phase"] == phase && status["activeVersion"] == version, "{status}");
        Ok(found)
    })
    .await
}

/// Waits until a flag is in this phase with this version active, and says that this keeps it there.
pub async fn held(cluster: &Cluster<'_>, flag: &str, phase: &str, version: &str, why: &Value) -> Result<()> {
    wait_for(&format!("{flag} is held in {phase}"), LIMIT, async || {
        let status = &get(cluster, "versionflag", flag).await?["status"];
        ensure!(
            status["phase"] == phase && status["activeVersion"] == version && status["blockedBy"] == *why,
            "{status}"
        );
        Ok(())
    })
    .await
}

/// Waits until a condition has this reason.
pub async fn condition(cluster: &Cluster<'_>, flag: &str, kind: &str, reason: &str) -> Result<Value> {
    wait_for(&format!("{flag}: {kind} {reason}"), LIMIT, async || {
        let found = get(cluster, "versionflag", flag).await?;
        let conditions = found["status"]["conditions"].as_array().context("no conditions")?;
        let one = conditions.iter().find(|one| one["type"] == kind).context("no such condition")?;
        ensure!(one["reason"] == reason, "{one}");
        Ok(one.clone())
    })
    .await
}

/// What goes on in the cluster while a story is told.
pub async fn beside(cluster: &Cluster<'_>, tell: impl Future<Output = Result<()>>) -> Result<()> {
    let mut sidecars = Sidecars::new(cluster.client(), "shop", SERVICE);
    tokio::select! {
        told = tell => told,
        ended = sidecars.run() => ended.map(|never| match never {}),
    }
}
