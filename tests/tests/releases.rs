//! The next release needs no restart of Envoy, and a filter that cannot be loaded costs no request. Real parts, under
//! load, every request checked. T10.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::config::{self, Upstream};
use harness::local::{Local, wasm};
use harness::process::program;
use harness::releases::{ReleasesPlan, run};
use harness::story::story_within;
use harness::{Backend, Call, Envoy, Load, LoadPlan, story, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// What a machine that stands still for some seconds queues stays below Envoy's default of 1,024 requests of a cluster.
fn plan() -> LoadPlan {
    LoadPlan { rate_per_s: 60, ..LoadPlan::default() }
}

/// T3, T10: every version from the second on is added to the file while Envoy runs, and taken out when it was left.
#[test]
fn ten_versions_come_and_go_through_one_envoy() {
    // Each release is some seconds on a busy machine.
    story_within("releases", Duration::from_secs(1_800), async |dir| {
        let load = LoadPlan { slow_per_s: 2, slow: Duration::from_millis(700), ..plan() };
        let plan = ReleasesPlan { flips: 30, versions: 10, every: 10, load, workers: 2 };
        let report = run(dir, &plan, |_| {}).await?;
        let read: Vec<usize> = report.memory.iter().map(|reading| reading.flips).collect();
        assert_eq!((read, report.failed), (vec![0, 10, 20, 30], 0));
        assert!(report.memory.iter().all(|reading| reading.controller_kib > 0 && reading.envoy_kib > 0));
        Ok(())
    });
}

/// A version that was taken out of the file before its last request ended keeps its cluster until then.
#[test]
fn a_cluster_stays_while_anything_is_open_on_its_version() {
    story("cluster-stays", async |dir| {
        let mut local = Local::new(dir)?;
        local.with_clusters();
        ["v2", "v3"].iter().for_each(|version| local.undeclare(version));
        local.start().await?;
        let envoy = local.envoy_of("edge", 2, local.rendered_for_callers()?).await?;
        local.reaches("Stable", "v1").await?;
        assert_eq!(local.clusters_there()?, ["reviews-v1"]);
        let load = Load::start(envoy.listener("ingress"), plan());
        let stream = Call::get(envoy.listener("ingress"), "/stream?ms=12000&every=100").host("reviews").limit(LIMIT);
        let open = tokio::spawn(async move { stream.send().await });
        let active = "cluster.reviews-v1.upstream_rq_active";
        wait_for("the stream", LIMIT, async || envoy.stat(active).await.is_ok_and(|open| open > 0)).await?;
        local.declare("v2", 9002)?;
        local.ask("v2");
        local.reaches("Settling", "v2").await?;
        local.undeclare("v1");
        local.write();
        wait_for("the edit to be taken", LIMIT, async || {
            let view = local.view().await?;
            ensure!(view["versions"]["v1"]["declared"] == false, "{view}");
            Ok(())
        })
        .await?;
        // More than one pass with it.
        local.looks().await?;
        assert_eq!(local.phase().await?, ("Settling".to_owned(), "v2".to_owned()));
        assert!(!open.is_finished(), "the stream has to be longer than this takes");
        assert_eq!(local.clusters_there()?, ["reviews-v1", "reviews-v2"]);
        let answer = open.await??;
        assert_eq!((answer.status, answer.version()), (200, "v1"), "{answer:?}");
        local.reaches("Stable", "v2").await?;
        wait_for("the cluster to go", LIMIT, async || {
            let there = local.clusters_there()?;
            ensure!(there == ["reviews-v2"], "{there:?}");
            let known = envoy.stat("cluster_manager.active_clusters").await?;
            ensure!(known == 2, "{known} clusters");
            Ok(())
        })
        .await?;
        load.stop_served_by(&["v1", "v2"]).await?;
        Ok(())
    });
}

/// What Envoy does when a cluster is taken out of the file: what is open there ends whole.
#[test]
fn what_is_open_ends_whole_when_its_cluster_goes() {
    story("cluster-goes", async |dir| {
        for upstream in [Upstream::H1, Upstream::H2] {
            let backend = Backend::start(dir, "v1").await?;
            let write = |there: bool| {
                let mut cluster = config::cluster("reviews-v1", backend.addr(), upstream);
                cluster["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
                let resources = if there { vec![cluster] } else { vec![] };
                dir.write("clusters.json", json!({ "resources": resources }).to_string());
            };
            write(true);
            let mut routes = config::routes([config::route_to("reviews-v1")]);
            routes["validate_clusters"] = json!(false);
            let listener = config::listener("ingress", [], routes);
            let mut bootstrap = config::bootstrap([listener], []);
            bootstrap["dynamic_resources"]["cds_config"] =
                json!({ "path_config_source": { "path": dir.file("clusters.json") }, "resource_api_version": "V3" });
            let envoy = Envoy::start(dir, "edge", bootstrap).await?;
            let slow = Call::get(envoy.listener("ingress"), "/slow?ms=3000").host("reviews").limit(LIMIT);
            let open = tokio::spawn(async move { slow.send().await });
            wait_for("the request", LIMIT, async || backend.stats().await.is_ok_and(|stats| stats.open > 0)).await?;
            write(false);
            wait_for("the cluster to go", LIMIT, async || {
                let clusters = envoy.stat("cluster_manager.active_clusters").await?;
                ensure!(clusters == 0, "{clusters} clusters");
                Ok(())
            })
            .await?;
            assert!(!open.is_finished(), "the request has to be longer than this takes");
            let answer = open.await??;
            assert_eq!((answer.status, answer.version()), (200, "v1"));
            let after = Call::get(envoy.listener("ingress"), "/").host("reviews").send().await?;
            assert_eq!(after.status, 503, "the cluster is gone");
        }
        Ok(())
    });
}

/// What an operator does to the filter's file, by accident.
type Damage = fn(&Path) -> Result<()>;

const DAMAGE: [(&str, Damage, &str); 4] = [
    ("missing", |file| Ok(std::fs::remove_file(file)?), "does not exist"),
    ("empty", |file| Ok(std::fs::write(file, "")?), "is empty"),
    ("truncated", |file| Ok(std::fs::OpenOptions::new().write(true).open(file)?.set_len(60_000)?), "is damaged"),
    ("other", |file| Ok(std::fs::write(file, "{}")?), "is no WebAssembly module"),
];

/// Everybody gets the active version, whatever is sent.
async fn serves_by_default(envoy: &Envoy) -> Result<()> {
    let forged = Call::get(envoy.listener("ingress"), "/").host("reviews").header("x-versionflag", "v2");
    let answer = forged.send().await?;
    assert_eq!((answer.status, answer.version()), (200, "v1"), "a client chose a version without the filter");
    Ok(())
}

/// T10: a filter that cannot be loaded costs no request; status says so; it is loaded when it was put right, without a
/// restart of anything.
#[test]
fn a_filter_that_cannot_be_loaded_costs_no_request() {
    for (name, damage, why) in DAMAGE {
        story(&format!("filter-{name}"), async |dir| {
            let file = dir.write("filter.wasm", std::fs::read(wasm()?)?);
            let mut local = Local::new(dir)?;
            local.file()["local"]["filterConfig"]["wasm"] = json!(file);
            local.start().await?;
            local.reaches("Stable", "v1").await?;
            damage(&file)?;
            let envoy = local.envoy_of("edge", 2, local.rendered_for_callers()?).await?;
            let load = Load::start(envoy.listener("ingress"), plan());
            wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 100).await?;
            serves_by_default(&envoy).await?;
            wait_for("a note", LIMIT, async || {
                let view = local.view().await?;
                let notes = view["versions"]["v1"]["notes"].to_string();
                ensure!(notes.contains("proxies cannot load the filter") && notes.contains(why), "{view}");
                Ok(())
            })
            .await?;
            local.ask("v2");
            local.blocks(&["proxies cannot load the filter", why]).await?;
            serves_by_default(&envoy).await?;
            dir.write("filter.wasm", std::fs::read(wasm()?)?);
            local.reaches("Stable", "v2").await?;
            load.stop_served_by(&["v1", "v2"]).await?;
            Ok(())
        });
    }
}

/// T10: an HTTP filter of another name gets no configuration; it costs no request, and who does not report is named.
#[test]
fn a_filter_of_another_name_costs_no_request() {
    story("filter-misnamed", async |dir| {
        let mut local = Local::new(dir)?;
        local.start().await?;
        let mut config = local.rendered_for_callers()?;
        let manager = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
        let filter = &mut manager["typed_config"]["http_filters"][0]["name"];
        assert_eq!(filter.take(), "versionflag");
        *filter = json!("version-flag");
        let envoy = local.envoy_of("edge", 2, config).await?;
        let load = Load::start(envoy.listener("ingress"), plan());
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 100).await?;
        serves_by_default(&envoy).await?;
        local.ask("v2");
        local.blocks(&["0 of 1 proxies acked", "edge"]).await?;
        load.stop_served_by(&["v1"]).await?;
        Ok(())
    });
}

