//! The flags in effect in one VM instance, compiled for look-up, and the decision for a request.
//! Pure.

mod observed;
mod owners;

use std::rc::Rc;

pub use observed::{Observed, ROUTE_STAYS_MS};
use owners::Owners;
use rustc_hash::FxHashMap;

use crate::config::Workload;
use crate::count::Counter;
use crate::fence::{Fence, Fenced, Passage};
use crate::health::HealthChecks;
use crate::host;
use crate::instance::FlagState;
use crate::limits;
use crate::merge::{MergeOutcome, judge};
use crate::record::Record;

/// One flag in effect.
#[derive(Debug)]
pub struct Flag {
    /// The record in effect.
    pub record: Record,
    /// What was counted, across records.
    pub observed: Rc<Observed>,
    /// The epoch that plugin configuration alone would give.
    config_epoch: Option<u64>,
    /// The proxy is in the namespace of the flag's services, which have short names there.
    near: bool,
    /// The workload of the group that the proxy stands beside, as its labels say.
    own: Option<Workload>,
    versions: Vec<Rc<Counter>>,
    active: Rc<Counter>,
    clusters: FxHashMap<Box<str>, Rc<Counter>>,
}

impl Flag {
    fn compile(record: Record, observed: Rc<Observed>, config_epoch: Option<u64>, node: Node<'_>) -> Flag {
        let clusters = record.members.iter().flat_map(|member| &member.clusters);
        let clusters = clusters
            .flat_map(|(version, names)| {
                let counter = observed.sent.of(version);
                names.iter().map(move |name| (name.as_str().into(), Rc::clone(&counter)))
            })
            .collect();
        let versions = record.versions.iter().map(|version| observed.sent.of(version)).collect();
        for counters in [&observed.sent, &observed.arrived] {
            counters.forget_over(&record.versions, limits::COUNTED);
        }
        let active = observed.sent.of(&record.active);
        let near = !record.namespace.is_empty() && node(&["NAMESPACE"]).as_ref() == Some(&record.namespace);
        let own = if near { own(&record, node) } else { None };
        Flag { record, observed, config_epoch, near, own, versions, active, clusters }
    }

    /// Whether the cluster that served can tell anything: with a single version there is no other
    /// one that could be removed under a request. A record has several from before a switch until
    /// the old version is gone.
    pub fn may_misroute(&self) -> bool {
        self.record.versions.len() > 1
    }

    /// The version that a cluster stands for.
    pub fn served_by(&self, cluster: &str) -> Option<&Rc<Counter>> {
        self.clusters.get(cluster).or_else(|| {
            let (subset, host) = host::istio_subset(cluster)?;
            self.record.members.iter().find(|member| member.hosts.contains(host))?;
            self.version(subset)
        })
    }

    /// The counter of a version that the record names.
    pub fn version(&self, version: &str) -> Option<&Rc<Counter>> {
        self.versions.iter().find(|counter| counter.version() == version)
    }

    /// Whether the record names a version.
    pub fn lists(&self, version: &str) -> bool {
        self.record.versions.contains(version)
    }

    /// The workload of the group that the proxy stands beside: as it is told, or as its labels say.
    pub fn beside<'a>(&'a self, told: Option<&'a Workload>) -> Option<&'a Workload> {
        told.filter(|told| self.has_member(&told.service)).or(self.own.as_ref())
    }

    fn has_member(&self, service: &str) -> bool {
        self.record.members.iter().any(|member| member.service == service)
    }

    /// The version for a request to this flag's group, by the one rule of precedence: a caller
    /// inside the group stays in its own version; a preview condition comes before the flag.
    pub fn choose(&self, caller: Option<&Workload>, header: impl FnOnce(&str) -> Option<String>) -> &Rc<Counter> {
        if let Some(own) = self.beside(caller).and_then(|caller| self.version(&caller.version)) {
            return own;
        }
        if let Some(preview) = &self.record.preview
            && header(&preview.header).is_some_and(|value| value == preview.value)
            && let Some(version) = self.version(&preview.version)
        {
            return version;
        }
        &self.active
    }

