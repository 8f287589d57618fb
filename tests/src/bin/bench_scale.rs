//! One controller and thousands of proxies: how fast does a flip reach all of them, and what does it cost?

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use harness::TestDir;
use harness::load::Protocol;
use harness::scale::ScalePlan;
use harness::scale::figures::{Figures, fitted, measure};
use serde_json::{Map, Value, json};

/// More proxies than one machine can play, for which the line through the others is asked.
const FITTED: usize = 25_000;
/// The longest that all proxies may take for one thing.
const LIMIT: Duration = Duration::from_secs(600);

/// Flips the version of 1,000 proxies and more, and writes what that took to target/bench/scale.json.
#[derive(Debug, Parser)]
struct Options {
    /// How many proxies, one number after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,4000,10000,16000")]
    sizes: Vec<usize>,
    /// How many flips of each
    #[arg(long, default_value_t = 20)]
    flips: usize,
    /// For how many seconds to look at the CPU while nothing moves
    #[arg(long, default_value_t = 10)]
    idle: u64,
    /// How many bad proxies there are besides, which send too much, lie, and take for ever
    #[arg(long, default_value_t = 0)]
    bad: usize,
    /// Speak HTTP/1.1, over two connections each, instead of HTTP/2 over one
    #[arg(long)]
    http1: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Options { sizes, flips, idle, bad, http1 } = Options::parse();
    ensure!(flips > 0, "at least one flip is needed");
    let protocol = if http1 { Protocol::H1 } else { Protocol::H2 };
    let mut results = Map::new();
    let mut all: Vec<(usize, Value)> = vec![];
    println!("{}", COLUMNS.map(|(title, _)| format!("{title:>12}")).concat());
    for size in sizes {
        let dir = TestDir::new("bench-scale");
        let plan = ScalePlan { proxies: size, bad, protocol, limit: LIMIT };
        let say = |word: String| eprintln!("{size} proxies: {word}");
        let figures: Figures = measure(&dir, plan, flips, Duration::from_secs(idle), say).await?;
        let figures = serde_json::to_value(figures)?;
        println!("{}", row(size, &figures));
        results.insert(format!("proxies_{size}"), figures.clone());
        all.push((size, figures));
        // What is measured by then is not lost with what comes.
        write(&results, flips, bad, http1)?;
    }
    if let Some(line) = line(&all) {
        println!("{}", row(FITTED, &line));
        println!("the last row is not measured: it is the straight line through the others");
        results.insert(format!("fitted_{FITTED}"), line);
    }
    println!("{}", write(&results, flips, bad, http1)?);
    Ok(())
}

fn write(results: &Map<String, Value>, flips: usize, bad: usize, http1: bool) -> Result<String> {
    let mut results = results.clone();
    let protocol = if http1 { "HTTP/1.1" } else { "HTTP/2" };
    results.insert("plan".to_owned(), json!({ "flips": flips, "bad": bad, "protocol": protocol }));
    Ok(harness::write_results("bench/scale.json", &results)?.display().to_string())
}

/// Titles, and the figures below them.
const COLUMNS: [(&str, &str); 12] = [
    ("proxies", ""),
    ("flip p50 ms", "flip_p50_ms"),
    ("p99", "flip_p99_ms"),
    ("max", "flip_max_ms"),
    ("ack p99 ms", "ack_p99_ms"),
    ("edit p99 ms", "from_edit_p99_ms"),
    ("RSS MB", "rss_mb"),
    ("idle CPU %", "idle_cpu_percent"),
    ("flip CPU s", "flip_cpu_seconds"),
    ("theirs", "proxies_flip_cpu_seconds"),
    ("back s", "reconnect_all_s"),
    ("failed", "failed_before_restart"),
];

fn row(size: usize, figures: &Value) -> String {
    let cell = |name: &str| match figures[name].as_f64() {
        _ if name.is_empty() => size.to_string(),
        Some(number) => format!("{number:.1}"),
        None => "-".to_owned(),
    };
    COLUMNS.map(|(_, name)| format!("{:>12}", cell(name))).concat()
}

/// What the line through all sizes gives, figure by figure.
fn line(all: &[(usize, Value)]) -> Option<Value> {
    let (_, first) = all.first()?;
    let mut line = Map::new();
    for name in first.as_object()?.keys() {
        let point = |(size, figures): &(usize, Value)| Some((*size as f64, figures[name].as_f64()?));
        let points: Option<Vec<_>> = all.iter().map(point).collect();
        if let Some(value) = points.and_then(|points| fitted(&points, FITTED as f64)) {
            line.insert(name.clone(), value.into());
        }
    }
    (!line.is_empty()).then_some(line.into())
}
