//! What becomes of the old version on a real Kubernetes API, and who may touch what a switch needs.
//! The filter is in a real Envoy under load, every request checked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{Switch, condition, deployment, switch_story};
use harness::points::STOP;
use harness::{Load, LoadPlan, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn has(switch: &Switch<'_, '_>, kind: &str, status: &str, reason: &str) -> Result<(Value, String)> {
    wait_for(&format!("{kind} {status} {reason}"), LIMIT, async || {
        let resource = switch.resource().await?;
        let [is, why, message] = condition(&resource, kind).with_context(|| format!("no condition {kind}"))?;
        ensure!((is.as_str(), why.as_str()) == (status, reason), "{is} {why}: {message}");
        Ok((resource, message))
    })
    .await
}

fn refused(answer: Result<String>, words: &str) -> Result<()> {
    let error = answer.err().with_context(|| format!("allowed, although {words}"))?.to_string();
    ensure!(error.contains(words), "{error}");
    Ok(())
}

/// Room first, then nobody but the controller removes anything; what it may not delete it says, and
/// deletes it once it may. `Retain` keeps it.
#[test]
fn the_old_version_is_deleted_or_kept_as_asked() {
    switch_story("kube-cleanup", async |switch| {
        switch.cluster.apply_manifests("kubernetes/protect").await?;
        switch.set(json!({ "promotion": { "mode": "Manual" }, "cleanup": { "policy": "Delete" } })).await?;
        // It dies before it deletes, and the next one after it did.
        let mut controller = switch.controller("controller", &[(STOP, "before a workload is deleted")]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        let kubectl = async |args: &[&str]| switch.cluster.kubectl(args).await;

        // A quota is full, and then the node.
        kubectl(&["create", "quota", "few", "--hard=pods=4"]).await?;
        kubectl(&["wait", "--for=jsonpath={.status.used.pods}=3", "quota/few", "--timeout=30s"]).await?;
        switch.ask("v2").await?;
        let (resource, message) = has(switch, "HeadroomAvailable", "False", "HeadroomShort").await?;
        assert_eq!(message, "v2 needs 2 more of pods, ResourceQuota few leaves 1 of 4");
        assert_eq!((&resource["status"]["blockedBy"], switch.replicas("v2").await?), (&json!(message), "0".to_owned()));
        let large = |cpu: &str| {
            let container = json!({ "name": "reviews", "resources": { "requests": { "cpu": cpu } } });
            json!({ "spec": { "template": { "spec": { "containers": [container] } } } }).to_string()
        };
        kubectl(&["patch", "deployment", "reviews-v2", "--patch", &large("5")]).await?;
        kubectl(&["delete", "quota", "few"]).await?;
        let (_, message) = wait_for("a full node", LIMIT, async || {
            let resource = switch.resource().await?;
            let [_, _, message] = condition(&resource, "HeadroomAvailable").context("no condition")?;
            ensure!(message.starts_with("v2 needs 2 more pods of cpu 5 and memory 256Mi, and 1 fit"), "{message}");
            Ok((resource, message))
        })
        .await?;
        assert!(message.contains("of 1 schedulable nodes 1 take them, with cpu 6800m"), "{message}");
        assert_eq!(switch.replicas("v2").await?, "0");
        kubectl(&["patch", "deployment", "reviews-v2", "--patch", &large("500m")]).await?;
        switch.reaches("AwaitingPromotion", "v1").await?;
        assert_eq!(switch.replicas("v2").await?, "2");

        // Both are needed now, whoever asks for their end.
        for version in ["v1", "v2"] {
            let name = format!("reviews-{version}");
            let words = format!("Deployment/{name} serves requests, says VersionFlag reviews");
            wait_for("the policy", LIMIT, async || {
                // It takes hold a moment after what it looks at was written; nothing is changed by this.
                refused(kubectl(&["delete", "deployment", &name, "--dry-run=server"]).await, &words)
            })
            .await?;
            refused(kubectl(&["delete", "deployment", &name]).await, &words)?;
            refused(kubectl(&["scale", "deployment", &name, "--replicas=0"]).await, &words)?;
        }

        // The controller itself is let through, but without the right to delete.
        switch.request("go", "promote").await?;
        wait_for("the point", LIMIT, async || controller.is_stopped().unwrap_or(false)).await?;
        controller.kill();
        let mut next = switch.controller("next", &[(STOP, "after a workload was deleted")]).await?;
        let (resource, message) = has(switch, "Stalled", "True", "Forbidden").await?;
        assert_eq!((&resource["status"]["phase"], switch.replicas("v1").await?), (&json!("Removing"), "0".to_owned()));
        let words = "cannot delete resource \"deployments\" in API group \"apps\" in the namespace \"default\"";
        assert!(message.starts_with("the API server does not let the controller go on: "), "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(resource["status"]["blockedBy"], json!(message));
        switch.cluster.apply_manifests("kubernetes/delete").await?;
        wait_for("the other point", LIMIT, async || next.is_stopped().unwrap_or(false)).await?;
        next.kill();
        let _last = switch.controller("last", &[]).await?;
        let resource = switch.reaches("Stable", "v2").await?;
        refused(switch.replicas("v1").await, "\"reviews-v1\" not found")?;
        let cleaned_up = condition(&resource, "CleanedUp").context("no condition")?;
        assert_eq!(cleaned_up, ["True", "Removed", "v1 is deleted"].map(str::to_owned));
        assert_eq!((condition(&resource, "Stalled"), &resource["status"]["blockedBy"]), (None, &Value::Null));
        let history = resource["status"]["history"].as_array().context("no history")?;
        assert!(history.iter().any(|event| event["event"] == "Removed" && event["message"] == "v1 is deleted"));

        // There is no way back any more, until it is there again.
        let last = switch.answered("back", "rollback").await?["status"]["lastRequest"].take();
        let why = "the previous version, v1, can no longer be started: it is not declared";
        assert_eq!(last["refused"], why, "{last}");
        switch.cluster.apply(&deployment("v1", 0).to_string()).await?;
        switch.set(json!({ "promotion": { "mode": "Automatic" }, "cleanup": { "policy": "Retain" } })).await?;
        switch.ask("v1").await?;
        let resource = switch.reaches("Stable", "v1").await?;
        let cleaned_up = condition(&resource, "CleanedUp").context("no condition")?;
        assert_eq!(cleaned_up, ["True", "Retained", "v2 stays, as cleanup.policy asks"].map(str::to_owned));
        assert_eq!((switch.replicas("v1").await?, switch.replicas("v2").await?), ("2".to_owned(), "2".to_owned()));

        let before = load.live().answered_by("v1");
        wait_for("traffic at the end", LIMIT, async || load.live().answered_by("v1") > before + 200).await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}
