//! The faults of the flag service, as the filter in a real Envoy takes them: whatever the service
//! does, requests are answered and the last good flag stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flag::instance::FlagState;
use flag::record::{Gate, Member, Record};
use flag::snapshot::Snapshot;
use harness::fake::{FakeService, Received, Reply};
use harness::local::wasm;
use harness::{Backend, Call, Envoy, EnvoyOptions, Load, LoadPlan, TestDir, clock, config, story, wait_for};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(30);
const UID: &str = "uid-1";
const FAILURES: &str = "wasmcustom.versionflag_service_failures";
/// No request may take longer: a fresh proxy holds it for 500 ms at most, and the machine is busy.
const LONGEST: Duration = Duration::from_secs(2);

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn record(epoch: u64, active: &str) -> Record {
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

fn snapshot(epoch: u64, active: &str) -> Snapshot {
    Snapshot {
        protocol: flag::PROTOCOL,
        revision: format!("{epoch}-{active}"),
        report_every_ms: 50,
        prove_routes: vec![],
        measure: vec![],
        flags: vec![record(epoch, active)],
    }
}

/// What a proxy is told at start: epoch 5, v1.
fn plugin() -> Value {
    json!({
        "protocol": flag::PROTOCOL,
        "service": { "cluster": "versionflag" },
        "firstAnswerMs": 500,
        "flags": [record(5, "v1")],
    })
}

struct World {
    _backends: [Backend; 2],
    envoy: Envoy,
}

impl World {
    async fn start(dir: &TestDir, service: &FakeService, plugin: Value) -> Result<World> {
        World::start_routed(dir, service, plugin, ["reviews-v1", "reviews-v2"]).await
    }

    /// With the clusters that requests for v1 and for v2 are routed to.
    async fn start_routed(dir: &TestDir, service: &FakeService, plugin: Value, routed_to: [&str; 2]) -> Result<World> {
        let backends = [Backend::start(dir, "v1").await?, Backend::start(dir, "v2").await?];
        let options = EnvoyOptions { name: "edge".to_owned(), concurrency: 2, ..EnvoyOptions::default() };
        let envoy = Envoy::start_with(dir, options, bootstrap(&backends, service, plugin, routed_to)?).await?;
        Ok(World { _backends: backends, envoy })
    }

    fn load(&self) -> Load {
        Load::start(self.envoy.listener("ingress"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() })
    }

    async fn failures(&self) -> Result<u64> {
        self.envoy.stat(FAILURES).await
    }

    /// Waits until the service has failed once more since now.
    async fn fails(&self, what: &str) -> Result<()> {
        let before = self.failures().await?;
        wait_for(&format!("a failure by {what}"), LIMIT, async || {
            let failures = self.failures().await?;
            ensure!(failures > before, "{failures} failures");
            Ok(())
        })
        .await
    }
}

fn bootstrap(
    backends: &[Backend; 2],
    service: &FakeService,
    plugin: Value,
    [to_v1, to_v2]: [&str; 2],
) -> Result<Value> {
    let code = wasm()?;
    let filter = config::Wasm::new(&code, plugin).filter();
    let by_version =
        [("v1", to_v1), ("v2", to_v2)].map(|(version, to)| config::route_when("x-versionflag", version, to));
    // What no flag marks is answered by nobody, so a missing mark is seen.
    let routes = by_version.into_iter().chain([config::direct_response(503, "no version")]);
    let clusters = backends
        .iter()
        .map(|it| config::cluster(&format!("reviews-{}", it.version()), it.addr(), config::Upstream::H1))
        .chain([config::cluster("versionflag", service.addr(), config::Upstream::H1)]);
    Ok(config::bootstrap([config::listener("ingress", [filter], config::routes(routes))], clusters))
}

/// Waits for some more answers by a version.
async fn traffic(load: &Load, version: &str) -> Result<()> {
    let before = load.live().answered_by(version);
    wait_for(&format!("traffic on {version}"), LIMIT, async || {
        let live = load.live();
        ensure!(live.answered_by(version) > before + 50, "{live:?}");
        Ok(())
    })
    .await
}

/// The flag in a report that counts.
fn state(received: &Received) -> Option<&FlagState> {
    received.report.complete.then(|| received.report.flags.get(UID)).flatten()
}

/// Waits for a complete report that holds after now.
async fn reported(
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
async fn acked(service: &FakeService, record: &Record) -> Result<FlagState> {
    let what = format!("epoch {} in a report", record.epoch);
    reported(service, &what, |_, state| state.epoch == record.epoch && state.hash == record.hash).await
}

fn open(state: &FlagState, version: &str) -> u64 {
    state.sent.get(version).map_or(0, |totals| totals.open().expect("a checked report"))
}

#[test]
fn away_from_the_start_and_there_later() {
    story("away-at-start", async |dir| {
        let mut service = FakeService::away().await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        traffic(&load, "v1").await?;
        world.fails("a service that is away").await?;
        assert_eq!(load.live().answered_by("v2"), 0);
        let appears_us = clock::now_us();
        service.answer(Reply::Snapshot(snapshot(10, "v2")));
        service.appear().await?;
        acked(&service, &record(10, "v2")).await?;
        let acked_us = clock::now_us();
        traffic(&load, "v2").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.latency(1.0) < LONGEST, "{:?}", results.latency(1.0));
        assert!(results.only(|it| it.end_us < appears_us).all_served_by("v1"));
        let after = results.after(acked_us);
        assert!(after.all_served_by("v2"), "{:?}", after.by_version());
        assert_eq!(service.bad_reports(), Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn killed_after_a_flip_and_back() {
    story("killed-service", async |dir| {
        let mut service = FakeService::start(Reply::Snapshot(snapshot(10, "v2"))).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        acked(&service, &record(10, "v2")).await?;
        let acked_us = clock::now_us();
        service.kill().await;
        world.fails("a killed service").await?;
        world.fails("a service that stays away").await?;
        traffic(&load, "v2").await?;
        let back_us = clock::now_us();
        service.answer(Reply::Snapshot(snapshot(11, "v1")));
        service.appear().await?;
        acked(&service, &record(11, "v1")).await?;
        let again_us = clock::now_us();
        traffic(&load, "v1").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        let away = results.only(|it| it.start_us >= acked_us && it.end_us < back_us);
        assert!(away.all_served_by("v2"), "{:?}", away.by_version());
        let after = results.after(again_us);
        assert!(after.all_served_by("v1"), "{:?}", after.by_version());
        Ok(())
    });
}

/// Answers that have to be refused, each made of a good one.
fn bad_answers(good: &Snapshot) -> Vec<(&'static str, Reply)> {
    let text = serde_json::to_string(good).expect("serializable");
    let changed = |change: fn(&mut Value)| {
        let mut value = json!(good);
        change(&mut value);
        Reply::Raw(200, value.to_string().into())
    };
    vec![
        ("garbage", Reply::Raw(200, Bytes::from_static(b"\0\xff<html>not a snapshot"))),
        ("half an answer", Reply::Raw(200, text[..text.len() / 2].to_owned().into())),
        ("an empty answer", Reply::Raw(200, Bytes::new())),
        ("an unknown field", changed(|value| value["surprise"] = json!(1))),
        ("an unknown field of a flag", changed(|value| value["flags"][0]["surprise"] = json!(1))),
        ("a wrong hash", changed(|value| value["flags"][0]["hash"] = json!("0123456789abcdef01234567"))),
        ("10 MB", Reply::Raw(200, format!("{text}{}", " ".repeat(10 << 20)).into())),
        ("protocol 9", changed(|value| value["protocol"] = json!(9))),
        ("status 500", Reply::Raw(500, text.clone().into())),
    ]
}

#[test]
fn bad_answers_leave_the_flag_as_it_was() {
    story("bad-answers", async |dir| {
        let mut good = snapshot(10, "v1");
        let service = FakeService::start(Reply::Snapshot(good.clone())).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        acked(&service, &good.flags[0]).await?;
        let count = bad_answers(&good).len();
        for index in 0..count {
            let (is, other) = if index % 2 == 0 { ("v1", "v2") } else { ("v2", "v1") };
            let next = snapshot(good.flags[0].epoch + 1, other);
            // The flag it has would be the other one, were it taken.
            let (what, reply) = bad_answers(&next).swap_remove(index);
            service.answer(reply);
            world.fails(what).await?;
            // As many answers by the other version as there are now is all there may be.
            let before = load.live().answered_by(other);
            traffic(&load, is).await?;
            let state = reported(&service, what, |_, _| true).await?;
            assert_eq!((state.epoch, &state.hash), (good.flags[0].epoch, &good.flags[0].hash), "{what}");
            assert_eq!(load.live().answered_by(other), before, "{what}");
            good = next;
            service.answer(Reply::Snapshot(good.clone()));
            acked(&service, &good.flags[0]).await.with_context(|| format!("after {what}"))?;
            traffic(&load, other).await?;
        }
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

#[test]
fn epochs_only_grow_and_are_used_once() {
    story("epochs", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(4, "v2"))).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        let had = |snapshot: &Snapshot| {
            let revision = snapshot.revision.clone();
            move |received: &Received, _: &FlagState| received.report.revision == revision
        };
        let lower = snapshot(4, "v2");
        let state = reported(&service, "the answer with epoch 4", had(&lower)).await?;
        assert_eq!((state.epoch, state.hash, state.conflicts), (5, record(5, "v1").hash, 0));
        traffic(&load, "v1").await?;

        let same = snapshot(5, "v2");
        service.answer(Reply::Snapshot(same.clone()));
        let with_conflict = |received: &Received, state: &FlagState| had(&same)(received, state) && state.conflicts > 0;
        let state = reported(&service, "the conflict", with_conflict).await?;
        assert_eq!((state.epoch, state.hash), (5, record(5, "v1").hash));
        traffic(&load, "v1").await?;
        assert_eq!(load.live().answered_by("v2"), 0);

        // The same between two answers of the service.
        service.answer(Reply::Snapshot(snapshot(10, "v2")));
        let before = acked(&service, &record(10, "v2")).await?.conflicts;
        let acked_us = clock::now_us();
        let same = snapshot(10, "v1");
        service.answer(Reply::Snapshot(same.clone()));
        let more = |received: &Received, state: &FlagState| had(&same)(received, state) && state.conflicts > before;
        reported(&service, "the second conflict", more).await?;
        let lower = snapshot(9, "v1");
        service.answer(Reply::Snapshot(lower.clone()));
        reported(&service, "the answer with epoch 9", had(&lower)).await?;
        traffic(&load, "v2").await?;

        let results = load.stop().await?;
        results.assert_no_failures();
        let after = results.after(acked_us);
        assert!(after.all_served_by("v2"), "{:?}", after.by_version());
        let refused = [record(4, "v2"), record(5, "v2"), record(10, "v1"), record(9, "v1")].map(|it| it.hash);
        for received in service.reports() {
            let hash = received.report.flags.get(UID).map(|state| &state.hash);
            assert!(!hash.is_some_and(|hash| refused.contains(hash)), "{received:?}");
        }
        Ok(())
    });
}

#[test]
fn a_slow_service_delays_no_request_for_long() {
    story("slow-service", async |dir| {
        let slow = |epoch, active| Reply::Late(Duration::from_secs(3), snapshot(epoch, active));
        let service = FakeService::start(slow(10, "v2")).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let load = world.load();
        traffic(&load, "v1").await?;
        acked(&service, &record(10, "v2")).await?;
        let acked_us = clock::now_us();
        service.answer(slow(11, "v2"));
        acked(&service, &record(11, "v2")).await?;
        traffic(&load, "v2").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.latency(1.0) < LONGEST, "{:?}", results.latency(1.0));
        assert!(results.after(acked_us).all_served_by("v2"));
        Ok(())
    });
}

#[test]
fn a_bad_configuration_is_refused_at_start() {
    story("bad-configuration", async |dir| {
        let service = FakeService::away().await?;
        let backends = [Backend::start(dir, "v1").await?, Backend::start(dir, "v2").await?];
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 4] = [
            ("surprise", |plugin| plugin["surprise"] = json!(1)),
            ("protocol 9", |plugin| plugin["protocol"] = json!(9)),
            ("hash", |plugin| plugin["flags"][0]["active"] = json!("v2")),
            ("firstAnswerMs", |plugin| plugin["firstAnswerMs"] = json!(10_001)),
        ];
        for (what, change) in changes {
            let mut plugin = plugin();
            change(&mut plugin);
            let config = bootstrap(&backends, &service, plugin, ["reviews-v1", "reviews-v2"])?;
            let name = what.replace(' ', "-");
            let options = EnvoyOptions { name: name.clone(), concurrency: 2, ..EnvoyOptions::default() };
            ensure!(Envoy::start_with(dir, options, config).await.is_err(), "Envoy runs with {what}");
            let log = std::fs::read_to_string(dir.file(&format!("{name}.log")))?;
            let line = log.lines().find(|line| line.contains("this configuration is refused"));
            let line = line.with_context(|| format!("{what}: {log}"))?;
            ensure!(line.contains(what), "{what} is not named in {line:?}");
        }
        Ok(())
    });
}

/// A request over HTTP/2 that is reset when the task is aborted.
async fn h2_request(to: std::net::SocketAddr, path: &str) -> Result<tokio::task::JoinHandle<()>> {
    let io = TokioIo::new(TcpStream::connect(to).await?);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://reviews{path}")).body(Empty::<Bytes>::new())?;
    Ok(tokio::spawn(async move { drop(sender.send_request(request).await) }))
}

#[test]
fn a_long_stream_is_open_until_it_ends() {
    story("long-stream", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(10, "v1"))).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let ingress = world.envoy.listener("ingress");
        acked(&service, &record(10, "v1")).await?;
        let length = Duration::from_secs(12);
        let begin = Instant::now();
        let stream = Call::get(ingress, &format!("/stream?ms={}&every=100", length.as_millis())).host("reviews");
        let stream = tokio::spawn(async move { stream.send().await });
        let mut leaves = TcpStream::connect(ingress).await?;
        leaves.write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nhost: reviews\r\n\r\n").await?;
        let resets = h2_request(ingress, "/slow?ms=60000").await?;
        reported(&service, "three open requests", |_, state| open(state, "v1") == 3).await?;
        let load = world.load();
        traffic(&load, "v1").await?;
        service.answer(Reply::Snapshot(snapshot(11, "v2")));
        acked(&service, &record(11, "v2")).await?;
        let acked_us = clock::now_us();
        reported(&service, "three open requests after the flip", |_, state| open(state, "v1") == 3).await?;
        drop(leaves);
        reported(&service, "one gone", |_, state| open(state, "v1") == 2).await?;
        resets.abort();
        reported(&service, "one reset", |_, state| open(state, "v1") == 1).await?;
        assert!(begin.elapsed() < length, "the machine is too slow for this test");
        reported(&service, "none open", |_, state| open(state, "v1") == 0).await?;
        let answer = stream.await??;
        assert_eq!((answer.status, answer.version()), (200, "v1"));
        // A backend's last tick comes before its length is over.
        let early = begin + length - Duration::from_millis(500);
        for received in service.reports() {
            let Some(state) = state(&received).filter(|state| state.epoch == 11) else { continue };
            assert!(open(state, "v1") > 0 || received.at > early, "closed too early: {received:?}");
        }
        traffic(&load, "v2").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.after(acked_us).all_served_by("v2"));
        Ok(())
    });
}