    /// What becomes of a request to this flag's group, where requests may be held; `mark`: the version that it was sent to
    /// before, where that can be believed. Inside the group calls go on: what has begun must come to its end.
    pub fn passage(&self, caller: Option<&Workload>, now_ms: u64, mark: impl FnOnce() -> Option<String>) -> Passage {
        match self.beside(caller).and_then(|caller| self.version(&caller.version)) {
            Some(_) => Passage::Go,
            None => self.observed.gate.passage(&self.record, now_ms, mark),
        }
    }

    /// The counter of the version that a fence has drain, if the record names it.
    pub fn old(&self) -> Option<&Rc<Counter>> {
        self.version(&self.observed.gate.old()?)
    }

    /// What is shown of its fence.
    pub fn fenced(&self, now_ms: u64) -> Option<Fenced> {
        self.observed.gate.shown(&self.record, now_ms)
    }

    /// The counters of the version that a fence has drain: what is sent to it, and what arrives there.
    pub fn draining(&self) -> Option<[Rc<Counter>; 2]> {
        let old = self.observed.gate.old()?;
        Some([self.observed.sent.of(&old), self.observed.arrived.of(&old)])
    }

    /// This instance's part of the next report.
    pub fn state(&self, now_ms: u64) -> FlagState {
        let whole = self.observed.owns_hosts.get();
        FlagState {
            epoch: if whole { self.record.epoch } else { 0 },
            hash: if whole { self.record.hash.clone() } else { String::new() },
            gate: self.record.gate,
            config_epoch: self.config_epoch,
            sent: self.observed.sent.totals(),
            arrived: self.observed.arrived.totals(),
            strangers: self.observed.strangers.totals(),
            answers: self.observed.sent.answers(),
            unroutable: self.observed.unroutable.get(),
            conflicts: self.observed.conflicts.get(),
            routes: self.observed.routes(now_ms),
        }
    }
}

/// What the metadata of Envoy's node says, by path. Asked when a record is taken in, not per request.
pub type Node<'a> = &'a dyn Fn(&[&str]) -> Option<String>;

/// The workload that a proxy in the namespace of the flag stands beside.
fn own(record: &Record, node: Node<'_>) -> Option<Workload> {
    let has = |label: &String| {
        label.split_once('=').is_some_and(|(key, value)| node(&["LABELS", key]).as_deref() == Some(value))
    };
    let mut members = record.members.iter();
    let member = members.find(|member| !member.selector.is_empty() && member.selector.iter().all(has))?;
    let version = node(&["LABELS", &record.version_label])?;
    Some(Workload { service: member.service.clone(), version })
}

/// Where a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Plugin configuration: that of the newest plugin, which is what a proxy would start anew with.
    Config,
    /// That of a plugin that drains.
    Draining,
    /// The flag service.
    Service,
}

/// All flags of one VM instance.
#[derive(Debug, Default)]
pub struct Table {
    /// By uid, in its order. A list: a map of a type of its own is some kilobytes of the filter.
    flags: Vec<Rc<Flag>>,
    owners: Owners,
}

impl Table {
    /// The flag of an authority, with any spelling of it.
    pub fn find(&self, authority: &str) -> Option<&Rc<Flag>> {
        if self.owners.hosts.is_empty() {
            return None;
        }
        self.owners.hosts.get(host::normalize(authority).as_ref())
    }

    /// The flag of the Service, or of the version of one, that a cluster of Istio's stands for.
    pub fn of_cluster(&self, cluster: &str) -> Option<&Rc<Flag>> {
        self.owners.hosts.get(host::istio_host(cluster)?).or_else(|| self.owners.hosts.get(cluster))
    }

    /// Whether a version may be reached by hosts that no flag has, as far as can be told by the cluster.
    pub fn has_clusters(&self) -> bool {
        !self.owners.clusters.is_empty()
    }

