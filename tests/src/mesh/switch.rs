//! The VersionFlag `reviews` of the mesh: what an operator asks of it, and what is shown of it. I/O: kubectl,
//! the commands of `versionflag`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Mesh, Workload};
use crate::clock::now_us;
use crate::load::{Load, LoadPlan};
use crate::process::Process;
use crate::wait::wait_for;

/// How long anything may take that a switch consists of.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Load that does not fill the machine.
pub fn plan() -> LoadPlan {
    LoadPlan { rate_per_s: 100, ..LoadPlan::default() }
}

/// The controller, and pods: v1 of every service runs, v2 does not. There are two callers.
pub async fn start(mesh: &Mesh<'_>, services: &[&str]) -> Result<Process> {
    let controller = mesh.install().await?;
    deploy(mesh, services).await?;
    Ok(controller)
}

/// These pods alone.
pub async fn deploy(mesh: &Mesh<'_>, services: &[&str]) -> Result<()> {
    let versions = |name: &&str| [Workload::of(name, "v1", 2), Workload::of(name, "v2", 0)];
    let mut all: Vec<Workload> = services.iter().flat_map(versions).collect();
    // As many as Istio starts by default.
    all.extend(["caller-a", "caller-b"].map(|name| Workload { workers: 2, ..Workload::named(name) }));
    mesh.deploy_all(&all).await
}

/// A flag with short times, of these services, at v1.
pub async fn adopt(mesh: &Mesh<'_>, services: &[&str]) -> Result<()> {
    adopt_with(mesh, services, json!({})).await
}

/// The same with more in its spec, or other things.
pub async fn adopt_with(mesh: &Mesh<'_>, services: &[&str], more: Value) -> Result<()> {
    let services: Vec<Value> = services.iter().map(|name| json!({ "name": name })).collect();
    let mut spec = json!({
        "version": "v1", "services": services,
        "coexistence": { "minReady": "200ms" }, "settle": { "quietPeriod": "1s", "drainTime": "0s" }, "cleanup": { "retainFor": "0s" },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    mesh.apply(&json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": { "name": "reviews", "namespace": "default" }, "spec": spec,
    }))
    .await
}

/// Its status.
pub async fn status(mesh: &Mesh<'_>) -> Result<Value> {
    let text = mesh.cluster.kubectl(&["get", "versionflag", "reviews", "--output=json"]).await?;
    Ok(serde_json::from_str::<Value>(&text)?["status"].take())
}

/// Waits until the status is so.
pub async fn shows(mesh: &Mesh<'_>, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait_for(what, LIMIT, async || {
        let status = status(mesh).await?;
        ensure!(holds(&status), "{status}");
        Ok(status)
    })
    .await?;
    mesh.step(what);
    Ok(found)
}

/// Waits until it is in this phase with this version active.
pub async fn reaches(mesh: &Mesh<'_>, phase: &str, version: &str) -> Result<Value> {
    let what = format!("{phase} at {version}");
    shows(mesh, &what, |status| status["phase"] == phase && status["activeVersion"] == version).await
}

/// Waits until every proxy has the flag, and the routes are there.
pub async fn adopted(mesh: &Mesh<'_>, proxies: usize) -> Result<()> {
    let all = format!("{proxies}/{proxies}");
    shows(mesh, "adopted", |status| {
        let conditions = status["conditions"].as_array();
        let ready = conditions.into_iter().flatten().any(|one| one["type"] == "RoutesReady" && one["status"] == "True");
        status["phase"] == "Stable" && status["proxies"]["summary"] == all && ready
    })
    .await
    .map(drop)
}

/// Asks for another version.
pub async fn ask(mesh: &Mesh<'_>, version: &str) -> Result<()> {
    mesh.patch("versionflag", "reviews", &json!({ "spec": { "version": version } })).await
}

