//! A group of two services on a real Kubernetes API: they move together, by hand and by themselves,
//! there and back, and a version that nobody named is never touched. The filter is in a real Envoy
//! under load, every request checked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::kube::{Switch, condition, deployment, switch_story};
use harness::{Call, Load, LoadPlan, Process, Signal, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// The other service of the group, as StatefulSets, and more versions of both.
fn group() -> Value {
    let ratings = |version: &str, replicas: u32| {
        let labels = json!({ "app": "ratings", "version": version });
        let mut set = deployment(version, replicas);
        set["kind"] = json!("StatefulSet");
        set["metadata"]["name"] = json!(format!("ratings-{version}"));
        set["spec"]["serviceName"] = json!("ratings");
        set["spec"]["selector"]["matchLabels"] = labels.clone();
        set["spec"]["template"]["metadata"]["labels"] = labels;
        set
    };
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "ratings" },
          "spec": { "selector": { "app": "ratings" }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } },
        deployment("v0", 1), deployment("v3", 0), ratings("v1", 1), ratings("v2", 0), ratings("v3", 0),
        { "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "reviews-v2" },
          "spec": { "minReplicas": 1, "maxReplicas": 5,
                    "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "reviews-v2" } } },
    ] })
}

/// How many pods each workload is asked to have, as `NAME=COUNT`.
async fn strengths(switch: &Switch<'_, '_>) -> Result<String> {
    let shown = "--output=jsonpath={range .items[*]}{.metadata.name}={.spec.replicas} {end}";
    Ok(switch.cluster.kubectl(&["get", "deployments,statefulsets", shown]).await?.trim().to_owned())
}

async fn are(switch: &Switch<'_, '_>, wanted: &str) -> Result<()> {
    wait_for(wanted, LIMIT, async || {
        let now = strengths(switch).await?;
        ensure!(now == wanted, "{now}");
        Ok(())
    })
    .await
}

/// Asks for something that is granted.
async fn granted(switch: &Switch<'_, '_>, id: &str, action: &str) -> Result<Value> {
    let resource = switch.answered(id, action).await?;
    let last = &resource["status"]["lastRequest"];
    ensure!(last["refused"] == Value::Null, "{last}");
    Ok(resource)
}

async fn ended_by_itself(mut process: Process) -> Result<()> {
    process.signal(Signal::SIGTERM)?;
    let status = process.wait_exit(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status:?}: {}", process.log_tail(5));
    let log = std::fs::read_to_string(process.log())?;
    ensure!(log.contains("the Lease was given back"), "{}", process.log_tail(5));
    Ok(())
}

