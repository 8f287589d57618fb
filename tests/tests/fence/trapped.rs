//! The filter of a proxy fails while it holds requests, in a build whose VM ends when a request asks for it.

use anyhow::{Result, ensure};
use harness::config::{self, Upstream};
use harness::fences::Fences;
use harness::local::trapping_wasm;
use harness::talk::{Kind, Talk};
use harness::{Backend, Call, story, wait_for};
use serde_json::{Value, json};

use super::{LIMIT, calls};

/// How long Envoy waits for a sign of life of a request.
const IDLE: &str = "6s";
const EACH: usize = 20;

/// The proxy that is about to fail has a listener `beside` too, of the same VM, whose requests no flag is about.
fn config(fences: &Fences<'_>, beside: &Backend) -> Result<Value> {
    let mut config = fences.local.envoy_config();
    let all = &mut config["static_resources"];
    all["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["stream_idle_timeout"] = IDLE.into();
    let filter = all["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0].clone();
    let routes = config::routes([config::route_to("beside")]);
    let listener = config::listener("beside", [filter], routes);
    all["listeners"].as_array_mut().into_iter().for_each(|all| all.push(listener.clone()));
    let cluster = config::cluster("beside", beside.addr(), Upstream::H1);
    all["clusters"].as_array_mut().into_iter().for_each(|all| all.push(cluster.clone()));
    Ok(config)
}

#[test]
fn a_filter_that_fails_ends_no_open_stream_and_keeps_the_switch_from_going_on() {
    story("fence-trapped", async |dir| {
        let code = trapping_wasm()?;
        let mut fences = Fences::without_proxies(dir, |file| {
            file["spec"]["switch"]["fence"]["maxHold"] = "4s".into();
            file["local"]["filterConfig"]["wasm"] = json!(code);
        })
        .await?;
        let beside = Backend::start(dir, "beside").await?;
        let config = config(&fences, &beside)?;
        let mut fails = fences.local.envoy_of("edge-a", 1, config).await?;
        let lives = fences.local.envoy("edge-b", 1).await?;
        fences.prepare("v2").await?;
        let edge = fails.listener("ingress");
        let open =
            [Talk::open(Kind::Grpc, edge, "reviews").await?, Talk::open(Kind::WebSocket, edge, "reviews").await?];
        fences.hold().await?;
        let (lost, kept) = (calls(edge, EACH), calls(lives.listener("ingress"), EACH));
        fences.waiting(2 * EACH as u64).await?;

        let end = Call::get(fails.listener("beside"), "/").header("x-trap", "1").send().await;
        println!("what ended it: {:?}", end.map(|answer| answer.status));
        let log = std::fs::read_to_string(dir.file("edge-a.log"))?;
        ensure!(log.contains("unreachable"), "no VM has failed: {log}");
        // It is known by its silence, and no request waits for it in vain.
        wait_for("the proxy that failed is named", LIMIT, async || {
            let view = fences.local.view().await?;
            let (phase, why) = (&view["status"]["phase"], view["status"]["switch"]["fence"]["aborted"].to_string());
            ensure!(phase == "ProvingRoutes" && why.contains("edge-a") && !why.contains("edge-b"), "{phase}: {why}");
            ensure!(view["status"]["activeVersion"] == "v1", "{view}");
            Ok(())
        })
        .await?;
        for answer in kept.join_all().await {
            let answer = answer?;
            ensure!((answer.status, answer.version()) == (200, "v1"), "{answer:?}");
        }
        // Nobody is left who would let these go.
        for answer in lost.join_all().await {
            let answer = answer?;
            ensure!([408, 504].contains(&answer.status), "{answer:?}");
        }
        for talk in &open {
            talk.goes_on().await?;
        }
        // Without its filter it goes by the default route.
        let after = Call::get(edge, "/").host("reviews").header("x-versionflag", "v2").send().await?;
        ensure!((after.status, after.version()) == (200, "v1"), "{after:?}");
        for talk in open {
            talk.end().await?;
        }
        fences.local.blocks(&["edge-a"]).await?;

        fails.restart(dir).await?;
        let fence = fences.opened("v2").await?;
        ensure!(fence["aborted"].as_str().is_some_and(|why| why.contains("edge-a")), "{fence}");
        let answer = Call::get(edge, "/").host("reviews").send().await?;
        ensure!((answer.status, answer.version()) == (200, "v2"), "{answer:?}");
        fences.assert_apart()
    });
}
