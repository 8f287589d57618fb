//! The files that Envoy reads. I/O: writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flag::config::{Role, Workload};
use flag::record::Record;

use super::file::Local;
use super::store::write_atomically;
use machine::envoy::{self, Filter};

/// The files with the filter: one for callers, and one for each sidecar.
pub fn filters(local: &Local, header: &str, record: &Record) -> Result<BTreeMap<PathBuf, String>, serde_json::Error> {
    let Some(config) = &local.filter_config else {
        return Ok(BTreeMap::new());
    };
    let filter = |role, workload| Filter { wasm: &config.wasm, cluster: &config.cluster, role, workload, header };
    let mut files = BTreeMap::from([(config.path.clone(), envoy::filter(filter(config.role, None), record)?)]);
    for sidecar in local.sidecars() {
        let workload = Workload { service: sidecar.service.clone(), version: sidecar.version.clone() };
        files.insert(sidecar.filter.clone(), envoy::filter(filter(Role::Auto, Some(workload)), record)?);
    }
    Ok(files)
}

/// Writes files that have to change.
#[derive(Debug, Default)]
pub struct FileWriter {
    last: BTreeMap<PathBuf, String>,
}

impl FileWriter {
    /// Has the file be this text. Whether it had to be written.
    pub fn write(&mut self, path: &Path, text: String) -> std::io::Result<bool> {
        if self.last.get(path) == Some(&text) && path.exists() {
            return Ok(false);
        }
        let written = std::fs::read_to_string(path).map_or(true, |found| found != text);
        if written {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            write_atomically(path, text.as_bytes())?;
        }
        self.last.insert(path.to_owned(), text);
        Ok(written)
    }
}