#[test]
fn a_group_moves_together_and_nothing_else_moves() {
    switch_story("kube-group", async |switch| {
        switch.cluster.apply(&group().to_string()).await?;
        let untouched =
            ["get", "deployment", "reviews-v0", "--output=jsonpath={.metadata.generation}{.metadata.annotations}"];
        let v0 = switch.cluster.kubectl(&untouched).await?;
        switch
            .set(json!({
                "services": [{ "name": "reviews" }, { "name": "ratings" }],
                "promotion": { "mode": "Manual" }, "cleanup": { "retainFor": "1h" },
            }))
            .await?;
        let mut controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;

        // Adoption: it says what it found, and touches nothing.
        let adopted = switch.reaches("Stable", "v1").await?;
        let versions = adopted["status"]["versions"].as_array().context("no versions")?;
        let roles: Vec<_> = versions.iter().map(|one| json!([one["name"], one["role"], one["replicas"]])).collect();
        let plan = json!([["v0", "Other", 1], ["v1", "Active", 3], ["v2", "Other", 0], ["v3", "Other", 0]]);
        assert_eq!(json!(roles), plan);
        assert_eq!(versions[2]["autoscalers"], json!(["reviews-v2"]));
        let first = "reviews-v0=1 reviews-v1=2 reviews-v2=0 reviews-v3=0 ratings-v1=1 ratings-v2=0 ratings-v3=0";
        assert_eq!(strengths(switch).await?, first);

        // A GitOps tool that has replicas in its manifest is named, until it leaves them out.
        let mut manifest = deployment("v1", 2);
        let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "--filename"];
        let file = switch.cluster.dir().write("gitops.json", manifest.to_string());
        switch.cluster.kubectl(&[apply.as_slice(), &[&file.to_string_lossy()]].concat()).await?;
        let message = wait_for("the name of the tool", LIMIT, async || {
            let resource = switch.resource().await?;
            let [_, _, message] = condition(&resource, "ReplicasContested").context("no condition")?;
            ensure!(resource["status"]["versions"][1]["managers"] == json!(["argocd-controller"]), "{resource}");
            Ok(message)
        })
        .await?;
        assert!(
            message.starts_with("argocd-controller applies spec.replicas of Deployment/reviews-v1 too"),
            "{message}"
        );
        manifest["spec"].as_object_mut().context("a spec")?.remove("replicas");
        let file = switch.cluster.dir().write("gitops.json", manifest.to_string());
        switch.cluster.kubectl(&[apply.as_slice(), &[&file.to_string_lossy()]].concat()).await?;
        wait_for("no other manager", LIMIT, async || {
            ensure!(condition(&switch.resource().await?, "ReplicasContested").is_none(), "it is still named");
            Ok(())
        })
        .await?;
        // Who leaves it out gives it back: the API server takes the default. People put it right.
        switch.cluster.kubectl(&["scale", "deployment", "reviews-v1", "--replicas=2"]).await?;
        are(switch, first).await?;
        switch.reaches("Stable", "v1").await?;

        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;

        // Suspended, nothing moves; resumed, both services start v2 as strong as v1.
        granted(switch, "1", "suspend").await?;
        switch.ask("v2").await?;
        wait_for("a word on that", LIMIT, async || {
            let resource = switch.resource().await?;
            let seen = condition(&resource, "Ready").context("no condition")?;
            let generation = &resource["metadata"]["generation"];
            ensure!(seen[1] == "Suspended" && resource["status"]["observedGeneration"] == *generation, "{seen:?}");
            Ok(())
        })
        .await?;
        assert_eq!(strengths(switch).await?, first);
        granted(switch, "2", "resume").await?;
        switch.reaches("AwaitingPromotion", "v1").await?;
        are(
            switch,
            &first
                .replace("v2=0", "v2=N")
                .replace("reviews-v2=N", "reviews-v2=2")
                .replace("ratings-v2=N", "ratings-v2=1"),
        )
        .await?;

        // v3 while v2 is in progress. After the flip the proxies measure it.
        let check = json!([{ "name": "errors", "builtin": { "maxErrorRate": "1%", "minRequests": 100 } }]);
        switch.set(json!({ "version": "v3", "checks": check })).await?;
        wait_for("v3 at the door", LIMIT, async || {
            let status = switch.resource().await?["status"].take();
            ensure!(status["phase"] == "AwaitingPromotion" && status["targetVersion"] == "v3", "{status}");
            Ok(())
        })
        .await?;
        granted(switch, "3", "promote").await?;
        let flipped = switch.reaches("Retaining", "v3").await?;
        let [passed, _, numbers] = condition(&flipped, "ChecksPassed").context("no condition")?;
        assert!(passed == "True" && numbers.starts_with("errors: 0% of "), "{passed} {numbers}");

        // Taken back, it stays so for whoever comes next, until it is tried again.
        granted(switch, "4", "rollback").await?;
        let back = switch.reaches("Retaining", "v1").await?;
        assert_eq!(back["status"]["override"]["version"], "v1");
        controller.kill();
        controller = switch.controller("again", &[]).await?;
        let held = wait_for("the next controller", LIMIT, async || {
            let log = std::fs::read_to_string(controller.log())?;
            ensure!(log.contains("this replica acts now"), "{log}");
            granted(switch, "5", "suspend").await
        })
        .await?;
        let status = &held["status"];
        assert_eq!((&status["activeVersion"], &held["spec"]["version"]), (&json!("v1"), &json!("v3")));
        assert_eq!(status["override"]["reason"], "rolled back by request");
        granted(switch, "6", "resume").await?;
        granted(switch, "7", "retry").await?;
        switch.reaches("AwaitingPromotion", "v1").await?;
        granted(switch, "8", "abort").await?;
        let aborted = switch.reaches("Stable", "v1").await?;
        assert_eq!(aborted["status"]["override"]["reason"], "aborted by request");
        switch.set(json!({ "cleanup": { "retainFor": "0s" } })).await?;
        granted(switch, "9", "retry").await?;
        switch.reaches("AwaitingPromotion", "v1").await?;
        granted(switch, "10", "promote").await?;
        switch.reaches("Stable", "v3").await?;
        are(switch, "reviews-v0=1 reviews-v1=0 reviews-v2=0 reviews-v3=2 ratings-v1=0 ratings-v2=0 ratings-v3=1")
            .await?;
        assert_eq!(switch.cluster.kubectl(&untouched).await?, v0);

        // The other replica is told when the first one ends, and does not wait for its silence.
        let second = switch.replica("two", "second", &[]).await?;
        let at = std::net::SocketAddr::from(([198, 19, 128, 12], 7070));
        for path in ["/healthz", "/readyz"] {
            wait_for(path, LIMIT, async || {
                let answer = Call::get(at, path).send().await?;
                ensure!(answer.status == 200, "{}", answer.body);
                Ok(())
            })
            .await?;
        }
        let asked = Instant::now();
        ended_by_itself(controller).await?;
        wait_for("the other replica", LIMIT, async || {
            let log = std::fs::read_to_string(second.log())?;
            ensure!(log.contains("this replica acts now"), "{log}");
            Ok(())
        })
        .await?;
        assert!(asked.elapsed() < Duration::from_secs(10), "the Lease ended first: {:?}", asked.elapsed());
        let before = load.live().answered_by("v3");
        wait_for("traffic at the end", LIMIT, async || load.live().answered_by("v3") > before + 200).await?;
        load.stop().await?.assert_no_failures();
        ended_by_itself(second).await
    });
}