/// T10: a first start without the filter is refused; who serves already goes on without it.
#[test]
fn a_controller_is_not_begun_without_its_filter() {
    story("no-filter", async |dir| {
        let mut local = Local::new(dir)?;
        let file = dir.file("filter.wasm");
        local.file()["local"]["filterConfig"]["wasm"] = json!(file);
        local.write();
        let mut refused = local.another_controller()?;
        assert!(!refused.wait_exit(LIMIT).await?.success());
        let said = refused.log_tail(3);
        ensure!(said.contains("local.filterConfig.wasm") && said.contains("does not exist"), "{said}");
        ensure!(!local.runs("v1").await, "something was started");
        dir.write("filter.wasm", std::fs::read(wasm()?)?);
        local.start().await?;
        local.reaches("Stable", "v1").await?;
        std::fs::remove_file(&file)?;
        local.controller().kill();
        local.start().await?;
        local.reaches("Stable", "v1").await?;
        for command in [["lint", "-f"], ["render", "envoy"]] {
            let mut run = std::process::Command::new(program("versionflag")?);
            let run = if command[1] == "envoy" { run.args(command).arg("-f") } else { run.args(command) };
            let output = run.arg(local.path()).output()?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            ensure!(said.contains("local.filterConfig.wasm: ") && said.contains("does not exist"), "{said}");
        }
        Ok(())
    });
}
