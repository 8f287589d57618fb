//! The main job, live: a real Envoy with the filter and two workers, the real controller, two
//! versions of a backend, and load on every kind of connection, while v1 is replaced by v2.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use harness::local::Local;
use harness::{Kind, Load, LoadPlan, Results, TestDir, clock, overlap};
use serde::Serialize;
use serde_json::Value;

/// Shows a version switch, and writes what it measured to target/demo/result.json.
#[derive(Debug, Parser)]
struct Options {
    /// Take the switch back in the middle
    #[arg(long)]
    rollback: bool,
    /// Have requests wait while v1 drains: both versions never have one open at once
    #[arg(long, conflicts_with = "rollback")]
    fenced: bool,
}

const RATE: u32 = 2_000;
const AT_LEAST: u64 = 30_000;
const LIMIT: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(20);
const LINE_EVERY_MS: u64 = 500;
/// The same while requests wait.
const HOLD_LINE_EVERY_MS: u64 = 20;

/// What is written to the result file; times in milliseconds after the flip was written.
#[derive(Debug, Serialize)]
struct Outcome {
    requests: usize,
    failed: usize,
    by_version: BTreeMap<String, u64>,
    flip_ms: Option<u64>,
    last_worker_ms: Option<f64>,
    overlap_ms: Option<f64>,
    /// With a fence: for how long, by the backends' own account, both versions had a request open.
    open_on_both_ms: Option<f64>,
    /// For how long requests were held.
    held_ms: Option<u64>,
    /// Those of them that waited longest.
    longest_wait_ms: Option<f64>,
    v1_last_response_ms: Option<f64>,
    v1_removed_ms: Option<u64>,
    requests_to_removed_version: usize,
    final_version: String,
    phases: Vec<Step>,
}

/// One phase, from the start of the demo on.
#[derive(Debug, Clone, Serialize)]
struct Step {
    phase: String,
    active: String,
    at_ms: u64,
}

/// What the screen shows and the file remembers.
struct Timeline {
    started_ms: u64,
    phases: Vec<Step>,
    switch: Value,
    last_line_ms: u64,
    answered: BTreeMap<String, u64>,
    color: bool,
}

impl Timeline {
    fn look(&mut self, view: &Value, load: &Load) {
        let now_ms = clock::unix_ms(clock::now_us());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (phase, active) = (text(&view["status"]["phase"]), text(&view["status"]["activeVersion"]));
        if view["status"]["switch"].is_object() {
            self.switch = view["status"]["switch"].clone();
        }
        let at_ms = now_ms - self.started_ms;
        let known = self.phases.last().is_some_and(|last| last.phase == phase && last.active == active);
        if !known {
            println!(
                "{}",
                self.paint("1;36", &format!("{:>6.1} s  ● {phase}, {active} active", at_ms as f64 / 1000.0))
            );
            self.phases.push(Step { phase, active, at_ms });
        }
        let holds = self.phases.last().is_some_and(|last| matches!(last.phase.as_str(), "Holding" | "Committing"));
        let every_ms = if holds { HOLD_LINE_EVERY_MS } else { LINE_EVERY_MS };
        if now_ms - self.last_line_ms >= every_ms {
            self.line(view, load, now_ms);
        }
    }

