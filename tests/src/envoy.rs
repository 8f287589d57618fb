//! A real Envoy. I/O: runs it and asks its admin interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client::{Answer, Call};
use crate::config::address;
use crate::dir::TestDir;
use crate::process::{Process, tool};
use crate::wait::wait_for;

const START_LIMIT: Duration = Duration::from_secs(60);
const READY_LIMIT: Duration = Duration::from_secs(5);
/// Its main thread has been seen not to answer for some seconds, right after its start.
const ADMIN_LIMIT: Duration = Duration::from_secs(30);

/// How long an Envoy that was taken over goes on: it tells all clients at once to go, and those that have not gone by
/// the end are cut off. No test has a stream that takes longer.
const TAKEN_OVER: [&str; 6] =
    ["--drain-time-s", "2", "--parent-shutdown-time-s", "12", "--drain-strategy", "immediate"];

/// How an Envoy is run.
#[derive(Debug, Clone)]
pub struct EnvoyOptions {
    /// Its node id, and the name of its files.
    pub name: String,
    /// Worker threads.
    pub concurrency: u32,
    /// As Envoy spells it.
    pub log_level: String,
    /// It can be taken over by another process, see [`Envoy::restart_hot`].
    pub hot: bool,
}

impl Default for EnvoyOptions {
    fn default() -> EnvoyOptions {
        EnvoyOptions { name: "envoy".to_owned(), concurrency: 1, log_level: "warning".to_owned(), hot: false }
    }
}

/// A running Envoy with its admin interface and listeners on free ports of loopback.
#[derive(Debug)]
pub struct Envoy {
    options: EnvoyOptions,
    config: Value,
    config_file: PathBuf,
    admin_file: PathBuf,
    process: Option<Process>,
    /// Where those that take over find one another.
    base_id: Option<u32>,
    /// How often it was taken over.
    epoch: u32,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
}

impl Envoy {
    /// One with a single worker, ready to serve.
    pub async fn start(dir: &TestDir, name: &str, config: Value) -> Result<Envoy> {
        Envoy::start_with(dir, EnvoyOptions { name: name.to_owned(), ..EnvoyOptions::default() }, config).await
    }

