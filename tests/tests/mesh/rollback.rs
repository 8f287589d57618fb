//! Three versions that all run, in a real mesh: a rollback in the middle of a switch, and who is removed.

use anyhow::{Result, ensure};
use harness::mesh::switch::{
    adopt_with, adopted, ask, awaits_promotion, goes_on, held_up_by, plan, reaches, request, strengths,
};
use harness::mesh::{Mesh, Workload, story};
use serde_json::json;

const ALL: [&str; 3] = ["v1", "v2", "v3"];

#[test]
fn a_rollback_comes_in_between_and_only_what_served_is_removed() {
    story("mesh-rollback", async |mesh| {
        let mut controller = mesh.install().await?;
        let callers = ["caller-a", "caller-b"].map(Workload::named);
        mesh.deploy_all(&[ALL.map(|version| Workload::of("reviews", version, 1)).as_slice(), &callers].concat())
            .await?;
        adopt_with(mesh, &["reviews"], json!({ "version": "v2", "promotion": { "mode": "Manual" } })).await?;
        adopted(mesh, 5).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;

        // A proxy that stands still holds the switch up, and then it is called off.
        ask(mesh, "v3").await?;
        awaits_promotion(mesh, 5).await?;
        let frozen = mesh.pod("caller-b")?;
        frozen.sidecar()?.freeze_envoy()?;
        request(mesh, "promote").await?;
        held_up_by(mesh, "Switching", &[frozen.name()]).await?;
        request(mesh, "rollback").await?;
        reaches(mesh, "Switching", "v2").await?;
        let before = a.live().answered_by("v2");
        goes_on(&a, 200).await?;
        ensure!(a.live().answered_by("v2") >= before + 150, "caller-a does not go back: {:?}", a.live());
        they_are(mesh, ["1", "1", "1"]).await?;
        frozen.sidecar()?.thaw_envoy()?;
        let status = reaches(mesh, "Stable", "v2").await?;
        ensure!(status["override"]["version"] == "v2" && status["override"]["forSpecVersion"] == "v3", "{status}");
        they_are(mesh, ["1", "1", "0"]).await?;
        goes_on(&b, 100).await?;

        // Again, and this time it comes to its end. v1 was there all the time, and is nobody's business.
        request(mesh, "retry").await?;
        awaits_promotion(mesh, 5).await?;
        request(mesh, "promote").await?;
        reaches(mesh, "Stable", "v3").await?;
        they_are(mesh, ["1", "0", "1"]).await?;
        ask(mesh, "v1").await?;
        awaits_promotion(mesh, 4).await?;
        request(mesh, "promote").await?;
        reaches(mesh, "Stable", "v1").await?;
        they_are(mesh, ["1", "0", "0"]).await?;
        goes_on(&b, 50).await?;
        controller.check_running()?;
        for load in [a, b] {
            load.stop_served_by(&ALL).await?.assert_last_by("v1");
        }
        Ok(())
    });
}

/// The pods of each version, by what was asked for.
async fn they_are(mesh: &Mesh<'_>, wanted: [&str; 3]) -> Result<()> {
    let found = strengths(mesh, &ALL).await?;
    ensure!(found == wanted, "{found:?} pods of {ALL:?}");
    Ok(())
}
