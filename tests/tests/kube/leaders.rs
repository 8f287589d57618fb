//! Which of two replicas acts: one that stands still and comes back, one whose clock is wrong. A real Kubernetes API, the
//! filter in a real Envoy under load, every request checked.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::kube::{Switch, switch_story};
use harness::points::{CLOCK, STOP};
use harness::{Envoy, Load, LoadPlan, Process, Signal, overlap, wait_for};
use serde_json::{Value, json};

use super::faults::{LIMIT, load, nothing_was_lost, pair, replicas, says};

/// A leader that has stopped at a point of the switch to v2, and one that will lead after it. There is load.
async fn stopped(switch: &Switch<'_, '_>, point: &str) -> Result<(Process, Process, Envoy, Load)> {
    let first = switch.replica("one", "first", &[(STOP, point)]).await?;
    says(&first, "this replica acts now").await?;
    let second = switch.replica("two", "second", &[]).await?;
    let envoy = switch.envoy().await?;
    switch.reaches("Stable", "v1").await?;
    let load = load(&envoy).await?;
    switch.ask("v2").await?;
    wait_for("the point", LIMIT, async || first.is_stopped().unwrap_or(false)).await?;
    Ok((first, second, envoy, load))
}

/// That no request was open on both versions at once.
fn assert_apart(switch: &Switch<'_, '_>) -> Result<()> {
    let both = overlap::both(&switch.spans("v1")?, &switch.spans("v2")?);
    ensure!(both.is_empty(), "requests were open on both versions: {both:?}");
    Ok(())
}

/// The leader stops where every proxy holds and all has drained, right before it writes that. When it goes on, requests
/// are held no more, and another one leads.
#[test]
fn a_leader_that_comes_back_ends_no_hold_that_is_over() {
    switch_story("kube-fence-deposed", async |switch| {
        let fence = json!({ "maxHold": "4s", "inbound": "Optional" });
        switch.set(json!({ "switch": { "mode": "Fenced", "fence": fence } })).await?;
        let (first, second, _envoy, load) = stopped(switch, "before a fence is committed").await?;
        let held = switch.resource().await?["status"].take();
        ensure!(held["phase"] == "Holding", "{held}");
        // The hold ends by itself, with nobody there who would end it.
        let before = load.live().answered_by("v1");
        wait_for("v1 to serve again", LIMIT, async || load.live().answered_by("v1") > before + 200).await?;
        ensure!(!load.live().by_version.contains_key("v2"), "{:?}", load.live());
        says(&second, "this replica acts now").await?;
        let status = switch.reaches("Stable", "v2").await?["status"].take();
        first.signal(Signal::SIGCONT)?;
        says(&first, "acts no more").await?;
        let aborted = status["history"].as_array().into_iter().flatten().find(|one| one["event"] == "Aborted");
        let why = aborted.map(|one| one["message"].to_string()).unwrap_or_default();
        ensure!(why.contains("another one leads by now"), "{}", status["history"]);
        switch.looks().await?;
        let after = switch.reaches("Stable", "v2").await?["status"].take();
        assert_eq!(after["epoch"], status["epoch"]);
        assert_eq!(replicas(switch).await?, pair("0", "2"));
        nothing_was_lost(load, "v2").await?;
        assert_apart(switch)
    });
}

