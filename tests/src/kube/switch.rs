//! One switch on a real Kubernetes API, as every test of it needs it: the workloads and the resource,
//! controllers with the rights of the manifests, and the filter in a real Envoy as a pod's sidecar.
//! I/O: through its parts.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::crowd::{Requests, requests};
use super::{Cluster, Kubelet, image, programs, story_within};
use crate::clock::now_us;
use crate::local::wasm;
use crate::overlap::{self, Span};
use crate::process::{Process, program};
use crate::wait::wait_for;
use crate::{Envoy, EnvoyOptions, config};

const LIMIT: Duration = Duration::from_secs(60);

/// A version of `reviews`, with so many pods.
pub fn deployment(version: &str, replicas: u32) -> Value {
    let labels = json!({ "app": "reviews", "version": version });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": format!("reviews-{version}") },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{
                    "name": "reviews", "image": format!("reviews.example/reviews:{version}"),
                    "resources": { "requests": { "cpu": "500m", "memory": "256Mi" } },
                }] },
            },
        },
    })
}

/// The resource, with short times.
pub fn flag(version: &str) -> Value {
    json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag", "metadata": { "name": "reviews" },
        "spec": {
            "version": version, "services": [{ "name": "reviews" }],
            "routing": { "provider": "External" },
            "coexistence": { "minReady": "200ms" },
            "settle": { "quietPeriod": "300ms" },
            "cleanup": { "retainFor": "0s" },
        },
    })
}

/// Two versions of a service, a caller with a proxy, and the resource.
pub fn world() -> Value {
    let labels = json!({ "app": "caller", "versionflag.io/proxy": "caller" });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews" },
          "spec": { "selector": { "app": "reviews" }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } },
        deployment("v1", 2),
        deployment("v2", 0),
        { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "caller", "labels": labels },
          "spec": { "containers": [{ "name": "caller", "image": "caller.example/caller:1" }] } },
        flag("v1"),
    ] })
}

/// Where a replica of the controller has its flag service. The API takes no address of loopback.
const REPLICAS: [(&str, Ipv4Addr); 2] =
    [("one", Ipv4Addr::new(198, 19, 128, 11)), ("two", Ipv4Addr::new(198, 19, 128, 12))];

const PORT: u16 = 7070;

/// The status, reason and message of a condition.
pub fn condition(resource: &Value, kind: &str) -> Option<[String; 3]> {
    let mut all = resource["status"]["conditions"].as_array().into_iter().flatten();
    let found = all.find(|one| one["type"] == kind)?;
    Some(["status", "reason", "message"].map(|part| found[part].as_str().unwrap_or_default().to_owned()))
}

/// The resource in the cluster, with everything that it needs.
pub struct Switch<'a, 'b> {
    /// Where all of it is.
    pub cluster: &'a mut Cluster<'b>,
}

/// Tells a story with the pods of `reviews` running, at v1.
#[track_caller]
pub fn switch_story(name: &str, tell: impl AsyncFnOnce(&mut Switch<'_, '_>) -> Result<()> + Send) {
    switch_story_within(name, crate::story::LIMIT, tell);
}

/// The same with another limit.
#[track_caller]
pub fn switch_story_within(
    name: &str,
    limit: Duration,
    tell: impl AsyncFnOnce(&mut Switch<'_, '_>) -> Result<()> + Send,
) {
    example_story_within(name, limit, async |switch| {
        switch.cluster.install().await?;
        switch.cluster.apply(&world().to_string()).await?;
        tell(switch).await
    });
}

/// The same without anything in the cluster but a node.
#[track_caller]
pub fn example_story(name: &str, tell: impl AsyncFnOnce(&mut Switch<'_, '_>) -> Result<()> + Send) {
    example_story_within(name, crate::story::LIMIT, tell);
}

