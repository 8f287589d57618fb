//! Versions as processes of this machine, Envoy configured by a file. I/O: files, processes.

/// An id that nobody else has.
pub fn unique() -> String { String::new() }
