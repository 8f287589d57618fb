//! Release after release through one Envoy that is never started again: each is a version that is added to the file when
//! it is asked for, and taken out when it was left. I/O: through the harness.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::envoy::Envoy;
use crate::load::{Load, LoadPlan, Results};
use crate::local::Local;
use crate::wait::wait_for;
use crate::{EnvoyOptions, TestDir};

/// The longest that one release may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Of the first versions; each has a port of its own.
const FIRST_PORT: u16 = 9_001;

/// How much to do.
#[derive(Debug, Clone)]
pub struct ReleasesPlan {
    /// Flips, one after the other.
    pub flips: usize,
    /// Names of versions, which come again in turn.
    pub versions: usize,
    /// Memory is read after so many flips, and at both ends.
    pub every: usize,
    /// What is sent meanwhile.
    pub load: LoadPlan,
    /// Workers of the Envoy.
    pub workers: u32,
}

/// What was read after a flip. Memory is what is resident, in KiB, unless said otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    /// Flips that were done by then.
    pub flips: usize,
    /// Seconds since the first flip was asked for.
    pub seconds: f64,
    /// Of the controller.
    pub controller_kib: u64,
    /// Of the Envoy.
    pub envoy_kib: u64,
    /// What the Envoy has allocated and not given back, by its own count: without this nobody can tell what it keeps from
    /// what its allocator does.
    pub envoy_allocated_kib: u64,
}

/// What became of all of them.
#[derive(Debug, Clone, Serialize)]
pub struct ReleasesReport {
    /// Flips that were done.
    pub flips: usize,
    /// Names of versions.
    pub versions: usize,
    /// Workers of the Envoy.
    pub workers: u32,
    /// Requests that were sent.
    pub requests: usize,
    /// Those that failed.
    pub failed: usize,
    /// In order.
    pub memory: Vec<Reading>,
}

impl ReleasesReport {
    /// What memory grew by from the end of the first fifth to the end, as a share of what it was then; of the controller
    /// and of the Envoy. What is kept for the first time comes in the first fifth.
    pub fn growth(&self) -> Option<(f64, f64)> {
        let first = self.memory.iter().find(|reading| reading.flips * 5 >= self.flips)?;
        let last = self.memory.last()?;
        let share = |from: u64, to: u64| to as f64 / from as f64 - 1.0;
        Some((share(first.controller_kib, last.controller_kib), share(first.envoy_kib, last.envoy_kib)))
    }
}

/// The name of a version by its number, from 0, and its port.
fn version(number: usize, plan: &ReleasesPlan) -> Result<(String, u16)> {
    let which = number % plan.versions;
    Ok((format!("v{}", which + 1), FIRST_PORT + u16::try_from(which)?))
}

/// Releases a version after the other under load, and checks every request. `show` is told what was read.
pub async fn run(dir: &TestDir, plan: &ReleasesPlan, mut show: impl FnMut(&Reading)) -> Result<ReleasesReport> {
    let mut local = Local::new(dir)?;
    local.with_clusters();
    ["v2", "v3"].iter().for_each(|version| local.undeclare(version));
    let spec = &mut local.file()["spec"];
    spec["coexistence"]["minReady"] = "0s".into();
    spec["settle"]["quietPeriod"] = "100ms".into();
    local.start().await?;
    let options = EnvoyOptions { name: "edge".to_owned(), concurrency: plan.workers, ..EnvoyOptions::default() };
    let mut envoy = Envoy::start_with(dir, options, local.rendered_for_callers()?).await?;
    local.reaches("Stable", "v1").await?;
    let load = Load::start(envoy.listener("ingress"), plan.load.clone());
    wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 10).await?;
    let begun = Instant::now();
    let mut memory = Vec::new();
    let mut read = async |flips: usize, local: &mut Local<'_>, envoy: &mut Envoy| -> Result<()> {
        let (controller_kib, envoy_kib) = (local.controller().memory_kib()?, envoy.process().memory_kib()?);
        let envoy_allocated_kib = envoy.stat("server.memory_allocated").await? / 1_024;
        let seconds = begun.elapsed().as_secs_f64();
        let reading = Reading { flips, seconds, controller_kib, envoy_kib, envoy_allocated_kib };
        show(&reading);
        memory.push(reading);
        Ok(())
    };
    read(0, &mut local, &mut envoy).await?;
    for number in 1..=plan.flips {
        release(&mut local, &load, version(number - 1, plan)?.0, version(number, plan)?).await?;
        envoy.process().check_running()?;
        if number.is_multiple_of(plan.every) || number == plan.flips {
            read(number, &mut local, &mut envoy).await?;
        }
    }
    // The flag service has one, too.
    let clusters = envoy.stat("cluster_manager.active_clusters").await?;
    ensure!(clusters == 2, "the Envoy has {clusters} clusters of one version and the flag service");
    let results: Results = load.stop().await?;
    results.assert_no_failures();
    let (requests, failed) = (results.len(), results.failures().len());
    let (flips, versions, workers) = (plan.flips, plan.versions, plan.workers);
    Ok(ReleasesReport { flips, versions, workers, requests, failed, memory })
}

/// One release: two edits, no restart.
async fn release(local: &mut Local<'_>, load: &Load, from: String, (to, port): (String, u16)) -> Result<()> {
    local.declare(&to, port)?;
    local.ask(&to);
    let left = local.address(&from);
    wait_for(&format!("Stable at {to}"), LIMIT, async || {
        local.controller().check_running()?;
        let (phase, active) = local.phase().await?;
        ensure!(phase == "Stable" && active == to, "{phase} at {active}: {}", local.blocked().await?);
        ensure!(tokio::net::TcpStream::connect(left).await.is_err(), "{from} still runs");
        Ok(())
    })
    .await?;
    let before = load.live().answered_by(&to);
    wait_for(&format!("answers of {to}"), LIMIT, async || load.live().answered_by(&to) > before + 5).await?;
    local.undeclare(&from);
    local.write();
    wait_for("the cluster to go", LIMIT, async || {
        let there = local.clusters_there()?;
        ensure!(there == [format!("reviews-{to}")], "{there:?}");
        Ok(())
    })
    .await
}
