//! A namespace that is taken out of the callers in the middle of a switch, in a real mesh under load. Every request
//! is checked.

use anyhow::{Result, ensure};
use harness::mesh::switch::{
    LIMIT, adopt_with, adopted, ask, awaits_promotion, goes_on, plan, reaches, request, shows, start, status, strength,
};
use harness::mesh::{Mesh, Workload, story};
use harness::{Call, Load, LoadPlan, wait_for};
use serde_json::json;

/// The name of the service for those in other namespaces.
const HOST: &str = "reviews.default";

async fn load(mesh: &Mesh<'_>) -> Result<Load> {
    let plan = LoadPlan { authority: HOST.to_owned(), ..plan() };
    Ok(mesh.pod("web")?.load(mesh.service("reviews").await?, plan))
}

#[test]
fn who_is_no_caller_any_more_goes_by_the_flag_that_it_has_until_it_starts_anew() {
    story("mesh-callers", async |mesh| {
        let mut controller = start(mesh, &["reviews"]).await?;
        mesh.cluster.kubectl(&["create", "namespace", "web"]).await?;
        mesh.cluster.kubectl(&["label", "namespace", "web", "versionflag.io/callers=true"]).await?;
        mesh.deploy_all(&[Workload { namespace: "web".to_owned(), ..Workload::named("web") }]).await?;
        let callers = json!({ "callers": { "namespaces": ["web"] }, "promotion": { "mode": "Manual" } });
        adopt_with(mesh, &["reviews"], callers).await?;
        adopted(mesh, 5).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        let web = load(mesh).await?;
        ask(mesh, "v2").await?;
        awaits_promotion(mesh, 7).await?;

        mesh.patch("versionflag", "reviews", &json!({ "spec": { "callers": { "namespaces": [] } } })).await?;
        shows(mesh, "web is waited for no more", |status| status["proxies"]["summary"] == "6/6").await?;
        wait_for("the plugin of web without the flag", LIMIT, async || {
            let flags = "--output=jsonpath={.spec.wasm.pluginConfig.flags}";
            let get = ["get", "trafficextension", "versionflag", "--namespace=web", flags];
            let found = mesh.cluster.kubectl(&get).await?;
            ensure!(found == "[]", "{found}");
            Ok(())
        })
        .await?;
        request(mesh, "promote").await?;
        reaches(mesh, "Settling", "v2").await?;
        // What runs there goes on to v1, which stays for it.
        goes_on(&web, 500).await?;
        let now = status(mesh).await?;
        assert_eq!((&now["phase"], strength(mesh, "v1").await?.as_str()), (&json!("Settling"), "2"), "{now}");
        web.stop_served_by(&["v1"]).await?;

        let old = mesh.pod("web")?.name().to_owned();
        mesh.cluster.kubectl(&["delete", "pod", &old, "--namespace=web", "--wait=false"]).await?;
        let service = mesh.service("reviews").await?;
        wait_for("another pod in its place", LIMIT, async || {
            let pod = mesh.pod("web")?;
            ensure!(pod.name() != old, "it is still there");
            let answer = pod.call(Call::get(service, "/").host(HOST)).await?;
            ensure!(answer.version() == "v2", "{} {}", answer.status, answer.version());
            // It has no flag.
            assert_eq!(answer.got_flag(), "-");
            Ok(())
        })
        .await?;
        let web = load(mesh).await?;
        reaches(mesh, "Stable", "v2").await?;
        assert_eq!(strength(mesh, "v1").await?, "0");
        goes_on(&web, 200).await?;
        controller.check_running()?;
        web.stop_served_by(&["v2"]).await?;
        for load in [a, b] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v2");
        }
        Ok(())
    });
}
