//! A network of a test's own: a thread in a network namespace that nothing leaves. I/O: makes the
//! namespace. Needs root.
//!
//! The namespace has no name, so it ends with the last thread or process in it, also when the test
//! is killed. To look into one while a test runs: `nsenter --net=/proc/PID/ns/net`, with the id of
//! any process that the test started.

use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// Every address in it answers, on every port that something is bound to: Kubernetes refuses
/// loopback addresses as endpoints, and this range, kept for benchmarks, is nobody's.
pub const ADDRESSES: &str = "198.18.0.0/15";

/// Proof that this thread is in a namespace of its own. It cannot be given to another thread.
#[derive(Debug)]
pub struct Namespace(PhantomData<*const ()>);

impl Namespace {
    fn enter() -> Result<Namespace> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace can only be made by root")?;
        run("ip link set lo up")?;
        run(&format!("ip route add local {ADDRESSES} dev lo"))?;
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

fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let output = Command::new(program).args(words).output().with_context(|| line.to_owned())?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
