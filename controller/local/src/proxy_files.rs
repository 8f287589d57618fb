//! The files that this controller keeps for proxies: what was written to them, what could not be, and what they name. I/O:
//! writes them, and reads the filter's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flag::record::Record;
use machine::envoy;
use machine::observation::ClusterFacts;
use machine::reason::{Problem, Reason};
use service::{Hub, failpoint};

use super::clusters;
use super::file::{File, Local};
use super::files::{self, FileWriter};
use super::store::{StateFile, Store};
use super::wasm::WasmFile;

/// The files of the proxies of one flag. What is remembered may be lost: then all of them are written anew.
#[derive(Debug, Default)]
pub(crate) struct ProxyFiles {
    writer: FileWriter,
    /// Those that cannot be written, with why.
    unwritten: BTreeMap<PathBuf, String>,
    /// The versions that each one names as this process has written it.
    named: BTreeMap<PathBuf, BTreeSet<String>>,
    wasm: WasmFile,
}

impl ProxyFiles {
    /// Looks at the file of the filter.
    pub(crate) fn look(&mut self, local: &Local) {
        self.wasm.look(local.filter_config.as_ref().map(|filter| filter.wasm.as_path()));
    }

    /// The problem that proxies read what is out of date, or cannot read the filter.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let files = self.unwritten.iter().map(|(path, why)| format!("{} cannot be written: {why}", path.display()));
        let message = files.collect::<Vec<_>>().join("; ");
        let unwritten = (!message.is_empty()).then(|| Problem::new(Reason::FilesNotWritten, message));
        unwritten.or_else(|| self.filter_problem())
    }

    /// The problem that proxies cannot load the filter.
    pub(crate) fn filter_problem(&self) -> Option<Problem> {
        self.wasm.problem()
    }

    /// What proxies read of clusters, where this controller writes that.
    pub(crate) fn clusters(&self, local: &Local, state: &StateFile) -> Option<ClusterFacts> {
        let filter = local.filter_config.as_ref().filter(|filter| filter.clusters.is_some())?;
        let filters = local.sidecars().map(|sidecar| &sidecar.filter).chain([&filter.path]);
        let names = |path: &PathBuf| self.named.get(path).cloned();
        // Nobody knows what the operator's routes name.
        let all = filters.map(names).chain([filter.routes.as_ref().and_then(names)]);
        let named = all.collect::<Option<Vec<_>>>().map(|all| all.into_iter().flatten().collect());
        Some(ClusterFacts { there: state.clusters.keys().cloned().collect(), named })
    }

    /// Writes the clusters of these versions. Where each was reached is remembered until its cluster goes.
    pub(crate) fn write_clusters(&mut self, hub: &Hub, file: &File, store: &mut Store, versions: &BTreeSet<String>) {
        let Some(path) = file.local.filter_config.as_ref().and_then(|filter| filter.clusters.as_deref()) else {
            return;
        };
        let (local, state) = (&file.local, &mut store.state);
        let endpoints = clusters::endpoints(versions, local, &state.processes, &state.clusters);
        let (epoch, text) = (state.status.epoch(), files::clusters(&clusters::clusters(file, &endpoints)));
        if endpoints != state.clusters {
            state.clusters = endpoints;
            store.note();
        }
        match text {
            Ok(text) => _ = self.write(hub, epoch, path, text),
            Err(error) => tracing::error!(%error, "the clusters for Envoy cannot be made"),
        }
    }

    /// Writes the routes to the versions of a record, unless they are the operator's.
    pub(crate) fn write_routes(&mut self, hub: &Hub, local: &Local, header: &str, record: &Record) {
        if let Some(path) = local.filter_config.as_ref().and_then(|filter| filter.routes.clone()) {
            let text = envoy::routes(header, record);
            self.write_all(hub, record, text.map(|text| BTreeMap::from([(path, text)])));
        }
    }

    /// Writes the filters that begin with a record.
    pub(crate) fn write_filters(&mut self, hub: &Hub, local: &Local, header: &str, record: &Record) {
        let texts = files::filters(local, self.wasm.build(), header, record);
        self.write_all(hub, record, texts);
    }

    fn write_all(&mut self, hub: &Hub, record: &Record, texts: Result<BTreeMap<PathBuf, String>, serde_json::Error>) {
        let texts = match texts {
            Ok(texts) => texts,
            Err(error) => return tracing::error!(%error, "the files for Envoy cannot be made"),
        };
        for (path, text) in texts {
            if self.write(hub, record.epoch, &path, text) {
                self.named.insert(path, record.versions.clone());
            }
        }
    }

    /// Whether the file has this text now.
    fn write(&mut self, hub: &Hub, epoch: u64, path: &Path, text: String) -> bool {
        match self.writer.write(path, text) {
            Ok(written) => {
                self.unwritten.remove(path);
                if written {
                    tracing::info!(epoch, path = %path.display(), "configured");
                    failpoint::point("after the proxies were configured");
                }
                true
            }
            Err(error) => {
                let why = error.to_string();
                hub.count_write_failures("proxies", 1);
                if self.unwritten.get(path) != Some(&why) {
                    tracing::error!(why, path = %path.display(), "cannot be written");
                }
                self.unwritten.insert(path.to_owned(), why);
                false
            }
        }
    }
}
