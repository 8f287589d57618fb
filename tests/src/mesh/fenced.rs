//! A fenced switch of the VersionFlag `reviews`: what proxies show of it, which requests wait, and what the apps saw.
//! I/O: asks the controller, reads what apps wrote.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::switch::LIMIT;
use super::{CONTROLLER, Mesh};
use crate::client::Call;
use crate::load::{Load, LoadPlan};
use crate::overlap::{self, Span};
use crate::wait::wait_for;

/// No request of a load takes longer that is answered at all.
const LONGEST: Duration = Duration::from_secs(1);

/// Fields of a spec for it; all workloads stay. Here is more of `switch.fence`.
pub fn spec(mut fence: Value) -> Value {
    fence["inbound"] = json!("Required");
    json!({ "switch": { "mode": "Fenced", "fence": fence }, "cleanup": { "policy": "Retain" } })
}

/// Load with a connection for each request that waits, or they would wait in the client. Few of them: when they are let
/// go each needs a connection to a version, too.
pub fn plan() -> LoadPlan {
    LoadPlan { rate_per_s: 20, h1_connections: 512, ..LoadPlan::default() }
}

/// What all proxies together show, as the controller has it now.
pub async fn fleet() -> Result<Value> {
    let mut flags: Value = Call::get(CONTROLLER, "/v1/status").send().await?.json()?;
    Ok(flags[0]["fleet"].take())
}

/// Waits until every proxy shows that it can hold requests, and has looked for as long as it would hold them.
pub async fn can_hold(mesh: &Mesh<'_>) -> Result<()> {
    wait_for("a fleet that can hold requests", LIMIT, async || {
        let fence = fleet().await?["fence"].take();
        let nobody = |field: &&str| fence[field].is_null();
        ensure!(fence.is_object() && ["unable", "long", "unwatched"].iter().all(nobody), "{fence}");
        Ok(())
    })
    .await?;
    mesh.step("all can hold requests");
    Ok(())
}

/// Waits until every worker of every proxy holds requests.
pub async fn all_hold() -> Result<()> {
    wait_for("a fleet that holds requests", LIMIT, async || {
        let fence = fleet().await?["fence"].take();
        ensure!(fence.is_object() && fence["notHolding"].is_null(), "{fence}");
        Ok(())
    })
    .await
}

/// Waits until all requests of this load wait, and gives how many were answered until then.
pub async fn is_held(load: &Load) -> Result<u64> {
    let (mut answered, mut since) = (0, Instant::now());
    wait_for("requests that wait", LIMIT, async || {
        let now = load.live();
        if now.done != answered {
            (answered, since) = (now.done, Instant::now());
        }
        ensure!(now.in_flight() > 0 && since.elapsed() >= LONGEST, "{now:?}");
        Ok(answered)
    })
    .await
}

/// When requests were open at both versions, between two times of [`overlap::steady_us`]. Both had some.
pub fn both(mesh: &Mesh<'_>, from_us: u64, to_us: u64) -> Result<Vec<Span>> {
    let (v1, v2) = (mesh.spans("reviews-v1-")?, mesh.spans("reviews-v2-")?);
    let within = |spans: &[Span]| spans.iter().filter(|span| (from_us..to_us).contains(&span.begin_us)).count();
    let counts = (within(&v1), within(&v2));
    println!("{} and {} requests at v1 and v2", counts.0, counts.1);
    ensure!(counts.0 > 50 && counts.1 > 50, "{counts:?} requests at v1 and v2");
    let both = overlap::both(&v1, &v2).into_iter();
    Ok(both.filter(|span| span.end_us > from_us && span.begin_us < to_us).collect())
}
