//! The files that proxies read, each made of the parts of all flags that name it: one writer has them. I/O: writes
//! them.
//!
//! A flag has a part in each of its files from the moment it is known, beginning with what its state remembers. So no
//! flag disappears from a file because another one is heard first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use flag::config::{Role, Workload};
use flag::record::Record;
use machine::envoy;
use machine::reason::Problem;
use service::failpoint;

use super::clusters::Endpoint;
use super::files::{self, FileWriter};
use super::store::{self, StoreError};
use super::wasm::WasmFile;

/// What a file has besides the parts of flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The filter, with the records of the flags.
    Filter(Box<FilterShape>),
    /// The virtual hosts of the flags.
    Routes,
    /// The clusters of the flags' versions.
    Clusters,
}

/// What a filter is told besides the records; see [`envoy::Filter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterShape {
    pub(crate) wasm: PathBuf,
    pub(crate) build: String,
    pub(crate) cluster: String,
    pub(crate) role: Role,
    pub(crate) workload: Option<Workload>,
    pub(crate) header: String,
}

/// What one flag has in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its record, and its routing header.
    Record(String, Box<Record>),
    /// Its clusters by name.
    Clusters(BTreeMap<String, Endpoint>),
}

/// The files of a flag, each with what is there of it; `None`: the flag has nothing to say yet.
pub(crate) type Parts = BTreeMap<PathBuf, (Shape, Option<Part>)>;

#[derive(Debug)]
struct SharedFile {
    shape: Shape,
    /// By the flag's name.
    parts: BTreeMap<String, Option<Part>>,
    /// It was not written since something of the above changed.
    changed: bool,
    /// Why it cannot be written.
    unwritten: Option<String>,
    /// The versions of each flag that it names as this process has written it.
    named: BTreeMap<String, BTreeSet<String>>,
}

impl SharedFile {
    /// Its content; `None`: no flag has anything to say.
    fn text(&self) -> Option<Result<String, serde_json::Error>> {
        let parts = || self.parts.values().flatten();
        parts().next()?;
        let records: Vec<(&str, &Record)> = parts()
            .filter_map(|part| match part {
                Part::Record(header, record) => Some((header.as_str(), record.as_ref())),
                Part::Clusters(_) => None,
            })
            .collect();
        Some(match &self.shape {
            Shape::Routes => envoy::routes(&records),
            Shape::Filter(shape) => {
                envoy::filter(shape.filter(), &records.iter().map(|(_, record)| *record).collect::<Vec<_>>())
            }
            Shape::Clusters => {
                let clusters = parts().filter_map(|part| match part {
                    Part::Clusters(clusters) => Some(clusters.clone()),
                    Part::Record(..) => None,
                });
                files::clusters(&clusters.flatten().collect())
            }
        })
    }

    fn named(&self) -> BTreeMap<String, BTreeSet<String>> {
        let versions = |part: &Option<Part>| match part {
            Some(Part::Record(_, record)) => record.versions.clone(),
            Some(Part::Clusters(_)) | None => BTreeSet::new(),
        };
        self.parts.iter().map(|(flag, part)| (flag.clone(), versions(part))).collect()
    }
}

impl FilterShape {
    fn filter(&self) -> envoy::Filter<'_> {
        let (wasm, build, cluster, header) = (&self.wasm, &self.build, &self.cluster, &self.header);
        envoy::Filter { wasm, build, cluster, role: self.role, workload: self.workload.clone(), header }
    }
}

/// All files of all flags of this controller.
#[derive(Debug, Default)]
pub(crate) struct SharedFiles {
    writer: FileWriter,
    files: BTreeMap<PathBuf, SharedFile>,
    /// The files of the filter, by path.
    filters: BTreeMap<PathBuf, WasmFile>,
    /// Nothing is written: a flag is missing, which would disappear.
    held: bool,
    /// The files that no other controller writes, for as long as this one has them.
    locks: BTreeMap<PathBuf, File>,
}

