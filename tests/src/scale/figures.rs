//! What is measured of one number of proxies, and the straight line through several. I/O: through the site.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::site::{Flip, ScalePlan, Site};
use crate::dir::TestDir;
use crate::flips::quantile;

/// One number of proxies. All of them are good ones; what bad ones cost besides is in what the controller used.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// From when the first proxy had the new record until each had it, over all flips: half of them.
    pub flip_p50_ms: f64,
    /// All but one in a hundred.
    pub flip_p99_ms: f64,
    /// All.
    pub flip_max_ms: f64,
    /// From then until the ack of each was answered.
    pub ack_p99_ms: f64,
    /// The last of them.
    pub ack_max_ms: f64,
    /// From the edit of the file until each had it: the controller asks first whether the new version is reached.
    pub from_edit_p50_ms: f64,
    /// All but one in a hundred.
    pub from_edit_p99_ms: f64,
    /// The most memory that the controller occupied after a flip.
    pub rss_mb: f64,
    /// Of one CPU, by the controller while nothing moves.
    pub idle_cpu_percent: f64,
    /// CPU time of the controller for one flip, until nothing moves again.
    pub flip_cpu_seconds: f64,
    /// From the start of a new controller after the old one was killed until a report of every proxy was answered.
    pub reconnect_all_s: f64,
    /// The same as of the controller, of the process of the good proxies.
    pub proxies_idle_cpu_percent: f64,
    /// The same.
    pub proxies_flip_cpu_seconds: f64,
    /// The same.
    pub proxies_rss_mb: f64,
    /// Polls and reports that failed before the restart, which is not meant to happen; and in all.
    pub failed_before_restart: u64,
    /// With the restart.
    pub failed: u64,
    /// What bad proxies did, and what came of it: how often.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub misdeeds: BTreeMap<String, u64>,
}

/// Measures all of it, with so many flips that count and so long a look at nothing. `say` is told how far it is.
pub async fn measure(
    dir: &TestDir,
    plan: ScalePlan,
    flips: usize,
    idle: Duration,
    say: impl Fn(String),
) -> Result<Figures> {
    let mut site = Site::start(dir, plan, &say).await?;
    // The first flip starts the other version, which the ones that count find running.
    site.flip("v2").await?;
    let mut figures = Figures::default();
    figures.rests(&mut site, idle).await?;
    let mut seen = Vec::with_capacity(flips);
    for number in 1..=flips {
        seen.push(site.flip(if number % 2 == 0 { "v2" } else { "v1" }).await?);
        figures.rss_mb = figures.rss_mb.max(mb(site.controller().memory_kib()?));
        say(format!("{number} of {flips} flips"));
    }
    figures.take(&seen).context("no flips")?;
    figures.proxies_rss_mb = mb(site.good.process.memory_kib()?);
    let counts = site.good.counts().await?;
    figures.failed_before_restart = counts.polls_failed + counts.reports_failed;
    if let Some(bad) = &mut site.bad {
        figures.misdeeds = bad.counts().await?.misdeeds;
    }
    figures.reconnect_all_s = site.restart().await?.as_secs_f64();
    let counts = site.good.counts().await?;
    figures.failed = counts.polls_failed + counts.reports_failed;
    Ok(figures)
}

fn mb(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}

impl Figures {
    /// Looks at both processes while nothing moves. The time passes for its own sake.
    async fn rests(&mut self, site: &mut Site<'_>, idle: Duration) -> Result<()> {
        let cpu = |site: &mut Site<'_>| -> Result<(Duration, Duration)> {
            Ok((site.controller().cpu_time()?, site.good.process.cpu_time()?))
        };
        let (began, before) = (Instant::now(), cpu(site)?);
        tokio::time::sleep(idle).await;
        let (after, seconds) = (cpu(site)?, began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE));
        let percent = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64() / seconds * 100.0;
        self.idle_cpu_percent = percent(after.0, before.0);
        self.proxies_idle_cpu_percent = percent(after.1, before.1);
        Ok(())
    }

    /// What the flips gave together; `None`: there were none.
    fn take(&mut self, flips: &[Flip]) -> Option<()> {
        let since = |from: u64, times: &[u64]| -> Vec<f64> {
            times.iter().map(|us| us.saturating_sub(from) as f64 / 1_000.0).collect()
        };
        let first = |flip: &Flip| flip.got_us.first().copied().unwrap_or(flip.written_us);
        let got: Vec<f64> = flips.iter().flat_map(|flip| since(first(flip), &flip.got_us)).collect();
        let acked: Vec<f64> = flips.iter().flat_map(|flip| since(first(flip), &flip.acked_us)).collect();
        let from_edit: Vec<f64> = flips.iter().flat_map(|flip| since(flip.written_us, &flip.got_us)).collect();
        (self.from_edit_p50_ms, self.from_edit_p99_ms) =
            (quantile(from_edit.clone(), 0.5)?, quantile(from_edit, 0.99)?);
        (self.flip_p50_ms, self.flip_p99_ms) = (quantile(got.clone(), 0.5)?, quantile(got.clone(), 0.99)?);
        self.flip_max_ms = quantile(got, 1.0)?;
        (self.ack_p99_ms, self.ack_max_ms) = (quantile(acked.clone(), 0.99)?, quantile(acked, 1.0)?);
        let mean = |of: fn(&Flip) -> Duration| {
            flips.iter().map(|flip| of(flip).as_secs_f64()).sum::<f64>() / flips.len() as f64
        };
        self.flip_cpu_seconds = mean(|flip| flip.controller_cpu);
        self.proxies_flip_cpu_seconds = mean(|flip| flip.proxies_cpu);
        Some(())
    }
}

/// The value at `x` of the line through these points with the least sum of squares; `None` where they give no line.
pub fn fitted(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let count = points.len() as f64;
    let (mean_x, mean_y) = (
        points.iter().map(|point| point.0).sum::<f64>() / count,
        points.iter().map(|point| point.1).sum::<f64>() / count,
    );
    let spread: f64 = points.iter().map(|point| (point.0 - mean_x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - mean_x) * (point.1 - mean_y)).sum::<f64>() / spread;
    let value = mean_y + slope * (x - mean_x);
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_its_points() {
        let at = fitted(&[(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)], 10.0);
        assert!(at.is_some_and(|value| (value - 21.0).abs() < 1e-9), "{at:?}");
        // Two above and two below it.
        let at = fitted(&[(0.0, 1.0), (0.0, -1.0), (2.0, 3.0), (2.0, 1.0)], 1.0);
        assert!(at.is_some_and(|value| (value - 1.0).abs() < 1e-9), "{at:?}");
        assert_eq!(fitted(&[(1.0, 3.0)], 2.0), None);
        assert_eq!(fitted(&[], 2.0), None);
    }
}
