//! Ways to move all requests of a service from one version to another, and how long each takes from
//! the write to the API. All have the same pods behind Services of their own. I/O: writes to the
//! API, makes load.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde::Serialize;
use serde_json::{Value, json};

use super::objects::{reroute, routed_to};
use super::{APP_PORT, CONTROLLER, Mesh, SERVICE_PORT};
use crate::client::Call;
use crate::clock::{now_us, unix_ms};
use crate::load::{Load, LoadPlan};
use crate::wait::wait_for;

/// Both versions are deployed under this name.
pub const APP: &str = "app";
/// They.
pub const VERSIONS: [&str; 2] = ["v1", "v2"];
const LIMIT: Duration = Duration::from_secs(90);

/// Who moves the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A VersionFlag's new version, which is ready and waits to be let in, is.
    Ours,
    /// The same while the proxies cannot reach the flag service: by their configuration alone.
    OursConfigOnly,
    /// The subset of a VirtualService is edited.
    VirtualService,
    /// The selector of the Service is changed, as Argo Rollouts' blue-green does.
    Selector,
}

/// One flip.
#[derive(Debug, Clone, Serialize)]
pub struct Flip {
    /// From the write to the first response of the new version.
    pub first_new_ms: f64,
    /// From the write to the last request that was sent and that the old version answered.
    pub last_old_ms: f64,
    /// For how long both took new requests.
    pub overlap_ms: f64,
    /// Where the time went, by the controller; `None`: another way.
    pub parts: Option<Parts>,
    /// Requests that failed.
    pub failed: usize,
    /// All of them.
    pub requests: usize,
}

/// Parts of a flip of ours by name, in milliseconds: from the write to the look that decided it, to the decision, the
/// write of the status, the publication, until the last proxy was sent it, and from there to the last ack.
pub type Parts = BTreeMap<&'static str, f64>;

/// Those of the last flip of the flag of a way, which was written then.
async fn parts_of(way: Way, written_us: u64) -> Result<Parts> {
    let path = format!("/v1/status?flag=default/{}", way.name());
    let flags: Value = Call::get(CONTROLLER, &path).send().await?.json()?;
    let flip = &flags[0]["flip"];
    let number = |key: &str| flip.pointer(key).and_then(Value::as_f64).with_context(|| format!("{key} in {flip}"));
    let (sent, acked) = (number("/sent/maxMs")?, number("/acked/maxMs")?);
    Ok(BTreeMap::from([
        ("seen_ms", number("/at")? - unix_ms(written_us) as f64),
        ("decide_ms", number("/decideMs")?),
        ("write_ms", number("/writeMs")?),
        ("publish_ms", number("/publishMs")?),
        ("send_ms", sent),
        ("ack_ms", (acked - sent).max(0.0)),
    ]))
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 4] = [Way::Ours, Way::OursConfigOnly, Way::VirtualService, Way::Selector];

    /// As in the results; the name of the Service, too.
    pub fn name(self) -> &'static str {
        match self {
            Way::Ours => "ours",
            Way::OursConfigOnly => "ours-config-only",
            Way::VirtualService => "virtualservice",
            Way::Selector => "selector",
        }
    }

    /// Everything that has to be there before, at this version.
    pub async fn prepare(self, mesh: &Mesh<'_>, version: &str) -> Result<()> {
        let selector = match self {
            Way::Selector => json!({ "app": APP, "version": version }),
            _ => json!({ "app": APP }),
        };
        mesh.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": self.name(), "namespace": "default" },
            "spec": {
                "selector": selector,
                "ports": [{ "name": "http", "port": SERVICE_PORT, "targetPort": APP_PORT }],
            },
        }))
        .await?;
        match self {
            Way::VirtualService => mesh.apply(&routed_to(self.name(), &VERSIONS, version)).await,
            Way::Selector => Ok(()),
            Way::Ours | Way::OursConfigOnly => {
                mesh.apply(&self.flag(version)).await?;
                self.stands("Stable", version, mesh).await
            }
        }
    }

    /// A switch of both versions that stay, and that are let in by hand.
    fn flag(self, version: &str) -> Value {
        json!({
            "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
            "metadata": { "name": self.name(), "namespace": "default" },
            "spec": {
                "version": version, "services": [{ "name": self.name() }],
                "coexistence": {
                    "minReady": "0s", "replicas": "AsDeclared", "headroom": "Ignore",
                    // Without the flag service nobody could say what was reached.
                    "probe": { "mode": if self == Way::OursConfigOnly { "None" } else { "Require" } },
                },
                "promotion": { "mode": "Manual" }, "settle": { "quietPeriod": "0s" },
                "cleanup": { "policy": "Retain" },
            },
        })
    }

    /// Waits for a phase on the way to a version, with every proxy and all routes.
    async fn stands(self, phase: &str, version: &str, mesh: &Mesh<'_>) -> Result<()> {
        wait_for(&format!("{} in {phase} with {version}", self.name()), LIMIT, async || {
            let text = mesh.cluster.kubectl(&["get", "versionflag", self.name(), "--output=json"]).await?;
            let status = serde_json::from_str::<Value>(&text)?["status"].take();
            let conditions = status["conditions"].as_array();
            let routed = |one: &Value| one["type"] == "RoutesReady" && one["status"] == "True";
            let (target, active) = (&status["targetVersion"], &status["activeVersion"]);
            let there = status["phase"] == phase && (target == version || target.is_null() && active == version);
            let acked = status["proxies"]["expected"] == status["proxies"]["acked"];
            ensure!(there && acked && conditions.into_iter().flatten().any(routed), "{status}");
            Ok(())
        })
        .await
    }

    /// Everything that comes before the one write: the new version is ready.
    async fn arm(self, mesh: &Mesh<'_>, version: &str) -> Result<()> {
        if !matches!(self, Way::Ours | Way::OursConfigOnly) {
            return Ok(());
        }
        mesh.patch("versionflag", self.name(), &json!({ "spec": { "version": version } })).await?;
        self.stands("AwaitingPromotion", version, mesh).await?;
        if self == Way::OursConfigOnly { mesh.cut_flag_service(true) } else { Ok(()) }
    }

    async fn disarm(self, mesh: &Mesh<'_>) -> Result<()> {
        if self == Way::OursConfigOnly { mesh.cut_flag_service(false) } else { Ok(()) }
    }

    /// The one write that moves all requests.
    pub async fn flip(self, mesh: &Mesh<'_>, version: &str) -> Result<()> {
        let (client, merge) = (mesh.cluster.client(), PatchParams::default());
        match self {
            Way::VirtualService => {
                let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService");
                let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &ApiResource::from_gvk(&kind));
                api.patch(self.name(), &merge, &Patch::Merge(reroute(self.name(), version))).await?;
            }
            Way::Ours | Way::OursConfigOnly => {
                let request = json!({ "id": now_us().to_string(), "action": "promote" }).to_string();
                let patch = json!({ "metadata": { "annotations": { "versionflag.io/request": request } } });
                let kind = GroupVersionKind::gvk("versionflag.io", "v1alpha1", "VersionFlag");
                let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &ApiResource::from_gvk(&kind));
                api.patch(self.name(), &merge, &Patch::Merge(patch)).await?;
            }
            Way::Selector => {
                let patch = json!({ "spec": { "selector": { "app": APP, "version": version } } });
                Api::<Service>::namespaced(client, "default").patch(self.name(), &merge, &Patch::Merge(patch)).await?;
            }
        }
        Ok(())
    }
}

