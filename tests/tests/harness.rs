//! The harness itself, on a real Envoy: what the other tests build on holds, and can fail.

use std::time::Duration;

use anyhow::ensure;
use harness::{Backend, BackendOptions, Call, Envoy, EnvoyOptions, Kind, Load, LoadPlan, Signal, TestDir};
use harness::{config, story, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);

/// By header to v2, otherwise to v1, over either protocol.
fn two_versions(v1: &Backend, v2: &Backend) -> Value {
    let routes = config::routes([config::route_when("x-versionflag", "v2", "v2"), config::route_to("v1")]);
    config::bootstrap(
        [config::listener("ingress", [], routes)],
        [
            config::cluster("v1", v1.addr(), config::Upstream::H1),
            config::cluster("v2", v2.addr(), config::Upstream::H2),
        ],
    )
}

#[test]
fn load_of_every_kind_goes_by_header_and_every_request_is_accounted_for() {
    story("by-header", async |dir| {
        let (v1, v2) = (Backend::start(dir, "v1").await?, Backend::start(dir, "v2").await?);
        let envoy =
            Envoy::start_with(dir, EnvoyOptions { concurrency: 2, ..EnvoyOptions::default() }, two_versions(&v1, &v2))
                .await?;

        let plan = LoadPlan {
            rate_per_s: 1_000,
            slow_per_s: 10,
            slow: Duration::from_millis(500),
            stream: Some(Duration::from_secs(1)),
            ..LoadPlan::default()
        };
        let to_v2 = LoadPlan { headers: vec![("X-VersionFlag".into(), "v2".into())], ..plan.clone() };
        let (old, new) = (Load::start(envoy.listener("ingress"), plan), Load::start(envoy.listener("ingress"), to_v2));
        let (old, new) = tokio::join!(old.run_for(Duration::from_secs(2)), new.run_for(Duration::from_secs(2)));
        let (old, new) = (old?, new?);

        old.assert_no_failures();
        new.assert_no_failures();
        assert!(old.all_served_by("v1") && new.all_served_by("v2"));
        let by_kind = old.count_by(|request| request.kind);
        assert!((1_900..=3_000).contains(&by_kind[&Kind::Fast]), "{by_kind:?}");
        assert!((18..=30).contains(&by_kind[&Kind::Slow]), "{by_kind:?}");
        assert!((2..=4).contains(&by_kind[&Kind::Stream]), "{by_kind:?}");
        for stream in old.kind(Kind::Stream).requests() {
            assert!(stream.end_us - stream.head_us >= 800_000, "a stream goes on after its head: {stream:?}");
        }
        assert_eq!(v1.stats().await?.served, old.len() as u64);
        assert_eq!(v2.stats().await?.served, new.len() as u64);
        assert_eq!(v2.stats().await?.open, 0);
        assert_eq!(envoy.stat("http.ingress.downstream_rq_total").await?, (old.len() + new.len()) as u64);
        Ok(())
    });
}

#[test]
fn one_core_makes_3000_requests_a_second() {
    story("rate", async |dir| {
        let v1 = Backend::start(dir, "v1").await?;
        let bootstrap = config::bootstrap(
            [config::listener("ingress", [], config::routes([config::route_to("v1")]))],
            [config::cluster("v1", v1.addr(), config::Upstream::H2)],
        );
        let envoy = Envoy::start(dir, "envoy", bootstrap).await?;
        let plan = LoadPlan { rate_per_s: 3_000, h1_connections: 32, ..LoadPlan::default() };
        let results = Load::start(envoy.listener("ingress"), plan).run_for(Duration::from_secs(3)).await?;
        results.assert_no_failures();
        println!("{} requests, median {:?}, p99 {:?}", results.len(), results.latency(0.5), results.latency(0.99));
        assert!(results.len() >= 8_900, "only {} requests fell due", results.len());
        Ok(())
    });
}

#[test]
fn a_killed_envoy_shows_as_failures() {
    story("killed", async |dir| {
        let v1 = Backend::start(dir, "v1").await?;
        let mut envoy = Envoy::start(dir, "envoy", two_versions(&v1, &v1)).await?;
        let load = Load::start(envoy.listener("ingress"), LoadPlan::default());
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 100).await?;
        envoy.kill();
        wait_for("failures", LIMIT, async || load.live().failed > 100).await?;
        let results = load.stop().await?;
        assert!(!results.is_empty() && results.failures().len() < results.len());
        let said = std::panic::catch_unwind(|| results.assert_no_failures()).unwrap_err();
        let said = said.downcast_ref::<String>().map_or("", String::as_str);
        assert!(said.contains("requests failed"), "{said}");
        Ok(())
    });
}

#[test]
fn a_restarted_envoy_has_the_same_addresses() {
    story("restart", async |dir| {
        let v1 = Backend::start(dir, "v1").await?;
        let mut envoy = Envoy::start(dir, "envoy", two_versions(&v1, &v1)).await?;
        let (before, pid) = (envoy.listener("ingress"), envoy.process().pid());
        envoy.restart(dir).await?;
        assert_eq!(envoy.listener("ingress"), before);
        assert_ne!(envoy.process().pid(), pid);
        assert_eq!(Call::get(before, "/").send().await?.version(), "v1");
        Ok(())
    });
}

