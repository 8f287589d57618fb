//! Checks before and after a flip: what the proxies measure, a real Prometheus, a webhook. On real
//! parts, under load, every request checked. And what that Prometheus finds at the controller.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::checks::{Hook, prometheus, scraping};
use harness::local::{Local, own_address};
use harness::{Call, Envoy, Load, LoadPlan, TestDir, clock, story, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn load(envoy: &Envoy) -> Result<Load> {
    let load = Load::start(envoy.listener("ingress"), LoadPlan { slow_per_s: 5, ..LoadPlan::default() });
    wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 200).await?;
    Ok(load)
}

/// At v1, with these checks, and an Envoy of two workers.
async fn world(dir: &TestDir, checks: Value) -> Result<(Local<'_>, Envoy)> {
    let mut local = Local::new(dir)?;
    local.file()["spec"]["checks"] = checks;
    local.file()["spec"]["cleanup"]["retainFor"] = "1s".into();
    local.start().await?;
    let envoy = local.envoy("edge", 2).await?;
    local.reaches("Stable", "v1").await?;
    Ok((local, envoy))
}

async fn is_blocked(local: &Local<'_>, reason: &str, words: &str) -> Result<()> {
    wait_for(&format!("{reason}: {words}"), LIMIT, async || {
        let view = local.view().await?;
        let blocked = &view["status"]["blocked"];
        let message = blocked["message"].as_str().unwrap_or_default();
        ensure!(blocked["reason"] == reason && message.contains(words), "{blocked}; waits for {}", view["waiting"]);
        Ok(())
    })
    .await
}

#[test]
fn a_version_that_fails_is_left_again() {
    story("measured-bad", async |dir| {
        let check = json!([{ "name": "errors", "builtin": { "maxErrorRate": "1%", "minRequests": 200 } }]);
        let mut local = Local::new(dir)?;
        local.file()["spec"]["checks"] = check;
        let command = local.file()["local"]["versions"]["v2"]["command"].as_array_mut().context("a command")?;
        command.extend(["--fail-every", "10"].map(Value::from));
        local.start().await?;
        let envoy = local.envoy("edge", 4).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy).await?;
        local.ask("v2");
        // Held at v1, and settled there: v2 is stopped again.
        wait_for("v1, held", LIMIT, async || {
            let view = local.view().await?;
            let status = &view["status"];
            ensure!(status["phase"] == "Stable" && status["activeVersion"] == "v1", "{}", view["waiting"]);
            ensure!(status["override"]["version"] == "v1", "not held");
            ensure!(!local.runs("v2").await, "v2 still runs");
            Ok(())
        })
        .await?;
        let view = local.view().await?;
        let reason = view["status"]["override"]["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("check errors failed for v2: "), "{reason}");
        let (share, answers) = reason
            .split_once("for v2: ")
            .and_then(|(_, rest)| rest.split_once("% of "))
            .and_then(|(share, rest)| Some((share.parse::<f64>().ok()?, rest.split(' ').next()?.parse::<u64>().ok()?)))
            .with_context(|| reason.to_owned())?;
        // One of ten fails, and at least so many were measured.
        assert!((7.0..=13.0).contains(&share) && answers >= 200, "{reason}");
        let results = load.stop().await?;
        // Only what v2 answered may have failed, and only by its own 500s.
        results.only(|request| request.version() != "v2").assert_no_failures();
        let strange = results.failures().only(|request| request.status != 500);
        assert!(strange.is_empty(), "{:?}", strange.requests().first());
        println!("{reason}; {} of {} requests failed", results.failures().len(), results.len());
        Ok(())
    });
}

#[test]
fn a_version_that_is_fine_passes_with_its_numbers() {
    story("measured-good", async |dir| {
        // Slow requests take two seconds: fewer than one of a hundred.
        let bounds = json!({ "maxErrorRate": "0%", "maxLatency": "5s", "minRequests": 500 });
        let (mut local, envoy) = world(dir, json!([{ "name": "fine", "builtin": bounds }])).await?;
        let load = load(&envoy).await?;
        local.ask("v2");
        local.reaches("Retaining", "v2").await?;
        let view = local.view().await?;
        let message = view["checks"]["fine"]["message"].as_str().unwrap_or_default();
        assert_eq!(view["checks"]["fine"]["verdict"], "passed", "{view}");
        assert!(message.starts_with("0% of ") && message.contains("99% of "), "{message}");
        local.reaches("Stable", "v2").await?;
        let removed_us = clock::now_us();
        let before = load.live().answered_by("v2");
        wait_for("traffic after the removal", LIMIT, async || load.live().answered_by("v2") > before + 200).await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.after(removed_us).all_served_by("v2"), "{:?}", results.by_version());
        println!("{message}");
        Ok(())
    });
}

