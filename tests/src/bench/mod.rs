//! What a filter costs per request: CPU time of an Envoy over the requests it counted. I/O: runs
//! the Envoys and the load.
//!
//! CPU time is steadier than latency on a shared machine. Every variant has an Envoy of its own;
//! all stay up, and are measured in turns, so that whatever else the machine does meets all of
//! them. What a filter adds is taken within a round, and then the median of the rounds.

mod closed_loop;
mod report;
mod variants;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::Call;
use crate::config;
use crate::dir::TestDir;
use crate::envoy::Envoy;
use closed_loop::Connections;
pub use report::{Machine, Measured, Report, Summary};
pub use variants::{PROOF_PATH, Variant, ours_config, variants};

const LISTENER: &str = "ingress";

/// How long to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How often every variant has its turn.
    pub rounds: usize,
    /// How long a turn is.
    pub turn: Duration,
    /// Keep-alive connections to an Envoy.
    pub connections: usize,
}

/// One variant, up and proven to do what it is for.
struct Subject {
    name: &'static str,
    envoy: Envoy,
    connections: Connections,
}

/// Measures the variants.
pub async fn run(dir: &TestDir, variants: Vec<Variant>, plan: &Plan) -> Result<Report> {
    let mut subjects = Vec::new();
    for variant in variants {
        let name = variant.name;
        subjects.push(start(dir, variant, plan.connections).await.with_context(|| name.to_owned())?);
    }
    println!("warming up {} variants", subjects.len());
    for subject in &mut subjects {
        // V8 optimises the code once it has run for a while.
        measure(subject, plan.turn.max(Duration::from_secs(1))).await?;
    }
    let mut rounds: BTreeMap<&'static str, Vec<Measured>> = BTreeMap::new();
    for round in 0..plan.rounds {
        // Nobody always comes after the same neighbour at the same time of the round.
        let count = subjects.len();
        subjects.rotate_left(round % count.max(1));
        for subject in &mut subjects {
            let measured = measure(subject, plan.turn).await.with_context(|| subject.name.to_owned())?;
            rounds.entry(subject.name).or_default().push(measured);
        }
        println!("round {:>2} of {}: {}", round + 1, plan.rounds, progress(&rounds));
    }
    Ok(Report::new(Machine::this(), Envoy::version()?, plan, &rounds))
}

async fn start(dir: &TestDir, variant: Variant, connections: usize) -> Result<Subject> {
    let routes = config::routes([
        config::route_of_version(PROOF_PATH, "v1"),
        config::with_metadata(config::direct_response(200, "none"), "lua", serde_json::json!({ "version": "v1" })),
    ]);
    let bootstrap = config::bootstrap([config::listener(LISTENER, variant.filters, routes)], []);
    let envoy = Envoy::start(dir, variant.name, bootstrap).await?;
    let target = envoy.listener(LISTENER);
    let proof = Call::get(target, PROOF_PATH).host(variant.host).header("X-VersionFlag", "forged").send().await?;
    ensure!(proof.body == variant.proof, "the filter does not work: {proof:?}");
    let connections = Connections::open(target, variant.host, connections).await?;
    Ok(Subject { name: variant.name, envoy, connections })
}

async fn measure(subject: &mut Subject, turn: Duration) -> Result<Measured> {
    let counter = format!("http.{LISTENER}.downstream_rq_total");
    // The admin interface is asked outside of the time that is measured.
    let requests_before = subject.envoy.stat(&counter).await?;
    let cpu_before = subject.envoy.cpu_time()?;
    let elapsed = subject.connections.drive(turn).await?;
    let cpu = subject.envoy.cpu_time()? - cpu_before;
    let requests = subject.envoy.stat(&counter).await? - requests_before;
    ensure!(requests > 0, "no request was counted");
    let cpu_us = cpu.as_secs_f64() * 1e6 / requests as f64;
    Ok(Measured { cpu_us, requests, seconds: elapsed.as_secs_f64() })
}

fn progress(rounds: &BTreeMap<&'static str, Vec<Measured>>) -> String {
    let last = |(name, rounds): (&&str, &Vec<Measured>)| {
        rounds.last().map(|measured| format!("{name} {:.1}", measured.cpu_us)).unwrap_or_default()
    };
    rounds.iter().map(last).collect::<Vec<_>>().join("  ")
}
