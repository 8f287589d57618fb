//! Nothing is flipped before every worker has reached the new version, whatever build of the filter it has; and
//! requests past the flag keep the old version. Real parts, under load, every request checked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::local::Local;
use harness::{Call, Envoy, Load, LoadPlan, TestDir, config, story, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

fn plan() -> LoadPlan {
    LoadPlan { rate_per_s: 300, ..LoadPlan::default() }
}

async fn load(envoy: &Envoy) -> Result<Load> {
    let load = Load::start(envoy.listener("ingress"), plan());
    wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
    Ok(load)
}

/// The filter as it was at level 1.
fn first_build() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("filters/level-1/versionflag.wasm")
}

/// The clusters of a configuration.
fn clusters(config: &mut Value) -> &mut Vec<Value> {
    config["static_resources"]["clusters"].as_array_mut().expect("a list of clusters")
}

/// T3, F18: what no worker can reach gets no request.
#[test]
fn a_version_that_is_not_reached_gets_nothing() {
    type Change = fn(&mut Vec<Value>);
    let cases: [(&str, Change, &str); 3] = [
        ("gone", |all| all.retain(|one| one["name"] != "reviews-v3"), "the proxy has no such cluster"),
        ("closed", |all| at(all, 1), "status 503"),
        (
            "nobody",
            |all| all.iter_mut().filter(is_v3).for_each(|one| one["load_assignment"]["endpoints"] = json!([])),
            "no healthy host",
        ),
    ];
    for (name, change, why) in cases {
        story(&format!("unreached-{name}"), async |dir| {
            let mut local = Local::new(dir)?;
            local.start().await?;
            let mut config = local.envoy_config();
            change(clusters(&mut config));
            let envoy = local.envoy_of("edge", 4, config).await?;
            local.reaches("Stable", "v1").await?;
            let load = load(&envoy).await?;
            local.ask("v3");
            local.blocks(&["v3 is not reached", "edge", "reviews-v3", why]).await?;
            let results = load.stop().await?;
            results.assert_no_failures();
            assert!(results.all_served_by("v1"));
            // Another one can be asked for at once.
            local.ask("v2");
            local.reaches("Stable", "v2").await
        });
    }
}

fn is_v3(cluster: &&mut Value) -> bool {
    cluster["name"] == "reviews-v3"
}

/// Has v3's cluster lead to a port where nobody listens.
fn at(clusters: &mut [Value], port: u16) {
    let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
    for cluster in clusters.iter_mut().filter(is_v3) {
        *cluster.pointer_mut(endpoint).expect("an endpoint") = json!(port);
    }
}

/// What answers otherwise than is expected is not reached; and a spec that wants no probe flips all the same.
#[test]
fn an_operator_says_what_is_an_answer() {
    story("unexpected", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["coexistence"]["probe"] = json!({ "path": "/status?code=418", "expect": "200-299" });
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        local.ask("v2");
        local.blocks(&["v2 is not reached", "status 418"]).await?;
        assert_eq!(load.live().answered_by("v2"), 0);
        local.file()["spec"]["coexistence"]["probe"]["expect"] = json!("418");
        local.ask("v2");
        local.reaches("Stable", "v2").await?;
        local.file()["spec"]["coexistence"]["probe"] = json!({ "mode": "None", "expect": "200" });
        local.ask("v3");
        local.reaches("Stable", "v3").await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// Before the flip each worker has a connection to the new version, and after it none has to open one.
#[test]
fn connections_are_open_before_the_traffic_comes() {
    story("warm", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["promotion"] = json!({ "mode": "Manual" });
        local.start().await?;
        let envoy = local.envoy("edge", 4).await?;
        local.reaches("Stable", "v1").await?;
        let opened = async || envoy.stat("cluster.reviews-v2.upstream_cx_total").await;
        ensure!(opened().await? == 0, "something was sent already");
        local.ask("v2");
        local.reaches("AwaitingPromotion", "v1").await?;
        wait_for("four workers and the main thread", LIMIT, async || {
            let opened = opened().await?;
            ensure!(opened >= 5, "{opened} connections");
            Ok(())
        })
        .await?;
        let before = opened().await?;
        local.request("promote").await?;
        local.reaches("Stable", "v2").await?;
        for _ in 0..40 {
            let answer = Call::get(envoy.listener("ingress"), "/").host("reviews").send().await?;
            assert_eq!((answer.status, answer.version()), (200, "v2"));
        }
        assert_eq!(opened().await?, before, "a request had to wait for a connection");
        Ok(())
    });
}

/// A copy of the controller's file for the filter with another build of it, as it is written anew.
fn copy_filter(dir: &TestDir, wasm: &str) -> Result<bool> {
    let text = std::fs::read_to_string(dir.file("filter.json"))?;
    let ours = harness::local::wasm()?;
    let copy = text.replace(&ours.display().to_string(), wasm);
    let known = std::fs::read_to_string(dir.file("first-filter.json")).unwrap_or_default();
    if copy != known {
        dir.write("first-filter.json", &copy);
    }
    Ok(copy != known)
}

/// L1: a proxy with the build of level 1 beside one of today, in one fleet.
#[test]
fn two_builds_switch_in_one_fleet() {
    story("fleet-of-builds", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["local"]["proxies"] = json!([{ "id": "edge" }, { "id": "first" }]);
        local.start().await?;
        let first = first_build().display().to_string();
        copy_filter(dir, &first)?;
        let config = local.envoy_config().to_string().replace("/filter.json", "/first-filter.json");
        let (edge, other) = (local.envoy("edge", 2).await?, local.envoy_of("first", 4, config.parse()?).await?);
        local.reaches("Stable", "v1").await?;
        let loads = [load(&edge).await?, load(&other).await?];
        local.ask("v2");
        local.blocks(&["v2 is not reached", "first", "older than this controller"]).await?;
        assert!(loads.iter().all(|load| load.live().answered_by("v2") == 0));
        for (version, other) in [("v2", "v3"), ("v3", "v1")] {
            local.file()["spec"]["coexistence"]["probe"] = json!({ "mode": "None" });
            local.ask(version);
            wait_for("the switch", LIMIT, async || {
                copy_filter(dir, &first)?;
                let (phase, active) = local.phase().await?;
                ensure!(phase == "Stable" && active == version, "{phase} at {active}: {}", local.blocked().await?);
                Ok(())
            })
            .await?;
            ensure!(!local.runs(other).await, "{other} runs");
        }
        for load in loads {
            let results = load.stop().await?;
            results.assert_no_failures();
            results.assert_last_by("v3");
        }
        Ok(())
    });
}

