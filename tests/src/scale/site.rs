//! One controller with its versions, and all the proxies that its file lists. I/O: files and processes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::control::{Orders, Proxies};
use super::{Kind, check_open_files, token};
use crate::client::Call;
use crate::dir::TestDir;
use crate::load::Protocol;
use crate::local::own_address;
use crate::overlap::steady_us;
use crate::process::{Process, program};
use crate::wait::wait_for;

const FILE: &str = "scale.yaml";
const STATE: &str = "scale.state.json";
/// Between two words of how far a wait is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// How much there is.
#[derive(Debug, Clone)]
pub struct ScalePlan {
    /// Good proxies.
    pub proxies: usize,
    /// Bad ones besides.
    pub bad: usize,
    /// What all of them speak with the flag service.
    pub protocol: Protocol,
    /// The longest that all of them together may take for one thing.
    pub limit: Duration,
}

/// One flip, as the good proxies saw it. Times are microseconds of the steady clock.
#[derive(Debug, Clone)]
pub struct Flip {
    /// When the file with it was written.
    pub written_us: u64,
    /// When each had it, in order.
    pub got_us: Vec<u64>,
    /// When the ack of each was answered, in order.
    pub acked_us: Vec<u64>,
    /// CPU time of the controller, from the edit until nothing moved any more.
    pub controller_cpu: Duration,
    /// The same of the good proxies.
    pub proxies_cpu: Duration,
}

/// The whole site. Versions are never removed: `v1` and `v2` take turns.
pub struct Site<'a> {
    dir: &'a TestDir,
    ip: Ipv4Addr,
    plan: ScalePlan,
    file: Value,
    runs: u32,
    controller: Process,
    /// The good proxies.
    pub good: Proxies,
    /// The bad ones.
    pub bad: Option<Proxies>,
    say: Box<dyn FnMut(String) + 'a>,
    said: Instant,
}

impl<'a> Site<'a> {
    /// Starts a controller at `v1`, and then the proxies, and waits until all have acked. `say` is told now and then how
    /// far that is, and what comes later.
    pub async fn start(dir: &'a TestDir, plan: ScalePlan, say: impl FnMut(String) + 'a) -> Result<Site<'a>> {
        let each = if plan.protocol == Protocol::H1 { 2 } else { 1 };
        check_open_files((plan.proxies + plan.bad) * each)?;
        let ip = own_address();
        let file = file(dir, ip, &plan)?;
        dir.write(FILE, file.to_string());
        let (mut controller, service) = (controller(dir, 0)?, service(ip));
        wait_for("the controller", plan.limit, async || {
            controller.check_running()?;
            let answer = Call::get(service, "/readyz").send().await?;
            ensure!(answer.status == 200, "not ready: {}", answer.body.trim());
            Ok(())
        })
        .await?;
        let orders = |kind, count| Orders { kind, count, service, protocol: plan.protocol };
        let good = Proxies::start(dir, &orders(Kind::Good, plan.proxies)).await?;
        let bad = match plan.bad {
            0 => None,
            count => Some(Proxies::start(dir, &orders(Kind::Bad, count)).await?),
        };
        let (say, said) = (Box::new(say), Instant::now());
        let mut site = Site { dir, ip, plan, file, runs: 1, controller, good, bad, say, said };
        site.rests("v1").await?;
        Ok(site)
    }

    /// The controller.
    pub fn controller(&mut self) -> &mut Process {
        &mut self.controller
    }

    /// Goes to a version, waits until every proxy has it and its ack was answered, and then until nothing moves.
    pub async fn flip(&mut self, version: &str) -> Result<Flip> {
        let before = self.good.counts().await?.epoch;
        let (controller_cpu, proxies_cpu) = (self.controller.cpu_time()?, self.good.process.cpu_time()?);
        self.file["spec"]["version"] = version.into();
        let text = self.file.to_string();
        let written_us = steady_us();
        self.dir.write(FILE, text);
        let epoch = self.all_ack(version, before + 1).await?;
        self.rests(version).await?;
        let mut times = self.good.times(epoch).await?;
        times.got.sort_unstable();
        times.acked.sort_unstable();
        Ok(Flip {
            written_us,
            got_us: times.got,
            acked_us: times.acked,
            controller_cpu: self.controller.cpu_time()?.saturating_sub(controller_cpu),
            proxies_cpu: self.good.process.cpu_time()?.saturating_sub(proxies_cpu),
        })
    }

    /// Kills the controller and starts it again. How long from then until a report of every proxy was answered.
    pub async fn restart(&mut self) -> Result<Duration> {
        self.controller.kill();
        let since_us = steady_us();
        self.controller = controller(self.dir, self.runs)?;
        self.runs += 1;
        self.wait("reports to the new controller", async |site| {
            site.controller.check_running()?;
            let mut back = site.good.answered_since(since_us).await?;
            if let Some(bad) = &mut site.bad {
                back += bad.answered_since(since_us).await?;
            }
            site.ensure_all(back, "are back")
        })
        .await?;
        Ok(Duration::from_micros(steady_us().saturating_sub(since_us)))
    }

    /// Waits until every proxy has acked the first record that goes to this version, of this epoch or a later one. Its
    /// epoch.
    async fn all_ack(&mut self, version: &str, from: u64) -> Result<u64> {
        self.wait(&format!("all acks of {version}"), async |site| {
            site.controller.check_running()?;
            let good = site.good.progress(from, version).await?;
            let bad = match &mut site.bad {
                Some(bad) => bad.progress(from, version).await?,
                None => None,
            };
            let acked = [good, bad].into_iter().flatten().map(|progress| progress.acked).sum();
            site.ensure_all(acked, "have acked")?;
            Ok(good.context("no proxy has it")?.epoch)
        })
        .await
    }

    /// Waits until the controller has nothing to do any more, and all have acked the record that it has then. Its state
    /// is read where it is on disk: asking for it would cost the controller something.
    pub async fn rests(&mut self, version: &str) -> Result<()> {
        let what = format!("Stable at {version}");
        let epoch = self.wait(&what, async |site| {
            site.controller.check_running()?;
            let state: Value = serde_json::from_slice(&std::fs::read(site.dir.file(STATE))?)?;
            let status = &state["status"];
            let (phase, active) = (&status["phase"], &status["activeVersion"]);
            ensure!(phase == "Stable" && active == version, "{phase} at {active}: {}", status["blocked"]["message"]);
            status["record"]["epoch"].as_u64().context("a status without a record")
        });
        let epoch = epoch.await?;
        self.all_ack(version, epoch).await.map(drop)
    }

    /// What the controller says of the flag.
    pub async fn view(&self) -> Result<Value> {
        let flags: Vec<Value> = Call::get(service(self.ip), "/v1/status").send().await?.json()?;
        flags.into_iter().next().context("the controller looks after no flag yet")
    }

    fn ensure_all(&mut self, count: usize, what: &str) -> Result<()> {
        let all = self.plan.proxies + self.plan.bad;
        if count < all && self.said.elapsed() >= SAY_EVERY {
            self.said = Instant::now();
            (self.say)(format!("{count} of {all} {what}"));
        }
        ensure!(count >= all, "{count} of {all} {what}");
        Ok(())
    }

    async fn wait<T>(&mut self, what: &str, mut look: impl AsyncFnMut(&mut Self) -> Result<T>) -> Result<T> {
        self.said = Instant::now();
        let limit = self.plan.limit;
        let waited = wait_for(what, limit, async || look(self).await).await;
        match waited {
            Ok(found) => Ok(found),
            Err(error) => {
                let last = self.good.counts().await.map(|counts| counts.last_failure).unwrap_or_default();
                Err(error.context(format!("the last failure of a good proxy: {last:?}")))
            }
        }
    }
}