#[test]
fn what_is_stopped_stalls_and_goes_on() {
    story("stopped", async |dir| {
        let v1 = Backend::start(dir, "v1").await?;
        let mut envoy = Envoy::start(dir, "envoy", two_versions(&v1, &v1)).await?;
        let load = Load::start(envoy.listener("ingress"), LoadPlan { rate_per_s: 200, ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 20).await?;
        envoy.pause()?;
        wait_for("requests that are not answered", LIMIT, async || load.live().in_flight() > 50).await?;
        assert!(envoy.process().is_running());
        envoy.resume()?;
        wait_for("the answers", LIMIT, async || load.live().in_flight() < 10).await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.latency(1.0) > Duration::from_millis(200), "the stall is seen: {:?}", results.latency(1.0));
        Ok(())
    });
}

#[test]
fn a_backend_ends_after_its_last_request() {
    story("graceful", async |dir| {
        let mut v1 = Backend::start(dir, "v1").await?;
        let addr = v1.addr();
        let slow = tokio::spawn(async move { Call::get(addr, "/slow?ms=500").send().await });
        wait_for("the slow request", LIMIT, async || {
            ensure!(v1.stats().await?.open == 1, "it is not open");
            Ok(())
        })
        .await?;
        v1.process().signal(Signal::SIGTERM)?;
        wait_for("no new connections", LIMIT, async || Call::get(addr, "/").send().await.is_err()).await?;
        assert_eq!(slow.await??.status, 200);
        let status = v1.process().wait_exit(LIMIT).await?;
        assert_eq!(status.code(), Some(0));
        Ok(())
    });
}

#[test]
fn a_backend_is_ready_when_told_to() {
    story("ready", async |dir| {
        let never = BackendOptions { version: "never".into(), fail_ready: true, ..BackendOptions::default() };
        let later = BackendOptions {
            version: "later".into(),
            ready_after: Duration::from_millis(300),
            ..BackendOptions::default()
        };
        let (mut never, later) = (Backend::start_with(dir, never).await?, Backend::start_with(dir, later).await?);
        assert_eq!(Call::get(later.addr(), "/healthz").send().await?.status, 503);
        wait_for("readiness", LIMIT, async || {
            Call::get(later.addr(), "/healthz").send().await.is_ok_and(|answer| answer.status == 200)
        })
        .await?;
        assert_eq!(Call::get(never.addr(), "/healthz").send().await?.status, 503);
        assert!(Call::get(never.addr(), "/crash").send().await.is_err());
        assert_eq!(never.process().wait_exit(LIMIT).await?.code(), Some(1));
        Ok(())
    });
}

#[test]
fn headers_are_sent_as_written() {
    story("raw", async |dir| {
        let v1 = Backend::start(dir, "v1").await?;
        let twice = Call::get(v1.addr(), "/").header("X-VersionFlag", "v2").header("x-VERSIONFLAG", "v3");
        assert_eq!(twice.send().await?.got_flag(), "v2|v3");
        let streamed = Call::get(v1.addr(), "/stream?ms=30&every=10").send().await?;
        assert_eq!((streamed.status, streamed.body.as_str()), (200, "tick\ntick\ntick\n"));
        let teapot = Call::get(v1.addr(), "/status?code=418").send().await?;
        assert_eq!((teapot.status, teapot.version(), teapot.got_flag()), (418, "v1", "-"));
        Ok(())
    });
}

#[test]
fn envoy_says_what_is_wrong_with_a_configuration() {
    story("validate", async |dir| {
        let route = config::routes([config::direct_response(200, "ok")]);
        let good = config::bootstrap([config::listener("ingress", [], route)], []);
        Envoy::validate(dir, &good)?;
        let mut bad = good;
        bad["static_resources"]["listeners"] = json!([{ "nmae": "ingress" }]);
        let error = Envoy::validate(dir, &bad).unwrap_err().to_string();
        assert!(error.contains("nmae"), "{error}");
        Ok(())
    });
}

#[test]
fn a_filter_from_a_file_changes_with_the_file() {
    story("ecds", async |dir| {
        let set = |value: &str| {
            let filter = config::header_mutation_filter("x-versionflag", value);
            config::ecds_file("late", filter["typed_config"].clone())
        };
        let v1 = Backend::start(dir, "v1").await?;
        let file = dir.write("late.json", set("a"));
        let type_url =
            config::header_mutation_filter("", "")["typed_config"]["@type"].as_str().unwrap_or("").to_owned();
        let late = config::ecds_filter("late", &file, &type_url);
        let bootstrap = config::bootstrap(
            [config::listener("ingress", [late], config::routes([config::route_to("v1")]))],
            [config::cluster("v1", v1.addr(), config::Upstream::H2)],
        );
        let envoy = Envoy::start(dir, "envoy", bootstrap).await?;
        let call = Call::get(envoy.listener("ingress"), "/").header("x-versionflag", "forged");
        assert_eq!(call.send().await?.got_flag(), "a");
        dir.write("late.json", set("b"));
        wait_for("the new configuration", LIMIT, async || call.send().await.is_ok_and(|it| it.got_flag() == "b")).await
    });
}

#[test]
fn nothing_is_left_running() {
    story("leftovers", async |_| {
        let inner = TestDir::new("inner");
        // A shell that starts something outside its process group and goes away.
        let file = inner.file("pid");
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(format!("setsid sleep 600 & echo $! > {}", file.display()));
        let mut shell = harness::Process::start(&inner, "shell", command)?;
        shell.wait_exit(LIMIT).await?;
        let pid: i32 = std::fs::read_to_string(file)?.trim().parse()?;
        let runs = |pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
        };
        assert!(runs(pid));
        drop(inner);
        wait_for("its end", LIMIT, async || !runs(pid)).await
    });
}
