//! Measures what it costs an Envoy to have the filter at all: CPU time until it serves, most of which compiles, and
//! memory of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures_util::future::try_join_all;
use harness::bench::{LISTENER, Machine, Variant, bootstrap, quantile, variants};
use harness::client::Call;
use harness::envoy::{Envoy, EnvoyOptions};
use harness::{TestDir, write_results};
use serde_json::{Value, json};

/// What is compared: no filter, the least that a filter has, the one of before the fence, ours.
const COMPARED: [&str; 4] = ["none", "empty-sdk", "before-fence", "ours"];
const WORKERS: [u32; 3] = [1, 2, 8];
/// Requests before memory is read, so that every worker has had some.
const REQUESTS: usize = 400;

/// Writes a table to the terminal and all numbers to target/bench/memory.json.
#[derive(Debug, Parser)]
struct Options {
    /// How often every variant is started with every number of workers
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// One start: CPU time until it served, in milliseconds, and private memory after some requests, in KiB.
#[derive(Debug, Clone, Copy)]
struct Start {
    cpu_ms: f64,
    private_kib: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("bench-memory");
    let compared: Vec<Variant> = variants().into_iter().filter(|one| COMPARED.contains(&one.name)).collect();
    ensure!(options.rounds > 0 && compared.len() == COMPARED.len(), "nothing to compare");
    let mut all: BTreeMap<(u32, &str), Vec<Start>> = BTreeMap::new();
    for round in 0..options.rounds {
        // Nobody always comes after the same neighbour.
        for place in 0..compared.len() {
            let variant = &compared[(place + round) % compared.len()];
            for workers in WORKERS {
                let start = start(&dir, variant, workers).await.context(variant.name)?;
                all.entry((workers, variant.name)).or_default().push(start);
            }
        }
        println!("round {} of {}", round + 1, options.rounds);
    }
    println!(
        "\n{:>7} {:<14} {:>12} {:>12} {:>14} {:>12}",
        "workers", "filter", "CPU ms", "added", "private KiB", "added"
    );
    let mut results = vec![];
    for ((workers, name), starts) in &all {
        let none = &all[&(*workers, "none")];
        let median = |of: fn(&Start) -> f64| quantile(starts.iter().map(of).collect(), 0.5);
        // Differences within a round: what disturbed it disturbed both.
        let added = |of: fn(&Start) -> f64| {
            quantile(starts.iter().zip(none).map(|(one, none)| of(one) - of(none)).collect(), 0.5)
        };
        let (cpu, memory) = (|one: &Start| one.cpu_ms, |one: &Start| one.private_kib);
        let (cpu_ms, cpu_added, kib, kib_added) = (median(cpu), added(cpu), median(memory), added(memory));
        println!("{workers:>7} {name:<14} {cpu_ms:>12.0} {cpu_added:>12.0} {kib:>14.0} {kib_added:>12.0}");
        let raw = |of: fn(&Start) -> f64| starts.iter().map(of).collect::<Vec<_>>();
        results.push(json!({
            "workers": workers, "filter": name,
            "cpu_ms_median": cpu_ms, "cpu_ms_added": cpu_added, "cpu_ms": raw(cpu),
            "private_kib_median": kib, "private_kib_added": kib_added, "private_kib": raw(memory),
        }));
    }
    let report: Value = json!({
        "machine": Machine::this(0.0).cpu, "envoy": Envoy::version()?, "rounds": options.rounds, "results": results,
    });
    println!("{}", write_results("bench/memory.json", &report)?.display());
    Ok(())
}

async fn start(dir: &TestDir, variant: &Variant, workers: u32) -> Result<Start> {
    let name = format!("{}-{workers}", variant.name);
    let options = EnvoyOptions { name, concurrency: workers, ..EnvoyOptions::default() };
    let mut envoy = Envoy::start_with(dir, options, bootstrap(variant.filters.clone())).await?;
    let cpu_ms = envoy.cpu_time()?.as_secs_f64() * 1_000.0;
    let target = envoy.listener(LISTENER);
    // All at once: Envoy takes a second to close a connection.
    let all = (0..REQUESTS).map(async |_| Call::get(target, "/").host(variant.host).send().await);
    for answer in try_join_all(all).await? {
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(Start { cpu_ms, private_kib: envoy.process().private_kib()? as f64 })
}
