//! The state file, written atomically, and the lock that lets only one controller have it.
//! I/O: files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clusters::Endpoint;
use super::group::state_mark;
use super::process::Process;
use machine::status::Status;
use machine::time::UnixMs;
use service::clock::{self, Moment};
use service::failpoint;

const FORMAT: u32 = 1;
/// How often, and in which distance, a lock is tried that somebody has.
const LOCK_TRIES: u32 = 15;
const LOCK_PACE: Duration = Duration::from_millis(20);

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
    /// Where proxies reach each version that has clusters, by version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, Endpoint>,
    /// When it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Moment>,
}

impl StateFile {
    /// What a state file had when it was written last, whoever has it open; `None`: there is none that can be read.
    pub fn peek(path: &Path) -> Option<StateFile> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another controller has it.
    #[error("{path} is in use by another controller{}: stop that one first, or give this one another file", named(pid))]
    Locked {
        /// The state file, or a file of proxies.
        path: PathBuf,
        /// Who has it; empty: nobody knows.
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
    /// It is that of another flag.
    #[error(
        "{path} has the state of the flag {other:?}, and not of {flag:?}: give {flag} another local.stateFile, or put its own \
         state there. Where {other} has a new name, take the old one back; or move the file away while spec.version is \
         what serves: what runs is then found again"
    )]
    Foreign {
        /// The state file.
        path: PathBuf,
        /// The flag whose state it is.
        other: String,
        /// The flag that it was opened for.
        flag: String,
    },
    /// It is a copy of another one.
    #[error(
        "{path} is a copy of {other}, by which {version} was started (process {pid}): give this flag another \
         local.stateFile, or take one of both files away"
    )]
    Copied {
        /// The state file.
        path: PathBuf,
        /// The one that it was copied from.
        other: String,
        /// A version that runs.
        version: String,
        /// Its process.
        pid: i32,
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
    /// Since when the file does not have what `state` has, if that is so, and why.
    unwritten: Option<(UnixMs, String)>,
    /// Writes that failed.
    failures: u64,
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
        // Processes are known by this name, by which way ever it was given.
        let path = &match path.parent().zip(path.file_name()) {
            Some((parent, name)) => {
                std::fs::create_dir_all(parent).map_err(io(parent, "made"))?;
                parent.canonicalize().map_err(io(parent, "found"))?.join(name)
            }
            None => path.to_owned(),
        };
        let lock = wait_for_lock(path)?;
        let state = match std::fs::read(path) {
            Ok(bytes) => parse(path, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (processes, clusters) = (BTreeMap::new(), BTreeMap::new());
                StateFile { format: FORMAT, status: fresh(), processes, clusters, written: None }
            }
            Err(error) => return Err(io(path, "read")(error)),
        };
        // Times of the status are compared with the present.
        if let Some(written) = &state.written {
            clock::agree(written.shows_at(&clock::moment()));
        }
        Ok(Store { path: path.to_owned(), state, unwritten: None, failures: 0, _lock: lock })
    }

    /// Refuses the state of another flag: what runs of that one would be taken for this one's, and stopped.
    pub(crate) fn belongs_to(self, flag: &str) -> Result<Store, StoreError> {
        let (path, status) = (self.path.clone(), &self.state.status);
        if status.name != flag {
            return Err(StoreError::Foreign { path, other: status.name.clone(), flag: flag.to_owned() });
        }
        let running = self.state.processes.iter().filter(|(_, process)| !process.adopted && process.alive());
        let mut started =
            running.filter_map(|(version, process)| Some((version, process.pid?, state_mark(process.pid?))));
        // Whose folder was moved has what it started by the old name, which is there no more.
        let copied = |(_, _, state): &(&String, i32, String)| Path::new(state) != path && Path::new(state).exists();
        if let Some((version, pid, other)) = started.find(copied) {
            return Err(StoreError::Copied { path, other, version: version.clone(), pid });
        }
        Ok(self)
    }

    /// Where the state is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Since when the file does not have the state, if it could not be written last, and why.
    pub(crate) fn unwritten(&self) -> Option<(UnixMs, &str)> {
        self.unwritten.as_ref().map(|(since, why)| (*since, why.as_str()))
    }

    /// How many writes have failed since this began.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// Writes what nothing rests on: where that fails, it is said, and written with what comes next.
    pub(crate) fn note(&mut self) {
        // What it is said by is kept.
        let _ = self.save();
    }

    /// Writes the state; it is on disk when this returns. Nothing may be done that rests on what could not be written.
    pub fn save(&mut self) -> Result<(), StoreError> {
        let written = self.write();
        match &written {
            Ok(()) if self.unwritten.take().is_some() => tracing::info!(path = %self.path.display(), "written again"),
            Ok(()) => {}
            Err(error) => {
                let why = error.to_string();
                let known = self.unwritten.take();
                if known.as_ref().is_none_or(|(_, known)| *known != why) {
                    tracing::error!(error = why, "the state is not on disk, and nothing is done that rests on it");
                }
                self.unwritten = Some((known.map_or_else(clock::now, |(since, _)| since), why));
                self.failures = self.failures.saturating_add(1);
            }
        }
        written
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.state.written = Some(clock::moment());
        let mut bytes =
            serde_json::to_vec_pretty(&self.state).map_err(|error| io(&self.path, "written")(error.into()))?;
        bytes.push(b'\n');
        failpoint::point("before the state is written");
        write_atomically(&self.path, &bytes).map_err(io(&self.path, "written"))?;
        failpoint::point("after the state was written");
        Ok(())
    }
}

/// A process by its pid, if that is known, in an error.
fn named(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(", process {pid}") }
}

/// What the controller before has forked has its locks until it is another program: that takes a moment.
fn wait_for_lock(path: &Path) -> Result<File, StoreError> {
    for _ in 0..LOCK_TRIES {
        match lock(path) {
            Err(StoreError::Locked { .. }) => std::thread::sleep(LOCK_PACE),
            locked => return locked,
        }
    }
    lock(path)
}

/// Has a file for this controller alone, until what is returned is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
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
    // The lock is what counts; the pid is for people, and a full disk has no room for it.
    if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        tracing::warn!(%error, path = %path_of_lock.display(), "the pid of the controller cannot be written there");
    }
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
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // On a full disk half of a file is in the way of the next one.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
