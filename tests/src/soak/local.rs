//! Damage on one machine: two versions as processes, two Envoys under load. I/O: through the harness.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use strum::{IntoStaticStr, VariantArray};
use tokio::time::sleep;

use super::{Excuse, Ground, LIMIT, SoakPlan, SoakReport, switches};
use crate::clock::{from_unix_ms, now_us};
use crate::load::{Load, LoadPlan};
use crate::local::Local;
use crate::points::CLOCK;
use crate::process::Process;
use crate::wait::wait_for;
use crate::{Call, Envoy, EnvoyOptions, TestDir};

/// How soon after an end of v2 the controller may still flip to it: it cannot know before.
const NEWS_US: u64 = 500_000;

/// What can be done to a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
enum Damage {
    #[strum(to_string = "nothing")]
    Nothing,
    #[strum(to_string = "the new version killed")]
    TargetKilled,
    #[strum(to_string = "the new version stopped for a while")]
    TargetStopped,
    #[strum(to_string = "the controller killed")]
    ControllerKilled,
    #[strum(to_string = "the controller stopped for a while")]
    ControllerStopped,
    #[strum(to_string = "a second controller")]
    TwoControllers,
    #[strum(to_string = "an Envoy killed")]
    EnvoyKilled,
    #[strum(to_string = "an Envoy stopped for a while")]
    EnvoyStopped,
    #[strum(to_string = "an Envoy restarted hot")]
    EnvoyRestartedHot,
    #[strum(to_string = "files of the proxies lost")]
    FilesLost,
    #[strum(to_string = "files of the proxies overwritten")]
    FilesOverwritten,
    #[strum(to_string = "a host added")]
    HostAdded,
    #[strum(to_string = "the cluster taken from an Envoy for a while")]
    ClusterGone,
    #[strum(to_string = "the clock moved, the controller restarted")]
    ClockMoved,
    #[strum(to_string = "the other version asked for in between")]
    EditedBack,
    #[strum(to_string = "rolled back and retried")]
    RolledBack,
}

/// The second Envoy, which gets the damage, in the order of loads.
const OTHER: usize = 1;

struct Machine<'a> {
    dir: &'a TestDir,
    random: fastrand::Rng,
    local: Local<'a>,
    controller: Process,
    other: Envoy,
    /// Envoys that were taken over, until they have ended.
    parents: Vec<Process>,
    excuses: Vec<Excuse>,
}

/// Switches between v1 and v2 under load, with damage to each.
pub async fn run(dir: &TestDir, plan: SoakPlan) -> Result<SoakReport> {
    println!("seed {}: {} switches on this machine", plan.seed, plan.switches);
    let mut local = Local::new(dir)?;
    let spec = &mut local.file()["spec"];
    spec["coexistence"] = json!({ "minReady": "500ms" });
    spec["settle"] = json!({ "quietPeriod": "1s" });
    spec["cleanup"] = json!({ "retainFor": "1s" });
    local.file()["local"]["proxies"] = json!([{ "id": "edge" }, { "id": "other" }]);
    local.write();
    dir.write("clock", "0");
    let controller = start(&local, dir).await?;
    let edge = local.envoy("edge", 2).await?;
    let hot = EnvoyOptions { name: "other".to_owned(), concurrency: 2, hot: true, ..EnvoyOptions::default() };
    let other = Envoy::start_with(dir, hot, config(&local, dir)?).await?;
    local.reaches("Stable", "v1").await?;
    let load = LoadPlan { rate_per_s: 200, slow_per_s: 3, slow: Duration::from_secs(1), ..LoadPlan::default() };
    let loads = vec![
        Load::start(edge.listener("ingress"), load.clone()),
        Load::start(other.listener("ingress"), LoadPlan { h2_connections: 1, ..load }),
    ];
    let random = fastrand::Rng::with_seed(plan.seed);
    let mut ground = Machine { dir, random, local, controller, other, parents: vec![], excuses: vec![] };
    let switches = switches(&mut ground, plan, &loads).await?;
    let results = Load::stop_each(loads).await?;
    SoakReport::new(plan.seed, results, &ground.excuses, switches)
}

