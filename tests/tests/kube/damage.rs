//! What goes wrong with the workloads of a switch on a real Kubernetes API, as it was seen once.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::kube::{Switch, switch_story};
use harness::soak::{self, SoakPlan, seed};
use harness::{Load, LoadPlan, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

async fn replicas_stay(switch: &Switch<'_, '_>, version: &str, replicas: &str) -> Result<()> {
    switch.looks().await?;
    let now = switch.replicas(version).await?;
    ensure!(now == replicas, "{version} has {now} replicas");
    Ok(())
}

/// `make soak DAMAGE=kube` does many.
#[test]
fn no_damage_costs_what_it_does_not_explain() {
    soak::kube::story(SoakPlan { switches: 8, seed: seed() }, Duration::from_secs(1_200));
}

/// C01: only one of two pods of v1 can run when the flag is made, and v2, which is asked for then, has none.
#[test]
fn what_is_adopted_is_left_by_a_whole_switch_only() {
    switch_story("kube-adopted", async |switch| {
        switch.cluster.kubectl(&["delete", "versionflag", "reviews"]).await?;
        switch.cluster.kubectl(&["cordon", "one"]).await?;
        switch.cluster.kubectl(&["scale", "deployment", "reviews-v1", "--replicas=3"]).await?;
        switch.cluster.apply(&harness::kube::flag("v1").to_string()).await?;
        let _controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        switch.ask("v2").await?;
        wait_for("the wait for v2", LIMIT, async || {
            let status = switch.resource().await?["status"].take();
            ensure!(status["targetVersion"] == "v2", "{}: {}", status["phase"], status["blockedBy"]);
            Ok(())
        })
        .await?;
        replicas_stay(switch, "v1", "3").await?;
        let status = switch.resource().await?["status"].take();
        ensure!(status["activeVersion"] == "v1" && status["phase"] == "Coexisting", "{status}");
        switch.cluster.kubectl(&["uncordon", "one"]).await?;
        switch.reaches("Stable", "v2").await?;
        let before = load.live().answered_by("v2");
        wait_for("traffic at the end", LIMIT, async || load.live().answered_by("v2") > before + 200).await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// C02: v1 was told to stop on the whole proof, and a pod of it does not end. A proxy that joins then, of which
/// nothing is known, has nothing of it started again.
#[test]
fn what_was_stopped_stays_stopped_whoever_joins() {
    switch_story("kube-joined", async |switch| {
        let _controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
        let pods = switch.cluster.kubectl(&["get", "pods", "--selector=version=v1", "--output=name"]).await?;
        let pod = pods.lines().next().unwrap_or_default();
        let keep = |names: serde_json::Value| json!({ "metadata": { "finalizers": names } }).to_string();
        switch.cluster.kubectl(&["patch", pod, "--patch", &keep(json!(["example.com/keep"]))]).await?;
        switch.ask("v2").await?;
        switch.reaches("Removing", "v2").await?;
        wait_for("the stop", LIMIT, async || {
            ensure!(switch.replicas("v1").await? == "0", "not yet");
            Ok(())
        })
        .await?;
        let labels = json!({ "app": "caller", "versionflag.io/proxy": "caller" });
        let joiner = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "joiner", "labels": labels },
            "spec": { "containers": [{ "name": "caller", "image": "caller.example/caller:1" }] },
        });
        switch.cluster.apply(&joiner.to_string()).await?;
        wait_for("the joiner to be waited for", LIMIT, async || {
            let proxies = switch.resource().await?["status"]["proxies"].take();
            ensure!(proxies["expected"] == 2, "{proxies}");
            Ok(())
        })
        .await?;
        replicas_stay(switch, "v1", "0").await?;
        let status = switch.resource().await?["status"].take();
        ensure!(status["phase"] == "Removing", "{}: {}", status["phase"], status["blockedBy"]);
        switch.cluster.kubectl(&["patch", pod, "--patch", &keep(json!(null))]).await?;
        switch.reaches("Stable", "v2").await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}
