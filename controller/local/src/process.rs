//! Versions as processes: started in sessions of their own, found again after a restart of the
//! controller, stopped by signal. I/O: processes, /proc, log files.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::file::{Stop, VersionCommand};
use super::probe::Probe;
use super::store::{Store, StoreError};
use machine::observation::VersionState;
use machine::time::UnixMs;
use service::Hub;
use service::failpoint;

const MARK: &str = "VERSIONFLAG_ID";
const BACKOFF_FIRST_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 30_000;
/// Up for this long, a version counts as started well.
const STEADY_MS: u64 = 10_000;

/// What is remembered of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Process {
    /// In its environment as `VERSIONFLAG_ID`: finds it when its pid was not written any more.
    pub id: String,
    /// Absent: about to be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Start time in clock ticks: a pid is used again, both together are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// The decision to stop it, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_since: Option<u64>,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its log cannot be written.
    #[error("log {path} cannot be opened: {error}")]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// What is known beside the state file.
#[derive(Debug, Default)]
struct LiveProcess {
    child: Option<Child>,
    probe: Option<Probe>,
    exited: Option<String>,
    failures: u32,
    started_ms: u64,
    next_start_ms: u64,
}

/// All processes of one flag.
#[derive(Debug)]
pub struct Supervisor {
    name: String,
    logs: PathBuf,
    hub: Arc<Hub>,
    live: BTreeMap<String, LiveProcess>,
}

