//! Where requests go that the filter has not marked, what arrives past the callers' filters, and the
//! configurations that `render envoy` writes. Real parts, under load, every request checked.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::local::{Local, wasm};
use harness::page::Page;
use harness::talk::Kind;
use harness::{Call, Load, LoadPlan, Signal, Talk, TestDir, clock, story, wait_for};
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

/// T10: `manifests/envoy/README.md`, command by command; and a third version, without a change of its Envoy.
#[test]
fn the_example_serves_as_it_is() {
    story("example", async |dir| {
        let mut page = Page::open(dir, "manifests/envoy/README.md")?;
        let example = harness::root().join("manifests/envoy");
        for file in ["reviews.yaml", "envoy.yaml", "server.py"] {
            let text = std::fs::read_to_string(example.join(file))?;
            let wasm = wasm()?.display().to_string();
            dir.write(file, page.here(&text).replace("../../target/versionflag.wasm", &wasm));
        }
        let began_with = files(dir)?;
        let command = page.next("../../target/release/versionflag local -f reviews.yaml")?;
        let mut controller = page.start(&format!("exec {}", command.trim_start_matches("../../target/release/")))?;
        wait_for("the files", LIMIT, async || {
            let written = ["filter.json", "routes.json", "clusters.json"];
            ensure!(written.iter().all(|file| dir.file(file).exists()), "not yet");
            Ok(())
        })
        .await?;
        let command = page.next("\"$(make -s -C ../.. envoy)\" -c envoy.yaml")?;
        let command = command.replace("\"$(make -s -C ../.. envoy)\"", "envoy");
        let mut envoy = page.start(&format!("exec {command} --disable-hot-restart"))?;
        page.next("export PATH=$PWD/../../target/release:$PATH")?;
        let ask = "curl -H 'host: reviews.example' localhost:10000";
        page.asks(ask, "v1").await?;
        let status = page.next("versionflag status")?;
        wait_for("an ack", LIMIT, async || {
            ensure!(page.start(&status)?.wait_exit(LIMIT).await?.success(), "not yet");
            Ok(())
        })
        .await?;
        page.run("sed -i").await?;
        let watch = page.next("versionflag status -w reviews.yaml")?;
        let mut watch = page.start(&format!("exec {watch}"))?;
        wait_for("Retaining", LIMIT, async || {
            ensure!(watch.log_tail(40).contains("Retaining"), "{}", watch.log_tail(40));
            Ok(())
        })
        .await?;
        watch.signal(Signal::SIGINT)?;
        watch.wait_exit(LIMIT).await?;
        page.asks(ask, "v2").await?;
        page.run("versionflag rollback").await?;
        page.serves("v1").await?;
        page.run("versionflag retry").await?;
        page.serves("v2").await?;
        let text = std::fs::read_to_string(dir.file("reviews.yaml"))?;
        let third =
            page.here("    v3:\n      command: [python3, server.py, v3, \"9003\"]\n      address: 127.0.0.1:9003\n");
        dir.write("reviews.yaml", text.replace("  version: v2\n", "  version: v3\n") + &third);
        page.serves("v3").await?;
        page.run("for version in v1 v2").await?;
        page.start("versionflag stop -f reviews.yaml --version v3 --force")?.wait_exit(LIMIT).await?;
        for process in [&mut envoy, &mut controller] {
            process.signal(Signal::SIGINT)?;
            process.wait_exit(LIMIT).await?;
        }
        dir.write("reviews.yaml", text);
        page.run("sed -i").await?;
        page.run("rm -f").await?;
        assert_eq!(files(dir)?, began_with, "as new");
        page.ends()
    });
}

/// What is there, but for the logs of what the page has run, and its programs.
fn files(dir: &TestDir) -> Result<BTreeMap<String, Vec<u8>>> {
    let all = dir.files("", "")?;
    let own = |name: &str| name.starts_with("page-") || name == "bin";
    let named = all.into_iter().map(|file| (file.file_name().unwrap_or_default().to_string_lossy().into_owned(), file));
    named.filter(|(name, _)| !own(name)).map(|(name, file)| Ok((name, std::fs::read(file)?))).collect()
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
