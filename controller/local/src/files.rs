//! The files that Envoy reads. I/O: writes them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use flag::config::{Role, Workload};

use super::clusters::Endpoint;
use super::file::Local;
use super::shared_files::FilterShape;
use super::store::write_atomically;
use machine::envoy::{self, Cluster};

/// The files with the filter, each with what it is told besides records: one for callers, and one for each sidecar.
pub(crate) fn filters(local: &Local, build: &str, header: &str) -> BTreeMap<PathBuf, FilterShape> {
    let Some(config) = &local.filter_config else {
        return BTreeMap::new();
    };
    let shape = |role, workload| FilterShape {
        wasm: config.wasm.clone(),
        build: build.to_owned(),
        cluster: config.cluster.clone(),
        role,
        workload,
        header: header.to_owned(),
    };
    let beside = local.sidecars().map(|sidecar| {
        let workload = Workload { service: sidecar.service.clone(), version: sidecar.version.clone() };
        (sidecar.filter.clone(), shape(Role::Auto, Some(workload)))
    });
    beside.chain([(config.path.clone(), shape(config.role, None))]).collect()
}

/// The file with the clusters by name.
pub(crate) fn clusters(clusters: &BTreeMap<String, Endpoint>) -> Result<String, serde_json::Error> {
    let all = clusters.iter();
    envoy::clusters(all.map(|(name, Endpoint { address, http2 })| Cluster { name, address: *address, http2: *http2 }))
}

/// A path without `.` and `..`, by which two spellings of one file are the same; where it is relative, what is above its
/// beginning is not known.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => _ = plain.pop(),
            part => plain.push(part),
        }
    }
    plain
}

/// What tells one content of a file from another.
pub type Stamp = Option<(i64, i64, u64, u64)>;

/// The stamp of a file; nothing where there is none.
pub fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    // That of the inode, which changes with the content, and with the name too: a file that was away is another one.
    Some((data.ctime(), data.ctime_nsec(), data.len(), data.ino()))
}

/// Writes files that have to change, and those that somebody else has changed.
#[derive(Debug, Default)]
pub struct FileWriter {
    last: BTreeMap<PathBuf, (String, Stamp)>,
}

impl FileWriter {
    /// Whether nobody has changed a file since it was written.
    pub fn is_kept(&self, path: &Path) -> bool {
        let found = stamp(path);
        found.is_some() && self.last.get(path).is_some_and(|(_, stamp)| *stamp == found)
    }

    /// Has the file be this text. Whether it had to be written.
    pub fn write(&mut self, path: &Path, text: String) -> std::io::Result<bool> {
        if self.is_kept(path) && self.last.get(path).is_some_and(|(last, _)| *last == text) {
            return Ok(false);
        }
        let written = std::fs::read_to_string(path).map_or(true, |found| found != text);
        if written {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            write_atomically(path, text.as_bytes())?;
        }
        self.last.insert(path.to_owned(), (text, stamp(path)));
        Ok(written)
    }
}
