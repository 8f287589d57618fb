//! What reaching the new version before the flip gives: latencies of its first second against those of the old one's
//! last second, with the probe and without it, over TLS, four workers, every round with a proxy whose pools are cold.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::load::Results;
use harness::{Envoy, EnvoyOptions, Kind, Load, LoadPlan, TestDir, clock, config, flips, wait_for};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde::Serialize;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const SECOND_US: u64 = 1_000_000;
const VERSIONS: [&str; 2] = ["v1", "v2"];
const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// Measures first seconds, and writes every round to target/bench/first-second.json.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds of each way, one after the other
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Requests a second
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
}

/// Milliseconds of requests that began within one second.
#[derive(Debug, Clone, Serialize)]
struct Window {
    requests: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Round {
    probe: bool,
    /// The last second before the flip, on the old version.
    last: Window,
    /// The first second on the new version.
    first: Window,
    /// Connections to the new version that the proxy opened in all.
    connections: u64,
}

fn window(results: &Results, version: &str, from_us: u64) -> Result<Window> {
    let inside = |one: &&harness::load::Request| {
        one.version() == version && (from_us..from_us + SECOND_US).contains(&one.start_us)
    };
    let all: Vec<f64> =
        results.requests().iter().filter(inside).map(|one| (one.end_us - one.start_us) as f64 / 1_000.0).collect();
    let at = |quantile| flips::quantile(all.clone(), quantile).with_context(|| format!("no request on {version}"));
    Ok(Window { requests: all.len(), p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
}

/// Ends the TLS of the proxy under test, in front of both versions.
async fn front(dir: &TestDir, local: &harness::local::Local<'_>) -> Result<Envoy> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["reviews".to_owned()])?;
    let tls = json!({ "name": "tls", "typed_config": {
        "@type": DOWNSTREAM_TLS,
        "common_tls_context": { "tls_certificates": [{
            "certificate_chain": { "inline_string": cert.pem() },
            "private_key": { "inline_string": signing_key.serialize_pem() },
        }] },
    } });
    let listener = |version: &&str| {
        let routes = config::routes([config::route_to(version)]);
        let mut listener = config::listener(version, [], routes);
        listener["filter_chains"][0]["transport_socket"] = tls.clone();
        listener
    };
    let cluster = |version: &&str| config::cluster(version, local.address(version), config::Upstream::H1);
    let options = EnvoyOptions { name: "front".to_owned(), concurrency: 2, ..EnvoyOptions::default() };
    Envoy::start_with(dir, options, config::bootstrap(VERSIONS.iter().map(listener), VERSIONS.iter().map(cluster)))
        .await
}

/// The proxy under test: its clusters lead to the front, over TLS.
fn over_tls(mut config: Value, front: &Envoy) -> Result<Value> {
    let clusters = config["static_resources"]["clusters"].as_array_mut().context("clusters")?;
    for cluster in clusters {
        let Some(version) = VERSIONS.iter().find(|version| cluster["name"] == format!("reviews-{version}")) else {
            continue;
        };
        let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        endpoint["address"] = config::address(front.listener(version));
        let tls = json!({ "@type": UPSTREAM_TLS, "sni": "reviews" });
        cluster["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
    }
    Ok(config)
}

async fn round(local: &mut harness::local::Local<'_>, front: &Envoy, rate: u32, probe: bool) -> Result<Round> {
    local.file()["spec"]["coexistence"]["probe"] = json!({ "mode": if probe { "Require" } else { "None" } });
    local.write();
    let config = over_tls(local.envoy_config(), front)?;
    let envoy = local.envoy_of("edge", 4, config).await?;
    let (_, from) = local.phase().await?;
    let load = Load::start(envoy.listener("ingress"), LoadPlan { rate_per_s: rate, ..LoadPlan::default() });
    let more = async |version: &str, count: u64| {
        let before = load.live().answered_by(version);
        wait_for("answers", LIMIT, async || load.live().answered_by(version) >= before + count).await
    };
    more(&from, u64::from(rate) * 2).await?;
    let flip = flips::flip(local).await?;
    more(&flip.to, u64::from(rate) * 3 / 2).await?;
    let connections = envoy.stat(&format!("cluster.reviews-{}.upstream_cx_total", flip.to)).await?;
    let results = load.stop().await?;
    results.assert_no_failures();
    let results = results.kind(Kind::Fast);
    let flipped_us = clock::from_unix_ms(flip.flipped_at);
    let began = results.first(&flip.to).context("a request on the new version")?.start_us;
    let last = window(&results, &flip.from, flipped_us.saturating_sub(SECOND_US))?;
    Ok(Round { probe, last, first: window(&results, &flip.to, began)?, connections })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("bench-first-second");
    let (mut local, envoy) = flips::two_versions(&dir).await?;
    local.ask("v2");
    local.reaches("Retaining", "v2").await?;
    drop(envoy);
    let front = front(&dir, &local).await?;
    let mut rounds = vec![];
    for number in 0..options.rounds * 2 {
        let round = round(&mut local, &front, options.rate, number % 2 == 0).await?;
        eprintln!("{} of {}: {round:?}", number + 1, options.rounds * 2);
        rounds.push(round);
    }
    println!(
        "medians over {} rounds a way; ms, over TLS, 4 workers, {} requests a second",
        options.rounds, options.rate
    );
    println!("{:<10} {:>12} {:>12} {:>8} {:>12} {:>12}", "", "last p99", "first p99", "ratio", "last max", "first max");
    let mut summary = vec![];
    for probe in [true, false] {
        let median = |value: fn(&Round) -> f64| {
            let all = rounds.iter().filter(|round| round.probe == probe).map(value).collect();
            flips::quantile(all, 0.5).context("at least one round")
        };
        let [last, first, ratio] =
            [median(|one| one.last.p99)?, median(|one| one.first.p99)?, median(|one| one.first.p99 / one.last.p99)?];
        let [last_max, first_max] = [median(|one| one.last.max)?, median(|one| one.first.max)?];
        let name = if probe { "probe" } else { "no probe" };
        println!("{name:<10} {last:>12.2} {first:>12.2} {ratio:>8.2} {last_max:>12.2} {first_max:>12.2}");
        summary.push(json!({
            "probe": probe, "lastP99Ms": last, "firstP99Ms": first, "ratio": ratio, "lastMaxMs": last_max,
            "firstMaxMs": first_max,
        }));
    }
    ensure!(rounds.iter().all(|round| round.first.requests > 0), "a round without requests");
    harness::write_results("bench/first-second.json", &json!({ "summary": summary, "rounds": rounds }))?;
    Ok(())
}