/// Asks by the annotation, as the commands do.
pub async fn request(mesh: &Mesh<'_>, action: &str) -> Result<()> {
    let request = json!({ "id": now_us().to_string(), "action": action });
    let annotation = format!("versionflag.io/request={request}");
    mesh.cluster.kubectl(&["annotate", "--overwrite", "versionflag", "reviews", &annotation]).await.map(drop)
}

/// The proxies that hold the switch up, and the sentence that says so.
pub fn laggards(status: &Value) -> (Vec<&str>, &str) {
    let all = status["proxies"]["laggards"].as_array().into_iter().flatten();
    (all.filter_map(|one| one["proxy"].as_str()).collect(), status["blockedBy"].as_str().unwrap_or_default())
}

/// Waits until the switch is held up in this phase by these pods alone, and says so; `why` and `status` do too.
pub async fn held_up_by(mesh: &Mesh<'_>, phase: &str, pods: &[&str]) -> Result<Value> {
    let proxies: Vec<String> = pods.iter().map(|pod| format!("{pod}.default")).collect();
    let status = shows(mesh, &format!("{phase} is held up by {}", pods.join(", ")), |status| {
        let (named, why) = laggards(status);
        status["phase"] == phase && named == proxies && proxies.iter().all(|proxy| why.contains(proxy))
    })
    .await?;
    println!("{phase}: {}", status["blockedBy"]);
    for command in ["why", "status"] {
        let said = tells(mesh, command).await?;
        ensure!(proxies.iter().all(|proxy| said.contains(proxy)), "{command} does not name {proxies:?}: {said}");
    }
    Ok(status)
}

/// What a command prints of it.
pub async fn tells(mesh: &Mesh<'_>, command: &str) -> Result<String> {
    let output = mesh.cluster.versionflag(&[command, "reviews", "--namespace", "default"]).await?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(!said.is_empty(), "{command} says nothing: {}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// Waits until the next version is ready to be let in by hand, and all of so many proxies have shown that their
/// routes resolve it.
pub async fn awaits_promotion(mesh: &Mesh<'_>, proxies: usize) -> Result<()> {
    let all = format!("{proxies}/{proxies}");
    shows(mesh, "it waits to be promoted", |status| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let resolved = conditions.any(|one| one["type"] == "RoutesReady" && one["reason"] == "Resolved");
        status["phase"] == "AwaitingPromotion" && status["proxies"]["summary"] == all && resolved
    })
    .await
    .map(drop)
}

/// How many pods a version of `reviews` is meant to have.
pub async fn strength(mesh: &Mesh<'_>, version: &str) -> Result<String> {
    let name = format!("reviews-{version}");
    mesh.cluster.kubectl(&["get", "deployment", &name, "--output=jsonpath={.spec.replicas}"]).await
}

/// The same of several.
pub async fn strengths(mesh: &Mesh<'_>, versions: &[&str]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for version in versions {
        all.push(strength(mesh, version).await?);
    }
    Ok(all)
}

/// Waits until so many more requests were answered.
pub async fn goes_on(load: &Load, more: u64) -> Result<()> {
    load.goes_on(more, LIMIT).await
}

/// What the apps of these pods have printed, those included that are gone.
pub fn logs(mesh: &Mesh<'_>, prefix: &str) -> Result<Vec<String>> {
    let files = mesh.files(prefix, ".app.log")?;
    ensure!(!files.is_empty(), "no log of {prefix}");
    files.iter().map(|path| Ok(std::fs::read_to_string(path)?)).collect()
}

/// Waits until the pods of a version are gone, and looks at their last words: no request was open.
pub async fn ended_unused(mesh: &Mesh<'_>, version: &str) -> Result<()> {
    let prefix = format!("reviews-{version}");
    wait_for(&format!("the end of {prefix}"), LIMIT, async || mesh.pods(&prefix).is_empty()).await?;
    for log in logs(mesh, &prefix)? {
        let last = log.lines().last().context("an empty log")?;
        ensure!(last.contains(r#""open":0"#), "it ended with requests open: {last}");
    }
    Ok(())
}
