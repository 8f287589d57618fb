//! The lab itself, before anything of ours is in it: requests go through sidecars that istiod
//! configures, and a switch by hand moves them.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::mesh::{Workload, routed_to, story};
use harness::{LoadPlan, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_switch_by_hand_moves_requests_and_loses_none() {
    story("mesh-by-hand", async |mesh| {
        mesh.deploy_all(&[
            Workload::of("reviews", "v1", 2),
            Workload::of("reviews", "v2", 2),
            Workload::named("caller-a"),
        ])
        .await?;
        mesh.apply(&routed_to("reviews", &["v1", "v2"], "v1")).await?;
        only(mesh, "v1").await?;
        mesh.step("routes to v1");

        let load = mesh.load_with("caller-a", "reviews", LoadPlan { rate_per_s: 200, ..LoadPlan::default() }).await?;
        wait_for("load on v1", LIMIT, async || load.live().by_version.contains_key("v1")).await?;
        mesh.apply(&routed_to("reviews", &["v1", "v2"], "v2")).await?;
        wait_for("load on v2", LIMIT, async || load.live().by_version.contains_key("v2")).await?;
        only(mesh, "v2").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        println!("{:?}, overlap {:?}", results.by_version(), results.overlap("v1", "v2"));
        Ok(())
    });
}

/// Waits until twenty requests in a row reach this version.
async fn only(mesh: &harness::mesh::Mesh<'_>, version: &str) -> Result<()> {
    wait_for(&format!("requests at {version} only"), LIMIT, async || {
        for _ in 0..20 {
            let answer = mesh.call("caller-a", "reviews", "/").await?;
            ensure!(answer.status == 200 && answer.version() == version, "{} {}", answer.status, answer.version());
        }
        Ok(())
    })
    .await
}