    /// The flag of a version's cluster that is not Istio's, and the counter of the version.
    pub fn of_version(&self, cluster: &str) -> Option<(&Rc<Flag>, &Rc<Counter>)> {
        let flag = self.owners.clusters.get(cluster)?;
        Some((flag, flag.served_by(cluster)?))
    }

    /// The flag of this uid.
    pub fn get(&self, uid: &str) -> Option<&Rc<Flag>> {
        self.place(uid).ok().and_then(|place| self.flags.get(place))
    }

    /// The flag whose group a workload belongs to.
    pub fn of_workload(&self, workload: &Workload) -> Option<&Rc<Flag>> {
        let members = self.flags.iter().filter(|flag| flag.has_member(&workload.service));
        members.reduce(|one, other| if other.outranks(one) { other } else { one })
    }

    /// The flag whose group the proxy stands beside, as its labels say, and the workload. Where there are
    /// several the host decides.
    pub fn beside(&self, authority: impl FnOnce() -> Option<String>) -> Option<(&Rc<Flag>, &Workload)> {
        let flag = match self.owners.own.as_slice() {
            [] => return None,
            [flag] => flag,
            [first, ..] => authority().and_then(|host| self.find(&host)).filter(|it| it.own.is_some()).unwrap_or(first),
        };
        Some((flag, flag.own.as_ref()?))
    }

    /// Has the routes of some flags proven, and the answers of some measured; others pay nothing for it.
    pub fn ask(&self, prove_routes: &[String], measure: &[String]) {
        for (uid, flag) in self.flags() {
            flag.observed.proves_routes.set(prove_routes.contains(uid));
            flag.observed.measured.set(measure.contains(uid));
        }
    }

    /// Says of each flag which requests are no traffic.
    pub fn ask_health(&self, health: &[HealthChecks]) {
        for (uid, flag) in self.flags() {
            let asked = health.iter().find(|one| one.flag == *uid).cloned().unwrap_or_default();
            *flag.observed.health.borrow_mut() = asked;
        }
    }

    /// Puts the fences of all flags into effect, or takes them away; `records` came with them. What comes with an older
    /// record than the one in effect is older, too.
    pub fn ask_fences(&self, fences: &[Fence], records: &[Record], now_ms: u64) {
        for (uid, flag) in self.flags() {
            let older = |record: &Record| record.uid == *uid && record.epoch < flag.record.epoch;
            if !records.iter().any(older) {
                flag.observed.gate.take(fences.iter().find(|fence| fence.flag == *uid), now_ms);
            }
        }
    }

    /// Every flag, by uid.
    pub fn flags(&self) -> impl Iterator<Item = (&String, &Rc<Flag>)> {
        self.flags.iter().map(|flag| (&flag.record.uid, flag))
    }

    /// Where the flag of this uid is, or would be.
    fn place(&self, uid: &str) -> Result<usize, usize> {
        self.flags.binary_search_by(|flag| flag.record.uid.as_str().cmp(uid))
    }

    /// Puts a flag in its place.
    fn put(&mut self, flag: Flag) {
        let flag = Rc::new(flag);
        match self.place(&flag.record.uid) {
            Ok(place) => {
                if let Some(known) = self.flags.get_mut(place) {
                    *known = flag;
                }
            }
            Err(place) => self.flags.insert(place, flag),
        }
    }

    /// Takes in the complete list of one channel. A flag that the flag service no longer lists
    /// stays frozen at its last record: deleting a flag removes no routing. Returns whether
    /// anything that is reported changed.
    pub fn apply(&mut self, channel: Channel, records: &[Record], node: Node<'_>) -> bool {
        let mut changed = false;
        for record in records {
            changed |= self.apply_one(channel, record, node);
        }
        match channel {
            Channel::Config => changed |= self.forget_config(records, node),
            Channel::Draining => {}
            Channel::Service => {
                changed |= self.list(records);
                changed |= self.forget_over(records);
            }
        }
        if changed {
            self.index(node);
        }
        changed
    }

