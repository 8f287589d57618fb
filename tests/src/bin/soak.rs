//! A million requests through 50 flips back and forth, four workers: none may fail.

use anyhow::{Result, ensure};
use clap::Parser;
use harness::{LoadPlan, TestDir, flips};

/// Flips under load for a long time, and checks every request.
#[derive(Debug, Parser)]
struct Options {
    /// How many requests at least
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// How many flips
    #[arg(long, default_value_t = 50)]
    flips: usize,
    /// Requests a second
    #[arg(long, default_value_t = 4_000)]
    rate: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("soak");
    let (mut local, envoy) = flips::two_versions(&dir).await?;
    let plan = LoadPlan { rate_per_s: options.rate, slow_per_s: 2, h1_connections: 32, ..LoadPlan::default() };
    let each = options.requests / (options.flips as u64 + 1) + 1;
    let show = |number: usize, flip: &flips::Flip, failed: u64| {
        println!("flip {number:>3} to {}: all acked after {} ms, {failed} requests failed", flip.to, flip.acked_ms);
    };
    let (_, results) = flips::run(&mut local, &envoy, plan, options.flips, each, show).await?;
    println!("{} requests through {} flips, {} failed", results.len(), options.flips, results.failures().len());
    results.assert_no_failures();
    ensure!(results.len() as u64 >= options.requests, "only {} requests were made", results.len());
    Ok(())
}