/// L1: both builds in one proxy, which share one registry while the older one drains.
#[test]
fn two_builds_switch_in_one_proxy() {
    story("proxy-of-builds", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["local"]["filterConfig"]["wasm"] = json!(first_build());
        local.start().await?;
        let envoy = local.envoy("edge", 4).await?;
        local.reaches("Stable", "v1").await?;
        let streams = LoadPlan { stream: Some(Duration::from_secs(4)), ..plan() };
        let load = Load::start(envoy.listener("ingress"), streams);
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        local.file()["local"]["filterConfig"]["wasm"] = json!(harness::local::wasm()?);
        for version in ["v2", "v3"] {
            local.ask(version);
            local.reaches("Stable", version).await?;
        }
        let results = load.stop().await?;
        results.assert_no_failures();
        results.assert_last_by("v3");
        Ok(())
    });
}

/// What Envoy reads routes from.
fn write_routes(dir: &TestDir, hosts: impl IntoIterator<Item = Value>) {
    let mut table = config::virtual_hosts(hosts);
    table["@type"] = json!("type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    table["name"] = json!("mine");
    dir.write("mine.json", json!({ "resources": [table] }).to_string());
}

fn marked() -> impl Iterator<Item = Value> {
    let to = |version| config::route_when("x-versionflag", version, &format!("reviews-{version}"));
    ["v1", "v2"].map(to).into_iter().chain([config::route_to("reviews-v1")])
}

/// An Envoy whose routes are in `mine.json`.
async fn envoy_of_mine(dir: &TestDir, local: &Local<'_>) -> Result<Envoy> {
    let mut config = local.envoy_config();
    let listener = &mut config["static_resources"]["listeners"][0];
    let rds = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"];
    rds["route_config_name"] = json!("mine");
    rds["config_source"]["path_config_source"]["path"] = json!(dir.file("mine.json"));
    local.envoy_of("edge", 2, config).await
}

/// Sends this until every worker has seen that its place was put right, and the switch has ended.
async fn ends_with(local: &Local<'_>, call: &Call) -> Result<()> {
    wait_for("every worker to see it", LIMIT, async || {
        let answer = call.send().await?;
        ensure!(answer.status == 200, "{}", answer.status);
        let (phase, active) = local.phase().await?;
        ensure!(phase == "Stable" && active == "v2", "{phase} at {active}: {}", local.blocked().await?);
        Ok(())
    })
    .await
}

/// T4: an older route leads marked requests to the old version.
#[test]
fn an_older_route_keeps_the_old_version() {
    story("older-route", async |dir| {
        let mut local = Local::new(dir)?;
        local.start().await?;
        let mut older = config::named("older", config::route_to("reviews-v1"));
        older["match"] = json!({ "prefix": "/api" });
        write_routes(dir, [config::virtual_host("any", ["*"], [older].into_iter().chain(marked()))]);
        let envoy = envoy_of_mine(dir, &local).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        let api = Call::get(envoy.listener("ingress"), "/api/x?y=1").host("reviews");
        local.ask("v2");
        wait_for("the flip", LIMIT, async || load.live().answered_by("v2") > 0).await?;
        assert_eq!(api.send().await?.version(), "v1");
        local.blocks(&["reviews/api/x", "\"older\"", "reviews-v1"]).await?;
        ensure!(local.runs("v1").await, "v1 was removed");
        write_routes(dir, [config::virtual_host("any", ["*"], marked())]);
        ends_with(&local, &api).await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// T5: a host that no flag has leads to the old version.
#[test]
fn another_host_keeps_the_old_version() {
    story("another-host", async |dir| {
        let mut local = Local::new(dir)?;
        local.start().await?;
        let any = || config::virtual_host("any", ["*"], marked());
        let legacy = |cluster| config::virtual_host("legacy", ["legacy.example"], [config::route_to(cluster)]);
        write_routes(dir, [legacy("reviews-v1"), any()]);
        let envoy = envoy_of_mine(dir, &local).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        let call = |path: &str| Call::get(envoy.listener("ingress"), path).host("legacy.example").limit(LIMIT);
        let slow = call("/slow?ms=4000");
        let open = tokio::spawn(async move { slow.send().await });
        local.ask("v2");
        local.blocks(&["legacy.example/slow", "reviews-v1"]).await?;
        let answer = open.await??;
        assert_eq!((answer.status, answer.version()), (200, "v1"), "it was counted, and not cut off");
        ensure!(local.runs("v1").await, "v1 was removed");
        write_routes(dir, [legacy("reviews-v2"), any()]);
        ends_with(&local, &call("/slow?ms=0")).await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}