/// The configuration of the Envoy that is damaged: its clusters come from a file.
fn config(local: &Local<'_>, dir: &TestDir) -> Result<Value> {
    let mut config = local.envoy_config();
    let clusters = config["static_resources"]["clusters"].take();
    let (to_service, versions): (Vec<Value>, Vec<Value>) = clusters
        .as_array()
        .context("a configuration without clusters")?
        .iter()
        .cloned()
        .partition(|one| one["name"] == "versionflag");
    config["static_resources"]["clusters"] = json!(to_service);
    write_clusters(dir, &versions);
    config["dynamic_resources"]["cds_config"] =
        json!({ "path_config_source": { "path": dir.file("clusters.json") }, "resource_api_version": "V3" });
    Ok(config)
}

fn write_clusters(dir: &TestDir, clusters: &[Value]) {
    let typed = clusters.iter().cloned().map(|mut one| {
        one["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
        one
    });
    // Envoy looks when a file is moved to this place.
    let new = dir.write("clusters.new", json!({ "resources": typed.collect::<Vec<_>>() }).to_string());
    std::fs::rename(new, dir.file("clusters.json")).expect("a file of the test can be moved");
}

async fn start(local: &Local<'_>, dir: &TestDir) -> Result<Process> {
    let clock = dir.file("clock").to_string_lossy().into_owned();
    let mut controller = local.controller_with(&[(CLOCK, &clock)])?;
    wait_for("the controller", LIMIT, async || {
        controller.check_running()?;
        ensure!(dir.file("routes.json").exists(), "no routes for the proxies");
        local.view().await
    })
    .await?;
    Ok(controller)
}

impl Ground for Machine<'_> {
    type Damage = Damage;
    const WITHIN_MS: u64 = 4_000;

    fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }

    async fn ask(&mut self, version: &str) -> Result<()> {
        self.local.ask(version);
        Ok(())
    }

    async fn phase(&self) -> Result<String> {
        Ok(self.local.phase().await?.0)
    }

    async fn arrives(&mut self, from: &str, to: &str) -> Result<()> {
        let (local, controller) = (&self.local, &mut self.controller);
        wait_for(&format!("Stable at {to}"), LIMIT, async || {
            controller.check_running()?;
            let (phase, active) = local.phase().await?;
            let blocked = local.blocked().await?;
            ensure!(phase == "Stable" && active == to && blocked.is_empty(), "{phase} at {active}: {blocked}");
            ensure!(!local.runs(from).await, "{from} still runs");
            Ok(())
        })
        .await?;
        self.parents.retain_mut(Process::is_running);
        Ok(())
    }

    async fn inflict(&mut self, damage: Damage, from: &str, to: &str) -> Result<()> {
        let a_while = Duration::from_millis(self.random.u64(500..4_000));
        match damage {
            Damage::Nothing => {}
            Damage::TargetKilled => self.kill_target(to).await?,
            // Who is sent to it meanwhile waits, and is answered.
            Damage::TargetStopped => {
                if let Some(pid) = self.pid(to)? {
                    kill(pid, Signal::SIGSTOP)?;
                    sleep(a_while).await;
                    kill(pid, Signal::SIGCONT)?;
                }
            }
            Damage::ControllerKilled => {
                self.controller.kill();
                sleep(a_while).await;
                self.controller = start(&self.local, self.dir).await?;
            }
            Damage::ControllerStopped => {
                self.controller.signal(Signal::SIGSTOP)?;
                sleep(a_while).await;
                self.controller.signal(Signal::SIGCONT)?;
            }
            Damage::TwoControllers => {
                let mut second = self.local.another_controller()?;
                let ended = second.wait_exit(LIMIT).await?;
                ensure!(!ended.success(), "a second controller went on");
            }
            Damage::EnvoyKilled => {
                let from_us = now_us();
                self.other.restart(self.dir).await?;
                self.excuses.push(Excuse { caller: Some(OTHER), from_us, until_us: now_us() });
            }
            Damage::EnvoyStopped => {
                self.other.pause()?;
                sleep(a_while).await;
                self.other.resume()?;
            }
            Damage::EnvoyRestartedHot => {
                // One process can take over from one only.
                for parent in &mut self.parents {
                    parent.wait_exit(LIMIT).await?;
                }
                self.parents.push(self.other.restart_hot(self.dir).await?);
            }
            Damage::FilesLost => {
                for file in ["routes.json", "filter.json"] {
                    std::fs::remove_file(self.dir.file(file))?;
                }
                self.files_return().await?;
            }
            Damage::FilesOverwritten => {
                for file in ["routes.json", "filter.json"] {
                    std::fs::write(self.dir.file(file), "{")?;
                }
                self.files_return().await?;
            }
            Damage::HostAdded => {
                let host = format!("reviews-{}.example", self.random.u32(..));
                self.local.file()["spec"]["services"][0]["hosts"] = json!(["reviews", host]);
                self.local.write();
            }
            Damage::ClusterGone => self.take_cluster(to, a_while).await?,
            Damage::ClockMoved => {
                let hours = self.random.i64(-48..48);
                self.dir.write("clock", (hours * 3_600_000).to_string());
                self.controller.kill();
                self.controller = start(&self.local, self.dir).await?;
            }
            Damage::EditedBack => {
                self.local.ask(from);
                sleep(a_while).await;
                self.local.ask(to);
            }
            Damage::RolledBack => self.roll_back(to).await?,
        }
        Ok(())
    }
}

