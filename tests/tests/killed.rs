//! The controller dies like by `kill -9`, at every point of a whole switch, one after the other,
//! under load, with every request checked.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::local::Local;
use harness::points::{CLOCK, FAULT, MOST, died_or};
use harness::{Load, LoadPlan, story, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// The whole of what a switch from `old` to `new` is for.
async fn arrives(local: &Local<'_>, old: &str, new: &str) -> anyhow::Result<()> {
    local.reaches("Stable", new).await?;
    wait_for(&format!("the end of {old}"), LIMIT, async || !local.runs(old).await).await
}

#[test]
fn the_controller_may_die_at_every_point_of_a_switch() {
    story("killed-controller", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["coexistence"]["minReady"] = "0s".into();
        local.file()["spec"]["settle"]["quietPeriod"] = "100ms".into();
        local.file()["local"]["versions"]["v1"]["ready"]["interval"] = "20ms".into();
        local.file()["local"]["versions"]["v2"]["ready"]["interval"] = "20ms".into();
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("ingress"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
        let (mut old, mut new) = ("v1", "v2");
        let mut points = Vec::new();
        loop {
            local.controller().kill();
            local.ask(new);
            let number = (points.len() + 1).to_string();
            let mut dies = local.controller_with(&[(FAULT, &number)])?;
            let point = died_or(&mut dies, &format!("point {number}"), LIMIT, async || {
                let phase = local.phase().await?;
                ensure!(phase == ("Stable".to_owned(), new.to_owned()), "{phase:?}");
                Ok(())
            })
            .await?;
            let Some(point) = point else { break };
            local.start().await?;
            arrives(&local, old, new).await.with_context(|| format!("after point {number}: {point}"))?;
            points.push(point);
            ensure!(points.len() < MOST, "too many points: {points:?}");
            (old, new) = (new, old);
        }
        let before = load.live().answered_by(new);
        wait_for("traffic at the end", LIMIT, async || load.live().answered_by(new) > before + 200).await?;
        for what in ["before the state", "after the state", "published", "configured", "started", "told to stop"] {
            assert!(points.iter().any(|point| point.contains(what)), "no point {what:?} in {points:?}");
        }
        // A request to a version that is not there would have failed.
        load.stop().await?.assert_no_failures();
        println!("{} points", points.len());
        Ok(())
    });
}

/// Nobody who sets the clock ends a wait or stretches one, not even while the controller is away.
#[test]
fn who_sets_the_clock_changes_no_span() {
    story("clock", async |dir| {
        let (ahead, back) = ("7200000", "-7200000");
        let mut local = Local::new(dir)?;
        let clock = dir.write("ahead", "0").to_string_lossy().into_owned();
        local.file()["spec"]["promotion"] = json!({ "after": "1h" });
        local.write();
        let mut controller = local.controller_with(&[(CLOCK, &clock)])?;
        wait_for("the files", LIMIT, async || Ok(std::fs::metadata(dir.file("routes.json"))?)).await?;
        let _envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        local.ask("v2");
        local.reaches("AwaitingPromotion", "v1").await?;
        dir.write("ahead", ahead);
        local.looks().await?;
        local.reaches("AwaitingPromotion", "v1").await?;
        for set in [ahead, back] {
            controller.kill();
            dir.write("ahead", set);
            controller = local.controller_with(&[(CLOCK, &clock)])?;
            local.reaches("AwaitingPromotion", "v1").await?;
            local.looks().await?;
            local.reaches("AwaitingPromotion", "v1").await?;
        }
        local.file()["spec"]["promotion"]["after"] = "1s".into();
        local.write();
        local.reaches("Stable", "v2").await
    });
}