/// Flips once, under load from each of the callers, and looks at every request.
pub async fn measure(mesh: &Mesh<'_>, way: Way, callers: &[String], plan: &LoadPlan, to: &str) -> Result<Flip> {
    let mut loads = Vec::new();
    for caller in callers {
        loads.push(mesh.load_with(caller, way.name(), plan.clone()).await?);
    }
    let from = VERSIONS.into_iter().find(|version| *version != to).context("another version")?;
    for load in &loads {
        wait_for(&format!("load on {from}"), LIMIT, async || load.live().by_version.get(from) > Some(&20)).await?;
    }
    // Under load, or no proxy could show its routes.
    way.arm(mesh, to).await?;
    let written = now_us();
    way.flip(mesh, to).await?;
    for load in &loads {
        has_moved(load, from, to).await.with_context(|| way.name())?;
    }
    way.disarm(mesh).await?;
    let parts = if way == Way::Ours { Some(parts_of(way, written).await?) } else { None };
    let results = Load::stop_all(loads).await?;
    let after = |us: u64| (us as f64 - written as f64) / 1000.0;
    let first_new = results.first(to).context("no request on the new version")?.head_us;
    let last_old = results.last_started(from).context("no request on the old version")?.start_us;
    Ok(Flip {
        first_new_ms: after(first_new),
        last_old_ms: after(last_old),
        overlap_ms: results.overlap(from, to).as_secs_f64() * 1000.0,
        parts,
        failed: results.failures().len(),
        requests: results.len(),
    })
}

/// Waits until the new version answers, and the old one has not for fifty answers.
async fn has_moved(load: &Load, from: &str, to: &str) -> Result<()> {
    let mut before = (0, 0);
    wait_for(&format!("requests on {to} only"), LIMIT, async || {
        let live = load.live();
        let count = |version: &str| live.by_version.get(version).copied().unwrap_or_default();
        let (old, new) = (count(from), count(to));
        if old != before.0 {
            before = (old, new);
        }
        ensure!(new >= before.1 + 50, "{old} answers of {from}, {new} of {to}");
        Ok(())
    })
    .await
}

/// What the flips of one way took, as in the results.
pub fn summary(flips: &[Flip]) -> Value {
    let row = |value: fn(&Flip) -> f64| crate::flips::quantiles(flips.iter().map(value).collect());
    let mut parts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, ms) in flips.iter().filter_map(|flip| flip.parts.as_ref()).flatten() {
        parts.entry(name).or_default().push(*ms);
    }
    let parts: BTreeMap<&str, Value> =
        parts.into_iter().map(|(name, all)| (name, crate::flips::quantiles(all))).collect();
    json!({
        "parts": parts,
        "first_new_ms": row(|flip| flip.first_new_ms),
        "last_old_ms": row(|flip| flip.last_old_ms),
        "overlap_ms": row(|flip| flip.overlap_ms),
        "failed": flips.iter().map(|flip| flip.failed).sum::<usize>(),
        "requests": flips.iter().map(|flip| flip.requests).sum::<usize>(),
        "flips": flips,
    })
}

/// Flips every way so often, taking turns, so that whatever else the machine does meets all.
pub async fn interleaved(
    mesh: &Mesh<'_>,
    ways: &[Way],
    callers: &[String],
    plan: &LoadPlan,
    count: usize,
    mut show: impl FnMut(Way, &Flip),
) -> Result<BTreeMap<Way, Vec<Flip>>> {
    let mut flips: BTreeMap<Way, Vec<Flip>> = BTreeMap::new();
    for number in 0..count {
        let to = VERSIONS[(number + 1) % 2];
        for way in ways {
            let flip = measure(mesh, *way, callers, plan, to).await?;
            show(*way, &flip);
            flips.entry(*way).or_default().push(flip);
        }
    }
    Ok(flips)
}