impl Machine<'_> {
    fn pid(&self, version: &str) -> Result<Option<Pid>> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.dir.file("reviews.state.json"))?)?;
        let pid = state["processes"][version]["pid"].as_i64();
        Ok(pid.map(i32::try_from).transpose()?.map(Pid::from_raw))
    }

    /// Kills the version that is switched to. Requests fail by that only if they were led to it before its end was
    /// known.
    async fn kill_target(&mut self, to: &str) -> Result<()> {
        let Some(pid) = self.pid(to)? else { return Ok(()) };
        let from_us = now_us();
        kill(pid, Signal::SIGKILL)?;
        let address = self.local.address(to);
        wait_for("the new version again", LIMIT, async || {
            ensure!(self.pid(to)?.is_some_and(|again| again != pid), "not started again");
            let answer = Call::get(address, "/healthz").limit(Duration::from_secs(1)).send().await?;
            ensure!(answer.status == 200, "not ready");
            Ok(())
        })
        .await?;
        let until_us = now_us();
        if self.flipped_us(to).await?.is_some_and(|flipped| flipped <= from_us + NEWS_US) {
            self.excuses.push(Excuse { caller: None, from_us, until_us });
        }
        Ok(())
    }

    /// When the flag was flipped to this version, if it was.
    async fn flipped_us(&self, to: &str) -> Result<Option<u64>> {
        let switch = self.local.view().await?["status"]["switch"].take();
        let at = switch["flippedAt"].as_u64().filter(|_| switch["to"] == to);
        Ok(at.map(from_unix_ms))
    }

    async fn files_return(&self) -> Result<()> {
        wait_for("the files", LIMIT, async || {
            for file in ["routes.json", "filter.json"] {
                let text = std::fs::read_to_string(self.dir.file(file))?;
                serde_json::from_str::<Value>(&text).with_context(|| file.to_owned())?;
            }
            Ok(())
        })
        .await
    }

    /// The other Envoy has no cluster of the version for a while: whoever is led there gets 503, after the flip.
    async fn take_cluster(&mut self, to: &str, a_while: Duration) -> Result<()> {
        let text = std::fs::read_to_string(self.dir.file("clusters.json"))?;
        let all = serde_json::from_str::<Value>(&text)?["resources"].as_array().context("no clusters")?.clone();
        let cluster = format!("reviews-{to}");
        let from_us = now_us();
        let left: Vec<Value> = all.iter().filter(|one| one["name"] != cluster.as_str()).cloned().collect();
        write_clusters(self.dir, &left);
        sleep(a_while).await;
        write_clusters(self.dir, &all);
        let known = format!("cluster.{cluster}.membership_total");
        wait_for("the cluster again", LIMIT, async || self.other.stat(&known).await.is_ok_and(|hosts| hosts > 0))
            .await?;
        // What it could not reach is tried again every ten seconds: a flip may rest on the try before.
        if self.flipped_us(to).await?.is_some() {
            self.excuses.push(Excuse { caller: Some(OTHER), from_us, until_us: now_us() });
        }
        Ok(())
    }

    /// Asks for a way back, and goes on forward after it.
    async fn roll_back(&mut self, to: &str) -> Result<()> {
        let action = if self.flipped_us(to).await?.is_some() { "rollback" } else { "abort" };
        self.local.answered(action).await?;
        let held = self.local.view().await?["status"]["override"].is_object();
        if held { self.local.answered("retry").await } else { Ok(()) }
    }
}
