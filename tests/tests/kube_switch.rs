//! The main job on a real Kubernetes API: v1 to v2 of a Deployment, by the custom resource, with the
//! filter in a real Envoy as a pod's sidecar, under load, every request checked.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{Cluster, Kubelet, story};
use harness::local::wasm;
use harness::process::{Process, program};
use harness::{Envoy, EnvoyOptions, Load, LoadPlan, clock, config, wait_for};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const FLAG_SERVICE: &str = "127.0.0.1:7070";
/// See `controller/src/fault.rs`.
const FAULT: &str = "VERSIONFLAG_FAULT";
/// A switch has fewer points; one with more would not come to its end.
const MOST: usize = 100;

fn deployment(version: &str, replicas: u32) -> Value {
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

fn world() -> Value {
    let labels = json!({ "app": "caller", "versionflag.io/proxy": "caller" });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews" },
          "spec": { "selector": { "app": "reviews" }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } },
        deployment("v1", 2),
        deployment("v2", 0),
        { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "caller", "labels": labels },
          "spec": { "containers": [{ "name": "caller", "image": "caller.example/caller:1" }] } },
        { "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag", "metadata": { "name": "reviews" },
          "spec": {
            "version": "v1", "services": [{ "name": "reviews" }],
            "routing": { "provider": "External" },
            "coexistence": { "minReady": "200ms" },
            "settle": { "quietPeriod": "300ms" },
            "cleanup": { "retainFor": "0s" },
        } },
    ] })
}

/// The resource in the cluster, with everything that it needs.
struct Switch<'a, 'b> {
    cluster: &'a Cluster<'b>,
}

impl<'a, 'b> Switch<'a, 'b> {
    async fn start(cluster: &'a Cluster<'b>) -> Result<Switch<'a, 'b>> {
        cluster.add_node("one", "8", "16Gi").await?;
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/kubernetes");
        cluster.kubectl(&["apply", "--kustomize", &manifests.to_string_lossy()]).await?;
        cluster.kubectl(&["wait", "--for=condition=Established", "crd/versionflags.versionflag.io"]).await?;
        cluster.apply(&world().to_string()).await?;
        Ok(Switch { cluster })
    }

    /// A controller with the rights of the manifests.
    async fn controller(&self, name: &str, environment: &[(&str, &str)]) -> Result<Process> {
        let mut command = Command::new(program("versionflag")?);
        command
            .args(["controller", "--listen", FLAG_SERVICE, "--identity", "one", "--home", "versionflag"])
            .arg("--filter-path")
            .arg(wasm()?)
            .env("KUBECONFIG", self.cluster.kubeconfig_as("versionflag", "versionflag").await?)
            .envs(environment.iter().copied());
        Process::start(self.cluster.dir(), name, command)
    }

    async fn resource(&self) -> Result<Value> {
        let text = self.cluster.kubectl(&["get", "versionflag", "reviews", "--output", "json"]).await?;
        Ok(serde_json::from_str(&text)?)
    }

