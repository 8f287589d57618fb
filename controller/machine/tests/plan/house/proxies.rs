//! Two proxies: what each has in effect, in its configuration, and in its routes.

use std::collections::BTreeSet;

use flag::probe::Probe;
use flag::record::Record;
use flag::route;
use machine::fleet::ledger::{Fleet, Laggard, Quiet};
use machine::publication::Publication;
use machine::spec::Spec;
use machine::status::Status;

use super::fence::Held;
use super::mesh::Mesh;

/// One proxy.
#[derive(Debug, Default)]
pub(crate) struct Proxy {
    /// The record by which it sends requests.
    pub(crate) record: Option<Record>,
    /// The record that it would start anew with.
    pub(crate) config: Option<Record>,
    /// The names of its routes.
    pub(crate) routes: BTreeSet<String>,
    /// It reports.
    pub(crate) speaks: bool,
    /// It does not reach this version.
    pub(crate) cut_off: Option<String>,
    pub(crate) held: Held,
}

/// Every proxy that has to ack.
#[derive(Debug)]
pub(crate) struct Proxies {
    pub(crate) all: [Proxy; 2],
    /// What is known of requests to the old version. Worse than the ledger, which never calls it quiet while an ack
    /// is missing.
    pub(crate) old: Quiet,
    /// What was written to the configuration of all of them.
    pub(crate) configured: Option<Record>,
    /// What was written to the file of routes, where there is no mesh.
    written: BTreeSet<String>,
    /// The versions that those routes lead to.
    pub(crate) routed: BTreeSet<String>,
    /// The versions that have clusters in the file of clusters.
    pub(crate) clusters: BTreeSet<String>,
    /// Configurations and routes do not reach anybody, however well all else goes.
    pub(crate) files_lag: bool,
}

impl Default for Proxies {
    fn default() -> Proxies {
        let all = [Proxy::default(), Proxy::default()];
        let (written, routed, clusters) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Proxies { all, old: Quiet::Unknown, configured: None, written, routed, clusters, files_lag: false }
    }
}

impl Proxies {
    /// A proxy takes over the record that is published; the higher epoch wins.
    pub(crate) fn hear(&mut self, which: usize, now: u64, published: Option<&Publication>) {
        let proxy = &mut self.all[which];
        let offered = [proxy.record.take(), proxy.config.clone(), published.map(|published| published.record.clone())];
        proxy.record = offered.into_iter().flatten().max_by_key(|record| record.epoch);
        proxy.hear_fence(now, published);
        proxy.speaks = true;
    }

    /// A proxy takes over its configuration and its routes. They come another way than the record.
    pub(crate) fn read(&mut self, which: usize, mesh: Option<&Mesh>) {
        let routes = mesh.map_or_else(|| self.written.clone(), Mesh::route_names);
        let proxy = &mut self.all[which];
        proxy.config.clone_from(&self.configured);
        proxy.routes = routes;
    }

    /// All of them take over all.
    pub(crate) fn take_over(&mut self, now: u64, published: Option<&Publication>, mesh: Option<&Mesh>) {
        for which in 0..self.all.len() {
            if !self.files_lag {
                self.read(which, mesh);
            }
            self.hear(which, now, published);
        }
    }

    /// A proxy starts anew, from its own configuration.
    pub(crate) fn restart(&mut self, which: usize) {
        let proxy = &mut self.all[which];
        proxy.record.clone_from(&proxy.config);
        proxy.held = Held::default();
    }

    pub(crate) fn file_of_routes(&mut self, record: &Record) {
        self.written = BTreeSet::from([route::name(record)]);
        self.routed.clone_from(&record.versions);
    }

    /// The versions that the files name as they are.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        let configured = self.configured.iter().flat_map(|record| &record.versions);
        self.routed.iter().chain(configured).cloned().collect()
    }

    /// What they say of the record of a status, and of a probe.
    pub(crate) fn fleet(&self, now: u64, spec: &Spec, status: &Status, probe: Option<&Probe>) -> Fleet {
        let mut fleet = Fleet::unknown(self.all.len());
        let Some(record) = &status.record else { return fleet };
        let asked = status.asked(spec);
        fleet.old = self.old;
        fleet.fence = self.fence(now, spec, status);
        for (number, proxy) in self.all.iter().enumerate() {
            let laggard = |why: String| Laggard { proxy: format!("proxy-{number}"), why };
            let same = proxy.record.as_ref().is_some_and(|one| (one.epoch, &one.hash) == (record.epoch, &record.hash));
            if proxy.speaks && same {
                fleet.acked += 1;
            } else {
                fleet.laggards.push(laggard("behind".to_owned()));
            }
            if probe.is_some_and(|probe| !proxy.speaks || proxy.cut_off.as_ref() == Some(&probe.version)) {
                fleet.reach_laggards.push(laggard("no healthy host".to_owned()));
                fleet.reach_broken |= proxy.speaks;
            }
            if !proxy.speaks {
                fleet.old = Quiet::Unknown;
                continue;
            }
            fleet.highest_epoch = fleet.highest_epoch.max(proxy.record.as_ref().map_or(0, |one| one.epoch));
            if proxy.config.as_ref().is_none_or(|config| config.epoch < asked.config_epoch) {
                fleet.config_laggards.push(laggard("an old configuration".to_owned()));
            }
            if let Some(why) = proxy.routes.iter().find_map(|one| route::lacks(one, record, &asked.wanted)) {
                fleet.route_laggards.push(laggard(why));
            }
        }
        fleet
    }
}