/// No requests, no verdict: v1 stays.
#[test]
fn without_traffic_nothing_is_proved() {
    story("measured-nothing", async |dir| {
        let bounds = json!({ "maxErrorRate": "1%" });
        let (mut local, envoy) = world(dir, json!([{ "name": "errors", "builtin": bounds }])).await?;
        local.ask("v2");
        is_blocked(&local, "ChecksInconclusive", "0 answers were measured, at least 100 are needed").await?;
        let view = local.view().await?;
        assert_eq!(view["status"]["phase"], "Settling");
        ensure!(local.runs("v1").await, "v1 was stopped");
        let load = Load::start(envoy.listener("ingress"), LoadPlan::default());
        local.reaches("Stable", "v2").await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

#[test]
fn a_webhook_is_asked_before_the_flip_and_after_it() {
    story("webhook", async |dir| {
        let hook = Hook::start().await?;
        let check = |name: &str, when: &str, on_fail: &str| {
            let url = format!("http://{}/{name}", hook.address);
            json!({ "name": name, "when": when, "onFail": on_fail, "webhook": { "url": url }, "interval": "1s" })
        };
        let checks = json!([check("smoke", "BeforeFlip", "Pause"), check("soak", "AfterFlip", "Rollback")]);
        let (mut local, envoy) = world(dir, checks).await?;
        local.file()["spec"]["cleanup"]["retainFor"] = "1h".into();
        let load = load(&envoy).await?;
        local.ask("v2");
        // 503 is no answer, 404 is one.
        hook.answers(404);
        is_blocked(&local, "CheckFailed", "check smoke failed for v2: the webhook answered 404").await?;
        assert_eq!(local.phase().await?, ("AwaitingPromotion".to_owned(), "v1".to_owned()));
        hook.answers(200);
        local.reaches("Retaining", "v2").await?;
        let asked = hook.bodies.lock().expect("a lock").clone();
        for (name, when) in [("smoke", "BeforeFlip"), ("soak", "AfterFlip")] {
            let body = asked.iter().find(|body| body["check"] == name).with_context(|| format!("{name}: {asked:?}"))?;
            assert_eq!((&body["from"], &body["to"], &body["when"]), (&json!("v1"), &json!("v2"), &json!(when)));
        }
        // Long after the flip it is still asked, and still counts.
        hook.answers(500);
        wait_for("v1 again", LIMIT, async || {
            let view = local.view().await?;
            let reason = view["status"]["override"]["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains("check soak failed for v2: the webhook answered 500"), "{reason:?}");
            ensure!(view["status"]["activeVersion"] == "v1", "{}", view["status"]);
            Ok(())
        })
        .await?;
        local.reaches("Retaining", "v1").await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

#[test]
fn what_cannot_be_reached_neither_passes_nor_fails() {
    story("unreachable", async |dir| {
        let nobody = SocketAddr::from((own_address(), 1));
        let check = json!({ "name": "smoke", "when": "BeforeFlip", "webhook": { "url": format!("http://{nobody}/") } });
        let (mut local, envoy) = world(dir, json!([check])).await?;
        let load = load(&envoy).await?;
        local.ask("v2");
        is_blocked(&local, "ChecksInconclusive", "check smoke has not passed: it cannot be reached").await?;
        assert_eq!(local.phase().await?, ("AwaitingPromotion".to_owned(), "v1".to_owned()));
        local.request("abort").await?;
        local.reaches("Stable", "v1").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.all_served_by("v1"), "{:?}", results.by_version());
        Ok(())
    });
}

#[test]
fn a_prometheus_decides() {
    story("prometheus", async |dir| {
        let (mut local, envoy) = world(dir, json!([])).await?;
        let (_prometheus, at) = prometheus(dir, &envoy).await?;
        let check = |query: &str| {
            let ask = json!({ "address": format!("http://{at}"), "query": query, "max": "0.01" });
            json!([{ "name": "errors", "prometheus": ask, "interval": "1s" }])
        };
        let load = load(&envoy).await?;
        let series =
            r#"envoy_cluster_upstream_rq_xx{envoy_cluster_name="reviews-{{to}}",envoy_response_code_class="CLASS"}"#;
        // There are no such answers, so there is no such series.
        local.file()["spec"]["checks"] = check(&series.replace("CLASS", "5"));
        local.ask("v2");
        is_blocked(&local, "ChecksInconclusive", "check errors has not passed: the query gives no data").await?;
        assert_eq!(local.phase().await?, ("Settling".to_owned(), "v2".to_owned()));
        local.file()["spec"]["checks"] = check(&format!("sum({}) or vector(0)", series.replace("CLASS", "5")));
        local.write();
        local.reaches("Retaining", "v2").await?;
        local.file()["spec"]["checks"] = check(&format!("sum({})", series.replace("CLASS", "2")));
        local.file()["spec"]["cleanup"]["retainFor"] = "1h".into();
        local.write();
        local.reaches("Retaining", "v1").await?;
        let view = local.view().await?;
        let reason = view["status"]["override"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("at most 0.01 is allowed"), "{reason}");
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// Metrics of what does not happen here: a cluster, a fence, a disk that is full.
const NOT_HERE: [&str; 3] =
    ["versionflag_api_requests_total", "versionflag_holds_total", "versionflag_write_failures_total"];

/// All metrics that a file asks for.
fn asked_for(text: &str) -> BTreeSet<String> {
    let words = text.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
    words.filter(|word| word.starts_with("versionflag_")).map(str::to_owned).collect()
}

/// What each panel of the dashboard asks for, of all flags.
fn panels(dashboard: &str) -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(dashboard)?;
    let panels = dashboard["panels"].as_array().context("panels")?.iter();
    let expressions = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = expressions.filter_map(|target| target["expr"].as_str());
    let variables = [("$flag", ".*"), ("$__rate_interval", "10s"), ("$__range", "1m")];
    let filled = |text: &str| variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
    Ok(expressions.map(filled).collect())
}

/// Asks a Prometheus for the value of an expression now.
async fn query(prometheus: SocketAddr, expression: &str) -> Result<Value> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    ask(prometheus, &format!("query?query={encoded}")).await
}

async fn ask(prometheus: SocketAddr, path: &str) -> Result<Value> {
    let answer: Value = Call::get(prometheus, &format!("/api/v1/{path}")).send().await?.json()?;
    ensure!(answer["status"] == "success", "{path}: {answer}");
    Ok(answer["data"].clone())
}

#[test]
fn a_prometheus_finds_what_the_alerts_and_the_dashboard_ask_for() {
    story("monitoring", async |dir| {
        let bounds = json!({ "maxErrorRate": "0%", "minRequests": 100 });
        let (mut local, envoy) = world(dir, json!([{ "name": "errors", "builtin": bounds }])).await?;
        local.file()["spec"]["promotion"] = json!({ "mode": "Manual" });
        local.file()["spec"]["cleanup"]["retainFor"] = "1h".into();
        let monitoring = harness::root().join("manifests/monitoring").canonicalize()?;
        let (alerts, dashboard) = (monitoring.join("alerts.yaml"), monitoring.join("grafana-dashboard.json"));
        let dashboard = std::fs::read_to_string(dashboard)?;
        let wanted = &asked_for(&std::fs::read_to_string(&alerts)?) | &asked_for(&dashboard);
        let (_prometheus, at) = scraping(dir, local.service(), "/metrics", &[alerts]).await?;
        let load = load(&envoy).await?;
        local.ask("v2");
        is_blocked(&local, "AwaitingPromotion", "v2").await?;
        wait_for("what blocks, in Prometheus", LIMIT, async || {
            let found = query(at, "versionflag_blocked{reason='AwaitingPromotion'}").await?;
            ensure!(found["result"][0]["value"][1] == "1", "{found}");
            Ok(())
        })
        .await?;
        local.request("promote").await?;
        local.reaches("Retaining", "v2").await?;
        wait_for("every metric, in Prometheus", LIMIT, async || {
            let named = ask(at, "label/__name__/values").await?;
            let found: BTreeSet<&str> = named.as_array().context("names")?.iter().filter_map(Value::as_str).collect();
            let missing: Vec<&String> = wanted.iter().filter(|name| !found.contains(name.as_str())).collect();
            ensure!(missing == NOT_HERE, "{missing:?} are missing");
            Ok(())
        })
        .await?;
        wait_for("requests to v2, in Prometheus", LIMIT, async || {
            let found = query(at, "rate(versionflag_requests_total{version='v2'}[10s]) > 100").await?;
            ensure!(found["result"][0]["metric"]["flag"] == "reviews", "{found}");
            Ok(())
        })
        .await?;
        for expression in panels(&dashboard)? {
            query(at, &expression).await?;
        }
        local.request("rollback").await?;
        wait_for("the alert that fires", LIMIT, async || {
            let rules = ask(at, "rules").await?;
            let rules = rules["groups"][0]["rules"].as_array().context("rules")?;
            ensure!(rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
            let firing: Vec<&Value> = rules.iter().filter(|rule| rule["state"] == "firing").collect();
            ensure!(firing.len() == 1 && firing[0]["name"] == "RolledBack", "{firing:?}");
            Ok(())
        })
        .await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}
