//! Measures what the filter costs per request in a real Envoy, beside what else one could use.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use harness::TestDir;
use harness::bench::{Plan, run, variants};

/// Writes a table to the terminal and all numbers to a file.
#[derive(Debug, Parser)]
struct Options {
    /// How often every variant is measured
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// For how long in a round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// In how many turns
    #[arg(long, default_value_t = 10)]
    turns: u32,
    /// Keep-alive connections to an Envoy
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Only these variants, and none
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Gets the numbers; target/bench/hot-path.json unless set
    #[arg(long)]
    out: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut variants = variants();
    if !options.only.is_empty() {
        variants.retain(|variant| variant.name == "none" || options.only.iter().any(|name| name == variant.name));
    }
    ensure!(options.rounds > 0 && options.connections > 0 && options.turns > 0, "nothing to measure");
    let time = Duration::try_from_secs_f64(options.seconds)?;
    let plan = Plan { rounds: options.rounds, time, turns: options.turns, connections: options.connections };
    let dir = TestDir::new("bench-hot-path");
    let report = run(&dir, variants, &plan).await?;
    let default = harness::root().join("target/bench/hot-path.json");
    let out = options.out.unwrap_or(default);
    if let Some(parent) = out.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&out, serde_json::to_string_pretty(&report)? + "\n")?;
    println!("\n{report}");
    Ok(())
}
