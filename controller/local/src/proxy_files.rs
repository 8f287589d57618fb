//! The files that this controller keeps for the proxies of one flag: what it has in them, what could not be written,
//! and what they name. I/O: through what flags share, and reads the filter's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flag::record::Record;
use machine::observation::ClusterFacts;
use machine::reason::{Problem, Reason};
use service::Hub;
use service::lock::lock;

use super::clusters;
use super::file::{File, Local};
use super::files;
use super::shared_files::{Part, Parts, Shape, SharedFiles};
use super::store::{StateFile, Store};

/// The files of the proxies of one flag. What is remembered may be lost: then all of them are written anew.
#[derive(Debug)]
pub(crate) struct ProxyFiles {
    flag: String,
    shared: Arc<Mutex<SharedFiles>>,
    /// What tells the filter's file from what was there before, and what is wrong with it.
    filter: (String, Option<Problem>),
}

impl ProxyFiles {
    /// Those of a flag, which it may share with others.
    pub(crate) fn new(flag: &str, shared: Arc<Mutex<SharedFiles>>) -> ProxyFiles {
        ProxyFiles { flag: flag.to_owned(), shared, filter: Default::default() }
    }

    /// Looks at the file of the filter.
    pub(crate) fn look(&mut self, local: &Local) {
        let filter = local.filter_config.as_ref();
        self.filter = filter.map(|filter| lock(&self.shared).look(&filter.wasm)).unwrap_or_default();
    }

    /// The flag has a part in the files of this file of the operator, and in no others any more: what its state
    /// remembers, until more is known.
    pub(crate) fn join(&mut self, hub: &Hub, file: &File, state: &StateFile) {
        self.look(&file.local);
        let header = &file.spec.routing.header;
        let record = || state.status.record.as_ref().map(|record| part(header, record));
        let mut parts: Parts =
            self.filters(&file.local, header).map(|(path, shape)| (path, (shape, record()))).collect();
        if let Some(filter) = &file.local.filter_config {
            parts.extend(filter.routes.clone().map(|path| (path, (Shape::Routes, record()))));
            let clusters = || state.status.record.as_ref().map(|_| clusters::clusters(file, &state.clusters));
            let clusters =
                filter.clusters.clone().map(|path| (path, (Shape::Clusters, clusters().map(Part::Clusters))));
            parts.extend(clusters);
        }
        hub.count_write_failures("proxies", lock(&self.shared).join(&self.flag, parts));
    }

    /// Nothing of the flag is in any file any more.
    pub(crate) fn leave(&self, hub: &Hub) {
        hub.count_write_failures("proxies", lock(&self.shared).join(&self.flag, Parts::new()));
    }

    /// The problem that proxies read what is out of date, or cannot read the filter.
    pub(crate) fn problem(&self, local: &Local) -> Option<Problem> {
        let shared = lock(&self.shared);
        let unwritten =
            |path: &PathBuf| Some(format!("{} cannot be written: {}", path.display(), shared.unwritten(path)?));
        let message = local.written().filter_map(unwritten).collect::<Vec<_>>().join("; ");
        let unwritten = (!message.is_empty()).then(|| Problem::new(Reason::FilesNotWritten, message));
        unwritten.or_else(|| self.filter_problem())
    }

    /// The problem that proxies cannot load the filter.
    pub(crate) fn filter_problem(&self) -> Option<Problem> {
        self.filter.1.clone()
    }

    /// What proxies read of clusters, where this controller writes that.
    pub(crate) fn clusters(&self, local: &Local, state: &StateFile) -> Option<ClusterFacts> {
        let filter = local.filter_config.as_ref().filter(|filter| filter.clusters.is_some())?;
        let filters = local.sidecars().map(|sidecar| &sidecar.filter).chain([&filter.path]);
        let shared = lock(&self.shared);
        let names = |path: &PathBuf| shared.named(&self.flag, path).cloned();
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
        let (epoch, part) = (state.status.epoch(), Part::Clusters(clusters::clusters(file, &endpoints)));
        if endpoints != state.clusters {
            state.clusters = endpoints;
            store.note();
        }
        self.write(hub, epoch, path, &Shape::Clusters, part);
    }

    /// Writes the routes to the versions of a record, unless they are the operator's.
    pub(crate) fn write_routes(&mut self, hub: &Hub, local: &Local, header: &str, record: &Record) {
        if let Some(path) = local.filter_config.as_ref().and_then(|filter| filter.routes.as_deref()) {
            self.write(hub, record.epoch, path, &Shape::Routes, part(header, record));
        }
    }

    /// Writes the filters that begin with a record.
    pub(crate) fn write_filters(&mut self, hub: &Hub, local: &Local, header: &str, record: &Record) {
        for (path, shape) in self.filters(local, header) {
            self.write(hub, record.epoch, &path, &shape, part(header, record));
        }
    }

    fn filters(&self, local: &Local, header: &str) -> impl Iterator<Item = (PathBuf, Shape)> + use<> {
        let all: BTreeMap<_, _> = files::filters(local, &self.filter.0, header);
        all.into_iter().map(|(path, shape)| (path, Shape::Filter(Box::new(shape))))
    }

    fn write(&self, hub: &Hub, epoch: u64, path: &Path, shape: &Shape, part: Part) {
        if !lock(&self.shared).offer(&self.flag, epoch, path, shape, part) {
            hub.count_write_failures("proxies", 1);
        }
    }
}

fn part(header: &str, record: &Record) -> Part {
    Part::Record(header.to_owned(), Box::new(record.clone()))
}