#[test]
fn a_request_that_strays_is_counted_where_it_went() {
    story("strays", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(10, "v2"))).await?;
        // The routes have not followed: what is marked for v2 goes to v1.
        let world = World::start_routed(dir, &service, plugin(), ["reviews-v1", "reviews-v1"]).await?;
        let ingress = world.envoy.listener("ingress");
        acked(&service, &record(10, "v2")).await?;
        let counts = |state: &FlagState| (open(state, "v1"), open(state, "v2"), state.unroutable);
        let stream = Call::get(ingress, "/stream?ms=4000&every=100").host("reviews");
        let stream = tokio::spawn(async move { stream.send().await });
        reported(&service, "a stream on v1 while it lasts", |_, state| counts(state) == (1, 0, 1)).await?;
        assert_eq!(stream.await??.version(), "v1");
        reported(&service, "its end", |_, state| counts(state) == (0, 0, 1)).await?;

        // Without an answer nobody has served it, and the client leaves.
        let mut leaves = TcpStream::connect(ingress).await?;
        leaves.write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nhost: reviews\r\n\r\n").await?;
        reported(&service, "a request without an answer", |_, state| counts(state) == (0, 1, 1)).await?;
        drop(leaves);
        reported(&service, "its end", |_, state| counts(state) == (0, 0, 1)).await?;

        // Over before any report could look at it.
        for _ in 0..5 {
            assert_eq!(Call::get(ingress, "/").host("reviews").send().await?.version(), "v1");
        }
        let state = reported(&service, "short requests", |_, state| counts(state) == (0, 0, 6)).await?;
        let started = |version| state.sent.get(version).map(|totals| totals.started);
        assert_eq!((started("v1"), started("v2")), (Some(6), Some(7)));
        Ok(())
    });
}

#[test]
fn a_member_stays_in_its_own_version() {
    story("member", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(10, "v1"))).await?;
        let mut plugin = plugin();
        plugin["workload"] = json!({ "service": "reviews", "version": "v1" });
        let world = World::start(dir, &service, plugin).await?;
        let load = world.load();
        acked(&service, &record(10, "v1")).await?;
        service.answer(Reply::Snapshot(snapshot(11, "v2")));
        acked(&service, &record(11, "v2")).await?;
        let acked_us = clock::now_us();
        traffic(&load, "v1").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(!results.after(acked_us).is_empty());
        assert!(results.all_served_by("v1"), "{:?}", results.by_version());
        Ok(())
    });
}
