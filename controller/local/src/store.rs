//! The state file, written atomically, and the lock that lets only one controller have it.
//! I/O: files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Process;
use machine::status::Status;
use service::failpoint;

const FORMAT: u32 = 1;

/// What the state file has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StateFile {
    /// Shape of this file.
    pub format: u32,
    /// The flag's status.
    pub status: Status,
    /// The processes by version.
    #[serde(default)]
    pub processes: BTreeMap<String, Process>,
}

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another controller has it.
    #[error("{path} is in use by another controller, process {pid}: stop that one first")]
    Locked {
        /// The state file.
        path: PathBuf,
        /// Who has it.
        pid: String,
    },
    /// Reading or writing failed.
    #[error("{path} cannot be {verb}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        error: std::io::Error,
    },
    /// What is in it is not a state.
    #[error(
        "{path} is damaged and is left as it is: {error}. Put a backup in its place, or move it away to adopt the \
         running version anew"
    )]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
}

/// The state, as it is on disk.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// What `save` writes.
    pub state: StateFile,
    // Held for as long as this lives.
    _lock: File,
}

/// A file beside another one.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io(path: &Path, verb: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { path, verb, error }
}

impl Store {
    /// Locks and reads the state file; without one, `fresh` is the state.
    pub fn open(path: &Path, fresh: impl FnOnce() -> Status) -> Result<Store, StoreError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io(parent, "made"))?;
        }
        let lock = lock(path)?;
        let state = match std::fs::read(path) {
            Ok(bytes) => parse(path, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                StateFile { format: FORMAT, status: fresh(), processes: BTreeMap::new() }
            }
            Err(error) => return Err(io(path, "read")(error)),
        };
        Ok(Store { path: path.to_owned(), state, _lock: lock })
    }

    /// Writes the state; it is on disk when this returns.
    pub fn save(&self) -> Result<(), StoreError> {
        let mut bytes =
            serde_json::to_vec_pretty(&self.state).map_err(|error| io(&self.path, "written")(error.into()))?;
        bytes.push(b'\n');
        failpoint::point("before the state is written");
        write_atomically(&self.path, &bytes).map_err(io(&self.path, "written"))?;
        failpoint::point("after the state was written");
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let path_of_lock = beside(path, ".lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path_of_lock)
        .map_err(io(&path_of_lock, "opened"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(StoreError::Locked { path: path.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(io(&path_of_lock, "locked")(error)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io(&path_of_lock, "written"))?;
    Ok(file)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<StateFile, StoreError> {
    let damaged = |error: String| StoreError::Damaged { path: path.to_owned(), error };
    let state: StateFile = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if state.format != FORMAT {
        return Err(damaged(format!("its format is {}, this controller writes {FORMAT}", state.format)));
    }
    if let Some(record) = &state.status.record {
        record.check().map_err(|error| damaged(error.to_string()))?;
    }
    Ok(state)
}

/// Replaces a file by one rename, so that a reader sees the old content or the new.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = beside(path, ".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
