//! Istio's control plane and the registry of the filter. I/O: runs and asks them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{DISCOVERY, LOOPBACK, REGISTRY, programs};
use crate::client::Call;
use crate::dir::TestDir;
use crate::kube::Cluster;
use crate::process::Process;
use crate::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(120);
const HTTP: SocketAddr = SocketAddr::new(LOOPBACK, 8080);

/// istiod as it runs in a cluster, with the rights of an administrator.
pub(super) fn istiod(cluster: &Cluster<'_>, domain: &str) -> Result<Process> {
    replica(cluster, "istiod", cluster.kubeconfig(), domain, HTTP.port(), &[])
}

/// The same with a name, a way to the API, and ports of its own.
pub(super) fn replica(
    cluster: &Cluster<'_>,
    name: &str,
    kubeconfig: &Path,
    domain: &str,
    http_port: u16,
    ports: &[String],
) -> Result<Process> {
    let mesh = json!({
        "defaultConfig": { "discoveryAddress": DISCOVERY.to_string() },
        // Statistics and tracing of Istio's own Envoy.
        "defaultProviders": {},
        "accessLogFile": "",
        "trustDomain": "cluster.local",
    });
    let root = cluster.dir().file(name);
    std::fs::create_dir_all(&root)?;
    let mut command = Command::new(programs()?.join("pilot-discovery"));
    command
        .args(["discovery", "--httpAddr", &format!(":{http_port}"), "--ctrlz_port", "0", "--domain", domain])
        .args(ports)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--meshConfig")
        .arg(cluster.dir().write("mesh.json", mesh.to_string()))
        .current_dir(root)
        .env("POD_NAME", name)
        .env("POD_NAMESPACE", "istio-system")
        .env("SERVICE_ACCOUNT", "istiod")
        // Both need extensions of Istio's own build of Envoy.
        .env("PILOT_ENABLE_ALPN_FILTER", "false")
        .env("PILOT_ENABLE_METADATA_EXCHANGE", "false");
    Process::start(cluster.dir(), name, command)
}

/// Waits until it serves proxies.
pub(super) async fn istiod_is_ready(process: &mut Process) -> Result<()> {
    replica_is_ready(process, HTTP.port()).await
}

/// The same of a replica.
pub(super) async fn replica_is_ready(process: &mut Process, http_port: u16) -> Result<()> {
    wait_for("istiod", LIMIT, async || {
        process.check_running()?;
        let answer =
            Call::get(SocketAddr::new(LOOPBACK, http_port), "/ready").limit(Duration::from_secs(5)).send().await?;
        ensure!(answer.status == 200, "not ready: {}", answer.body.trim());
        Ok(())
    })
    .await
}

/// A registry without TLS that forgets everything when it ends.
pub(super) fn registry(dir: &TestDir) -> Result<Process> {
    let mut command = Command::new(programs()?.join("crane"));
    command.args(["registry", "serve", "--address", &REGISTRY.to_string()]);
    Process::start(dir, "registry", command)
}

/// Pushes the filter's image as it was built, and gives what a WasmPlugin says of it.
pub(super) async fn push(image: &std::path::Path) -> Result<String> {
    let to = format!("{REGISTRY}/versionflag:latest");
    let push = async || -> Result<String> {
        let output = tokio::process::Command::new(programs()?.join("crane"))
            .args(["push", "--insecure"])
            .arg(image)
            .arg(&to)
            .output()
            .await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        // It prints the reference by digest.
        Ok(String::from_utf8(output.stdout)?)
    };
    let printed = wait_for("the push of the filter", LIMIT, push).await?;
    let digest = printed.trim().rsplit_once('@').context("a push without a digest")?.1;
    Ok(format!("oci://{REGISTRY}/versionflag@{digest}"))
}
