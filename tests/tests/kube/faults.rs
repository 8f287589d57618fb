//! What goes wrong around a switch on a real Kubernetes API: replicas that stop, an API that is away,
//! people who edit. The filter is in a real Envoy under load, every request checked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::kube::{Part, Switch, flag, switch_story};
use harness::{Envoy, Load, LoadPlan, Process, Signal, wait_for};
use serde_json::{Value, json};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Load, once v1 answers it.
pub(crate) async fn load(envoy: &Envoy) -> Result<Load> {
    let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
    wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
    Ok(load)
}

/// Ends the load once this version has answered some more of it. Not one request may have failed.
pub(crate) async fn nothing_was_lost(load: Load, version: &str) -> Result<()> {
    let before = load.live().answered_by(version);
    wait_for("traffic at the end", LIMIT, async || load.live().answered_by(version) > before + 200).await?;
    load.stop().await?.assert_no_failures();
    Ok(())
}

pub(crate) async fn says(process: &Process, words: &str) -> Result<()> {
    wait_for(&format!("{} to say {words:?}", process.name()), LIMIT, async || {
        let log = std::fs::read_to_string(process.log())?;
        ensure!(log.contains(words), "its last lines: {}", process.log_tail(3));
        Ok(())
    })
    .await
}

/// etcd is killed while the next version starts, and the API server after the flip.
#[test]
fn a_switch_outlives_the_api() {
    switch_story("kube-restarts", async |switch| {
        switch.set(json!({ "coexistence": { "minReady": "2s" }, "settle": { "quietPeriod": "2s" } })).await?;
        let mut controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        switch.ask("v2").await?;
        switch.reaches("Coexisting", "v1").await?;
        switch.cluster.restart(Part::Etcd).await?;
        // It gives a pod up whose change failed, which no kubelet does.
        switch.cluster.restart(Part::Kwok).await?;
        let settling = switch.reaches("Settling", "v2").await?;
        switch.cluster.restart(Part::ApiServer).await?;
        let stable = switch.reaches("Stable", "v2").await?;
        assert_eq!(replicas(switch).await?, pair("0", "2"));
        assert!(epoch(&stable) > epoch(&settling), "{} after {}", epoch(&stable), epoch(&settling));
        controller.check_running()?;
        nothing_was_lost(load, "v2").await
    });
}

/// The API server answers nothing for longer than the Lease lasts. The controller says in time that
/// it acts no more, and goes on when the API is back.
#[test]
fn a_frozen_api_ends_what_the_controller_may_do() {
    switch_story("kube-frozen", async |switch| {
        switch.set(json!({ "settle": { "quietPeriod": "3s" } })).await?;
        let controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        switch.ask("v2").await?;
        switch.reaches("Settling", "v2").await?;
        switch.cluster.process(Part::ApiServer).signal(Signal::SIGSTOP)?;
        let frozen = Instant::now();
        says(&controller, "was not renewed in time: this replica acts no more").await?;
        // The Lease is another's 15 s after it was renewed last.
        assert!(frozen.elapsed() < Duration::from_secs(15), "only after {:?}", frozen.elapsed());
        let before = load.live().answered_by("v2");
        wait_for("the end of the Lease", LIMIT, async || frozen.elapsed() > Duration::from_secs(17)).await?;
        assert!(load.live().answered_by("v2") > before);
        switch.cluster.process(Part::ApiServer).signal(Signal::SIGCONT)?;
        switch.reaches("Stable", "v2").await?;
        assert_eq!(switch.replicas("v1").await?, "0");
        let log = std::fs::read_to_string(controller.log())?;
        let told: Vec<_> = ["acts no more", "acts now", "scaled to 0"].iter().map(|words| log.rfind(words)).collect();
        assert!(told.is_sorted() && told[0].is_some(), "v1 was scaled down by who did not act: {log}");
        nothing_was_lost(load, "v2").await
    });
}

/// The replicas of v1 and v2.
pub(crate) async fn replicas(switch: &Switch<'_, '_>) -> Result<(String, String)> {
    Ok((switch.replicas("v1").await?, switch.replicas("v2").await?))
}

pub(crate) fn pair(v1: &str, v2: &str) -> (String, String) {
    (v1.to_owned(), v2.to_owned())
}

fn epoch(resource: &Value) -> u64 {
    resource["status"]["epoch"].as_u64().expect("a status with an epoch")
}

async fn scale(switch: &Switch<'_, '_>, version: &str, replicas: u32) -> Result<()> {
    let (name, replicas) = (format!("reviews-{version}"), format!("--replicas={replicas}"));
    switch.cluster.kubectl(&["scale", "deployment", &name, &replicas]).await.map(drop)
}

/// A controller, an Envoy under load, and a switch to v2 that waits to be promoted, as it shows itself.
async fn waits(switch: &Switch<'_, '_>) -> Result<(Process, Envoy, Load, Value)> {
    switch.set(json!({ "promotion": { "mode": "Manual" }, "cleanup": { "retainFor": "1h" } })).await?;
    let controller = switch.controller("controller", &[]).await?;
    let envoy = switch.envoy().await?;
    switch.reaches("Stable", "v1").await?;
    let load = load(&envoy).await?;
    switch.ask("v2").await?;
    let waiting = switch.reaches("AwaitingPromotion", "v1").await?;
    Ok((controller, envoy, load, waiting))
}