    /// Starts one and waits until it serves.
    pub async fn start_with(dir: &TestDir, options: EnvoyOptions, mut config: Value) -> Result<Envoy> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        config["admin"]["address"] = address(any);
        if config["node"].is_null() {
            config["node"] = json!({ "id": options.name, "cluster": "test" });
        }
        let mut envoy = Envoy {
            config_file: dir.file(&format!("{}.json", options.name)),
            admin_file: dir.file(&format!("{}.admin", options.name)),
            options,
            config,
            process: None,
            base_id: None,
            epoch: 0,
            admin: any,
            listeners: BTreeMap::new(),
        };
        envoy.new_base_id();
        envoy.run(dir).await?;
        Ok(envoy)
    }

    async fn run(&mut self, dir: &TestDir) -> Result<()> {
        std::fs::write(&self.config_file, serde_json::to_vec_pretty(&self.config)?)?;
        let _ = std::fs::remove_file(&self.admin_file);
        let mut command = Command::new(binary()?);
        command
            .arg("--config-path")
            .arg(&self.config_file)
            .arg("--admin-address-path")
            .arg(&self.admin_file)
            .args(["--concurrency", &self.options.concurrency.to_string()])
            .args(["--log-level", &self.options.log_level]);
        match self.base_id {
            Some(id) => {
                let epoch = self.epoch.to_string();
                command.args(["--base-id", &id.to_string(), "--restart-epoch", &epoch]).args(TAKEN_OVER);
            }
            // Needs no base id, and leaves no shared memory behind when it is killed.
            None => drop(command.arg("--disable-hot-restart")),
        }
        let process = self.process.insert(Process::start(dir, &self.options.name, command)?);
        let admin_file = &self.admin_file;
        (self.admin, self.listeners) = wait_for(&self.options.name, START_LIMIT, async || {
            process.check_running()?;
            let admin = std::fs::read_to_string(admin_file)?.trim().parse()?;
            let ready = Call::get(admin, "/ready").limit(READY_LIMIT).send().await?;
            ensure!(ready.status == 200, "not ready: {}", ready.body.trim());
            let answer = Call::get(admin, "/listeners?format=json").limit(READY_LIMIT).send().await?;
            Ok((admin, bound_listeners(&answer)?))
        })
        .await?;
        Ok(())
    }

    /// Where a listener of its configuration is bound.
    pub fn listener(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| panic!("{} has no listener {name}", self.options.name))
    }

    /// Where its admin interface is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("an Envoy that was started has a process")
    }

    /// Counters and gauges whose names start like this.
    pub async fn stats(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let filter = prefix.replace('.', "%5C.");
        let asked = Call::get(self.admin, &format!("/stats?filter=^{filter}")).limit(ADMIN_LIMIT).send().await;
        let threads = || self.process.as_ref().map(Process::threads).unwrap_or_default();
        let answer = asked.with_context(|| format!("{}: its threads: {}", self.options.name, threads()))?;
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(answer.body.lines().filter_map(parse).collect())
    }

    /// One counter or gauge; 0 if there is none.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.stats(name).await?.remove(name).unwrap_or_default())
    }

    /// CPU time that the process has used.
    pub fn cpu_time(&mut self) -> Result<Duration> {
        self.process().cpu_time()
    }

    /// Stops it where it stands: its sockets stay open and nothing answers.
    pub fn pause(&mut self) -> Result<()> {
        self.process().signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&mut self) -> Result<()> {
        self.process().signal(Signal::SIGCONT)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process().kill();
        self.clean_up();
    }

    /// Kills it and starts it again, with the same configuration on the same addresses.
    pub async fn restart(&mut self, dir: &TestDir) -> Result<()> {
        self.kill();
        self.stay();
        self.new_base_id();
        self.run(dir).await
    }

    /// Has another process take over, which gets all new connections. The one before, which is given, goes on with
    /// those that it has, and ends by itself some seconds later.
    pub async fn restart_hot(&mut self, dir: &TestDir) -> Result<Process> {
        ensure!(self.base_id.is_some(), "{} was not started to be taken over", self.options.name);
        self.stay();
        self.epoch += 1;
        let parent = self.process.take().context("an Envoy that was started has a process")?;
        self.run(dir).await?;
        Ok(parent)
    }

    /// An id that no other Envoy of this machine has: not one that lives, nor one that has left its shared memory.
    fn new_base_id(&mut self) {
        let free = |id: &u32| !shared_memory(*id).exists();
        let mut ids = std::iter::repeat_with(|| fastrand::u32(1..1_000_000));
        (self.base_id, self.epoch) = (self.options.hot.then(|| ids.find(free)).flatten(), 0);
    }

    /// What a killed Envoy leaves behind.
    fn clean_up(&self) {
        if let Some(id) = self.base_id {
            let _ = std::fs::remove_file(shared_memory(id));
        }
    }

    /// Keeps the addresses for the next process.
    fn stay(&mut self) {
        self.config["admin"]["address"] = address(self.admin);
        for listener in self.config["static_resources"]["listeners"].as_array_mut().into_iter().flatten() {
            if let Some(bound) = listener["name"].as_str().and_then(|name| self.listeners.get(name)) {
                listener["address"] = address(*bound);
            }
        }
    }

    /// Lets Envoy check a configuration without running it; the error is what it has to say.
    pub fn validate(dir: &TestDir, config: &Value) -> Result<()> {
        Envoy::validate_file(&dir.write("validated.json", config.to_string()))
    }

    /// The same for a file, as JSON or YAML by its extension.
    pub fn validate_file(file: &Path) -> Result<()> {
        let output = Command::new(binary()?)
            .args(["--mode", "validate", "--log-level", "warning", "--disable-hot-restart", "--config-path"])
            .arg(file)
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// What `envoy --version` prints, without the name of the program.
    pub fn version() -> Result<String> {
        let output = Command::new(binary()?).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split_once("version:").map_or(text.as_str(), |(_, version)| version).trim().to_owned())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        drop(self.process.take());
        self.clean_up();
    }
}

/// Where an Envoy of this base id keeps what the next one needs.
fn shared_memory(base_id: u32) -> PathBuf {
    // Envoy keeps the last digit for the epochs.
    PathBuf::from(format!("/dev/shm/envoy_shared_memory_{}0", base_id))
}

/// Bound addresses by the listeners' names, once all of them are bound.
fn bound_listeners(answer: &Answer) -> Result<BTreeMap<String, SocketAddr>> {
    let listeners: Value = answer.json()?;
    let mut bound = BTreeMap::new();
    for listener in listeners["listener_statuses"].as_array().into_iter().flatten() {
        let socket = &listener["local_address"]["socket_address"];
        let name = listener["name"].as_str().context("a listener without a name")?;
        let port = socket["port_value"].as_u64().context("a listener without a port")?;
        ensure!(port != 0, "listener {name} is not bound yet");
        let ip = socket["address"].as_str().context("a listener without an address")?;
        bound.insert(name.to_owned(), SocketAddr::new(ip.parse()?, port as u16));
    }
    Ok(bound)
}

/// `$VERSIONFLAG_ENVOY`, or what `tools/envoy.sh` finds or installs.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = BINARY.get() {
        return Ok(path.clone());
    }
    let path = tool("VERSIONFLAG_ENVOY", "tools/envoy.sh")?;
    Ok(BINARY.get_or_init(|| path).clone())
}