    async fn reaches(&self, phase: &str, version: &str) -> Result<Value> {
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

    async fn ask(&self, version: &str) -> Result<()> {
        let patch = json!({ "spec": { "version": version } }).to_string();
        self.cluster.kubectl(&["patch", "versionflag", "reviews", "--type=merge", "--patch", &patch]).await?;
        Ok(())
    }

    async fn replicas(&self, version: &str) -> Result<String> {
        let name = format!("reviews-{version}");
        self.cluster.kubectl(&["get", "deployment", &name, "--output=jsonpath={.spec.replicas}"]).await
    }

    /// The caller's sidecar, with a token of its pod.
    async fn envoy(&self) -> Result<Envoy> {
        let dir = self.cluster.dir();
        wait_for("the files of the proxies", LIMIT, async || {
            ensure!(["filter.json", "routes.json"].iter().all(|file| dir.file(file).exists()), "not yet");
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
        let version = |version: &str| {
            let endpoints = dir.file(&format!("{version}-endpoints.json"));
            json!({
                "name": format!("reviews-{version}"),
                "type": "EDS",
                "connect_timeout": "1s",
                "eds_cluster_config": { "eds_config": {
                    "path_config_source": { "path": endpoints }, "resource_api_version": "V3",
                } },
            })
        };
        let service = config::cluster("versionflag", FLAG_SERVICE.parse()?, config::Upstream::H1);
        let mut bootstrap = config::bootstrap([listener], [version("v1"), version("v2"), service]);
        bootstrap["node"] = json!({
            "id": "caller.default", "cluster": "caller", "metadata": { "VERSIONFLAG_TOKEN": token.trim() },
        });
        let options = EnvoyOptions { name: "caller".to_owned(), concurrency: 2, ..EnvoyOptions::default() };
        Envoy::start_with(dir, options, bootstrap).await
    }
}

/// Tells a story with the pods of `reviews` running.
fn switch_story(name: &str, tell: impl AsyncFnOnce(&Switch<'_, '_>) -> Result<()> + Send) {
    story(name, async |cluster| {
        let mut kubelet = Kubelet::new(cluster.dir(), cluster.client());
        let told = async {
            let switch = Switch::start(cluster).await?;
            tell(&switch).await
        };
        tokio::select! {
            told = told => told,
            ended = kubelet.run() => ended.map(|never| match never {}),
        }
    });
}

async fn pods(cluster: &Cluster<'_>) -> Result<Vec<String>> {
    let pods = cluster.api::<Pod>("default").list(&ListParams::default().labels("app=reviews")).await?;
    Ok(pods.items.iter().map(|pod| pod.labels().get("version").cloned().unwrap_or_default()).collect())
}

#[test]
fn a_deployment_moves_to_its_next_version_and_nothing_is_lost() {
    switch_story("kube-switch", async |switch| {
        let _controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let plan = LoadPlan { rate_per_s: 300, stream: Some(Duration::from_secs(2)), ..LoadPlan::default() };
        let load = Load::start(envoy.listener("outbound"), plan);
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        assert_eq!(switch.replicas("v2").await?, "0");
        switch.ask("v2").await?;
        let resource = switch.reaches("Stable", "v2").await?;
        let removed_us = clock::now_us();
        assert_eq!((switch.replicas("v1").await?, switch.replicas("v2").await?), ("0".to_owned(), "2".to_owned()));
        let before = load.live().answered_by("v2");
        wait_for("traffic after the removal", LIMIT, async || load.live().answered_by("v2") > before + 300).await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.after(removed_us).all_served_by("v2"), "{:?}", results.by_version());
        wait_for("the end of v1's pods", LIMIT, async || {
            let pods = pods(switch.cluster).await?;
            ensure!(pods == ["v2", "v2"], "{pods:?}");
            Ok(())
        })
        .await?;
        let status = &resource["status"];
        let condition = |name: &str| {
            let conditions = status["conditions"].as_array().context("no conditions")?;
            let found = conditions.iter().find(|condition| condition["type"] == name);
            Ok::<_, anyhow::Error>(found.context(name.to_owned())?["status"].clone())
        };
        for name in ["Ready", "Switched", "Settled", "CleanedUp"] {
            assert_eq!(condition(name)?, "True", "{name}: {status:#}");
        }
        assert_eq!(status["proxies"]["summary"], "1/1");
        Ok(())
    });
}

/// The controller is killed at its first write, at its second and so on, each time in the switch
/// after the one before, until one comes to its end.
#[test]
fn the_controller_may_die_before_and_after_every_write() {
    switch_story("kube-killed", async |switch| {
        let mut controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 100, ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        let (mut old, mut new) = ("v1", "v2");
        let mut points = Vec::new();
        loop {
            controller.kill();
            switch.ask(new).await?;
            let number = (points.len() + 1).to_string();
            let mut dies = switch.controller(&format!("controller-{number}"), &[(FAULT, &number)]).await?;
            let came_to_the_end = wait_for(&format!("point {number}, or the end"), LIMIT, async || {
                if !dies.is_running() {
                    return Ok(false);
                }
                let status = &switch.resource().await?["status"];
                ensure!(status["phase"] == "Stable" && status["activeVersion"] == new, "{}", status["phase"]);
                Ok(true)
            })
            .await?;
            if came_to_the_end {
                break;
            }
            let log = dies.log_tail(1);
            let point = log.split("what=").nth(1).with_context(|| format!("it ended by itself: {log}"))?.to_owned();
            controller = switch.controller("controller", &[]).await?;
            switch.reaches("Stable", new).await.with_context(|| format!("after point {number}: {point}"))?;
            points.push(point);
            ensure!(points.len() < MOST, "too many points: {points:?}");
            (old, new) = (new, old);
        }
        assert_eq!(switch.replicas(old).await?, "0");
        for what in ["before the status", "after the status", "published", "files", "scaled up", "scaled down"] {
            assert!(points.iter().any(|point| point.contains(what)), "no point {what:?} in {points:?}");
        }
        let before = load.live().answered_by(new);
        wait_for("traffic at the end", LIMIT, async || load.live().answered_by(new) > before + 100).await?;
        load.stop().await?.assert_no_failures();
        println!("{} points", points.len());
        Ok(())
    });
}
