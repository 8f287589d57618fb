//! Checks of a VersionFlag on a real Kubernetes API: a webhook before the flip, a real Prometheus after it.
//! The filter is in a real Envoy under load, every request checked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::checks::{Hook, prometheus};
use harness::kube::{Switch, condition, switch_story};
use harness::{Load, LoadPlan, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the condition says so, in these words.
async fn says(switch: &Switch<'_, '_>, kind: &str, status: &str, reason: &str, words: &str) -> Result<Value> {
    wait_for(&format!("{kind} {status} {reason}: {words}"), LIMIT, async || {
        let resource = switch.resource().await?;
        let [is, why, message] = condition(&resource, kind).with_context(|| format!("no condition {kind}"))?;
        ensure!((is.as_str(), why.as_str()) == (status, reason) && message.contains(words), "{is} {why}: {message}");
        Ok(resource)
    })
    .await
}

fn phase(resource: &Value) -> (&str, &str) {
    let text = |field: &str| resource["status"][field].as_str().unwrap_or_default();
    (text("phase"), text("activeVersion"))
}

/// A webhook holds the flip up. Then a Prometheus has nothing to say, which is no pass; what it says then
/// takes the switch back, or makes it stay where it is.
#[test]
fn a_webhook_and_a_prometheus_decide() {
    switch_story("kube-checks", async |switch| {
        let hook = Hook::start().await?;
        let url = format!("http://{}/smoke", hook.address);
        let smoke = json!({
            "name": "smoke", "when": "BeforeFlip", "onFail": "Pause", "webhook": { "url": url }, "interval": "1s",
        });
        switch.set(json!({ "checks": [smoke] })).await?;
        let mut controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        let (_prometheus, at) = prometheus(switch.cluster.dir(), &envoy).await?;
        let class = |class: u8| {
            let labels = format!("envoy_cluster_name=\"reviews-{{{{to}}}}\",envoy_response_code_class=\"{class}\"");
            format!("envoy_cluster_upstream_rq_xx{{{labels}}}")
        };
        let errors = |query: &str, on_fail: &str| {
            let ask = json!({ "address": format!("http://{at}"), "query": query, "max": "0.01" });
            json!({ "name": "errors", "onFail": on_fail, "prometheus": ask, "interval": "1s" })
        };
        switch.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;

        // 503 is no answer, 404 is one.
        switch.set(json!({ "checks": [smoke, errors(&class(5), "Rollback")], "version": "v2" })).await?;
        let waits = says(switch, "ChecksPassed", "Unknown", "Inconclusive", "smoke: the webhook answered 503").await?;
        assert_eq!(phase(&waits), ("AwaitingPromotion", "v1"));
        hook.answers(404);
        let words = "check smoke failed for v2: the webhook answered 404";
        let paused = says(switch, "Stalled", "True", "CheckFailed", words).await?;
        assert_eq!(phase(&paused), ("AwaitingPromotion", "v1"));
        assert_eq!(condition(&paused, "ChecksPassed").context("a condition")?[..2], ["False", "Failed"]);
        hook.answers(200);

        // No answer has failed, so that there is no such series.
        let waits = says(switch, "ChecksPassed", "Unknown", "Inconclusive", "errors: the query gives no data").await?;
        assert_eq!(phase(&waits).1, "v2");
        let before = load.live().answered_by("v2");
        wait_for("quiet and more", LIMIT, async || load.live().answered_by("v2") > before + 300).await?;
        let waits = switch.resource().await?;
        assert_eq!(phase(&waits), ("Settling", "v2"), "v1 is quiet, and nothing says that v2 is fine");
        let asked = hook.bodies.lock().expect("a lock").clone();
        let body = asked.first().context("the webhook was not asked")?;
        let said = ["flag", "check", "when", "from", "to"].map(|field| body[field].as_str().unwrap_or_default());
        assert_eq!(said, ["default/reviews", "smoke", "BeforeFlip", "v1", "v2"]);

        // It has something to say: v1 again, which stays although the spec says v2.
        let all = format!("sum({})", class(2));
        switch.set(json!({ "checks": [smoke, errors(&all, "Rollback")] })).await?;
        let back = switch.reaches("Stable", "v1").await?;
        let held = &back["status"]["override"];
        assert_eq!((&held["version"], &held["forSpecVersion"]), (&json!("v1"), &json!("v2")));
        let reason = held["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("check errors failed for v2: the query gives "), "{reason}");
        assert_eq!((switch.replicas("v1").await?, switch.replicas("v2").await?), ("2".to_owned(), "0".to_owned()));

        // The same, where the spec asks to stay.
        switch.set(json!({ "checks": [errors(&all, "Pause")] })).await?;
        switch.request("again", "retry").await?;
        let words = "check errors failed for v2: the query gives ";
        let paused = says(switch, "Stalled", "True", "CheckFailed", words).await?;
        assert_eq!(phase(&paused).1, "v2");
        assert_eq!((switch.replicas("v1").await?, switch.replicas("v2").await?), ("2".to_owned(), "2".to_owned()));

        // And with an answer that is fine.
        let none = format!("sum({}) or vector(0)", class(5));
        switch.set(json!({ "checks": [errors(&none, "Pause")] })).await?;
        switch.reaches("Stable", "v2").await?;
        assert_eq!(switch.replicas("v1").await?, "0");
        let before = load.live().answered_by("v2");
        wait_for("traffic at the end", LIMIT, async || load.live().answered_by("v2") > before + 200).await?;
        load.stop().await?.assert_no_failures();
        controller.check_running()?;
        Ok(())
    });
}