impl SharedFiles {
    /// Whether all files stay as they are for now, whatever flags have in them.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Takes files for this controller, as far as they can be: an error is that another one has one of them.
    pub(crate) fn claim<'a>(&mut self, paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), StoreError> {
        for path in paths {
            // Whatever else is wrong is said when it is written.
            if let Err(error @ StoreError::Locked { .. }) = self.lock(path) {
                return Err(error);
            }
        }
        Ok(())
    }

    fn lock(&mut self, path: &Path) -> Result<(), StoreError> {
        if !self.locks.contains_key(path) {
            // Where there is no folder, nobody can have it: that is what the lock says then.
            let _ = path.parent().map(std::fs::create_dir_all);
            self.locks.insert(path.to_owned(), store::lock(path)?);
        }
        Ok(())
    }

    /// Looks at a file of the filter: what tells it from what was there before, and what is wrong with it.
    pub(crate) fn look(&mut self, wasm: &Path) -> (String, Option<Problem>) {
        let filter = self.filters.entry(wasm.to_owned()).or_default();
        filter.look(wasm);
        (filter.build().to_owned(), filter.problem())
    }

    /// A flag has a part in these files and no others from now on: what is remembered, where it is new in one. What it
    /// had elsewhere goes, but the file where it was alone stays as it is. The writes that failed.
    pub(crate) fn join(&mut self, flag: &str, remembered: Parts) -> u64 {
        let left = self.files.iter().filter(|(path, _)| !remembered.contains_key(*path));
        // A cluster goes once no route names it any more.
        let (last, first): (Vec<_>, Vec<_>) = left.partition(|(_, file)| file.shape == Shape::Clusters);
        let left: Vec<PathBuf> = first.into_iter().chain(last).map(|(path, _)| path.clone()).collect();
        let failed: u64 = left.into_iter().map(|path| self.take_out(flag, &path)).sum();
        for (path, (shape, part)) in remembered {
            let file = self.file(path, &shape);
            if !file.parts.contains_key(flag) {
                file.parts.insert(flag.to_owned(), part);
                file.changed = true;
            }
        }
        failed
    }

    fn take_out(&mut self, flag: &str, path: &Path) -> u64 {
        let Some(file) = self.files.get_mut(path) else { return 0 };
        if file.parts.remove(flag).is_none() {
            return 0;
        }
        file.named.remove(flag);
        if file.parts.is_empty() {
            self.files.remove(path);
            self.locks.remove(path);
            return 0;
        }
        file.changed = true;
        u64::from(!self.write(path, None))
    }

    /// What a flag has in a file from now on, which is written, unless all files are held. False: that has failed.
    pub(crate) fn offer(&mut self, flag: &str, epoch: u64, path: &Path, shape: &Shape, part: Part) -> bool {
        let file = self.file(path.to_owned(), shape);
        let part = Some(part);
        if file.shape != *shape || file.parts.get(flag) != Some(&part) {
            file.shape = shape.clone();
            file.parts.insert(flag.to_owned(), part);
            file.changed = true;
        }
        self.write(path, Some(epoch))
    }

    /// Why a file cannot be written.
    pub(crate) fn unwritten(&self, path: &Path) -> Option<&str> {
        self.files.get(path)?.unwritten.as_deref()
    }

    /// The versions of a flag that a file names; `None`: it was not written yet.
    pub(crate) fn named(&self, flag: &str, path: &Path) -> Option<&BTreeSet<String>> {
        self.files.get(path)?.named.get(flag)
    }

    fn file(&mut self, path: PathBuf, shape: &Shape) -> &mut SharedFile {
        let (parts, named) = (BTreeMap::new(), BTreeMap::new());
        self.files.entry(path).or_insert_with(|| SharedFile {
            shape: shape.clone(),
            parts,
            changed: true,
            unwritten: None,
            named,
        })
    }

    /// False: the file does not have what it has to have now.
    fn write(&mut self, path: &Path, epoch: Option<u64>) -> bool {
        if self.held {
            return true;
        }
        let locked = self.lock(path).map_err(|error| error.to_string());
        let Some(file) = self.files.get_mut(path) else { return true };
        if locked.is_ok() && !file.changed && self.writer.is_kept(path) {
            return true;
        }
        let text = match file.text() {
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                tracing::error!(%error, path = %path.display(), "the file for Envoy cannot be made");
                return false;
            }
            None => return true,
        };
        match locked.and_then(|()| self.writer.write(path, text).map_err(|error| error.to_string())) {
            Ok(written) => {
                (file.unwritten, file.changed, file.named) = (None, false, file.named());
                if written {
                    tracing::info!(epoch, path = %path.display(), "configured");
                    failpoint::point("after the proxies were configured");
                }
                true
            }
            Err(why) => {
                if file.unwritten.as_ref() != Some(&why) {
                    tracing::error!(why, path = %path.display(), "cannot be written");
                }
                (file.unwritten, file.changed) = (Some(why), true);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
