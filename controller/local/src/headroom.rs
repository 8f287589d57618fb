//! Whether the machine has room for one version more. I/O: reads /proc/meminfo.

use std::collections::BTreeMap;

use super::file::VersionCommand;
use machine::observation::Headroom;
use machine::quantity;

/// Bytes that could be allocated without swapping.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// Looks at this machine.
pub fn look(wanted: &str, versions: &BTreeMap<String, VersionCommand>, running: &[String]) -> Headroom {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, |count| count.get() as u64);
    judge(wanted, versions, running, available_memory(&meminfo), cpus)
}

fn judge(
    wanted: &str,
    versions: &BTreeMap<String, VersionCommand>,
    running: &[String],
    memory: Option<u64>,
    cpus: u64,
) -> Headroom {
    let Some(version) = versions.get(wanted) else {
        return Headroom::Unknown;
    };
    let milli = |text: &Option<String>| text.as_deref().and_then(quantity::parse);
    if let Some(needed) = milli(&version.resources.memory).map(|milli| milli / 1_000) {
        let Some(memory) = memory else {
            return Headroom::Unknown;
        };
        if needed > memory {
            let (needed, memory) = (needed >> 20, memory >> 20);
            let message = format!("{wanted} needs {needed} MiB of memory, {memory} MiB are available");
            return Headroom::Short { message };
        }
    }
    if let Some(needed) = milli(&version.resources.cpu) {
        let others = running.iter().filter(|name| *name != wanted).filter_map(|name| versions.get(name));
        let used: u64 = others.filter_map(|other| milli(&other.resources.cpu)).sum();
        if used.saturating_add(needed) > cpus.saturating_mul(1_000) {
            let message = format!(
                "{wanted} needs {needed}m CPU beside the {used}m that running versions declare; the machine has \
                 {cpus} CPUs"
            );
            return Headroom::Short { message };
        }
    }
    Headroom::Fits
}
