//! Fenced flips beside immediate ones, of two Envoys with four workers each, under load: for how long both versions had
//! requests open, as the backends say, and for how long requests waited.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::fences::{Fences, Flip, SLOW, stop};
use harness::{Results, TestDir, flips, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// Measures flips in turns of both modes, and writes every one to target/bench/fence.json.
#[derive(Debug, Parser)]
struct Options {
    /// How many flips of each mode
    #[arg(long, default_value_t = 200)]
    flips: usize,
    /// Requests a second, one in a hundred of which is slow
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
}

const MODES: [&str; 2] = ["Fenced", "Immediate"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("bench-fence");
    let mut fences = Fences::start(&dir).await?;
    let (loads, talks) = (fences.load(options.rate), fences.talks());
    let mut flips = vec![];
    for number in 1..=options.flips {
        for mode in MODES {
            let before = loads[0].live().done;
            let more = u64::from(options.rate) / 4;
            wait_for("more answers", Duration::from_secs(30), async || loads[0].live().done >= before + more).await?;
            flips.push(fences.flip(mode).await?);
        }
        if number.is_multiple_of(10) {
            let failed: u64 = loads.iter().map(|load| load.live().failed).sum();
            eprintln!("{number} flips of each mode, {failed} requests failed");
        }
    }
    let results = stop(loads).await?;
    let streams = talks.into_iter().map(|talk| talk.stop()).sum::<Result<u64>>()?;
    fences.measure(&mut flips, &results)?;
    let [fenced, immediate] = MODES.map(|mode| summary(&flips, mode, &results));
    show(&fenced, &immediate, results.len(), streams);
    let out = json!({
        "proxies": 2, "workers": 4, "requests": results.len(), "streams": streams, "slowMs": SLOW.as_millis() as u64,
        "fenced": fenced, "immediate": immediate, "flips": flips,
    });
    let file = harness::root().join("target/bench/fence.json");
    std::fs::create_dir_all(file.parent().context("a parent")?)?;
    std::fs::write(&file, serde_json::to_vec_pretty(&out)?)?;
    results.assert_no_failures();
    ensure!(fenced["overlap_ms_max"] == 0.0, "requests were open on both versions");
    Ok(())
}

/// What the flips of a mode have in common. A request failed in the mode of the flip that came before it.
fn summary(flips: &[Flip], mode: &str, results: &Results) -> Value {
    let of: Vec<&Flip> = flips.iter().filter(|flip| flip.mode == mode).collect();
    let overlap = of.iter().map(|flip| flip.overlap_ms).fold(0.0, f64::max);
    let waits: Vec<f64> = of.iter().flat_map(|flip| flip.waits_ms.iter().copied()).collect();
    let holds: Vec<f64> = of.iter().filter_map(|flip| flip.held_ms).map(|ms| ms as f64).collect();
    let row = |values: &[f64]| {
        let at = |quantile| flips::quantile(values.to_vec(), quantile);
        json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
    };
    json!({
        "flips": of.len(),
        "committed": if mode == "Fenced" { of.iter().filter(|flip| flip.held_ms.is_some()).count() } else { of.len() },
        "aborted": of.iter().map(|flip| flip.aborted).sum::<u64>(),
        "failed": Flip::failures_of(&of, flips, results),
        "overlap_ms_max": overlap,
        "held_ms": row(&waits),
        "hold_ms": row(&holds),
        "held": waits.len(),
    })
}

fn show(fenced: &Value, immediate: &Value, requests: usize, streams: u64) {
    println!("2 Envoys with 4 workers each, {requests} requests and {streams} streams of gRPC and WebSockets");
    println!("{:<42} {:>12} {:>12}", "", "fenced", "immediate");
    let cell = |value: &Value| value.as_f64().map_or("-".to_owned(), |value| format!("{value:.1}"));
    let rows = [
        ("flips", "/flips"),
        ("holds that were given back", "/aborted"),
        ("requests that failed", "/failed"),
        ("both versions had requests open, ms, max", "/overlap_ms_max"),
        ("requests that waited", "/held"),
        ("they waited, ms, p50", "/held_ms/p50"),
        ("they waited, ms, p99", "/held_ms/p99"),
        ("they waited, ms, max", "/held_ms/max"),
        ("requests were held, ms, p50", "/hold_ms/p50"),
        ("requests were held, ms, p99", "/hold_ms/p99"),
    ];
    for (name, path) in rows {
        let of = |side: &Value| side.pointer(path).map_or("-".to_owned(), cell);
        println!("{name:<42} {:>12} {:>12}", of(fenced), of(immediate));
    }
}
