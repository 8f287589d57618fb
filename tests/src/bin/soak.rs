//! A million requests through 50 flips back and forth, four workers: none may fail. Or, with `--damage`, 300 switches
//! while versions, Envoys and controllers are killed, stopped and edited by chance.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use harness::soak::{self, SoakPlan};
use harness::story::story_within;
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
    /// Do damage by chance instead, where
    #[arg(long)]
    damage: Option<Ground>,
    /// Switches with damage
    #[arg(long, default_value_t = 300)]
    switches: usize,
    /// Which damage is done, and when; without, SOAK_SEED, or one by chance
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ground {
    /// With processes and Envoys of this machine
    Local,
    /// On a real Kubernetes API
    Kube,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let plan = SoakPlan { switches: options.switches, seed: options.seed.unwrap_or_else(soak::seed) };
    // Longer than any switch that ends at all.
    let limit = Duration::from_secs(180) * u32::try_from(options.switches)?;
    match options.damage {
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(without_damage(&options));
        }
        Some(Ground::Local) => {
            story_within("soak", limit, async |dir| soak::local::run(dir, plan).await?.save("local"))
        }
        Some(Ground::Kube) => soak::kube::story(plan, limit),
    }
    Ok(())
}

async fn without_damage(options: &Options) -> Result<()> {
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