/// A leader that is told to end gives up what is held before it does, and the next one tries again.
#[test]
fn a_leader_that_is_told_to_end_holds_nothing() {
    switch_story("kube-fence-ends", async |switch| {
        let fence = json!({ "maxHold": "10s", "inbound": "Optional" });
        switch.set(json!({ "switch": { "mode": "Fenced", "fence": fence } })).await?;
        let mut first = switch.replica("one", "first", &[]).await?;
        says(&first, "this replica acts now").await?;
        let second = switch.replica("two", "second", &[]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        // Something is always open that ends within what the old version has to drain.
        let slow = Duration::from_secs(3);
        let plan = LoadPlan { rate_per_s: 100, slow_per_s: 4, slow, h1_connections: 256, ..LoadPlan::default() };
        let load = Load::start(envoy.listener("outbound"), plan);
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        switch.ask("v2").await?;
        let held = wait_for("a hold", LIMIT, async || {
            let status = switch.resource().await?["status"].take();
            ensure!(status["phase"] == "Holding", "{}: {}", status["phase"], status["blockedBy"]);
            Ok(status)
        })
        .await?;
        first.signal(Signal::SIGTERM)?;
        ensure!(first.wait_exit(LIMIT).await?.success(), "it ended with an error");
        let status = switch.resource().await?["status"].take();
        let last = status["history"].as_array().and_then(|all| all.iter().rev().find(|one| one["event"] == "Aborted"));
        let why = last.map(|one| one["message"].to_string()).unwrap_or_default();
        ensure!(why.contains("this controller ends"), "{}; {}", held["history"], status["history"]);
        says(&second, "this replica acts now").await?;
        switch.reaches("Stable", "v2").await?;
        nothing_was_lost(load, "v2").await?;
        assert_apart(switch)
    });
}

/// The leader stops where it has decided to scale v1 down and has not done it. When it goes on,
/// another one leads, and the switch has been taken back.
#[test]
fn a_leader_that_comes_back_does_not_end_what_is_gone_back_to() {
    switch_story("kube-deposed", async |switch| {
        // The next leader must not have proved anything before it is asked to go back.
        switch.set(json!({ "settle": { "quietPeriod": "4s" } })).await?;
        let (first, second, _envoy, load) = stopped(switch, "before a workload is scaled down").await?;
        assert_eq!(switch.resource().await?["status"]["phase"], "Removing");
        switch.request("back", "rollback").await?;
        says(&second, "this replica acts now").await?;
        let taken_back = wait_for("the rollback", LIMIT, async || {
            let status = switch.resource().await?["status"].take();
            ensure!(status["activeVersion"] == "v1", "{}: {}", status["phase"], status["blockedBy"]);
            Ok(status)
        })
        .await?;
        assert_eq!(taken_back["lastRequest"]["id"], "back");
        assert_eq!(taken_back["lastRequest"]["refused"], Value::Null);
        // The mark is what makes the write that comes late a conflict.
        wait_for("the mark", LIMIT, async || {
            let mark = "--output=jsonpath={.metadata.labels.versionflag\\.io/kept-at}";
            let kept = switch.cluster.kubectl(&["get", "deployment", "reviews-v1", mark]).await?;
            ensure!(kept.parse().ok() == taken_back["epoch"].as_u64(), "kept at {kept:?}");
            Ok(())
        })
        .await?;
        first.signal(Signal::SIGCONT)?;
        says(&first, "the object has been modified").await?;
        says(&first, "acts no more").await?;
        let resource = switch.reaches("Stable", "v1").await?;
        assert_eq!(replicas(switch).await?, pair("2", "0"));
        assert_eq!(resource["status"]["proxies"]["summary"], "1/1");
        nothing_was_lost(load, "v1").await
    });
}

/// The clock of the next leader is two hours ahead: a deadline that the one before has set is as far away as it was.
#[test]
fn another_leaders_clock_ends_no_wait() {
    switch_story("kube-clocks", async |switch| {
        switch.set(json!({ "settle": { "timeout": "1h", "onTimeout": "Rollback" } })).await?;
        let ahead = switch.cluster.dir().write("ahead", "7200000").to_string_lossy().into_owned();
        let mut first = switch.replica("one", "first", &[]).await?;
        says(&first, "this replica acts now").await?;
        let second = switch.replica("two", "second", &[(CLOCK, &ahead)]).await?;
        let envoy = switch.envoy().await?;
        switch.reaches("Stable", "v1").await?;
        // Open on v1 until this ends.
        let stream = LoadPlan { rate_per_s: 20, stream: Some(Duration::from_secs(300)), ..LoadPlan::default() };
        let load = Load::start(envoy.listener("outbound"), stream);
        wait_for("the stream", LIMIT, async || load.live().answering.get("v1").is_some_and(|open| *open > 0)).await?;
        switch.ask("v2").await?;
        let before = switch.reaches("Settling", "v2").await?;
        first.kill();
        says(&second, "this machine's clock is wrong").await?;
        switch.looks().await?;
        let after = switch.reaches("Settling", "v2").await?;
        assert_eq!(before["status"]["switch"]["ackedAt"], after["status"]["switch"]["ackedAt"]);
        // What is over is over, here as well.
        switch.set(json!({ "settle": { "timeout": "1s" } })).await?;
        wait_for("the way back", LIMIT, async || {
            let status = switch.resource().await?["status"].take();
            ensure!(status["activeVersion"] == "v1", "{}: {}", status["phase"], status["blockedBy"]);
            Ok(())
        })
        .await
    });
}
