//! The whole system in a real mesh: the controller writes routes and the plugin, istiod brings them to
//! sidecars, and a flag moves all requests under load. Every request is checked.

use harness::mesh::switch::{
    LIMIT, adopt, adopted, ask, awaits_promotion, ended_unused, goes_on, held_up_by, plan, reaches, request, shows,
    start, status, strength, tells,
};
use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use harness::mesh::{Mesh, Workload, story, story_in_domain};
use harness::{LoadPlan, Signal, tree, wait_for};
use serde_json::json;

use super::uninstall::uninstall;

/// And E8: the product goes again without one.
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
        // P12: the callers ran before their filter came.
        let drain = |time: &str| json!({ "spec": { "settle": { "drainTime": time } } });
        mesh.patch("versionflag", "reviews", &drain("1h")).await?;
        for (old, new) in [("v1", "v2"), ("v2", "v1")] {
            live(mesh, old).await?;
            ask(mesh, new).await?;
            if old == "v1" {
                shows(mesh, "connections from before the filter", |status| {
                    let why = status["blockedBy"].as_str().unwrap_or_default();
                    why.contains("from before the filter came") && why.contains("caller-a")
                })
                .await?;
                assert_eq!(strength(mesh, old).await?, "2");
                mesh.patch("versionflag", "reviews", &drain("1s")).await?;
            }
            let status = reaches(mesh, "Stable", new).await?;
            assert_eq!((strength(mesh, old).await?, strength(mesh, new).await?), ("0".to_owned(), "2".to_owned()));
            println!("overlap {} ms, {}", status["switch"]["overlapMs"], status["proxies"]["summary"]);
            ended_unused(mesh, old).await?;
            goes_on(&b, 100).await?;
        }
        controller.check_running()?;
        uninstall(mesh, controller, &b).await?;
        for load in [a, b] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v1");
        }
        Ok(())
    });
}

/// Waits until `status` shows what both callers send a second. The command asks the controller through the API
/// server.
async fn live(mesh: &Mesh<'_>, version: &str) -> Result<()> {
    let sent = 2.0 * f64::from(plan().rate_per_s);
    let rate = wait_for("the rate of requests", LIMIT, async || {
        let tree = tells(mesh, "status").await?;
        let (rate, _) = tree::rate(&tree, &format!("├─ {version} ● active  ready  2 replicas  "))?;
        ensure!((0.7 * sent..1.3 * sent).contains(&rate), "{tree}");
        Ok(rate)
    })
    .await?;
    println!("{rate} rps at {version}");
    Ok(())
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

        // The channel from istiod alone: the flag comes another way, and the plugin does not.
        frozen.sidecar()?.freeze_agent()?;
        ask(mesh, "v2").await?;
        held_up_by(mesh, "ProvingRoutes", &[frozen.name()]).await?;
        goes_on(&b, 300).await?;
        assert_eq!(strength(mesh, "v1").await?, "2");
        frozen.sidecar()?.thaw_agent()?;
        reaches(mesh, "Stable", "v2").await?;

        // The proxy itself, once it has all that v1 needs: what it has not read when it stands still comes after the
        // flag.
        mesh.patch("versionflag", "reviews", &json!({ "spec": { "promotion": { "mode": "Manual" } } })).await?;
        ask(mesh, "v1").await?;
        awaits_promotion(mesh, 6).await?;
        frozen.sidecar()?.has_endpoints("reviews", "v1", 2).await?;
        frozen.sidecar()?.freeze_envoy()?;
        request(mesh, "promote").await?;
        held_up_by(mesh, "Switching", &[frozen.name()]).await?;
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
        request(mesh, "promote").await?;
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
        // Who it is, what it reaches, and how often.
        let (caller, reached) = (mesh.pod("plain")?, mesh.pods("reviews-v1"));
        let names = [caller.name(), reached[0].name(), reached[1].name(), " a second"];
        let told = shows(mesh, "the caller without a sidecar is named", |status| {
            let why = status["blockedBy"].as_str().unwrap_or_default();
            names.iter().all(|name| why.contains(name)) && !why.contains("caller-")
        })
        .await?;
        println!("{}", told["blockedBy"]);
        for command in ["why", "status"] {
            let said = tells(mesh, command).await?;
            assert!(said.contains(caller.name()) && said.contains("no filter sent"), "{said}");
        }

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

/// Names of another domain are no less the Services' own: routes, records and the flag service have them.
#[test]
fn calls_inside_a_group_never_mix_versions_whatever_the_domain() {
    story_in_domain("mesh-switch-group", "k8s.corp.example", async |mesh| {
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
            load.stop_served_by(&["v1+v1", "v2+v2"]).await?;
        }
        let get = ["get", "destinationrules", "--output=jsonpath={.items[*].spec.host}"];
        let hosts = group.map(|service| format!("{service}.default.svc.k8s.corp.example"));
        let found: BTreeSet<String> = mesh.cluster.kubectl(&get).await?.split(' ').map(str::to_owned).collect();
        assert_eq!(found, hosts.into());
        Ok(())
    });
}