#[track_caller]
fn example_story_within(name: &str, limit: Duration, tell: impl AsyncFnOnce(&mut Switch<'_, '_>) -> Result<()> + Send) {
    story_within(name, limit, async |cluster| {
        let mut kubelet = Kubelet::new(cluster.dir(), cluster.client());
        cluster.add_node("one", "8", "16Gi").await?;
        let mut switch = Switch { cluster };
        tokio::select! {
            told = tell(&mut switch) => told,
            ended = kubelet.run() => ended.map(|never| match never {}),
        }
    });
}

impl Switch<'_, '_> {
    /// A controller with the rights of the manifests.
    pub async fn controller(&self, log: &str, environment: &[(&str, &str)]) -> Result<Process> {
        self.replica("one", log, environment).await
    }

    /// The same, as the replica `one` or `two`.
    pub async fn replica(&self, identity: &str, log: &str, environment: &[(&str, &str)]) -> Result<Process> {
        let address = REPLICAS.iter().find(|(name, _)| *name == identity).context("no such replica")?.1;
        let mut command = Command::new(program("versionflag")?);
        command
            .args(["controller", "--identity", identity, "--home", "versionflag"])
            .args(["--address", &address.to_string(), "--listen", &SocketAddr::new(address.into(), PORT).to_string()])
            .arg("--filter-path")
            .arg(wasm()?)
            .env("KUBECONFIG", self.cluster.kubeconfig_as("versionflag", "versionflag").await?)
            .envs(environment.iter().copied());
        Process::start(self.cluster.dir(), log, command)
    }

    /// Lets the API server reach this replica as a pod.
    pub async fn stands_for(&self, identity: &str) -> Result<()> {
        let address = REPLICAS.iter().find(|(name, _)| *name == identity).context("no such replica")?.1;
        image::stands_for(self.cluster, identity, &address.to_string()).await.map(drop)
    }

