//! How much of the machine everybody else used meanwhile. I/O: reads `/proc/stat`.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// A moment's reading.
pub(super) struct Reading {
    /// All processes, and what the hypervisor took, in ticks.
    busy: u64,
    /// The same and idling.
    all: u64,
    /// This process and those it started.
    ours: Duration,
}

impl Reading {
    /// Reads now, given the CPU time of the processes that this one started.
    pub(super) fn now(started: Duration) -> Result<Reading> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        let &[user, nice, system, idle, iowait, irq, softirq, steal] = ticks.as_slice() else {
            anyhow::bail!("/proc/stat: {line}");
        };
        // Interrupts are nobody's: our own traffic causes most of them.
        let busy = user + nice + system + steal;
        let this: Duration = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into();
        Ok(Reading { busy, all: busy + idle + iowait + irq + softirq, ours: this + started })
    }

    /// The share of the machine that others used from this reading to a later one.
    pub(super) fn share_until(&self, later: &Reading) -> f64 {
        // The kernel's fixed unit towards programs.
        const TICKS_PER_SECOND: f64 = 100.0;
        let (busy, all) = ((later.busy - self.busy) as f64, (later.all - self.all).max(1) as f64);
        let ours = (later.ours - self.ours).as_secs_f64() * TICKS_PER_SECOND;
        ((busy - ours) / all).clamp(0.0, 1.0)
    }
}
