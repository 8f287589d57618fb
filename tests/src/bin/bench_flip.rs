//! How long a flip takes: from the written record to the last worker, four workers, under load.

use anyhow::Result;
use clap::Parser;
use harness::{LoadPlan, TestDir, flips};
use serde_json::json;

/// Measures flips, and writes every one to target/bench/flip-local.json.
#[derive(Debug, Parser)]
struct Options {
    /// How many flips
    #[arg(long, default_value_t = 200)]
    flips: usize,
    /// Requests a second
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("bench-flip");
    let (mut local, envoy) = flips::two_versions(&dir).await?;
    let plan = LoadPlan { rate_per_s: options.rate, ..LoadPlan::default() };
    let each = u64::from(options.rate) / 4;
    let show = |number: usize, flip: &flips::Flip, _| {
        if number.is_multiple_of(20) {
            eprintln!("{number} flips, the last one acked after {} ms", flip.acked_ms);
        }
    };
    let (flips, results) = flips::run(&mut local, &envoy, plan, options.flips, each, show).await?;
    results.assert_no_failures();

    let acked = flips::quantiles(flips.iter().map(|flip| flip.acked_ms as f64).collect());
    let last_old = flips::quantiles(flips.iter().filter_map(|flip| flip.last_old_ms).collect());
    println!(
        "{} flips, 4 workers, {} requests, none failed; ms after the record was written",
        flips.len(),
        results.len()
    );
    println!("{:<34} {:>8} {:>8} {:>8}", "", "p50", "p99", "max");
    for (name, row) in [("all workers acked", &acked), ("last new request on the old version", &last_old)] {
        let cell = |key: &str| row[key].as_f64().map_or("-".to_owned(), |value| format!("{value:.1}"));
        println!("{name:<34} {:>8} {:>8} {:>8}", cell("p50"), cell("p99"), cell("max"));
    }
    let out = json!({ "workers": 4, "requests": results.len(), "failed": 0, "acked_ms": acked, "last_old_ms": last_old, "flips": flips });
    harness::write_results("bench/flip-local.json", &out)?;
    Ok(())
}