    /// What `versionflag status` shows of the resource.
    pub async fn tree(&self) -> Result<String> {
        let output = self.cluster.versionflag(&["status", "reviews"]).await?;
        ensure!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The resource as it is now.
    pub async fn resource(&self) -> Result<Value> {
        let text = self.cluster.kubectl(&["get", "versionflag", "reviews", "--output", "json"]).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Writes every state of the resource from now on to a log, as JSON.
    pub async fn watch(&self) -> Result<Process> {
        let mut command = Command::new(programs()?.join("kubectl"));
        command.args(["get", "versionflag", "reviews", "--watch", "--output=json"]);
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        let watch = Process::start(self.cluster.dir(), "watch", command)?;
        wait_for("the first state", LIMIT, async || {
            ensure!(std::fs::read_to_string(watch.log())?.ends_with("}\n"), "nothing yet");
            Ok(())
        })
        .await?;
        Ok(watch)
    }

    /// Waits for a phase with this version active.
    pub async fn reaches(&self, phase: &str, version: &str) -> Result<Value> {
        wait_for(&format!("{phase} at {version}"), LIMIT, async || {
            let resource = self.resource().await?;
            let status = &resource["status"];
            ensure!(
                status["phase"] == phase && status["activeVersion"] == version,
                "{} at {}: {}",
                status["phase"],
                status["activeVersion"],
                status["blockedBy"]
            );
            Ok(resource)
        })
        .await
    }

    /// Asks for a version.
    pub async fn ask(&self, version: &str) -> Result<()> {
        self.set(json!({ "version": version })).await
    }

    /// Edits the spec.
    pub async fn set(&self, spec: Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.cluster.kubectl(&["patch", "versionflag", "reviews", "--type=merge", "--patch", &patch]).await?;
        Ok(())
    }

    /// Asks for something by hand, as the commands do.
    pub async fn request(&self, id: &str, action: &str) -> Result<()> {
        let request = format!("versionflag.io/request={}", json!({ "id": id, "action": action }));
        self.cluster.kubectl(&["annotate", "versionflag", "reviews", "--overwrite", &request]).await.map(drop)
    }

    /// Asks for something, and waits for the answer. The resource that has it.
    pub async fn answered(&self, id: &str, action: &str) -> Result<Value> {
        self.request(id, action).await?;
        wait_for(&format!("an answer to {action}"), LIMIT, async || {
            let resource = self.resource().await?;
            let last = &resource["status"]["lastRequest"];
            ensure!(last["id"] == id, "{last}");
            Ok(resource)
        })
        .await
    }

    /// Waits for a look at everything that is so now: whoever answers has looked.
    pub async fn looks(&self) -> Result<()> {
        for action in ["suspend", "resume"] {
            self.answered(&format!("{action}-{}", now_us()), action).await?;
        }
        Ok(())
    }

    /// What the replica `one` has asked the API server so far.
    pub async fn requests(&self) -> Result<Requests> {
        requests(SocketAddr::new(REPLICAS[0].1.into(), PORT)).await
    }

    /// How many pods a version is asked to have.
    pub async fn replicas(&self, version: &str) -> Result<String> {
        let name = format!("reviews-{version}");
        self.cluster.kubectl(&["get", "deployment", &name, "--output=jsonpath={.spec.replicas}"]).await
    }

    /// When requests were open at the pods of a version, those that are over.
    pub fn spans(&self, version: &str) -> Result<Vec<Span>> {
        overlap::read_all(self.cluster.dir(), &format!("reviews-{version}-"))
    }

    /// The versions of all pods that there are.
    pub async fn pods(&self) -> Result<Vec<String>> {
        let pods = self.cluster.api::<Pod>("default").list(&ListParams::default().labels("app=reviews")).await?;
        Ok(pods.items.iter().map(|pod| pod.labels().get("version").cloned().unwrap_or_default()).collect())
    }

    /// The caller's sidecar, with a token of its pod.
    pub async fn envoy(&self) -> Result<Envoy> {
        let options = EnvoyOptions { name: "caller".to_owned(), concurrency: 2, ..EnvoyOptions::default() };
        Envoy::start_with(self.cluster.dir(), options, self.bootstrap().await?).await
    }

    /// What it is started with, once its files are there.
    pub async fn bootstrap(&self) -> Result<Value> {
        let dir = self.cluster.dir();
        wait_for("the files of the proxies", LIMIT, async || {
            let files = ["filter.json", "routes.json", "versionflag-endpoints.json"];
            let missing: Vec<_> = files.iter().filter(|file| !dir.file(file).exists()).collect();
            ensure!(missing.is_empty(), "there is no {missing:?}");
            Ok(())
        })
        .await?;
        let bound = ["--bound-object-kind=Pod", "--bound-object-name=caller", "--audience=versionflag"];
        let token = self.cluster.kubectl(&[&["create", "token", "default"], bound.as_slice()].concat()).await?;
        let filter = config::ecds_filter(
            "versionflag",
            &dir.file("filter.json"),
            config::WASM_TYPE.trim_start_matches("type.googleapis.com/"),
        );
        let listener = config::listener_with_route_file("outbound", [filter], "versionflag", &dir.file("routes.json"));
        let cluster = |name: &str, file: &str| {
            json!({
                "name": name,
                "type": "EDS",
                "connect_timeout": "10s",
                "eds_cluster_config": { "eds_config": {
                    "path_config_source": { "path": dir.file(file) }, "resource_api_version": "V3",
                } },
            })
        };
        let clusters = [
            cluster("reviews-v1", "v1-endpoints.json"),
            cluster("reviews-v2", "v2-endpoints.json"),
            cluster("reviews-v3", "v3-endpoints.json"),
            cluster("versionflag", "versionflag-endpoints.json"),
        ];
        let mut bootstrap = config::bootstrap([listener], clusters);
        bootstrap["node"] = json!({
            "id": "caller.default", "cluster": "caller", "metadata": { "VERSIONFLAG_TOKEN": token.trim() },
        });
        Ok(bootstrap)
    }
}
