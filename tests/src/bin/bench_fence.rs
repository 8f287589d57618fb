//! Fenced flips beside immediate ones, of two Envoys with four workers each, under load: for how long both versions had
//! requests open, as the backends say, and for how long requests waited.

use anyhow::{Result, ensure};
use clap::Parser;
use harness::fences::{Fences, Flip, SLOW};
use harness::{Load, TestDir, flips};
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
            loads[0].goes_on(u64::from(options.rate) / 4, Duration::from_secs(30)).await?;
            flips.push(fences.flip(mode).await?);
        }
        if number.is_multiple_of(10) {
            let failed: u64 = loads.iter().map(|load| load.live().failed).sum();
            eprintln!("{number} flips of each mode, {failed} requests failed");
        }
    }
    let results = Load::stop_all(loads).await?;
    let streams = talks.into_iter().map(|talk| talk.stop()).sum::<Result<u64>>()?;
    fences.measure(&mut flips, &results)?;
    let [fenced, immediate] = MODES.map(|mode| summary(&flips, mode));
    show(&fenced, &immediate, results.len(), streams);
    let out = json!({
        "proxies": 2, "workers": 4, "requests": results.len(), "streams": streams, "slowMs": SLOW.as_millis() as u64,
        "fenced": fenced, "immediate": immediate, "flips": flips,
    });
    harness::write_results("bench/fence.json", &out)?;
    results.assert_no_failures();
    ensure!(fenced["overlap_ms_max"] == 0.0, "requests were open on both versions");
    Ok(())
}

/// What the flips of a mode have in common. A request failed in the mode of the flip that came before it.
fn summary(flips: &[Flip], mode: &str) -> Value {
    let of: Vec<&Flip> = flips.iter().filter(|flip| flip.mode == mode).collect();
    let overlap = of.iter().map(|flip| flip.overlap_ms).fold(0.0, f64::max);
    let waits: Vec<f64> = of.iter().flat_map(|flip| flip.waits_ms.iter().copied()).collect();
    let holds: Vec<f64> = of.iter().filter_map(|flip| flip.held_ms).map(|ms| ms as f64).collect();
    json!({
        "flips": of.len(),
        "committed": if mode == "Fenced" { of.iter().filter(|flip| flip.held_ms.is_some()).count() } else { of.len() },
        "aborted": of.iter().map(|flip| flip.aborted).sum::<u64>(),
        "failed": of.iter().map(|flip| flip.failed).sum::<usize>(),
        "overlap_ms_max": overlap,
        "held": waits.len(),
        "held_ms": flips::quantiles(waits),
        "hold_ms": flips::quantiles(holds),
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
