//! A thousand releases through ten versions and one Envoy that is never started again: is the memory of the controller
//! and of the Envoy flat?

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::releases::{self, Reading, ReleasesPlan};
use harness::{LoadPlan, TestDir};
use serde_json::json;

/// Releases version after version under load, and writes what memory was resident to target/bench/releases.json.
#[derive(Debug, Parser)]
struct Options {
    /// How many flips
    #[arg(long, default_value_t = 1_000)]
    flips: usize,
    /// How many names of versions
    #[arg(long, default_value_t = 10)]
    versions: usize,
    /// Requests a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// By how much memory may grow after the first fifth, in percent
    #[arg(long, default_value_t = 10.0)]
    growth: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("bench-releases");
    let load =
        LoadPlan { rate_per_s: options.rate, slow_per_s: 1, slow: Duration::from_millis(200), ..LoadPlan::default() };
    let every = (options.flips / 50).max(1);
    let plan = ReleasesPlan { flips: options.flips, versions: options.versions, every, load, workers: 2 };
    println!("{:>6} {:>9} {:>15} {:>11} {:>14}", "flips", "seconds", "controller KiB", "Envoy KiB", "its allocated");
    let show = |Reading { flips, seconds, controller_kib, envoy_kib, envoy_allocated_kib }: &Reading| {
        println!("{flips:>6} {seconds:>9.0} {controller_kib:>15} {envoy_kib:>11} {envoy_allocated_kib:>14}");
    };
    let report = releases::run(&dir, &plan, show).await?;
    let (controller, envoy) = report.growth().context("nothing was read")?;
    let grown = json!({ "controller": controller, "envoy": envoy });
    let file = harness::write_results("bench/releases.json", &json!({ "report": report, "grown": grown }))?;
    println!(
        "{} flips through {} versions, {} requests, none failed; after the first fifth the controller grew by {:.1} %, \
         the Envoy by {:.1} %: {}",
        report.flips,
        report.versions,
        report.requests,
        controller * 100.0,
        envoy * 100.0,
        file.display()
    );
    let most = controller.max(envoy) * 100.0;
    ensure!(most <= options.growth, "memory grew by {most:.1} %, which is more than {} %", options.growth);
    Ok(())
}