/// What people do to a switch under way costs no request, no epoch and no version.
#[test]
fn edits_in_the_middle_of_a_switch_do_no_harm() {
    switch_story("kube-edits", async |switch| {
        let (mut controller, _envoy, load, waiting) = waits(switch).await?;

        // What is remembered is overwritten, with a version that was not switched to, and removed.
        let lie = json!({ "status": { "phase": "Stable", "activeVersion": "v2", "epoch": 1, "machine": null } });
        let patch = ["patch", "versionflag", "reviews", "--subresource=status", "--type=merge", "--patch"];
        switch.cluster.kubectl(&[patch.as_slice(), &[&lie.to_string()]].concat()).await?;
        let healed = switch.reaches("AwaitingPromotion", "v1").await?;
        assert_eq!((epoch(&healed), &healed["status"]["machine"]["activeVersion"]), (epoch(&waiting), &json!("v1")));

        // Long enough to be seen.
        switch.set(json!({ "coexistence": { "minReady": "3s" } })).await?;
        // The version that waits gets another size, and loses a pod to another label.
        scale(switch, "v2", 3).await?;
        switch.reaches("Coexisting", "v1").await?;
        switch.reaches("AwaitingPromotion", "v1").await?;
        let pods = switch.cluster.kubectl(&["get", "pods", "--selector=version=v2", "--output=name"]).await?;
        let pod = pods.lines().next().context("a pod of v2")?;
        switch.cluster.kubectl(&["label", pod, "app=nothing", "--overwrite"]).await?;
        switch.reaches("Coexisting", "v1").await?;
        switch.reaches("AwaitingPromotion", "v1").await?;

        // The spec is put back: the version that was started goes, and only that.
        switch.ask("v1").await?;
        let back = switch.reaches("Stable", "v1").await?;
        assert!(epoch(&back) > epoch(&waiting), "{} after {}", epoch(&back), epoch(&waiting));
        assert_eq!(replicas(switch).await?, pair("2", "0"));

        // After the flip, the version that was left is kept for a rollback, whoever scales it down.
        switch.ask("v2").await?;
        switch.reaches("AwaitingPromotion", "v1").await?;
        switch.request("go", "promote").await?;
        let flipped = switch.reaches("Retaining", "v2").await?;
        scale(switch, "v1", 0).await?;
        wait_for("v1 to be started again", LIMIT, async || {
            let now = replicas(switch).await?;
            ensure!(now.0 != "0" && now.1 == "2", "{now:?}");
            Ok(())
        })
        .await?;

        // Without its flag all stays as it is, and a new flag is above the one before.
        switch.cluster.kubectl(&["delete", "versionflag", "reviews"]).await?;
        let before = load.live().answered_by("v2");
        wait_for("traffic without a flag", LIMIT, async || load.live().answered_by("v2") > before + 200).await?;
        let kept = replicas(switch).await?;
        assert!(kept.0 != "0" && kept.1 == "2", "{kept:?}");
        switch.cluster.apply(&flag("v2").to_string()).await?;
        let again = wait_for("the new flag at the proxy", LIMIT, async || {
            let resource = switch.resource().await?;
            let status = &resource["status"];
            ensure!(status["phase"] == "Stable" && status["proxies"]["summary"] == "1/1", "{status}");
            Ok(resource)
        })
        .await?;
        assert!(epoch(&again) > epoch(&flipped), "{} after {}", epoch(&again), epoch(&flipped));
        assert_eq!(replicas(switch).await?, kept);
        controller.check_running()?;
        nothing_was_lost(load, "v2").await?;

        // Whoever scales down what serves is obeyed, and told.
        scale(switch, "v2", 0).await?;
        wait_for("a word on that", LIMIT, async || {
            let blocked = switch.resource().await?["status"]["blockedBy"].take();
            ensure!(blocked == "v2 is active but not ready: has no pods", "{blocked}");
            Ok(())
        })
        .await?;
        assert_eq!(replicas(switch).await?.1, "0");
        Ok(())
    });
}

