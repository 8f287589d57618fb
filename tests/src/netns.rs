//! A network of a test's own: a thread in a network namespace that nothing leaves. I/O: makes the
//! namespace. Needs root.
//!
//! The namespace has no name, so it ends with the last thread or process in it, also when the test
//! is killed. To look into one while a test runs: `nsenter --net=/proc/PID/ns/net`, with the id of
//! any process that the test started.

use std::fs::File;
use std::io::Write;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

/// Every address in it answers, on every port that something is bound to: Kubernetes refuses
/// loopback addresses as endpoints, and this range, kept for benchmarks, is nobody's.
pub const ADDRESSES: &str = "198.18.0.0/15";

/// Proof that this thread is in a namespace of its own. It cannot be given to another thread.
#[derive(Debug)]
pub struct Namespace(PhantomData<*const ()>);

impl Namespace {
    fn enter() -> Result<Namespace> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace can only be made by root")?;
        ip(&format!("link set lo up\nroute add local {ADDRESSES} dev lo\n"))?;
        Ok(Namespace(PhantomData))
    }
}

/// Runs this on a thread in a new network namespace, where all ports are free. Threads and
/// processes that it starts are in there too.
pub fn in_namespace<T: Send>(run: impl FnOnce(&Namespace) -> T + Send) -> T {
    let inside = || run(&Namespace::enter().expect("a network namespace"));
    // A thread of its own, because the one that runs a test may run others after it.
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// A network namespace that is held open. It ends with the last of these and the last process in it.
#[derive(Debug, Clone)]
pub struct Network(Arc<File>);

impl Network {
    /// The one that this thread is in.
    pub fn current() -> Result<Network> {
        Ok(Network(Arc::new(File::open("/proc/thread-self/ns/net")?)))
    }

    /// A new one, in which this has run.
    pub fn create(set_up: impl FnOnce(&Network) -> Result<()> + Send) -> Result<Network> {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace can only be made by root")?;
            let network = Network::current()?;
            set_up(&network)?;
            Ok(network)
        };
        // A thread that has left its namespace does not come back.
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Moves this thread there.
    pub fn enter(&self) -> Result<()> {
        Ok(setns(&*self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Where other processes find it, while this is held.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// A command that runs in there.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Does something in there, on a thread of its own.
    pub async fn run<T: Send + 'static>(&self, task: impl AsyncFnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let (network, (done, result)) = (self.clone(), oneshot::channel());
        thread::spawn(move || {
            let inside = || {
                network.enter()?;
                tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task())
            };
            let _ = done.send(inside());
        });
        result.await.context("the thread in the network namespace ended early")?
    }
}

/// Runs commands of `ip`, all in one process.
pub fn ip(commands: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip")?;
    child.stdin.take().context("a process without input")?.write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip {commands}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
