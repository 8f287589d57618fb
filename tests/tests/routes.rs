//! Where requests go that the filter has not marked, what arrives past the callers' filters, and the
//! configurations that `render envoy` writes. Real parts, under load, every request checked.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use harness::local::{Local, own_address, wasm};
use harness::process::{Process, program};
use harness::talk::Kind;
use harness::{Call, Load, LoadPlan, Talk, clock, story, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

fn plan() -> LoadPlan {
    LoadPlan { rate_per_s: 300, ..LoadPlan::default() }
}

#[test]
fn requests_without_a_version_follow_the_flag() {
    story("unmarked", async |dir| {
        let mut local = Local::new(dir)?;
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let marked = Load::start(envoy.listener("ingress"), plan());
        let unmarked = Load::start(envoy.listener("unmarked"), plan());
        wait_for("traffic", LIMIT, async || unmarked.live().answered_by("v1") > 50).await?;
        local.ask("v2");
        local.reaches("Stable", "v2").await?;
        let removed_us = clock::now_us();
        ensure!(!local.runs("v1").await, "v1 still runs");
        for load in [&marked, &unmarked] {
            let before = load.live().answered_by("v2");
            wait_for("traffic after the removal", LIMIT, async || load.live().answered_by("v2") > before + 300).await?;
        }
        for load in [marked, unmarked] {
            let results = load.stop().await?;
            results.assert_no_failures();
            assert!(results.after(removed_us).all_served_by("v2"), "{:?}", results.by_version());
        }
        let stale = Call::get(envoy.listener("unmarked"), "/").host("reviews").header("x-versionflag", "v1");
        assert_eq!(stale.send().await?.version(), "v2", "no route leads to what was removed");
        Ok(())
    });
}

#[test]
fn routes_that_lack_the_new_version_keep_the_flag_where_it_is() {
    story("lacking-routes", async |dir| {
        let mut local = Local::new(dir)?;
        local.start().await?;
        let config = local.envoy_config_with_routes("versionflag:reviews:v1,v3");
        let envoy = local.envoy_of("edge", 2, config).await?;
        local.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("ingress"), plan());
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        local.ask("v2");
        local.blocks(&["edge", "does not list v2"]).await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.all_served_by("v1"));
        local.ask("v3");
        local.reaches("Stable", "v3").await?;
        Ok(())
    });
}

