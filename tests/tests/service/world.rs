//! A real Envoy with the filter, two versions behind it, and a flag service that answers as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flag::instance::FlagState;
use flag::record::{Gate, Member, Record};
use flag::snapshot::Snapshot;
use harness::config::Upstream;
use harness::fake::{FakeService, Received};
use harness::local::wasm;
use harness::{Backend, Envoy, EnvoyOptions, Load, LoadPlan, TestDir, config, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
/// The one flag.
pub(crate) const UID: &str = "uid-1";
const FAILURES: &str = "wasmcustom.versionflag_service_failures";

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// Its record.
pub(crate) fn record(epoch: u64, active: &str) -> Record {
    let clusters = ["v1", "v2"].map(|version| (version.to_owned(), set([&format!("reviews-{version}")])));
    let member = Member {
        service: "reviews".to_owned(),
        hosts: set(["reviews"]),
        selector: BTreeSet::new(),
        clusters: BTreeMap::from(clusters),
    };
    let record = Record {
        uid: UID.to_owned(),
        name: "default/reviews".to_owned(),
        namespace: String::new(),
        version_label: String::new(),
        epoch,
        active: active.to_owned(),
        gate: Gate::Open,
        members: vec![member],
        versions: set(["v1", "v2"]),
        preview: None,
        hash: String::new(),
    };
    record.seal().expect("a valid record")
}

/// What the flag service answers with it.
pub(crate) fn snapshot(epoch: u64, active: &str) -> Snapshot {
    Snapshot {
        protocol: flag::PROTOCOL,
        revision: format!("{epoch}-{active}"),
        report_every_ms: 50,
        prove_routes: vec![],
        measure: vec![],
        flags: vec![record(epoch, active)],
        asks: None,
    }
}

/// What a proxy is told at start: epoch 5, v1.
pub(crate) fn plugin() -> Value {
    json!({
        "protocol": flag::PROTOCOL,
        "service": { "cluster": "versionflag" },
        "firstAnswerMs": 500,
        "flags": [record(5, "v1")],
    })
}

/// What runs.
pub(crate) struct World {
    _backends: [Backend; 2],
    pub(crate) envoy: Envoy,
}

impl World {
    pub(crate) async fn start(dir: &TestDir, service: &FakeService, plugin: Value) -> Result<World> {
        World::start_routed(dir, service, plugin, ["reviews-v1", "reviews-v2"]).await
    }

    /// Whose versions are spoken to in HTTP/2, as gRPC is.
    pub(crate) async fn start_http2(dir: &TestDir, service: &FakeService, plugin: Value) -> Result<World> {
        World::start_by(dir, service, plugin, ["reviews-v1", "reviews-v2"], Upstream::H2).await
    }

    /// With the clusters that requests for v1 and for v2 are routed to.
    pub(crate) async fn start_routed(
        dir: &TestDir,
        service: &FakeService,
        plugin: Value,
        routed_to: [&str; 2],
    ) -> Result<World> {
        World::start_by(dir, service, plugin, routed_to, Upstream::H1).await
    }

    async fn start_by(
        dir: &TestDir,
        service: &FakeService,
        plugin: Value,
        routed_to: [&str; 2],
        by: Upstream,
    ) -> Result<World> {
        let backends = [Backend::start(dir, "v1").await?, Backend::start(dir, "v2").await?];
        let options = EnvoyOptions { name: "edge".to_owned(), concurrency: 2, ..EnvoyOptions::default() };
        let envoy = Envoy::start_with(dir, options, bootstrap(&backends, service, plugin, routed_to, by)?).await?;
        Ok(World { _backends: backends, envoy })
    }

    pub(crate) fn load(&self) -> Load {
        Load::start(self.envoy.listener("ingress"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() })
    }

    async fn failures(&self) -> Result<u64> {
        self.envoy.stat(FAILURES).await
    }

    /// Waits until the service has failed once more since now.
    pub(crate) async fn fails(&self, what: &str) -> Result<()> {
        let before = self.failures().await?;
        wait_for(&format!("a failure by {what}"), LIMIT, async || {
            let failures = self.failures().await?;
            ensure!(failures > before, "{failures} failures");
            Ok(())
        })
        .await
    }
}

/// Its configuration.
pub(crate) fn bootstrap(
    backends: &[Backend; 2],
    service: &FakeService,
    plugin: Value,
    [to_v1, to_v2]: [&str; 2],
    by: Upstream,
) -> Result<Value> {
    let code = wasm()?;
    let filter = config::Wasm::new(&code, plugin).filter();
    let by_version =
        [("v1", to_v1), ("v2", to_v2)].map(|(version, to)| config::route_when("x-versionflag", version, to));
    // What no flag marks is answered by nobody, so a missing mark is seen.
    let routes = by_version.into_iter().chain([config::direct_response(503, "no version")]);
    let clusters = backends
        .iter()
        .map(|it| config::cluster(&format!("reviews-{}", it.version()), it.addr(), by))
        .chain([config::cluster("versionflag", service.addr(), Upstream::H1)]);
    Ok(config::bootstrap([config::listener("ingress", [filter], config::routes(routes))], clusters))
}

/// Waits for some more answers by a version.
pub(crate) async fn traffic(load: &Load, version: &str) -> Result<()> {
    let before = load.live().answered_by(version);
    wait_for(&format!("traffic on {version}"), LIMIT, async || {
        let live = load.live();
        ensure!(live.answered_by(version) > before + 50, "{live:?}");
        Ok(())
    })
    .await
}

/// The flag in a report that counts.
pub(crate) fn state(received: &Received) -> Option<&FlagState> {
    received.report.complete.then(|| received.report.flags.get(UID)).flatten()
}

/// Waits for a complete report that holds after now.
pub(crate) async fn reported(
    service: &FakeService,
    what: &str,
    holds: impl Fn(&Received, &FlagState) -> bool,
) -> Result<FlagState> {
    let since = Instant::now();
    wait_for(what, LIMIT, async || {
        let reports = service.reports();
        let found =
            reports.iter().filter(|it| it.at >= since).find_map(|it| state(it).filter(|state| holds(it, state)));
        found.cloned().with_context(|| format!("invalid: {:?}, last: {:?}", service.bad_reports(), reports.last()))
    })
    .await
}

/// Waits until every instance has this flag in effect.
pub(crate) async fn acked(service: &FakeService, record: &Record) -> Result<FlagState> {
    let what = format!("epoch {} in a report", record.epoch);
    reported(service, &what, |_, state| state.epoch == record.epoch && state.hash == record.hash).await
}
