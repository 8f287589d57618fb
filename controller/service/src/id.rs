//! Ids that nobody else has. I/O: reads one from the kernel, or the clock.

use crate::clock::now;

/// An id that nobody else has: a UUID, or the time and the process where the kernel gives none.
pub fn unique() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let uuid = uuid.trim();
    if uuid.is_empty() { format!("{}-{}", now().0, std::process::id()) } else { uuid.to_owned() }
}
