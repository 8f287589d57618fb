//! How long it takes to move all requests of a service in a real mesh, by the ways there are.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use harness::LoadPlan;
use harness::mesh::churn::Churn;
use harness::mesh::flips::{APP, Flip, Way, interleaved, summary};
use harness::mesh::{Mesh, Workload, removals, story_within, switch};
use serde_json::{Map, Value, json};

/// Measures flips in a mesh, idle and busy, and writes them to target/bench/flip.json.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// How often each way flips; an even number ends where it began
    #[arg(long, default_value_t = 20)]
    flips: usize,
    /// How often an old version is removed
    #[arg(long, default_value_t = 10)]
    removals: usize,
    /// With so many callers, each with a sidecar
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    callers: Vec<usize>,
    /// Requests a second, of all callers together
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Services, and as many VirtualServices, that change while the mesh is busy
    #[arg(long, default_value_t = 300)]
    churn: usize,
    /// So many of them change in a second
    #[arg(long, default_value_t = 20)]
    changes: u32,
}

fn main() {
    let options = Options::parse();
    story_within("bench-flip", Duration::from_secs(3 * 3600), async move |mesh| run(mesh, &options).await);
}

async fn run(mesh: &mut Mesh<'_>, options: &Options) -> Result<()> {
    let most = options.callers.iter().copied().max().context("no callers")?;
    let callers: Vec<String> = (0..most).map(|number| format!("caller-{number}")).collect();
    let mut workloads = vec![Workload::of(APP, "v1", 2), Workload::of(APP, "v2", 2)];
    workloads.extend(callers.iter().map(|name| Workload::named(name)));
    mesh.deploy_all(&workloads).await?;
    let mut controller = mesh.install().await?;
    for way in Way::ALL {
        way.prepare(mesh, "v1").await?;
    }

    let mut out = Map::new();
    for count in &options.callers {
        measure(mesh, options, &callers[..*count], "idle", &mut out).await?;
    }
    let removal = remove(mesh, options, &callers).await?;
    let churn = Churn { services: options.churn, per_second: options.changes };
    churn.create(mesh).await?;
    let churning = churn.start(mesh);
    for count in &options.callers {
        measure(mesh, options, &callers[..*count], "busy", &mut out).await?;
    }
    churning.stop().await?;

    controller.check_running()?;

    let mut out = Value::Object(out);
    out["removal"] = removal;
    // What most is compared with: one caller.
    out["variants"] = out["callers"]["1"]["variants"].clone();
    harness::write_results("bench/flip.json", &out)?;
    Ok(())
}

/// All ways, with so many callers; the results go to `callers.COUNT.variants.WAY.STATE`.
async fn measure(
    mesh: &Mesh<'_>,
    options: &Options,
    callers: &[String],
    state: &str,
    out: &mut Map<String, Value>,
) -> Result<()> {
    let count = callers.len();
    let plan = plan(options, callers)?;
    let show = |way: Way, flip: &Flip| {
        let Flip { first_new_ms, last_old_ms, failed, .. } = flip;
        let name = way.name();
        eprintln!(
            "{name}: first on the new {first_new_ms:.0} ms, last on the old {last_old_ms:.0} ms, failed {failed}"
        );
        if let Some(parts) = &flip.parts {
            eprintln!("    {parts:?}");
        }
    };
    let flips = interleaved(mesh, &Way::ALL, callers, &plan, options.flips, show).await?;
    println!("\n{state}, {count} callers; ms after the write to the API");
    println!("{:<18} {:>20} {:>20} {:>20} {:>7}", "", "first on the new", "last on the old", "overlap", "failed");
    for (way, flips) in flips {
        let summary = summary(&flips);
        let cell = |key: &str| {
            let at = |quantile: &str| summary[key][quantile].as_f64().unwrap_or_default();
            format!("{:.0} / {:.0} / {:.0}", at("p50"), at("p99"), at("max"))
        };
        let cells = ["first_new_ms", "last_old_ms", "overlap_ms"].map(cell);
        println!(
            "{:<18} {:>20} {:>20} {:>20} {:>7}",
            way.name(),
            cells[0],
            cells[1],
            cells[2],
            summary["failed"].to_string()
        );
        let at = out.entry("callers").or_insert_with(|| json!({}));
        at[count.to_string()]["variants"][way.name()][state] = summary;
    }
    Ok(())
}

/// Switches to and fro, and lets the old version be removed each time.
async fn remove(mesh: &Mesh<'_>, options: &Options, callers: &[String]) -> Result<Value> {
    mesh.deploy_all(&[Workload::of("reviews", "v1", 2), Workload::of("reviews", "v2", 0)]).await?;
    switch::adopt(mesh, &["reviews"]).await?;
    // Those of the flips, and two more.
    switch::adopted(mesh, callers.len() + 6).await?;
    let plan = plan(options, callers)?;
    let mut removals = Vec::new();
    for number in 0..options.removals {
        let (from, to) = if number % 2 == 0 { ("v1", "v2") } else { ("v2", "v1") };
        let removal = removals::measure(mesh, callers, &plan, from, to).await?;
        eprintln!("removed {:.0} ms after the quiet period, failed {}", removal.after_quiet_ms, removal.failed);
        removals.push(removal);
    }
    Ok(removals::summary(&removals))
}

fn plan(options: &Options, callers: &[String]) -> Result<LoadPlan> {
    let rate_per_s = options.rate / u32::try_from(callers.len())?;
    Ok(LoadPlan { rate_per_s, h1_connections: 4, h2_connections: 1, ..LoadPlan::default() })
}
