//! What `versionflag local` costs while nothing happens: with one version, and with two of which one is kept for a
//! rollback.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use harness::TestDir;
use harness::local::Local;
use serde_json::{Value, json};

/// Measures an idle controller beside an idle Envoy, and writes what it used to target/bench/idle.json.
#[derive(Debug, Parser)]
struct Options {
    /// For how long each is measured, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long it is left alone before, in seconds: what has just begun is looked at more often
    #[arg(long, default_value_t = 70)]
    calm: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("bench-idle");
    let mut local = Local::new(&dir)?;
    local.file()["spec"]["cleanup"]["retainFor"] = json!("1h");
    let versions = local.file()["local"]["versions"].as_object_mut();
    versions.into_iter().flatten().for_each(|(_, version)| version["ready"] = json!({ "path": "/healthz" }));
    local.start().await?;
    let _envoy = local.envoy("edge", 2).await?;
    local.reaches("Stable", "v1").await?;
    let one = measure("Stable, one version", &mut local, &options).await?;
    local.ask("v2");
    local.reaches("Retaining", "v2").await?;
    let two = measure("Retaining, two versions", &mut local, &options).await?;
    let report = json!({ "seconds": options.seconds, "one_version": one, "two_versions": two });
    println!("{}", harness::write_results("bench/idle.json", &report)?.display());
    Ok(())
}

async fn measure(name: &str, local: &mut Local<'_>, options: &Options) -> Result<Value> {
    tokio::time::sleep(Duration::from_secs(options.calm)).await;
    let controller = local.controller();
    let (begun, before) = (Instant::now(), controller.cpu_time()?);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let used = controller.cpu_time()?.saturating_sub(before);
    let percent = used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let kib = controller.memory_kib()?;
    println!("{name}: {percent:.2} % of a core, {:.1} MB resident", kib as f64 / 1_024.0);
    Ok(json!({ "cpu_percent_of_a_core": percent, "resident_kib": kib }))
}
