//! How soon an old version goes after it was quiet for as long as its VersionFlag asks for. I/O: writes to
//! the API, watches it, makes load.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::wait::await_condition;
use serde::Serialize;
use serde_json::{Value, json};

use super::Mesh;
use super::switch::{LIMIT, ask, goes_on, reaches};
use crate::clock::now_us;
use crate::flips::quantiles;
use crate::load::{Load, LoadPlan};

/// How long the old version has to be quiet in a flag of [`super::switch::adopt`].
const QUIET_MS: f64 = 1_000.0;

/// One removal.
#[derive(Debug, Clone, Serialize)]
pub struct Removal {
    /// From the end of the quiet period, which begins when the last response of the old version ends, to
    /// the write that scales its Deployment to zero.
    pub after_quiet_ms: f64,
    /// Requests that failed.
    pub failed: usize,
    /// All of them.
    pub requests: usize,
}

/// Switches `reviews` under load from each of the callers until the old version is gone, and looks at every
/// request.
pub async fn measure(mesh: &Mesh<'_>, callers: &[String], plan: &LoadPlan, from: &str, to: &str) -> Result<Removal> {
    let mut loads = Vec::new();
    for caller in callers {
        loads.push(mesh.load_with(caller, "reviews", plan.clone()).await?);
    }
    for load in &loads {
        goes_on(load, 20).await?;
    }
    let deployments = mesh.cluster.api::<Deployment>("default");
    ask(mesh, to).await?;
    let none = |it: Option<&Deployment>| it.and_then(|it| it.spec.as_ref()?.replicas) == Some(0);
    let old = format!("reviews-{from}");
    let stopped = await_condition(deployments, &old, none);
    tokio::time::timeout(LIMIT, stopped).await.context("the old version stays")??;
    let stopped = now_us();
    reaches(mesh, "Stable", to).await?;
    let results = Load::stop_all(loads).await?;
    let quiet = results.last(from).context("no request on the old version")?.end_us;
    Ok(Removal {
        after_quiet_ms: (stopped as f64 - quiet as f64) / 1000.0 - QUIET_MS,
        failed: results.failures().len(),
        requests: results.len(),
    })
}

/// What the removals took, as in the results.
pub fn summary(removals: &[Removal]) -> Value {
    json!({
        "after_quiet_ms": quantiles(removals.iter().map(|one| one.after_quiet_ms).collect()),
        "failed": removals.iter().map(|one| one.failed).sum::<usize>(),
        "requests": removals.iter().map(|one| one.requests).sum::<usize>(),
        "removals": removals,
    })
}
