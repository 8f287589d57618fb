//! The controller dies at the points of a rollback, and of a removal by `cleanup.policy: Delete`, that a
//! plain switch does not have, one after another. The filter is in a real Envoy under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{Switch, condition, deployment, switch_story};
use harness::points::{FAULT, STOP, died_or};
use harness::{Load, LoadPlan, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Where one controller ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// At its Nth point, which has to be this one.
    At(u32, &'static str),
    /// At the first point with these words, stopped first.
    Stopped(&'static str),
}

/// One controller after another, each of which goes on where the one before was killed.
async fn dies(switch: &Switch<'_, '_>, chain: &str, ends: &[End]) -> Result<()> {
    for (number, end) in ends.iter().enumerate() {
        let log = format!("{chain}-{number}");
        match end {
            End::At(nth, words) => {
                let mut controller = switch.controller(&log, &[(FAULT, &nth.to_string())]).await?;
                let never = async || -> Result<()> { anyhow::bail!("it goes on") };
                let point = died_or(&mut controller, &log, LIMIT, never).await?;
                let point = point.context("no point")?;
                ensure!(point.contains(words), "{log}: died {point}, not {words}");
            }
            End::Stopped(words) => {
                let mut controller = switch.controller(&log, &[(STOP, words)]).await?;
                wait_for(words, LIMIT, async || controller.is_stopped().unwrap_or(false)).await?;
                controller.kill();
            }
        }
    }
    Ok(())
}

fn history(resource: &Value, event: &str) -> usize {
    let all = resource["status"]["history"].as_array().into_iter().flatten();
    all.filter(|one| one["event"] == event).count()
}

#[test]
fn the_controller_may_die_in_a_rollback_and_when_it_deletes() {
    switch_story("kube-killed-again", async |switch| {
        switch.set(json!({ "cleanup": { "retainFor": "1h" } })).await?;
        let mut controller = switch.controller("controller", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 100, ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        switch.ask("v2").await?;
        let flipped = switch.reaches("Retaining", "v2").await?;
        controller.kill();

        // What is gone back from need not stay; how long v1 does was decided when it settled.
        switch.set(json!({ "cleanup": { "retainFor": "0s" } })).await?;
        switch.request("back", "rollback").await?;
        let ends = [
            End::At(1, "before the status is written"),
            End::At(2, "after the status was written"),
            End::At(1, "after a workload was marked to be kept"),
            End::At(1, "after the record was published"),
            End::Stopped("after the files of the proxies were written"),
            End::Stopped("before a workload is scaled down"),
            End::Stopped("after a workload was scaled down"),
        ];
        dies(switch, "back", &ends).await?;
        let mut controller = switch.controller("controller", &[]).await?;
        let back = switch.reaches("Stable", "v1").await?;
        // It was done once, whoever ended it.
        assert_eq!((history(&back, "RolledBack"), &back["status"]["lastRequest"]["id"]), (1, &json!("back")));
        assert!(back["status"]["epoch"].as_u64() > flipped["status"]["epoch"].as_u64());
        assert_eq!((switch.replicas("v1").await?, switch.replicas("v2").await?), ("2".to_owned(), "0".to_owned()));

        switch.cluster.apply_manifests("kubernetes/delete").await?;
        switch.set(json!({ "cleanup": { "policy": "Delete" } })).await?;
        controller.kill();
        switch.request("again", "retry").await?;
        let ends = [
            End::Stopped("after a workload was scaled down"),
            End::Stopped("before a workload is deleted"),
            End::Stopped("after a workload was deleted"),
            End::At(1, "before the status is written"),
            End::At(2, "after the status was written"),
        ];
        dies(switch, "again", &ends).await?;
        let mut controller = switch.controller("controller", &[]).await?;
        let resource = switch.reaches("Stable", "v2").await?;
        assert_eq!(history(&resource, "Removed"), 2, "v2 once, and v1 once: {resource}");
        let cleaned_up = condition(&resource, "CleanedUp").context("no condition")?;
        assert_eq!(cleaned_up, ["True", "Removed", "v1 is deleted"].map(str::to_owned));
        let gone = switch.replicas("v1").await.err().context("v1 is still there")?.to_string();
        assert!(gone.contains("\"reviews-v1\" not found"), "{gone}");

        // What is declared again may be switched to again.
        switch.cluster.apply(&deployment("v1", 0).to_string()).await?;
        switch.ask("v1").await?;
        switch.reaches("Stable", "v1").await?;
        let before = load.live().answered_by("v1");
        wait_for("traffic at the end", LIMIT, async || load.live().answered_by("v1") > before + 100).await?;
        load.stop().await?.assert_no_failures();
        controller.check_running()?;
        Ok(())
    });
}