    fn apply_one(&mut self, channel: Channel, record: &Record, node: Node<'_>) -> bool {
        let current = self.get(&record.uid);
        let verdict = judge(current.map(|flag| &flag.record), record);
        let observed = current.map(|flag| Rc::clone(&flag.observed)).unwrap_or_default();
        if verdict == MergeOutcome::Conflict {
            observed.conflicts.set(observed.conflicts.get().saturating_add(1));
        }
        let known = current.and_then(|flag| flag.config_epoch);
        // A conflicting configuration is not one that may be relied on after a restart.
        let config_epoch = match (channel, verdict) {
            (Channel::Config, MergeOutcome::Conflict) => None,
            (Channel::Config, _) => Some(record.epoch),
            (Channel::Draining | Channel::Service, _) => known,
        };
        let in_effect = match (verdict, current) {
            (MergeOutcome::Adopt, _) | (_, None) => {
                observed.route.take();
                observed.sent.forget_answers();
                observed.strangers.forget();
                record.clone()
            }
            (_, Some(_)) if config_epoch == known => return verdict == MergeOutcome::Conflict,
            (_, Some(flag)) => flag.record.clone(),
        };
        self.put(Flag::compile(in_effect, observed, config_epoch, node));
        true
    }

    /// Flags that nobody lists any more, and that have nothing open, go when there are more than a report may have: those
    /// first that were written first. True: some went.
    fn forget_over(&mut self, records: &[Record]) -> bool {
        let before = self.flags.len();
        while self.flags.len() > limits::FLAGS {
            let over = |flag: &&Rc<Flag>| {
                let listed = flag.config_epoch.is_some() || records.iter().any(|one| one.uid == flag.record.uid);
                !listed && flag.observed.idle()
            };
            let oldest = self.flags.iter().filter(over).min_by_key(|flag| flag.record.epoch).cloned();
            let Some(gone) = oldest else { break };
            self.flags.retain(|flag| !Rc::ptr_eq(flag, &gone));
        }
        self.flags.len() < before
    }

    /// Flags that the configuration no longer lists would be unknown after a restart.
    fn forget_config(&mut self, records: &[Record], node: Node<'_>) -> bool {
        let mut changed = false;
        for flag in &mut self.flags {
            if flag.config_epoch.is_some() && !records.iter().any(|record| record.uid == flag.record.uid) {
                let (record, observed) = (flag.record.clone(), Rc::clone(&flag.observed));
                *flag = Rc::new(Flag::compile(record, observed, None, node));
                changed = true;
            }
        }
        changed
    }

    /// Notes which flags the flag service lists. True: others than before.
    fn list(&self, records: &[Record]) -> bool {
        let before: Vec<bool> = self.flags.iter().map(|flag| flag.observed.listed.take()).collect();
        records.iter().filter_map(|one| self.get(&one.uid)).for_each(|flag| flag.observed.listed.set(true));
        !self.flags.iter().map(|flag| flag.observed.listed.get()).eq(before)
    }

    /// Finds out who has what. Whoever gets it from another flag gets the requests that are open there, too; if that one
    /// goes on, it keeps them: some may be of what it still has.
    fn index(&mut self, node: Node<'_>) {
        let mut owners = Owners::of(&self.flags);
        let lost = self.owners.lost_to(&owners);
        for (old, new) in &lost {
            new.observed.take_over(&old.observed);
        }
        for (old, _) in &lost {
            if !old.observed.listed.get() {
                old.observed.sent.forget_taken();
                old.observed.arrived.forget_taken();
            }
            if let Some(flag) = self.get(&old.record.uid) {
                let (record, observed) = (flag.record.clone(), Rc::clone(&flag.observed));
                self.put(Flag::compile(record, observed, flag.config_epoch, node));
            }
        }
        if !lost.is_empty() {
            owners = Owners::of(&self.flags);
        }
        self.owners = owners;
    }
}
