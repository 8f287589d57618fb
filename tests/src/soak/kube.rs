//! Damage on a real Kubernetes API: two replicas of the controller, pods, and an Envoy under load. I/O: through the
//! harness.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use strum::{IntoStaticStr, VariantArray};
use tokio::time::sleep;

use super::{Excuse, Ground, LIMIT, SoakPlan, SoakReport, switches};
use crate::clock::now_us;
use crate::kube::{Part, Switch, switch_story_within};
use crate::load::{Load, LoadPlan};
use crate::points::CLOCK;
use crate::process::Process;
use crate::wait::wait_for;
use crate::{Envoy, TestDir};

/// What can be done to a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
enum Damage {
    #[strum(to_string = "nothing")]
    Nothing,
    #[strum(to_string = "a replica of the controller killed")]
    ReplicaKilled,
    #[strum(to_string = "a replica stopped, until another leads")]
    ReplicaStopped,
    #[strum(to_string = "a replica killed, its clock moved")]
    ClockMoved,
    #[strum(to_string = "the API server killed")]
    ApiKilled,
    #[strum(to_string = "a pod of the new version killed")]
    TargetPodKilled,
    #[strum(to_string = "the new version scaled to one pod")]
    TargetShrunk,
    #[strum(to_string = "the Envoy killed")]
    EnvoyKilled,
    #[strum(to_string = "the Envoy stopped for a while")]
    EnvoyStopped,
    #[strum(to_string = "the ConfigMap of the proxies deleted")]
    MapDeleted,
    #[strum(to_string = "the EndpointSlice of the flag service deleted")]
    SliceDeleted,
    #[strum(to_string = "the ConfigMap of the proxies overwritten")]
    MapOverwritten,
    #[strum(to_string = "a host added")]
    HostAdded,
    #[strum(to_string = "the other version asked for in between")]
    EditedBack,
    #[strum(to_string = "rolled back and retried")]
    RolledBack,
}

const REPLICAS: [&str; 2] = ["one", "two"];

struct InCluster<'a, 'b, 'c> {
    random: fastrand::Rng,
    switch: &'a mut Switch<'b, 'c>,
    replicas: Vec<Process>,
    envoy: Envoy,
    excuses: Vec<Excuse>,
}

/// Switches between v1 and v2 in a cluster of its own, under load, with damage to each.
#[track_caller]
pub fn story(plan: SoakPlan, limit: Duration) {
    switch_story_within("soak-kube", limit, async |switch| run(switch, plan).await?.save("kube"));
}

async fn run(switch: &mut Switch<'_, '_>, plan: SoakPlan) -> Result<SoakReport> {
    println!("seed {}: {} switches on a Kubernetes API", plan.seed, plan.switches);
    switch.set(json!({ "cleanup": { "retainFor": "1s" }, "settle": { "quietPeriod": "1s" } })).await?;
    let mut replicas = Vec::new();
    for identity in REPLICAS {
        replicas.push(replica(switch, identity, 0).await?);
    }
    let envoy = switch.envoy().await?;
    switch.reaches("Stable", "v1").await?;
    let load = LoadPlan { rate_per_s: 200, slow_per_s: 3, slow: Duration::from_secs(1), ..LoadPlan::default() };
    let loads = [Load::start(envoy.listener("outbound"), load)];
    let random = fastrand::Rng::with_seed(plan.seed);
    let mut ground = InCluster { random, switch, replicas, envoy, excuses: vec![] };
    let switches = switches(&mut ground, plan, &loads).await?;
    let results = Load::stop_each(loads).await?;
    SoakReport::new(plan.seed, results, &ground.excuses, switches)
}

/// One replica of the controller, whose clock is ahead by so many hours.
async fn replica(switch: &Switch<'_, '_>, identity: &str, hours: i64) -> Result<Process> {
    let dir: &TestDir = switch.cluster.dir();
    let clock = dir.write(&format!("clock-{identity}"), (hours * 3_600_000).to_string());
    switch.replica(identity, &format!("replica-{identity}"), &[(CLOCK, &clock.to_string_lossy())]).await
}