impl Supervisor {
    /// Finds what the state file remembers.
    pub fn adopt(name: &str, logs: &Path, hub: Arc<Hub>, store: &mut Store) -> Result<Supervisor, StoreError> {
        let pending = store.state.processes.values().any(|process| process.pid.is_none());
        if pending {
            // One that was just forked has its environment only after exec.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        store.state.processes.retain(|version, process| {
            if process.pid.is_none() {
                (process.pid, process.start_ticks) = find(&process.id).unzip();
            }
            let runs = alive(process);
            tracing::info!(version, pid = process.pid, runs, "found in the state file");
            runs
        });
        store.save()?;
        Ok(Supervisor { name: name.to_owned(), logs: logs.to_owned(), hub, live: BTreeMap::new() })
    }

    /// Notices what ended, asks what runs, kills what does not stop.
    pub fn poll(
        &mut self,
        now_ms: u64,
        store: &mut Store,
        versions: &BTreeMap<String, VersionCommand>,
    ) -> Result<(), StoreError> {
        let mut ended = vec![];
        for (version, process) in &store.state.processes {
            let live = self.live.entry(version.clone()).or_default();
            let status = live.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if status.is_some() || !alive(process) {
                ended.push(version.clone());
                live.probe = None;
                live.child = None;
                if process.stopping_since.is_none() {
                    let how = status.map_or_else(|| "it ended".to_owned(), |status| status.to_string());
                    tracing::warn!(version, how, "ended by itself");
                    let steady = now_ms.saturating_sub(live.started_ms) >= STEADY_MS;
                    live.failures = if steady { 1 } else { live.failures.saturating_add(1) };
                    live.next_start_ms = now_ms.saturating_add(backoff(live.failures));
                    live.exited = Some(how);
                } else {
                    tracing::info!(version, "stopped");
                    *live = LiveProcess::default();
                }
                continue;
            }
            let declared = versions.get(version);
            if let Some(since) = process.stopping_since {
                live.probe = None;
                let stop = declared.map(|version| version.stop.clone()).unwrap_or_default();
                if now_ms.saturating_sub(since) >= stop.grace.0 {
                    signal(process, Signal::SIGKILL);
                }
            } else if live.probe.is_none()
                && let Some(declared) = declared
            {
                live.probe = Some(Probe::start(declared, Arc::clone(&self.hub)));
            }
        }
        if !ended.is_empty() {
            store.state.processes.retain(|version, _| !ended.contains(version));
            store.save()?;
        }
        Ok(())
    }

    /// Has the version running. Nothing to do while it runs, stops, or ended just now.
    pub fn start(
        &mut self,
        now_ms: u64,
        store: &mut Store,
        version: &str,
        how: &VersionCommand,
    ) -> Result<(), ProcessError> {
        let live = self.live.entry(version.to_owned()).or_default();
        if store.state.processes.contains_key(version) || now_ms < live.next_start_ms {
            return Ok(());
        }
        let path = self.logs.join(format!("{}-{version}.log", self.name));
        let log = |error| ProcessError::Log { path: path.clone(), error };
        let out = OpenOptions::new().create(true).append(true).open(&path).map_err(log)?;
        let err = out.try_clone().map_err(log)?;
        let (program, arguments) = how.command.split_first().map_or(("", &[][..]), |(one, rest)| (one.as_str(), rest));
        let mut command = Command::new(program);
        command.args(arguments).envs(&how.env).stdin(Stdio::null()).stdout(out).stderr(err);
        if let Some(directory) = &how.directory {
            command.current_dir(directory);
        }
        // The intent is on disk before anything runs, so that it is found if this process dies now.
        let id = service::id::unique();
        command.env(MARK, &id);
        let intent = Process { id, pid: None, start_ticks: None, stopping_since: None };
        store.state.processes.insert(version.to_owned(), intent.clone());
        store.save()?;
        let spawned = spawn(&mut command);
        match spawned {
            Ok(child) => {
                failpoint::point("after a version was started");
                let pid = i32::try_from(child.id()).ok();
                let start_ticks = pid.and_then(start_ticks);
                tracing::info!(version, pid, "started");
                store.state.processes.insert(version.to_owned(), Process { pid, start_ticks, ..intent });
                live.probe = Some(Probe::start(how, Arc::clone(&self.hub)));
                live.child = Some(child);
                live.started_ms = now_ms;
            }
            Err(error) => {
                tracing::warn!(version, %error, program, "could not be started");
                store.state.processes.remove(version);
                live.failures = live.failures.saturating_add(1);
                live.next_start_ms = now_ms.saturating_add(backoff(live.failures));
                live.exited = Some(format!("{program} could not be started: {error}"));
            }
        }
        store.save()?;
        Ok(())
    }

    /// Has the version stopped.
    pub fn stop(&mut self, now_ms: u64, store: &mut Store, version: &str, how: &Stop) -> Result<(), StoreError> {
        let Some(process) = store.state.processes.get_mut(version) else {
            return Ok(());
        };
        if process.stopping_since.is_some() {
            return Ok(());
        }
        process.stopping_since = Some(now_ms);
        let process = process.clone();
        store.save()?;
        tracing::info!(version, pid = process.pid, signal = how.signal, "stopping");
        signal(&process, how.signal.parse().unwrap_or(Signal::SIGTERM));
        failpoint::point("after a version was told to stop");
        if let Some(live) = self.live.get_mut(version) {
            live.probe = None;
        }
        Ok(())
    }

    /// What the state machine sees.
    pub fn workload(&self, store: &Store, version: &str, declared: bool) -> VersionState {
        let process = store.state.processes.get(version);
        let live = self.live.get(version);
        let ready_since = live
            .filter(|_| process.is_some_and(|process| process.stopping_since.is_none()))
            .and_then(|live| live.probe.as_ref()?.ready_since());
        VersionState {
            declared,
            running: process.is_some(),
            ready: ready_since.is_some(),
            ready_since: ready_since.map(UnixMs),
            exited: live.and_then(|live| live.exited.clone()).filter(|_| ready_since.is_none()),
            stopped: process.is_some_and(|process| process.stopping_since.is_some()),
            ..VersionState::default()
        }
    }
}

/// A session of its own: neither the terminal's signals nor the end of this process reach it.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    command.spawn()
}

fn backoff(failures: u32) -> u64 {
    BACKOFF_FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(BACKOFF_MAX_MS)
}

/// To the whole group: a shell that only waits for its child would not pass the signal on.
fn signal(process: &Process, signal: Signal) {
    if let Some(pid) = process.pid.filter(|_| alive(process)) {
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}

/// Whether exactly this process still runs.
fn alive(process: &Process) -> bool {
    process.pid.is_some_and(|pid| start_ticks(pid).is_some_and(|ticks| Some(ticks) == process.start_ticks))
}

/// Start time of a process that runs and is no zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may have spaces and parentheses itself: fields count from the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok()).flatten()
}

/// The oldest process with the mark in its environment: its children inherit it.
fn find(id: &str) -> Option<(i32, u64)> {
    let mark = format!("{MARK}={id}");
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let marked = pids.filter(|pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    });
    marked.filter_map(|pid| Some((pid, start_ticks(pid)?))).min_by_key(|(pid, ticks)| (*ticks, *pid))
}
