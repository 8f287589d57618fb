//! Many VersionFlags at rest, and what a controller costs that looks after them. I/O: asks the API,
//! runs the controller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Cluster;
use crate::client::Call;
use crate::process::{Process, program};
use crate::wait::wait_for;

const SERVICE: SocketAddr = SocketAddr::new(super::LOOPBACK, 7070);
/// Between the last write and rest: an Event comes after what it tells of.
const STILL: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(600);
const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];

/// So many flags, each with a Service and two Deployments, the second without pods.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// How many namespaces.
    pub namespaces: usize,
    /// Flags in each.
    pub each: usize,
    /// Pods of the version that serves, of each flag.
    pub pods: usize,
}

impl Crowd {
    /// All of them.
    pub fn flags(&self) -> usize {
        self.namespaces * self.each
    }

    /// The pods of all of them.
    pub fn pods(&self) -> usize {
        self.flags() * self.pods
    }

    /// Makes all of it, and waits until every pod is ready.
    pub async fn create(&self, cluster: &Cluster<'_>) -> Result<()> {
        cluster.install().await?;
        for node in 0..=self.pods() / 500 {
            cluster.add_node(&format!("node-{node}"), "1000", "1000Gi").await?;
        }
        let mut tasks = JoinSet::new();
        for namespace in 0..self.namespaces {
            tasks.spawn(namespaced(cluster.client(), format!("team-{namespace}"), *self));
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let deployments: Api<Deployment> = Api::all(cluster.client());
        wait_for("the pods", LIMIT, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let all = deployments.list(&ListParams::default().labels("version=v1")).await?.items;
            let ready = |one: &Deployment| one.status.as_ref().and_then(|status| status.available_replicas);
            let ready: i32 = all.iter().filter_map(ready).sum();
            ensure!(usize::try_from(ready) == Ok(self.pods()), "{ready} of {} are ready", self.pods());
            Ok(())
        })
        .await
    }

    /// Every flag as it is now.
    pub async fn read(cluster: &Cluster<'_>) -> Result<Vec<DynamicObject>> {
        let api: Api<DynamicObject> = Api::all_with(cluster.client(), &kind());
        Ok(api.list(&ListParams::default()).await?.items)
    }
}

fn kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("versionflag.io", "v1alpha1", "VersionFlag"))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

/// A request whose answer was lost is sent again, and the object is there by then.
fn made<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(refused)) if refused.code == 409 => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}

async fn namespaced(client: Client, namespace: String, crowd: Crowd) -> Result<()> {
    let post = PostParams::default();
    let own: Namespace = typed(json!({ "metadata": { "name": namespace } }))?;
    made(Api::<Namespace>::all(client.clone()).create(&post, &own).await)?;
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let resources: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind());
    for number in 0..crowd.each {
        let name = format!("service-{number}");
        let service = typed(json!({
            "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 80 }] },
        }))?;
        made(services.create(&post, &service).await)?;
        for (version, replicas) in [("v1", crowd.pods), ("v2", 0)] {
            let labels = json!({ "app": name, "version": version });
            let deployment = typed(json!({
                "metadata": { "name": format!("{name}-{version}"), "labels": labels },
                "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        // Of no use where nothing runs, and nobody would have made it yet.
                        "automountServiceAccountToken": false,
                        "containers": [{
                            "name": "app", "image": format!("app.example/app:{version}"),
                            "env": [{ "name": "PORT", "value": "8080" }, { "name": "LEVEL", "value": "info" }],
                            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
                        }],
                    },
                } },
            }))?;
            made(deployments.create(&post, &deployment).await)?;
        }
        let flag = typed(json!({
            "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
            "metadata": { "name": name },
            "spec": { "version": "v1", "services": [{ "name": name }], "routing": { "provider": "External" } },
        }))?;
        made(resources.create(&post, &flag).await)?;
    }
    Ok(())
}

/// A controller with the rights of the manifests.
#[derive(Debug)]
pub struct Controller {
    process: Process,
    /// When it was started.
    pub started: Instant,
}

/// How often the API server was asked, by verb and kind of object.
pub type Requests = BTreeMap<(String, String), u64>;

impl Controller {
    /// One for the whole cluster.
    pub async fn start(cluster: &Cluster<'_>) -> Result<Controller> {
        let mut command = Command::new(program("versionflag")?);
        command
            .args(["controller", "--identity", "one", "--home", "versionflag", "--filter-path", "/filter.wasm"])
            .args(["--listen", &SERVICE.to_string()])
            .env("KUBECONFIG", cluster.kubeconfig_as("versionflag", "versionflag").await?);
        Ok(Controller { process: Process::start(cluster.dir(), "controller", command)?, started: Instant::now() })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it says of so many flags that they are at rest, and has written what it tells of them
    /// after that. How long it took.
    pub async fn settles(&mut self, flags: usize) -> Result<Duration> {
        let started = self.started;
        let process = &mut self.process;
        let (mut known, mut wrote) = (Requests::new(), started);
        wait_for("all flags at rest", LIMIT, async || {
            process.check_running()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let text = metrics(SERVICE).await?;
            let now = requests_in(&text)?;
            if !writes(&known, &now).is_empty() {
                wrote = Instant::now();
            }
            known = now;
            let stable = text.lines().filter(|line| {
                line.starts_with("versionflag_phase{") && line.contains("phase=\"Stable\"") && line.ends_with(" 1")
            });
            let stable = stable.count();
            ensure!(stable == flags, "{stable} of {flags} flags are at rest");
            ensure!(wrote.elapsed() >= STILL, "something was written just now");
            Ok(wrote.duration_since(started))
        })
        .await
    }

    /// What it has asked the API server so far.
    pub async fn requests(&self) -> Result<Requests> {
        requests(SERVICE).await
    }
}

/// What a controller whose flag service is here has asked the API server so far.
pub async fn requests(at: SocketAddr) -> Result<Requests> {
    requests_in(&metrics(at).await?)
}

fn requests_in(metrics: &str) -> Result<Requests> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("versionflag_api_requests_total{"));
    lines
        .map(|line| {
            let (labels, count) = line.split_once("} ").with_context(|| line.to_owned())?;
            let label = |name: &str| {
                let found = labels.split(',').find_map(|label| label.strip_prefix(&format!("{name}=\"")));
                Ok::<_, anyhow::Error>(found.with_context(|| line.to_owned())?.trim_end_matches('"').to_owned())
            };
            Ok(((label("verb")?, label("resource")?), count.parse()?))
        })
        .collect()
}

/// What was written between two looks; the Lease, which is renewed for ever, aside.
pub fn writes(before: &Requests, after: &Requests) -> Requests {
    let written = after.iter().filter(|((verb, kind), _)| WRITES.contains(&verb.as_str()) && kind != "leases");
    let more = written.map(|(key, count)| (key.clone(), count - before.get(key).copied().unwrap_or(0)));
    more.filter(|(_, count)| *count > 0).collect()
}

async fn metrics(at: SocketAddr) -> Result<String> {
    Ok(Call::get(at, "/metrics").send().await?.body)
}