/// etcd is restored to the time before the flip. The proxies have a later record than is remembered.
#[test]
fn a_record_that_was_restored_does_not_fall_behind_its_proxies() {
    switch_story("kube-restored", async |switch| {
        let (mut controller, _envoy, load, before) = waits(switch).await?;
        switch.cluster.back_up()?;
        switch.request("go", "promote").await?;
        let flipped = switch.reaches("Retaining", "v2").await?;
        assert!(epoch(&flipped) > epoch(&before));
        // The Lease shows the restore: the leader has to have seen a later one than that of the copy.
        let lease = ["get", "lease", "versionflag", "--namespace=versionflag", "--output=jsonpath={.spec.renewTime}"];
        for _ in 0..2 {
            let renewed = switch.cluster.kubectl(&lease).await?;
            wait_for("a renewal", LIMIT, async || {
                ensure!(switch.cluster.kubectl(&lease).await? != renewed, "not since {renewed}");
                Ok(())
            })
            .await?;
        }

        // Until it acts no more it would take what was restored for somebody's edit, and undo it.
        switch.cluster.kill_api();
        says(&controller, "acts no more").await?;
        switch.cluster.restore().await?;
        let ended = controller.wait_exit(LIMIT).await?;
        assert!(!ended.success() && controller.log_tail(5).contains("etcd was restored"), "{}", controller.log_tail(5));
        let _controller = switch.controller("controller-again", &[]).await?;
        wait_for("the restored flag at the proxy", LIMIT, async || {
            let resource = switch.resource().await?;
            let status = &resource["status"];
            ensure!(status["activeVersion"] == "v1" && status["proxies"]["summary"] == "1/1", "{status}");
            ensure!(epoch(&resource) > epoch(&flipped), "{} after {}", epoch(&resource), epoch(&flipped));
            Ok(())
        })
        .await?;
        switch.set(json!({ "cleanup": { "retainFor": "0s" } })).await?;
        switch.request("go-on", "promote").await?;
        switch.reaches("Stable", "v2").await?;
        assert_eq!(replicas(switch).await?, pair("0", "2"));
        nothing_was_lost(load, "v2").await
    });
}

/// Another namespace, with a flag that waits in the middle of a switch, is deleted.
#[test]
fn a_namespace_that_goes_takes_nothing_with_it() {
    switch_story("kube-namespace", async |switch| {
        let mut controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        let shop = |args: &[&str]| {
            [args, &["--namespace=shop"]].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
        };
        let kubectl = async |args: &[&str]| {
            let args = shop(args);
            switch.cluster.kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        switch.cluster.kubectl(&["create", "namespace", "shop"]).await?;
        let world = switch.cluster.dir().write("shop.json", harness::kube::world().to_string());
        kubectl(&["apply", "--filename", &world.to_string_lossy()]).await?;
        let phase = async |phase: &str| {
            wait_for(&format!("{phase} in shop"), LIMIT, async || {
                let now = kubectl(&["get", "versionflag", "reviews", "--output=jsonpath={.status.phase}"]).await?;
                ensure!(now == phase, "{now}");
                Ok(())
            })
            .await
        };
        phase("Stable").await?;
        kubectl(&["patch", "versionflag", "reviews", "--type=merge", "--patch", r#"{"spec":{"version":"v2"}}"#])
            .await?;
        // Its caller has no proxy that runs, so it waits there.
        phase("ProvingRoutes").await?;
        switch.cluster.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]).await?;
        switch.ask("v2").await?;
        switch.reaches("Stable", "v2").await?;
        assert_eq!(replicas(switch).await?, pair("0", "2"));
        controller.check_running()?;
        let log = std::fs::read_to_string(controller.log())?;
        let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains("shop")).count();
        assert!(warnings < 20, "{warnings} warnings of one namespace: {log}");
        nothing_was_lost(load, "v2").await
    });
}

/// While the controller is stopped, etcd forgets what it would have to be told.
#[test]
fn a_watch_that_is_too_old_begins_anew() {
    switch_story("kube-compacted", async |switch| {
        let controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        controller.signal(Signal::SIGSTOP)?;
        switch.ask("v2").await?;
        switch.cluster.compact().await?;
        switch.cluster.restart(Part::ApiServer).await?;
        controller.signal(Signal::SIGCONT)?;
        switch.reaches("Stable", "v2").await?;
        assert_eq!(replicas(switch).await?, pair("0", "2"));
        says(&controller, "too old resource version").await?;
        nothing_was_lost(load, "v2").await
    });
}

// C20
/// What the controller wrote is deleted, and overwritten: it is as it was a moment later, and then nothing is written.
#[test]
fn what_the_controller_wrote_is_put_right() {
    switch_story("kube-owned", async |switch| {
        let _controller = switch.replica("one", "controller", &[]).await?;
        let _envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let owned = [
            ("endpointslice", "versionflag", "versionflag", "--output=jsonpath={.endpoints[0].addresses[0]}"),
            ("configmap", "versionflag-reviews", "default", "--output=jsonpath={.data.routes\\.json}"),
        ];
        for (kind, name, namespace, path) in owned {
            let namespace = format!("--namespace={namespace}");
            let get = async || switch.cluster.kubectl(&["get", kind, name, &namespace, path]).await;
            let before = get().await?;
            let as_before = async |what: &str| {
                wait_for(what, LIMIT, async || {
                    let now = get().await?;
                    ensure!(now == before, "it is {now}");
                    Ok(())
                })
                .await
            };
            switch.cluster.kubectl(&["delete", kind, name, &namespace]).await?;
            as_before(&format!("the deleted {kind}")).await?;
            let late = match kind {
                "configmap" => r#"{"data":{"routes.json":"{}"}}"#,
                _ => r#"{"endpoints":[{"addresses":["198.18.77.77"]}]}"#,
            };
            switch.cluster.kubectl(&["patch", kind, name, &namespace, "--type=merge", "--patch", late]).await?;
            as_before(&format!("the overwritten {kind}")).await?;
        }
        Ok(())
    });
}