fn service(ip: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((ip, 7070))
}

fn controller(dir: &TestDir, run: u32) -> Result<Process> {
    let mut command = Command::new(program("versionflag")?);
    command.arg("local").arg("-f").arg(dir.file(FILE));
    Process::start(dir, &format!("controller-{run}"), command)
}

/// The file, at `v1`. No Envoy reads anything here, so nothing is written for one.
fn file(dir: &TestDir, ip: Ipv4Addr, plan: &ScalePlan) -> Result<Value> {
    let mut versions = serde_json::Map::new();
    for (version, port) in [("v1", 9001), ("v2", 9002)] {
        let address = SocketAddr::from((ip, port)).to_string();
        let ready = json!({ "path": "/healthz", "interval": "1s" });
        let command = json!([program("backend")?, "--version", version, "--listen", address]);
        versions.insert(version.to_owned(), json!({ "command": command, "address": address, "ready": ready }));
    }
    let of = |kind: Kind, count| (0..count).map(move |number| kind.name(number));
    let proxies = of(Kind::Good, plan.proxies).chain(of(Kind::Bad, plan.bad));
    let proxies: Vec<Value> = proxies.map(|name| json!({ "id": name, "token": token(&name) })).collect();
    Ok(json!({
        "apiVersion": "versionflag.io/v1alpha1",
        "kind": "VersionFlag",
        "metadata": { "name": "scale" },
        "spec": {
            "version": "v1",
            "services": [{ "name": "reviews", "clusters": { "v1": ["reviews-v1"], "v2": ["reviews-v2"] } }],
            "coexistence": { "minReady": "0s" },
            "settle": { "quietPeriod": "0s" },
            "cleanup": { "policy": "Retain" },
        },
        "local": {
            "listen": service(ip).to_string(),
            "stateFile": dir.file(STATE),
            "proxies": proxies,
            "versions": versions,
        },
    }))
}
