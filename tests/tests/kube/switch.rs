//! The main job on a real Kubernetes API: v1 to v2 of a Deployment, by the custom resource, with the
//! filter in a real Envoy as a pod's sidecar, under load, every request checked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::kube::crowd::writes;
use harness::kube::switch_story;
use harness::points::{FAULT, MOST, died_or};
use harness::{Load, LoadPlan, Process, clock, wait_for};
use serde_json::{Deserializer, Value};

const LIMIT: Duration = Duration::from_secs(60);

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
        wait_for("the ack of v1", LIMIT, async || {
            let summary = switch.resource().await?["status"]["proxies"]["summary"].take();
            ensure!(summary == "1/1", "{summary}");
            Ok(())
        })
        .await?;
        switch.stands_for("one").await?;
        let rate = wait_for("the rate of v1", LIMIT, async || {
            let tree = switch.tree().await?;
            let (rate, _) = harness::tree::rate(&tree, "├─ v1 ● active  ready  2 replicas  ")?;
            ensure!((200.0..400.0).contains(&rate), "{tree}");
            Ok(rate)
        })
        .await?;
        let (watch, began) = (switch.watch().await?, Instant::now());
        let before = switch.requests().await?;
        switch.ask("v2").await?;
        let resource = switch.reaches("Stable", "v2").await?;
        let (removed_us, took) = (clock::now_us(), began.elapsed());
        let written = writes(&before, &switch.requests().await?);
        println!("{rate} rps at v1; written in {took:?}: {written:?}");
        // One for each change of what proxies read: the new version, the flip, its acks, the old one gone.
        let files = ("patch".to_owned(), "configmaps".to_owned());
        assert!(written.get(&files).is_some_and(|count| *count <= 4), "{written:?}");
        only_what_changed_was_written(&statuses(&watch, &resource).await?, took);
        assert_eq!((switch.replicas("v1").await?, switch.replicas("v2").await?), ("0".to_owned(), "2".to_owned()));
        let before = load.live().answered_by("v2");
        wait_for("traffic after the removal", LIMIT, async || load.live().answered_by("v2") > before + 300).await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        // Reports come every 100 ms then, and the load's streams are as long as they are on both.
        let (seen, real) = (&resource["status"]["switch"]["overlapMs"], results.overlap("v1", "v2"));
        let differs =
            seen.as_u64().with_context(|| format!("no overlap: {resource}"))?.abs_diff(real.as_millis() as u64);
        println!("overlap: {seen} ms by the reports, {real:?} by the load");
        assert!(differs <= 500, "{seen} ms, but {real:?}");
        assert!(results.after(removed_us).all_served_by("v2"), "{:?}", results.by_version());
        wait_for("the end of v1's pods", LIMIT, async || {
            let pods = switch.pods().await?;
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

/// Every status that was written, up to that of this resource.
async fn statuses(watch: &Process, last: &Value) -> Result<Vec<Value>> {
    wait_for("the last status", LIMIT, async || {
        let text = std::fs::read_to_string(watch.log())?;
        let all: Vec<Value> = Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<_, _>>()?;
        let version = |resource: &Value| resource["metadata"]["resourceVersion"].clone();
        ensure!(all.iter().any(|one| version(one) == version(last)), "{} so far", all.len());
        Ok(all.into_iter().map(|mut one| one["status"].take()).collect())
    })
    .await
}

/// One write for each phase that lasts. What is only seen is written with that, or once a second.
fn only_what_changed_was_written(statuses: &[Value], took: Duration) {
    let mut phases: Vec<&Value> = statuses.iter().map(|status| &status["phase"]).collect();
    phases.dedup();
    // Nothing had to be waited for in the others; perhaps for a proxy to show its routes.
    phases.retain(|phase| **phase != "ProvingRoutes");
    let all: Vec<Value> =
        ["Stable", "Coexisting", "Switching", "Settling", "Removing", "Stable"].map(Value::from).to_vec();
    assert_eq!(phases, all.iter().collect::<Vec<_>>());
    let mut between = 0;
    for pair in statuses.windows(2) {
        let [before, after] = pair else { continue };
        let known = |status: &Value| (status["epoch"].clone(), status["proxies"]["acked"].clone());
        if known(before).0 != known(after).0 {
            assert_eq!(known(after).1, 0, "a record was acked before it was written: {after}");
        }
        // The first pair is the edit of the spec.
        let edited = before["observedGeneration"] == after["observedGeneration"] && before == after;
        assert!(edited || news(before) != news(after), "written for nothing: {before} {after}");
        between += u64::from(!edited && before["phase"] == after["phase"]);
    }
    println!("{} writes, {between} of them within a phase", statuses.len());
    assert!(between <= took.as_secs() + 1, "{between} writes within phases in {took:?}");
}

/// What is worth a write: not another wording of the same.
fn news(status: &Value) -> Value {
    let mut news = status.clone();
    news["blockedBy"] = Value::Null;
    news["machine"]["blocked"] = Value::Null;
    news["proxies"]["laggards"] = Value::Null;
    for condition in news["conditions"].as_array_mut().into_iter().flatten() {
        condition["message"] = Value::Null;
    }
    news
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
            let point = died_or(&mut dies, &format!("point {number}"), LIMIT, async || {
                let status = &switch.resource().await?["status"];
                ensure!(status["phase"] == "Stable" && status["activeVersion"] == new, "{}", status["phase"]);
                Ok(())
            })
            .await?;
            let Some(point) = point else { break };
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