    fn line(&mut self, view: &Value, load: &Load, now_ms: u64) {
        let seconds = (now_ms - self.last_line_ms) as f64 / 1000.0;
        let live = load.live();
        let rates: Vec<String> = ["v1", "v2"]
            .iter()
            .map(|version| {
                let now = live.answered_by(version);
                let before = self.answered.insert((*version).to_owned(), now).unwrap_or_default();
                let rate = (now - before) as f64 / seconds;
                let bar = "█".repeat((rate / 200.0).ceil() as usize);
                let code = if *version == "v1" { "33" } else { "32" };
                format!("{version} {} {rate:>5.0}/s", self.paint(code, &format!("{bar:<11}")))
            })
            .collect();
        let fleet = &view["fleet"];
        let waiting = view["waiting"].as_str().unwrap_or_default();
        // As many whole words as fit.
        let fits = waiting.char_indices().rfind(|(at, one)| *one == ' ' && *at <= 60);
        let waiting = if waiting.len() <= 60 { waiting } else { fits.map_or("", |(at, _)| &waiting[..at]) };
        let held = fleet["fence"]["waiting"].as_u64().map_or(String::new(), |held| {
            let bar = "█".repeat(held.div_ceil(20) as usize);
            format!("waiting {} {held:>4}  ", self.paint("35", &format!("{bar:<20}")))
        });
        println!(
            "         │ {}  {held}in flight {:>3}  acked {}/{}  failed {}  {waiting}",
            rates.join("  "),
            live.in_flight(),
            fleet["acked"],
            fleet["expected"],
            live.failed,
        );
        self.last_line_ms = now_ms;
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn at(&self, step: &str) -> Option<u64> {
        self.switch[step].as_u64()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let dir = TestDir::new("demo");
    let outcome = tokio::time::timeout(LIMIT, run(&dir, &options)).await.context("the demo took too long")??;
    harness::write_results("demo/result.json", &outcome)?;
    report(&outcome);
    let expected = if options.rollback { "v1" } else { "v2" };
    ensure!(outcome.failed == 0, "{} of {} requests failed", outcome.failed, outcome.requests);
    ensure!(outcome.requests_to_removed_version == 0, "requests reached a version that was removed");
    ensure!(outcome.open_on_both_ms.unwrap_or_default() == 0.0, "both versions had requests open at once");
    ensure!(outcome.final_version == expected, "{} serves in the end", outcome.final_version);
    Ok(())
}

async fn run(dir: &TestDir, options: &Options) -> Result<Outcome> {
    let mut local = Local::new(dir)?;
    local.file()["spec"]["settle"]["quietPeriod"] = "3s".into();
    if options.rollback {
        local.file()["spec"]["cleanup"]["retainFor"] = "1h".into();
    }
    if options.fenced {
        local.file()["spec"]["switch"] = serde_json::json!({ "mode": "Fenced" });
        local.note_requests();
    }
    println!("starting the controller, reviews v1, and an Envoy with two workers");
    local.start().await?;
    let envoy = local.envoy("edge", 2).await?;
    local.reaches("Stable", "v1").await?;
    println!("the same in a browser: http://{}/", local.service());
    let plan = if options.fenced {
        println!("load: {RATE} requests a second over HTTP/1.1 and HTTP/2, 20 slow ones of 0.2 s a second");
        let slow = Duration::from_millis(200);
        LoadPlan { rate_per_s: RATE, slow_per_s: 20, slow, h1_connections: 512, ..LoadPlan::default() }
    } else {
        println!("load: {RATE} requests a second over HTTP/1.1 and HTTP/2, 5 slow ones of 2 s, one stream of 5 s");
        LoadPlan { rate_per_s: RATE, slow_per_s: 5, stream: Some(Duration::from_secs(5)), ..LoadPlan::default() }
    };
    let load = Load::start(envoy.listener("ingress"), plan);
    let now_ms = clock::unix_ms(clock::now_us());
    let mut timeline = Timeline {
        started_ms: now_ms,
        phases: vec![],
        switch: Value::Null,
        last_line_ms: now_ms,
        answered: BTreeMap::new(),
        color: std::io::stdout().is_terminal(),
    };

    until(&local, &load, &mut timeline, |_, load| load.live().done > 4_000).await?;
    println!("{}", timeline.paint("1", "           asking for v2: `version: v2` in the file"));
    local.ask("v2");
    let mut removed_us = None;
    if options.rollback {
        until(&local, &load, &mut timeline, |step, _| step.phase == "Retaining").await?;
        println!("{}", timeline.paint("1", "           rolling back: versionflag rollback"));
        local.request("rollback").await?;
        until(&local, &load, &mut timeline, |step, _| step.active == "v1").await?;
    } else {
        until(&local, &load, &mut timeline, |step, _| step.phase == "Stable" && step.active == "v2").await?;
        removed_us = Some(clock::now_us());
        ensure!(!local.runs("v1").await, "v1 still runs");
    }
    until(&local, &load, &mut timeline, |_, load| load.live().done > AT_LEAST).await?;
    let results = load.stop().await?;
    let (_, final_version) = local.phase().await?;
    let mut outcome = outcome(&results, &timeline, final_version, removed_us);
    if options.fenced {
        let both = overlap::both(&local.spans("v1")?, &local.spans("v2")?);
        outcome.open_on_both_ms = Some(overlap::total_ms(&both));
    }
    Ok(outcome)
}

/// Looks until it is so.
async fn until(
    local: &Local<'_>,
    load: &Load,
    timeline: &mut Timeline,
    so: impl Fn(&Step, &Load) -> bool,
) -> Result<()> {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        timeline.look(&local.view().await?, load);
        let Some(step) = timeline.phases.last() else { bail!("there is no phase") };
        if so(step, load) {
            return Ok(());
        }
    }
}

fn outcome(results: &Results, timeline: &Timeline, final_version: String, removed_us: Option<u64>) -> Outcome {
    let flipped_us = timeline.at("flippedAt").map(clock::from_unix_ms);
    let after_flip = |us: u64| flipped_us.map(|flipped| (us as f64 - flipped as f64) / 1000.0);
    let (from, to) = (
        timeline.switch["from"].as_str().unwrap_or("v1").to_owned(),
        timeline.switch["to"].as_str().unwrap_or("v2").to_owned(),
    );
    let fast = results.kind(Kind::Fast);
    let since_flip = |at: Option<u64>| Some(at?.saturating_sub(timeline.at("flippedAt")?));
    Outcome {
        requests: results.len(),
        failed: results.failures().len(),
        by_version: results.by_version(),
        flip_ms: since_flip(timeline.at("ackedAt")),
        last_worker_ms: fast.last_started(&from).and_then(|request| after_flip(request.start_us)),
        // After a rollback both versions have served twice: there is no single overlap.
        overlap_ms: removed_us.map(|_| fast.overlap(&from, &to).as_secs_f64() * 1000.0),
        open_on_both_ms: None,
        held_ms: timeline.switch["fence"]["heldMs"].as_u64(),
        longest_wait_ms: longest_wait(&fast, timeline),
        v1_last_response_ms: removed_us.and(results.last("v1")).and_then(|request| after_flip(request.end_us)),
        v1_removed_ms: removed_us.and(since_flip(timeline.at("removedAt").or(timeline.at("removalIntentAt")))),
        requests_to_removed_version: removed_us.map_or(0, |us| results.after(us).only(|r| r.version() != "v2").len()),
        final_version,
        phases: timeline.phases.clone(),
    }
}

/// Of the requests that came while some were held.
fn longest_wait(fast: &Results, timeline: &Timeline) -> Option<f64> {
    let fence = &timeline.switch["fence"];
    let (at, ms) = (clock::from_unix_ms(fence["heldAt"].as_u64()?), fence["heldMs"].as_u64()?);
    let held = fast.requests().iter().filter(|one| (at..at + 1_000 * ms).contains(&one.due_us));
    held.map(|one| one.head_us.saturating_sub(one.due_us) as f64 / 1_000.0).max_by(f64::total_cmp)
}

fn report(outcome: &Outcome) {
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} ms"));
    println!();
    println!("  requests            {} ({:?})", outcome.requests, outcome.by_version);
    println!("  failed              {}", outcome.failed);
    println!("  all proxies acked   {} after the flip", ms(outcome.flip_ms.map(|value| value as f64)));
    println!("  last on the old     {} after the flip, as a new request", ms(outcome.last_worker_ms));
    // After a rollback v1 is not removed.
    if let Some(removed_ms) = outcome.v1_removed_ms {
        println!("  both versions       {} answered new requests side by side", ms(outcome.overlap_ms));
        println!(
            "  v1's last response  {} after the flip (slow requests and streams end where they began)",
            ms(outcome.v1_last_response_ms)
        );
        println!("  v1 removed          {} after the flip", ms(Some(removed_ms as f64)));
    }
    if let Some(both_ms) = outcome.open_on_both_ms {
        println!("  requests were held  for {}", ms(outcome.held_ms.map(|value| value as f64)));
        println!("  the longest wait    {}", ms(outcome.longest_wait_ms));
        println!("  open on both at once, by the versions' own account  {}", ms(Some(both_ms)));
    }
    println!("  requests to a removed version  {}", outcome.requests_to_removed_version);
    println!("  the numbers are in target/demo/result.json");
}
