//! An istiod that does not see what changes, and proxies that start with what it says.

use anyhow::{Result, ensure};
use harness::mesh::replica::{DISCOVERY, Replica};
use harness::mesh::switch::{
    LIMIT, adopt_with, adopted, ask, awaits_promotion, ended_unused, goes_on, held_up_by, plan, reaches, request,
    strength,
};
use harness::mesh::{Mesh, Workload, story};
use harness::wait_for;
use serde_json::json;

#[test]
fn who_starts_with_a_stale_configuration_goes_by_the_flag() {
    story("mesh-stale", async |mesh| {
        let mut controller = mesh.install().await?;
        let mut second = Replica::start(mesh).await?;
        let of_second = |name| Workload { istiod: DISCOVERY, ..Workload::named(name) };
        mesh.deploy_all(&[
            Workload::of("reviews", "v1", 2),
            Workload::of("reviews", "v2", 0),
            Workload::named("caller-a"),
            of_second("caller-b"),
        ])
        .await?;
        adopt_with(mesh, &["reviews"], json!({ "promotion": { "mode": "Manual" } })).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        ask(mesh, "v2").await?;
        awaits_promotion(mesh, 6).await?;

        // All of them ack the flip, and one would not know of it if it was started anew.
        second.keep_stale(true)?;
        request(mesh, "promote").await?;
        reaches(mesh, "Settling", "v2").await?;
        let caller = mesh.pod("caller-b")?.name().to_owned();
        held_up_by(mesh, "Settling", &[&caller]).await?;
        b.stop().await?.assert_no_failures();
        restart(mesh, "caller-b").await?;
        ensure!(is_told(mesh, "caller-b", "v1").await?, "its configuration is not stale");
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 200).await?;
        goes_on(&a, 100).await?;
        held_up_by(mesh, "Settling", &[&caller]).await?;
        ensure!(strength(mesh, "v1").await? == "2", "v1 was removed");
        second.keep_stale(false)?;
        reaches(mesh, "Stable", "v2").await?;
        ended_unused(mesh, "v1").await?;
        ensure!(is_told(mesh, "caller-b", "v2").await?, "its configuration is stale");
        b.stop_served_by(&["v2"]).await?;

        // Back, and nobody is left who would say that the second istiod knows nothing of it.
        ask(mesh, "v1").await?;
        awaits_promotion(mesh, 6).await?;
        mesh.cluster.kubectl(&["delete", "deployment", "caller-b", "--wait=false"]).await?;
        wait_for("the end of caller-b", LIMIT, async || mesh.pods("caller-b").is_empty()).await?;
        awaits_promotion(mesh, 5).await?;
        second.keep_stale(true)?;
        request(mesh, "promote").await?;
        reaches(mesh, "Stable", "v1").await?;
        ended_unused(mesh, "v2").await?;
        // Who joins now is told to go to what is gone, and asks the flag service before it serves.
        mesh.deploy_all(&[of_second("caller-c")]).await?;
        let c = mesh.load_with("caller-c", "reviews", plan()).await?;
        goes_on(&c, 200).await?;
        ensure!(is_told(mesh, "caller-c", "v2").await?, "its configuration is not stale");
        controller.check_running()?;
        c.stop_served_by(&["v1"]).await?;
        a.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// Kills the Envoy of a caller, and waits until it serves again.
async fn restart(mesh: &Mesh<'_>, name: &str) -> Result<()> {
    let pod = mesh.pod(name)?;
    let before = pod.sidecar()?.agent()?;
    pod.sidecar()?.kill_envoy()?;
    wait_for("another sidecar", LIMIT, async || {
        ensure!(pod.sidecar()?.agent()? != before, "it is not there yet");
        pod.is_ready().await
    })
    .await?;
    mesh.step("the sidecar was started again");
    Ok(())
}

/// Whether the routes of a caller lead to this version by default.
async fn is_told(mesh: &Mesh<'_>, name: &str, version: &str) -> Result<bool> {
    let config = mesh.pod(name)?.sidecar()?.config().await?.to_string();
    let routes = config.split("versionflag:default/reviews:").skip(1).filter_map(|rest| rest.split_once('"'));
    let mut defaults = routes.filter_map(|(route, _)| route.rsplit_once(':')).map(|(_, default)| default).peekable();
    Ok(defaults.peek().is_some() && defaults.all(|default| default == version))
}
