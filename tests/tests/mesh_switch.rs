//! The whole system in a real mesh: the controller writes routes and the plugin, istiod brings them to
//! sidecars, and a flag moves all requests under load. Every request is checked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::mesh::{Mesh, Workload, story};
use harness::{Load, LoadPlan, Process, Signal, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn plan() -> LoadPlan {
    LoadPlan { rate_per_s: 100, ..LoadPlan::default() }
}

/// The controller, and pods: v1 of every service runs, v2 does not.
async fn start(mesh: &Mesh<'_>, services: &[&str]) -> Result<Process> {
    let controller = mesh.install().await?;
    let versions = |name: &&str| [Workload::of(name, "v1", 2), Workload::of(name, "v2", 0)];
    let mut all: Vec<Workload> = services.iter().flat_map(versions).collect();
    all.extend(["caller-a", "caller-b"].map(Workload::named));
    mesh.deploy_all(&all).await?;
    Ok(controller)
}

/// A flag with short times, of these services.
async fn adopt(mesh: &Mesh<'_>, services: &[&str]) -> Result<()> {
    let services: Vec<Value> = services.iter().map(|name| json!({ "name": name })).collect();
    mesh.apply(&json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": { "name": "reviews", "namespace": "default" },
        "spec": {
            "version": "v1", "services": services,
            "coexistence": { "minReady": "200ms" }, "settle": { "quietPeriod": "1s" }, "cleanup": { "retainFor": "0s" },
        },
    }))
    .await
}

async fn status(mesh: &Mesh<'_>) -> Result<Value> {
    let text = mesh.cluster.kubectl(&["get", "versionflag", "reviews", "--output=json"]).await?;
    Ok(serde_json::from_str::<Value>(&text)?["status"].take())
}

/// Waits until the status is so.
async fn shows(mesh: &Mesh<'_>, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait_for(what, LIMIT, async || {
        let status = status(mesh).await?;
        ensure!(holds(&status), "{status}");
        Ok(status)
    })
    .await?;
    mesh.step(what);
    Ok(found)
}

async fn reaches(mesh: &Mesh<'_>, phase: &str, version: &str) -> Result<Value> {
    let what = format!("{phase} at {version}");
    shows(mesh, &what, |status| status["phase"] == phase && status["activeVersion"] == version).await
}

/// Every proxy has the flag, and the routes are there.
async fn adopted(mesh: &Mesh<'_>, proxies: usize) -> Result<()> {
    let all = format!("{proxies}/{proxies}");
    shows(mesh, "adopted", |status| {
        let conditions = status["conditions"].as_array();
        let ready = conditions.into_iter().flatten().any(|one| one["type"] == "RoutesReady" && one["status"] == "True");
        status["phase"] == "Stable" && status["proxies"]["summary"] == all && ready
    })
    .await
    .map(drop)
}

async fn ask(mesh: &Mesh<'_>, version: &str) -> Result<()> {
    mesh.patch("versionflag", "reviews", &json!({ "spec": { "version": version } })).await
}

/// The proxies that hold the switch up, and the sentence that says so.
fn laggards(status: &Value) -> (Vec<&str>, &str) {
    let all = status["proxies"]["laggards"].as_array().into_iter().flatten();
    (all.filter_map(|one| one["proxy"].as_str()).collect(), status["blockedBy"].as_str().unwrap_or_default())
}

async fn strength(mesh: &Mesh<'_>, version: &str) -> Result<String> {
    let name = format!("reviews-{version}");
    mesh.cluster.kubectl(&["get", "deployment", &name, "--output=jsonpath={.spec.replicas}"]).await
}

/// Waits until so many more requests were answered.
async fn goes_on(load: &Load, more: u64) -> Result<()> {
    let before = load.live().done;
    wait_for("more answers", LIMIT, async || load.live().done >= before + more).await
}

#[test]
fn a_switch_there_and_back_loses_no_request() {
    story("mesh-switch", async |mesh| {
        let mut controller = start(mesh, &["reviews"]).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        adopt(mesh, &["reviews"]).await?;
        adopted(mesh, 4).await?;
        // Connections from before the plugin drain past it, and show no routes.
        for load in [a, b] {
            load.stop().await?.assert_no_failures();
        }
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        for (old, new) in [("v1", "v2"), ("v2", "v1")] {
            ask(mesh, new).await?;
            let status = reaches(mesh, "Stable", new).await?;
            assert_eq!((strength(mesh, old).await?, strength(mesh, new).await?), ("0".to_owned(), "2".to_owned()));
            println!("overlap {} ms, {}", status["switch"]["overlapMs"], status["proxies"]["summary"]);
            wait_for("the end of the old pods", LIMIT, async || mesh.pods(&format!("reviews-{old}")).is_empty())
                .await?;
            for log in logs(mesh, &format!("reviews-{old}"))? {
                let last = log.lines().last().context("an empty log")?;
                assert!(last.contains(r#""open":0"#), "it ended with requests open: {last}");
            }
            goes_on(&b, 100).await?;
        }
        controller.check_running()?;
        for load in [a, b] {
            let results = load.stop().await?;
            results.assert_no_failures();
            assert_eq!(results.by_version().keys().collect::<Vec<_>>(), ["v1", "v2"]);
            assert_eq!(results.requests().last().map(|request| request.version()), Some("v1"));
        }
        Ok(())
    });
}

/// What the apps of these pods have printed.
fn logs(mesh: &Mesh<'_>, prefix: &str) -> Result<Vec<String>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(mesh.cluster.dir().path())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".app.log") {
            logs.push(std::fs::read_to_string(path)?);
        }
    }
    ensure!(!logs.is_empty(), "no log of {prefix}");
    Ok(logs)
}

