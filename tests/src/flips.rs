//! Many flips back and forth under load, for the soak and the benchmark. I/O: through the harness.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::load::{Load, Results};
use crate::local::Local;
use crate::wait::wait_for;
use crate::{Envoy, Kind, LoadPlan, TestDir, clock};

const LIMIT: Duration = Duration::from_secs(30);

/// What one flip took, in milliseconds after its record was written.
#[derive(Debug, Clone, Serialize)]
pub struct Flip {
    /// The version that was left.
    pub from: String,
    /// The version that was gone to.
    pub to: String,
    /// Unix milliseconds.
    pub flipped_at: u64,
    /// Until all proxies had acked, with every worker of theirs.
    pub acked_ms: u64,
    /// Until the last new request was sent to the old version by any worker; negative where the
    /// last one fell due before the flip.
    pub last_old_ms: Option<f64>,
}

/// One Envoy with four workers, at v1, both versions kept for good.
pub async fn two_versions<'a>(dir: &'a TestDir) -> Result<(Local<'a>, Envoy)> {
    let mut local = Local::new(dir)?;
    local.file()["spec"]["cleanup"]["retainFor"] = "24h".into();
    local.file()["spec"]["settle"]["quietPeriod"] = "0s".into();
    local.file()["spec"]["coexistence"]["minReady"] = "0s".into();
    local.start().await?;
    let envoy = local.envoy("edge", 4).await?;
    local.reaches("Stable", "v1").await?;
    Ok((local, envoy))
}

/// Flips to the version that is not active, and waits until all proxies acked.
pub async fn flip(local: &mut Local<'_>) -> Result<Flip> {
    let (_, from) = local.phase().await?;
    let to = if from == "v1" { "v2" } else { "v1" };
    local.ask(to);
    let (flipped_at, acked_at) = wait_for(&format!("all acks for {to}"), LIMIT, async || {
        let view = local.view().await?;
        let switch = &view["status"]["switch"];
        ensure!(switch["to"] == to, "not begun: {}", view["waiting"]);
        let at = |step: &str| switch[step].as_u64().with_context(|| format!("no {step}: {}", view["waiting"]));
        Ok((at("flippedAt")?, at("ackedAt")?))
    })
    .await?;
    let acked_ms = acked_at.saturating_sub(flipped_at);
    Ok(Flip { from, to: to.to_owned(), flipped_at, acked_ms, last_old_ms: None })
}

/// Flips `count` times, each after `each` more answers, and checks every request.
pub async fn run(
    local: &mut Local<'_>,
    envoy: &Envoy,
    plan: LoadPlan,
    count: usize,
    each: u64,
    mut show: impl FnMut(usize, &Flip, u64),
) -> Result<(Vec<Flip>, Results)> {
    let load = Load::start(envoy.listener("ingress"), plan);
    let mut flips = Vec::with_capacity(count);
    for number in 1..=count {
        load.goes_on(each, LIMIT).await?;
        let flip = flip(local).await?;
        show(number, &flip, load.live().failed);
        flips.push(flip);
    }
    load.goes_on(each, LIMIT).await?;
    let results = load.stop().await?;
    let fast = results.kind(Kind::Fast);
    let mut until_us = u64::MAX;
    for flip in flips.iter_mut().rev() {
        let flipped_us = clock::from_unix_ms(flip.flipped_at);
        let old = |request: &&crate::load::Request| request.version() == flip.from && request.start_us < until_us;
        let last = fast.requests().iter().filter(old).map(|request| request.start_us).max();
        flip.last_old_ms = last.map(|us| (us as f64 - flipped_us as f64) / 1000.0);
        // The record's time is in whole milliseconds: what the next flip moved is not this one's.
        until_us = flipped_us.saturating_sub(2_000);
    }
    Ok((flips, results))
}

/// The value at a quantile from 0 to 1.
pub fn quantile(mut values: Vec<f64>, quantile: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(((values.len().saturating_sub(1)) as f64 * quantile).round() as usize).copied()
}

/// The middle, nearly the most, and the most.
pub fn quantiles(values: Vec<f64>) -> Value {
    let at = |at| quantile(values.clone(), at);
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
}
