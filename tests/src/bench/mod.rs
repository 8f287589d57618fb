//! What a filter costs per request: CPU time of an Envoy over the requests it counted. I/O: runs
//! the Envoys and the load.
//!
//! CPU time is steadier than latency on a shared machine. Every variant has an Envoy of its own;
//! all stay up, and take turns of a fraction of a second, so that whatever else the machine does
//! meets all of them. What a filter adds is taken within a round, and then the median of the
//! rounds. The report says how busy the machine was with other things.

mod closed_loop;
mod others;
mod report;
mod variants;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::Call;
use crate::config;
use crate::dir::TestDir;
use crate::envoy::Envoy;
use closed_loop::Connections;
use others::Reading;
pub use report::{Machine, Measured, Report, Summary, quantile};
pub use variants::{PROOF_PATH, Variant, ours_config, variants};

/// The listener of all Envoys that are measured.
pub const LISTENER: &str = "ingress";

/// How long to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How often every variant is measured.
    pub rounds: usize,
    /// For how long in a round.
    pub time: Duration,
    /// In how many turns.
    pub turns: u32,
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
        measure(subject, plan.time.max(Duration::from_secs(1))).await?;
    }
    let before = Reading::now(cpu_time(&mut subjects)?)?;
    let mut rounds: BTreeMap<&'static str, Vec<Measured>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for turn in 0..plan.turns {
            // Nobody always comes after the same neighbour.
            let count = subjects.len();
            subjects.rotate_left((round + turn as usize) % count.max(1));
            for subject in &mut subjects {
                let measured = measure(subject, plan.time / plan.turns).await;
                let measured = measured.with_context(|| subject.name.to_owned())?;
                let rounds = rounds.entry(subject.name).or_default();
                match rounds.get_mut(round) {
                    Some(sum) => sum.add(&measured),
                    None => rounds.push(measured),
                }
            }
        }
        println!("round {:>2} of {}: {}", round + 1, plan.rounds, progress(&rounds));
    }
    let others = before.share_until(&Reading::now(cpu_time(&mut subjects)?)?);
    Ok(Report::new(Machine::this(others), Envoy::version()?, plan, &rounds))
}

/// CPU time that the Envoys have used.
fn cpu_time(subjects: &mut [Subject]) -> Result<Duration> {
    subjects.iter_mut().map(|subject| subject.envoy.cpu_time()).sum()
}

/// An Envoy with these filters, which answers every request itself.
pub fn bootstrap(filters: Vec<Value>) -> Value {
    let routes = config::routes([
        config::route_of_version(PROOF_PATH, "v1"),
        config::with_metadata(config::direct_response(200, "none"), "lua", serde_json::json!({ "version": "v1" })),
    ]);
    config::bootstrap([config::listener(LISTENER, filters, routes)], [])
}

async fn start(dir: &TestDir, variant: Variant, connections: usize) -> Result<Subject> {
    let envoy = Envoy::start(dir, variant.name, bootstrap(variant.filters)).await?;
    let target = envoy.listener(LISTENER);
    // Values that stay behind would be joined to the new one, and match no route.
    let forged = Call::get(target, PROOF_PATH).header("X-VersionFlag", "v2").header("x-versionFLAG", "v3");
    let proof = forged.host(variant.host).send().await?;
    ensure!(proof.body == variant.proof, "the filter does not work: {proof:?}");
    let connections = Connections::open(target, variant.host, connections).await?;
    Ok(Subject { name: variant.name, envoy, connections })
}

async fn measure(subject: &mut Subject, time: Duration) -> Result<Measured> {
    let counter = format!("http.{LISTENER}.downstream_rq_total");
    // The admin interface is asked outside of the time that is measured.
    let requests_before = subject.envoy.stat(&counter).await?;
    let cpu_before = subject.envoy.cpu_time()?;
    let elapsed = subject.connections.drive(time).await?;
    let cpu = subject.envoy.cpu_time()? - cpu_before;
    let requests = subject.envoy.stat(&counter).await? - requests_before;
    ensure!(requests > 0, "no request was counted");
    Ok(Measured::new(cpu.as_secs_f64() * 1e6, requests, elapsed.as_secs_f64()))
}

fn progress(rounds: &BTreeMap<&'static str, Vec<Measured>>) -> String {
    let last = |(name, rounds): (&&str, &Vec<Measured>)| {
        rounds.last().map(|measured| format!("{name} {:.1}", measured.cpu_us)).unwrap_or_default()
    };
    rounds.iter().map(last).collect::<Vec<_>>().join("  ")
}