#[test]
fn a_preview_reaches_the_new_version_before_the_flip() {
    story("preview", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["promotion"] = json!({ "mode": "Manual" });
        local.file()["spec"]["preview"] = json!({ "header": "x-preview", "value": "me-4711" });
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let load = Load::start(envoy.listener("ingress"), plan());
        let with = |value: &str| Call::get(envoy.listener("ingress"), "/").host("reviews").header("x-preview", value);
        assert_eq!(with("me-4711").send().await?.version(), "v1", "there is nothing to preview");
        local.ask("v2");
        local.reaches("AwaitingPromotion", "v1").await?;
        wait_for("the preview", LIMIT, async || {
            ensure!(with("me-4711").send().await?.version() == "v2", "not yet at every worker");
            Ok(())
        })
        .await?;
        assert_eq!(with("somebody").send().await?.version(), "v1");
        let before = load.live().answered_by("v1");
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > before + 100).await?;
        assert_eq!(load.live().answered_by("v2"), 0, "without the header everything stays");
        local.request("promote").await?;
        local.reaches("Stable", "v2").await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// With a sidecar in front of v1 and of v2.
fn with_sidecars(local: &mut Local) {
    let sidecar = |version: &str, port: u16, local: &Local| {
        json!({
            "id": version,
            "sidecar": {
                "service": "reviews", "version": version, "filter": format!("{version}-filter.json"),
                "listen": std::net::SocketAddr::new(local.service().ip(), port).to_string(),
            },
        })
    };
    let proxies = json!([{ "id": "edge" }, sidecar("v1", 9101, local), sidecar("v2", 9102, local)]);
    local.file()["local"]["proxies"] = proxies;
}

/// E7: streams of every kind go through what is rendered, and end whole after a flip.
#[test]
fn streams_go_through_the_rendered_configuration() {
    for (http2, kinds) in [(true, vec![Kind::Grpc]), (false, vec![Kind::WebSocket, Kind::Download])] {
        story("rendered-streams", async |dir| {
            let mut local = Local::new(dir)?;
            for version in ["v1", "v2"] {
                local.file()["local"]["versions"][version]["http2"] = http2.into();
            }
            local.start().await?;
            let envoy = local.envoy_of("edge", 2, local.rendered_for_callers()?).await?;
            local.reaches("Stable", "v1").await?;
            let ingress = envoy.listener("ingress");
            let mut open = Vec::new();
            for kind in &kinds {
                open.push(Talk::open(*kind, ingress, "reviews").await?);
            }
            local.ask("v2");
            local.reaches("Settling", "v2").await?;
            for talk in open {
                assert_eq!(talk.version(), "v1");
                talk.end().await?;
            }
            local.reaches("Stable", "v2").await?;
            for kind in kinds {
                let talk = Talk::open(kind, ingress, "reviews").await?;
                assert_eq!(talk.version(), "v2");
                talk.end().await?;
            }
            Ok(())
        });
    }
}

#[test]
fn the_rendered_configuration_serves_as_it_is() {
    for managed in [true, false] {
        story("rendered", async |dir| {
            let mut local = Local::new(dir)?;
            local.start().await?;
            if !managed {
                local.file()["local"]["filterConfig"]["routes"].take();
                local.write();
            }
            local.reaches("Stable", "v1").await?;
            let envoy = local.envoy_of("edge", 2, local.rendered_for_callers()?).await?;
            let call = Call::get(envoy.listener("ingress"), "/").host("reviews");
            assert_eq!(call.send().await?.version(), "v1");
            let spelled = Call::get(envoy.listener("ingress"), "/").host("Reviews.:80");
            assert_eq!(spelled.send().await?.version(), "v1", "port, case and trailing dot do not matter");
            local.ask("v2");
            local.reaches("Stable", "v2").await?;
            assert_eq!(call.send().await?.version(), "v2");
            Ok(())
        });
    }
}

/// T10: `manifests/envoy`, as its README has it run, on an address that is free; and a third version, without a change
/// of its Envoy.
#[test]
fn the_example_serves_as_it_is() {
    story("example", async |dir| {
        let ip = own_address();
        let example = harness::root().join("manifests/envoy");
        for file in ["reviews.yaml", "envoy.yaml", "server.py"] {
            let text = std::fs::read_to_string(example.join(file))?;
            let wasm = wasm()?.display().to_string();
            dir.write(file, text.replace("127.0.0.1", &ip.to_string()).replace("../../target/versionflag.wasm", &wasm));
        }
        let mut command = Command::new(program("versionflag")?);
        command.args(["local", "-f", "reviews.yaml"]).current_dir(dir.path());
        let _controller = Process::start(dir, "controller", command)?;
        wait_for("the files", LIMIT, async || {
            ensure!(
                ["filter.json", "routes.json", "clusters.json"].iter().all(|file| dir.file(file).exists()),
                "not yet"
            );
            Ok(())
        })
        .await?;
        let mut command = Command::new(harness::envoy::binary()?);
        command.args(["-c", "envoy.yaml", "--concurrency", "2", "--disable-hot-restart"]).current_dir(dir.path());
        let mut envoy = Process::start(dir, "envoy", command)?;
        let mut serves = async |version: &str| {
            wait_for(version, LIMIT, async || {
                envoy.check_running()?;
                let answer = Call::get((ip, 10_000).into(), "/").host("reviews.example").send().await?;
                ensure!((answer.status, answer.body.trim()) == (200, version), "{} {}", answer.status, answer.body);
                Ok(())
            })
            .await
        };
        serves("v1").await?;
        let text = std::fs::read_to_string(dir.file("reviews.yaml"))?;
        dir.write("reviews.yaml", text.replace("  version: v1\n", "  version: v2\n"));
        serves("v2").await?;
        let third = format!("    v3:\n      command: [python3, server.py, v3, \"9003\"]\n      address: {ip}:9003\n");
        let text = text.replace("  version: v1\n", "  version: v3\n").replace("retainFor: 30s", "retainFor: 1s");
        dir.write("reviews.yaml", text + &third);
        serves("v3").await
    });
}

#[test]
fn what_arrives_past_the_callers_keeps_v1() {
    story("sidecars", async |dir| {
        let mut local = Local::new(dir)?;
        with_sidecars(&mut local);
        local.start().await?;
        let old = local.envoy_of("v1", 2, local.rendered("v1")?).await?;
        let _new = local.envoy_of("v2", 2, local.rendered("v2")?).await?;
        let edge = local.envoy_of("edge", 2, local.rendered_for_callers()?).await?;
        local.reaches("Stable", "v1").await?;
        let load = Load::start(edge.listener("ingress"), plan());
        let past = Load::start(old.listener("inbound"), LoadPlan { rate_per_s: 20, ..plan() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        local.ask("v2");
        local.reaches("Settling", "v2").await?;
        // Three quiet periods.
        let before = past.live().answered_by("v1");
        wait_for("requests past the callers", LIMIT, async || past.live().answered_by("v1") > before + 60).await?;
        assert_eq!(local.phase().await?, ("Settling".to_owned(), "v2".to_owned()));
        ensure!(local.runs("v1").await, "v1 was removed under a caller without the filter");
        past.stop().await?.assert_no_failures();
        local.reaches("Stable", "v2").await?;
        ensure!(!local.runs("v1").await, "v1 still runs");
        let results = load.stop().await?;
        results.assert_no_failures();
        let view = local.view().await?;
        assert_eq!(view["fleet"]["expected"], 2, "the sidecar of what is stopped is not waited for");
        Ok(())
    });
}
