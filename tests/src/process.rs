//! A child process that never outlives its test. I/O: starts, signals and ends processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::time::clock_getcpuclockid;
use nix::unistd::{Pid, getpid, getppid};

use crate::dir::{DIR_ENV, PID_ENV, TestDir};
use crate::lock::lock;
use crate::wait::wait_for;

/// A child process with a process group of its own. The group is killed, and the child reaped,
/// when this is dropped, also by a panic; and the child dies with the test when that is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts it. What it prints goes to `NAME.log` in the test's directory, after what an earlier
    /// process of that name left there.
    pub fn start(dir: &TestDir, name: &str, mut command: Command) -> Result<Process> {
        let log = dir.file(&format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .env(DIR_ENV, dir.path())
            .env(PID_ENV, std::process::id().to_string())
            .process_group(0);
        die_with_the_test(&mut command);
        let program = command.get_program().to_owned();
        let child = spawn(command).with_context(|| format!("starting {name}: {}", program.display()))?;
        Ok(Process { name: name.to_owned(), child, log, exited: None })
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Sends a signal to it alone, not to processes that it started.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Once reaped, its id may be somebody else's.
        if let Some(status) = self.exited {
            return Err(anyhow!("{} has ended: {}", self.name, describe(status)));
        }
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().ok().flatten();
        }
        self.exited
    }

    /// Whether it has not ended. A stopped process is running.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Whether it is stopped where it stands, and will go on when it is told to.
    pub fn is_stopped(&self) -> Result<bool> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        Ok(status.lines().any(|line| line.starts_with("State:\tT")))
    }

    /// Fails with the end of its log if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.exit_status() {
            None => Ok(()),
            Some(status) => {
                let reason = format!("{} has ended: {}\n{}", self.name, describe(status), self.log_tail(20));
                Err(crate::wait::GiveUp(reason).into())
            }
        }
    }

    /// Waits until it ends by itself.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_for(&what, limit, async || self.exit_status()).await
    }

    /// Kills its whole group and reaps it.
    pub fn kill(&mut self) {
        if self.exited.is_none() {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.exited = self.child.wait().ok();
        }
    }

    /// CPU time that it has used, all threads, user and system.
    pub fn cpu_time(&self) -> Result<Duration> {
        // The process's CPU clock is what utime + stime in /proc count, at full resolution
        // instead of ticks of 10 ms.
        Ok(clock_getcpuclockid(self.pid())?.now()?.into())
    }

    /// The memory that it occupies.
    pub fn memory_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Memory that is its own alone: what goes when it ends.
    pub fn private_kib(&self) -> Result<u64> {
        let parts = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let lines = parts.lines().filter(|line| line.starts_with("Private_"));
        lines.map(|line| Ok(line.split_whitespace().nth(1).context("a line without a number")?.parse::<u64>()?)).sum()
    }

    /// What each of its threads does: its name, its state, and where in the kernel it waits.
    pub fn threads(&self) -> String {
        let about = |task: &Path| {
            let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default().trim().to_owned();
            let stat = read("stat");
            let state = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
            format!("{} {state} {}", read("comm"), read("wchan"))
        };
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        tasks.map(|task| about(&task.path())).collect::<Vec<_>>().join(", ")
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let mut tail: Vec<&str> = text.lines().rev().take(lines).collect();
        tail.reverse();
        tail.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exit code {}", status.code().unwrap_or_default()),
    }
}

/// A program of this workspace, built into the directory that this one runs from.
pub fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let built = this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    built.with_context(|| format!("{name} is not built beside {}: cargo build --workspace", this.display()))
}

/// What a script of tools/ finds or installs; it prints where. `$variable` says so instead.
pub fn tool(variable: &str, script: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let output =
        Command::new(script).current_dir(crate::root()).stderr(Stdio::inherit()).output().context(script.to_owned())?;
    anyhow::ensure!(output.status.success(), "{script} failed: see above");
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

#[allow(unsafe_code)]
fn die_with_the_test(command: &mut Command) {
    let parent = getpid();
    let set_up = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have gone before the signal was asked for.
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only system calls are made and nothing is allocated.
    unsafe { command.pre_exec(set_up) };
}

/// Starts the command on a thread that lives as long as the test's process does: the death signal
/// is sent when the *thread* that started the child ends. There is one for each network namespace,
/// because a child is born into that of the thread.
fn spawn(command: Command) -> io::Result<Child> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let (reply, child) = mpsc::sync_channel(1);
    let mut spawners = lock(&SPAWNERS);
    let spawner = spawners.entry(namespace).or_insert_with(spawner);
    spawner.send((command, reply)).map_err(io::Error::other)?;
    drop(spawners);
    child.recv().map_err(io::Error::other)?
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
/// By the inode of the namespace, which is not given again while a spawner is in there.
static SPAWNERS: Mutex<BTreeMap<u64, mpsc::Sender<Order>>> = Mutex::new(BTreeMap::new());

fn spawner() -> mpsc::Sender<Order> {
    let (orders, inbox) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in inbox {
            let _ = reply.send(command.spawn());
        }
    });
    orders
}