impl Ground for InCluster<'_, '_, '_> {
    type Damage = Damage;
    const WITHIN_MS: u64 = 5_000;

    fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }

    async fn ask(&mut self, version: &str) -> Result<()> {
        self.switch.ask(version).await
    }

    async fn phase(&self) -> Result<String> {
        Ok(self.switch.resource().await?["status"]["phase"].as_str().unwrap_or_default().to_owned())
    }

    async fn arrives(&mut self, from: &str, to: &str) -> Result<()> {
        let (switch, replicas) = (&self.switch, &mut self.replicas);
        wait_for(&format!("Stable at {to}"), LIMIT, async || {
            for replica in replicas.iter_mut() {
                replica.check_running()?;
            }
            let status = switch.resource().await?["status"].take();
            let done = status["phase"] == "Stable" && status["activeVersion"] == to && status["blockedBy"].is_null();
            ensure!(done, "{} at {}: {}", status["phase"], status["activeVersion"], status["blockedBy"]);
            ensure!(switch.pods().await?.iter().all(|version| version == to), "pods of {from} are still there");
            Ok(())
        })
        .await
    }

    async fn inflict(&mut self, damage: Damage, from: &str, to: &str) -> Result<()> {
        let a_while = Duration::from_millis(self.random.u64(500..4_000));
        let cluster = &self.switch.cluster;
        match damage {
            Damage::Nothing => {}
            Damage::ReplicaKilled => self.replace_replica(0).await?,
            Damage::ClockMoved => {
                let hours = self.random.i64(-48..48);
                self.replace_replica(hours).await?;
            }
            Damage::ReplicaStopped => {
                // The Lease lasts 15 s.
                let stopped = self.random.usize(..self.replicas.len());
                self.replicas[stopped].signal(Signal::SIGSTOP)?;
                sleep(Duration::from_millis(self.random.u64(1_000..20_000))).await;
                self.replicas[stopped].signal(Signal::SIGCONT)?;
            }
            Damage::ApiKilled => self.switch.cluster.restart(Part::ApiServer).await?,
            Damage::TargetPodKilled => self.kill_pod(to).await?,
            Damage::TargetShrunk => {
                let name = format!("reviews-{to}");
                let from_us = now_us();
                cluster.kubectl(&["scale", "deployment", &name, "--replicas=1"]).await?;
                sleep(a_while).await;
                cluster.kubectl(&["scale", "deployment", &name, "--replicas=2"]).await?;
                // The pod that goes ends gracefully, but Envoy hears of it a moment later.
                self.excuses.push(Excuse { caller: None, from_us, until_us: now_us() });
            }
            Damage::EnvoyKilled => {
                let from_us = now_us();
                self.envoy.restart(cluster.dir()).await?;
                self.excuses.push(Excuse { caller: None, from_us, until_us: now_us() });
            }
            Damage::EnvoyStopped => {
                self.envoy.pause()?;
                sleep(a_while).await;
                self.envoy.resume()?;
            }
            Damage::MapDeleted => self.owned_returns("configmap", "versionflag-reviews", "default").await?,
            Damage::SliceDeleted => self.owned_returns("endpointslice", "versionflag", "versionflag").await?,
            Damage::MapOverwritten => self.overwrite_map().await?,
            Damage::HostAdded => {
                let host = format!("reviews-{}.example", self.random.u32(..));
                self.switch.set(json!({ "services": [{ "name": "reviews", "hosts": ["reviews", host] }] })).await?;
            }
            Damage::EditedBack => {
                self.switch.ask(from).await?;
                sleep(a_while).await;
                self.switch.ask(to).await?;
            }
            Damage::RolledBack => self.roll_back().await?,
        }
        Ok(())
    }
}

impl InCluster<'_, '_, '_> {
    /// Kills any replica and starts it anew; it may be the leader.
    async fn replace_replica(&mut self, hours: i64) -> Result<()> {
        let which = self.random.usize(..REPLICAS.len());
        self.replicas[which].kill();
        sleep(Duration::from_millis(self.random.u64(..3_000))).await;
        self.replicas[which] = replica(self.switch, REPLICAS[which], hours).await?;
        Ok(())
    }

    async fn kill_pod(&mut self, version: &str) -> Result<()> {
        let selector = format!("--selector=version={version}");
        let cluster = &self.switch.cluster;
        let pods = cluster.kubectl(&["get", "pods", &selector, "--output=name"]).await?;
        let Some(pod) = pods.lines().next() else { return Ok(()) };
        let from_us = now_us();
        cluster.kubectl(&["delete", pod, "--grace-period=0", "--force"]).await?;
        wait_for("the pod's end", LIMIT, async || {
            ensure!(cluster.kubectl(&["get", pod, "--ignore-not-found", "--output=name"]).await?.is_empty(), "{pod}");
            Ok(())
        })
        .await?;
        self.excuses.push(Excuse { caller: None, from_us, until_us: now_us() });
        Ok(())
    }

    /// Deletes an object of the controller's, which has to make it again.
    async fn owned_returns(&self, kind: &str, name: &str, namespace: &str) -> Result<()> {
        let (cluster, namespace) = (&self.switch.cluster, format!("--namespace={namespace}"));
        cluster.kubectl(&["delete", kind, name, &namespace]).await?;
        wait_for(&format!("{kind} {name} again"), LIMIT, async || {
            cluster.kubectl(&["get", kind, name, &namespace, "--output=name"]).await.map(drop)
        })
        .await
    }

    async fn overwrite_map(&self) -> Result<()> {
        let cluster = &self.switch.cluster;
        let map = ["configmap", "versionflag-reviews", "--namespace=default"];
        let patch = json!({ "data": { "routes.json": "{}" } }).to_string();
        cluster.kubectl(&[&["patch"], &map[..], &["--patch", &patch]].concat()).await?;
        wait_for("the routes again", LIMIT, async || {
            let text = cluster.kubectl(&[&["get"], &map[..], &["--output=json"]].concat()).await?;
            let map: Value = serde_json::from_str(&text)?;
            ensure!(map["data"]["routes.json"] != "{}", "still overwritten");
            Ok(())
        })
        .await
    }

    /// Asks for a way back, and goes on forward after it.
    async fn roll_back(&mut self) -> Result<()> {
        let flipped = self.switch.resource().await?["status"]["switch"]["flippedAt"].is_string();
        self.answered(if flipped { "rollback" } else { "abort" }).await?;
        if self.switch.resource().await?["status"]["override"].is_object() {
            self.answered("retry").await?;
        }
        Ok(())
    }

    async fn answered(&self, action: &str) -> Result<()> {
        self.switch.answered(&format!("{action}-{}", now_us()), action).await.map(drop)
    }
}
