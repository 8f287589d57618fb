//! The container `istio-proxy` of a pod: pilot-agent, and the Envoy that it starts. I/O: the folder
//! that is its file system, its processes, Envoy's admin interface.
//!
//! They run in a process namespace of their own, as in a container: when pilot-agent has ended, or
//! the test has, so has Envoy.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;

use super::network::PROXY;
use super::programs;
use crate::Signal;
use crate::client::{Answer, Call};
use crate::dir::TestDir;
use crate::netns::Network;
use crate::process::Process;
use crate::wait::wait_for;

const ADMIN: SocketAddr = SocketAddr::new(super::LOOPBACK, 15000);
const LIMIT: Duration = Duration::from_secs(10);

/// What it is started with.
#[derive(Debug, Clone)]
pub(super) struct Container {
    /// Of the pod, and of the log.
    pub(super) name: String,
    /// `sidecar`, or `router` for a gateway.
    pub(super) arguments: Vec<String>,
    /// From the pod's template.
    pub(super) environment: BTreeMap<String, String>,
    /// Files of the pod's volumes, by their path.
    pub(super) files: BTreeMap<&'static str, String>,
}

/// A running one.
#[derive(Debug)]
pub struct Sidecar {
    network: Network,
    process: RefCell<Process>,
}

/// Leads all connections of the pod through Envoy, by Istio's own rules, as the container
/// `istio-init` does.
pub(super) fn redirect(network: &Network) -> Result<()> {
    let output = network
        .command(programs()?.join("pilot-agent"))
        .args(["istio-iptables", "-p", "15001", "-z", "15006", "-m", "REDIRECT", "-i", "*", "-b", "*"])
        .args(["-d", "15090,15021,15020"])
        .args(["-u", &PROXY.to_string(), "-g", &PROXY.to_string()])
        .output()?;
    ensure!(output.status.success(), "istio-iptables: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

impl Sidecar {
    pub(super) fn start(dir: &TestDir, network: &Network, container: &Container) -> Result<Sidecar> {
        let root = dir.file(&container.name);
        for (path, content) in &container.files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().context("a file without a folder")?)?;
            fs::write(path, content)?;
        }
        let programs = programs()?;
        let mut command = network.command("unshare");
        command
            .args(["--fork", "--pid", "--kill-child=SIGKILL", "--mount", "sh", "-c"])
            // Istio knows one folder by its absolute name, in which each pod has its own filters. The
            // redirection knows the proxy by its user, who may read what belongs to the test's.
            .arg(format!(
                "mount -t tmpfs tmpfs /var/lib && mkdir -p /var/lib/istio/data && \
                 exec setpriv --reuid {PROXY} --regid {PROXY} --clear-groups --pdeathsig KILL \
                 --inh-caps +dac_override --ambient-caps +dac_override -- \"$@\""
            ))
            .arg("sh")
            .arg(programs.join("pilot-agent"))
            .args(&container.arguments)
            .arg("--templateFile")
            .arg(programs.join("envoy_bootstrap.json"))
            .current_dir(&root)
            .envs(&container.environment);
        let process = Process::start(dir, &format!("{}.istio-proxy", container.name), command)?;
        Ok(Sidecar { network: network.clone(), process: process.into() })
    }

    /// pilot-agent: the channel to istiod, and who starts Envoy.
    pub fn agent(&self) -> Result<Pid> {
        children(self.process.borrow().pid())?.first().copied().context("pilot-agent does not run")
    }

    /// The Envoy that serves.
    pub fn envoy(&self) -> Result<Pid> {
        children(self.agent()?)?.first().copied().context("Envoy does not run")
    }

    /// Stops pilot-agent where it stands: nothing that istiod sends arrives.
    pub fn freeze_agent(&self) -> Result<()> {
        Ok(kill(self.agent()?, Signal::SIGSTOP)?)
    }

    /// Lets it go on.
    pub fn thaw_agent(&self) -> Result<()> {
        Ok(kill(self.agent()?, Signal::SIGCONT)?)
    }

    /// Stops Envoy where it stands.
    pub fn freeze_envoy(&self) -> Result<()> {
        Ok(kill(self.envoy()?, Signal::SIGSTOP)?)
    }

    /// Lets it go on.
    pub fn thaw_envoy(&self) -> Result<()> {
        Ok(kill(self.envoy()?, Signal::SIGCONT)?)
    }

    /// Kills Envoy. pilot-agent ends then, and the container is started again.
    pub fn kill_envoy(&self) -> Result<()> {
        Ok(kill(self.envoy()?, Signal::SIGKILL)?)
    }

    /// Asks both to end, Envoy after it was drained.
    pub(super) fn terminate(&self) -> Result<()> {
        Ok(kill(self.agent()?, Signal::SIGTERM)?)
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.borrow_mut().is_running()
    }

    /// Asks Envoy's admin interface.
    pub async fn admin(&self, path: &str) -> Result<Answer> {
        let call = Call::get(ADMIN, path).limit(LIMIT);
        self.network.run(async move || call.send().await).await
    }

    /// Everything that Envoy is configured with.
    pub async fn config(&self) -> Result<Value> {
        self.admin("/config_dump?include_eds").await?.json()
    }

    /// Waits until Envoy has so many healthy endpoints for a version of a service of the tests' namespace.
    pub async fn has_endpoints(&self, service: &str, version: &str, count: usize) -> Result<()> {
        let cluster = format!("|{version}|{service}.");
        wait_for(&format!("{count} endpoints of {service} {version}"), LIMIT, async || {
            let clusters = self.admin("/clusters").await?.body;
            let lines = clusters.lines().filter(|line| line.starts_with("outbound|") && line.contains(&cluster));
            let healthy = lines.filter(|line| line.ends_with("::health_flags::healthy")).count();
            ensure!(healthy == count, "{healthy} healthy: {clusters}");
            Ok(())
        })
        .await
    }

    /// Counters and gauges whose names contain this.
    pub async fn stats(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let answer = self.admin(&format!("/stats?filter={}", name.replace('.', "%5C."))).await?;
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(answer.body.lines().filter_map(parse).collect())
    }

    /// Waits until Envoy's counters and gauges are as they should be.
    pub async fn reaches(&self, what: &str, name: &str, holds: impl Fn(u64) -> bool) -> Result<()> {
        wait_for(what, LIMIT, async || {
            let stats = self.stats(name).await?;
            ensure!(stats.values().any(|value| holds(*value)), "{stats:?}");
            Ok(())
        })
        .await
    }
}

/// Whether the kubelet's probe of `istio-proxy` passes.
pub(super) async fn is_ready(ip: Ipv4Addr) -> Result<()> {
    let answer = Call::get(SocketAddr::new(ip.into(), 15021), "/healthz/ready").limit(LIMIT).send().await?;
    ensure!(answer.status == 200, "the sidecar is not ready: {} {}", answer.status, answer.body.trim());
    Ok(())
}

fn children(parent: Pid) -> Result<Vec<Pid>> {
    let mut children = Vec::new();
    // Each thread has those that it started.
    for task in fs::read_dir(format!("/proc/{parent}/task"))? {
        let path: PathBuf = task?.path().join("children");
        for pid in fs::read_to_string(path)?.split_whitespace() {
            children.push(Pid::from_raw(pid.parse()?));
        }
    }
    Ok(children)
}
