//! `switch.mode: Fenced` in a real mesh: sidecars of callers hold, sidecars beside the versions refuse what may not arrive,
//! and the apps say when each request was open.

use anyhow::ensure;
use harness::LoadPlan;
use harness::mesh::fenced::spec;
use harness::mesh::story;
use harness::mesh::switch::{adopt_with, adopted, ask, goes_on, reaches, start};
use harness::overlap;
use serde_json::json;
use std::time::Duration;

/// In `make test`; `make test-mesh-fence` has more.
fn flips() -> usize {
    std::env::var("VERSIONFLAG_FENCED_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(4)
}

#[test]
fn two_versions_never_have_a_request_open_at_once() {
    story("mesh-fence", async |mesh| {
        let mut controller = start(mesh, &["reviews"]).await?;
        adopt_with(mesh, &["reviews"], spec(json!({}))).await?;
        adopted(mesh, 4).await?;
        let (slow_per_s, slow) = (2, Duration::from_millis(200));
        let plan = LoadPlan { rate_per_s: 100, slow_per_s, slow, h1_connections: 32, ..LoadPlan::default() };
        let a = mesh.load_with("caller-a", "reviews", plan.clone()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan).await?;
        let flips = flips();
        for flip in 0..flips {
            goes_on(&b, 100).await?;
            let to = if flip % 2 == 0 { "v2" } else { "v1" };
            ask(mesh, to).await?;
            let status = reaches(mesh, "Stable", to).await?;
            let fence = &status["switch"]["fence"];
            println!("{fence}");
            ensure!(fence["heldMs"].is_u64(), "{}", status["switch"]);
        }
        goes_on(&b, 100).await?;
        controller.check_running()?;
        for load in [a, b] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by(if flips.is_multiple_of(2) { "v1" } else { "v2" });
        }
        let (v1, v2) = (mesh.spans("reviews-v1-")?, mesh.spans("reviews-v2-")?);
        let both = overlap::both(&v1, &v2);
        ensure!(both.is_empty() && v1.len() > 100 && v2.len() > 100, "{} and {}: {both:?}", v1.len(), v2.len());
        Ok(())
    });
}