#[test]
fn a_proxy_that_stands_still_keeps_the_old_version() {
    story("mesh-switch-frozen", async |mesh| {
        let mut controller = start(mesh, &["reviews"]).await?;
        adopt(mesh, &["reviews"]).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        let frozen = mesh.pod("caller-b")?;
        let named = format!("{}.default", frozen.name());

        // The channel from istiod alone: the flag comes another way, and the plugin does not.
        frozen.sidecar()?.freeze_agent()?;
        ask(mesh, "v2").await?;
        let status = shows(mesh, "the frozen channel is named", |status| {
            status["blockedBy"].as_str().is_some_and(|why| why.contains(&named))
        })
        .await?;
        println!("{} {}", status["phase"], status["blockedBy"]);
        goes_on(&b, 300).await?;
        assert_eq!(strength(mesh, "v1").await?, "2");
        frozen.sidecar()?.thaw_agent()?;
        reaches(mesh, "Stable", "v2").await?;

        // The proxy itself.
        ask(mesh, "v1").await?;
        reaches(mesh, "Coexisting", "v2").await?;
        frozen.sidecar()?.freeze_envoy()?;
        let status = shows(mesh, "the frozen proxy is named", |status| {
            let (laggards, why) = laggards(status);
            status["activeVersion"] == "v1" && laggards == [named.as_str()] && why.contains(&named)
        })
        .await?;
        println!("{} {}", status["phase"], status["blockedBy"]);
        let before = a.live().by_version.get("v1").copied().unwrap_or_default();
        wait_for("the other caller", LIMIT, async || a.live().by_version.get("v1") > Some(&(before + 300))).await?;
        assert_eq!(strength(mesh, "v2").await?, "2");
        frozen.sidecar()?.thaw_envoy()?;
        reaches(mesh, "Stable", "v1").await?;
        assert_eq!(strength(mesh, "v2").await?, "0");
        controller.check_running()?;
        a.stop().await?.assert_no_failures();
        b.stop().await?.assert_no_failures();
        Ok(())
    });
}

#[test]
fn who_is_late_or_goes_past_the_flag_keeps_the_old_version() {
    story("mesh-switch-late", async |mesh| {
        let mut controller = start(mesh, &["reviews"]).await?;
        mesh.deploy_all(&[Workload { sidecar: false, ..Workload::named("plain") }]).await?;
        adopt(mesh, &["reviews"]).await?;
        mesh.patch("versionflag", "reviews", &json!({ "spec": { "promotion": { "mode": "Manual" } } })).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        // It has no sidecar, and none of its requests has a version.
        let plain = mesh.load_with("plain", "reviews", plan()).await?;
        ask(mesh, "v2").await?;
        shows(mesh, "v2 is ready", |status| {
            status["phase"] == "AwaitingPromotion" && status["proxies"]["summary"] == "6/6"
        })
        .await?;

        // Without istiod the flag still reaches everybody; what starts anew would not have it.
        mesh.istiod().signal(Signal::SIGSTOP)?;
        let promote = r#"versionflag.io/request={"id":"1","action":"promote"}"#;
        mesh.cluster.kubectl(&["annotate", "versionflag", "reviews", promote]).await?;
        reaches(mesh, "Settling", "v2").await?;
        let flipped = a.live().done;
        goes_on(&a, 300).await?;
        let now = status(mesh).await?;
        assert_eq!((&now["phase"], strength(mesh, "v1").await?.as_str()), (&json!("Settling"), "2"), "{now}");
        mesh.istiod().signal(Signal::SIGCONT)?;

        // A sidecar that joins now goes with the flag, and is waited for.
        mesh.caller("caller-c").await?;
        let c = mesh.load_with("caller-c", "reviews", plan()).await?;
        shows(mesh, "the sidecar that joined", |status| status["proxies"]["summary"] == "7/7").await?;
        goes_on(&c, 300).await?;
        let now = status(mesh).await?;
        assert_eq!((&now["phase"], strength(mesh, "v1").await?.as_str()), (&json!("Settling"), "2"), "{now}");
        assert!(plain.live().by_version.contains_key("v1"), "the plain caller does not reach v1");

        // When nothing arrives at v1 any more, it goes.
        plain.stop().await?.assert_no_failures();
        reaches(mesh, "Stable", "v2").await?;
        assert_eq!(strength(mesh, "v1").await?, "0");
        goes_on(&c, 100).await?;
        controller.check_running()?;
        let (a, c) = (a.stop().await?, c.stop().await?);
        a.assert_no_failures();
        c.assert_no_failures();
        let late = a.requests().iter().skip(usize::try_from(flipped)?).filter(|one| one.version() == "v1").count();
        assert!(late < 20, "{late} requests of caller-a went to v1 after all had acked");
        assert_eq!(c.by_version().keys().collect::<Vec<_>>(), ["v2"]);
        Ok(())
    });
}

#[test]
fn calls_inside_a_group_never_mix_versions() {
    story("mesh-switch-group", async |mesh| {
        let group = ["reviews", "ratings"];
        let mut controller = start(mesh, &group).await?;
        adopt(mesh, &group).await?;
        adopted(mesh, 6).await?;
        // reviews calls ratings for each of them.
        let path = format!("/call?to={}&host=ratings", mesh.service("ratings").await?);
        let plan = || LoadPlan { path: path.clone(), rate_per_s: 60, ..LoadPlan::default() };
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        ask(mesh, "v2").await?;
        reaches(mesh, "Stable", "v2").await?;
        goes_on(&b, 100).await?;
        controller.check_running()?;
        for load in [a, b] {
            let results = load.stop().await?;
            results.assert_no_failures();
            assert_eq!(results.by_version().keys().collect::<Vec<_>>(), ["v1+v1", "v2+v2"]);
        }
        Ok(())
    });
}
