//! Which record each proxy is sent, and the snapshot that it gets: made once for all that are sent the same. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use flag::PROTOCOL;
use flag::digest;
use flag::level::LEVEL;
use flag::record::{Gate, Record};
use flag::snapshot::{Asks, Snapshot};
use machine::duration::Millis;
use machine::pace::{STEADY, pace};
use machine::publication::Publication;

use crate::lock::lock;
use crate::pollers::Pollers;

/// Bytes of the SHA-256 of a snapshot that are its revision.
const REVISION_BYTES: usize = 12;

/// The publications of all flags.
#[derive(Debug)]
pub(crate) struct Publications {
    all: Mutex<Catalogue>,
    /// Who waits for changes.
    pub(crate) pollers: Pollers,
    /// Something was published.
    begun: AtomicBool,
    /// Another controller leads: what is known here may be out of date.
    withheld: AtomicBool,
    /// Not every flag was published yet since this controller began.
    incomplete: AtomicBool,
}

/// A snapshot as it is sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) revision: String,
    pub(crate) bytes: Bytes,
    /// Of each flag, by uid.
    pub(crate) epochs: Vec<(String, u64)>,
    pace: Millis,
}

/// The names of the flags that a proxy is sent, in their order.
type Names = Vec<Arc<str>>;

/// For whom something has changed; `None`: for all.
type Concerned = Option<BTreeSet<String>>;

/// What is published, and who is sent what of it.
#[derive(Debug, Default)]
struct Catalogue {
    by_flag: BTreeMap<Arc<str>, Publication>,
    /// The flags that every proxy is sent.
    for_all: BTreeSet<Arc<str>>,
    /// The others, by proxy.
    by_proxy: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// By flags and level, as far as nothing of it has changed.
    ready: BTreeMap<(Names, u32), Arc<Ready>>,
    /// How many proxies are known.
    known: usize,
    cores: usize,
}

impl Default for Publications {
    fn default() -> Publications {
        let [begun, withheld, incomplete] = [const { AtomicBool::new(false) }; 3];
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let all = Mutex::new(Catalogue { cores, ..Catalogue::default() });
        Publications { all, pollers: Pollers::default(), begun, withheld, incomplete }
    }
}

impl Catalogue {
    /// Puts a publication in its place. For whom something has changed.
    fn put(&mut self, new: Publication) -> Concerned {
        let name: Arc<str> = new.record.name.as_str().into();
        if self.by_flag.get(&name).is_some_and(|old| are_told_the_same(old, &new))
            && let Some(known) = &new.audience
            && let Some(old) = self.by_flag.remove(&name).and_then(|old| old.audience)
        {
            let (came, went) = (known.difference(&old), old.difference(known));
            came.clone().for_each(|proxy| self.send(proxy, &name));
            went.clone().for_each(|proxy| self.no_longer_send(proxy, &name));
            // How often they report is told to all of them.
            let same_pace = self.paces(&new, old.len()) == self.paces(&new, known.len());
            let concerned = if same_pace { came.chain(went).cloned().collect() } else { known | &old };
            self.by_flag.insert(name, new);
            return Some(concerned);
        }
        let before = self.take(&name).map(|old| old.audience);
        match &new.audience {
            None => drop(self.for_all.insert(Arc::clone(&name))),
            Some(audience) => audience.iter().for_each(|proxy| self.send(proxy, &name)),
        }
        let concerned = match (before, &new.audience) {
            (Some(Some(before)), Some(audience)) => Some(&before | audience),
            (None, Some(audience)) => Some(audience.clone()),
            _ => None,
        };
        self.by_flag.insert(name, new);
        concerned
    }

    fn paces(&self, publication: &Publication, audience: usize) -> Millis {
        pace(publication.report_every, audience, self.cores)
    }

    fn send(&mut self, proxy: &str, flag: &Arc<str>) {
        self.by_proxy.entry(proxy.to_owned()).or_default().insert(Arc::clone(flag));
    }

    fn no_longer_send(&mut self, proxy: &str, flag: &str) {
        if let Some(flags) = self.by_proxy.get_mut(proxy) {
            flags.remove(flag);
            if flags.is_empty() {
                self.by_proxy.remove(proxy);
            }
        }
    }

    /// Takes a publication out. For its audience something has changed.
    fn take(&mut self, name: &str) -> Option<Publication> {
        let old = self.by_flag.remove(name)?;
        self.for_all.remove(name);
        old.audience.iter().flatten().for_each(|proxy| self.no_longer_send(proxy, name));
        self.ready.retain(|(names, _), _| !names.iter().any(|one| &**one == name));
        Some(old)
    }

    /// What a proxy is sent.
    fn names_for(&self, proxy: &str) -> Names {
        let own = self.by_proxy.get(proxy);
        match own {
            None => self.for_all.iter().cloned().collect(),
            Some(own) => self.for_all.union(own).cloned().collect(),
        }
    }

    fn named(&self, names: &Names) -> impl Iterator<Item = &Publication> + Clone {
        names.iter().filter_map(|name| self.by_flag.get(name))
    }

    /// Between two reports of a proxy that is sent these flags.
    fn pace(&self, names: &Names) -> Millis {
        let needed = self.named(names).map(|one| one.report_every).min().unwrap_or(STEADY);
        // Others are at rest meanwhile, as far as it is known of whom something is awaited.
        let awaited = self.named(names).filter(|one| one.report_every < STEADY);
        let awaited = awaited.map(|one| one.audience.as_ref().map_or(self.known, BTreeSet::len)).max();
        pace(needed, awaited.unwrap_or(self.known), self.cores)
    }

    /// The snapshot of these flags, as it is sent.
    fn ready(&mut self, names: Names, level: u32) -> Arc<Ready> {
        let (pace, key) = (self.pace(&names), (names, level.min(LEVEL)));
        if let Some(ready) = self.ready.get(&key).filter(|ready| ready.pace == pace) {
            return Arc::clone(ready);
        }
        let ready = Arc::new(encode(self.named(&key.0), pace, level));
        self.ready.insert(key, Arc::clone(&ready));
        ready
    }
}

impl Publications {
    /// Replaces the publication of a flag. Where that changes its active version, `before_flip` is called with the
    /// flag's uid and both versions before any proxy can be sent it. Whether anything changed.
    pub(crate) fn replace(&self, new: Publication, before_flip: impl FnOnce(&str, &str, &str)) -> bool {
        let mut all = lock(&self.all);
        let old = all.by_flag.get(new.record.name.as_str());
        if old == Some(&new) {
            return false;
        }
        let (uid, to) = (&new.record.uid, &new.record.active);
        if let Some(Publication { record: old, .. }) = old
            && old.uid == *uid
            && old.active != *to
        {
            before_flip(uid, &old.active, to);
        }
        let concerned = all.put(new);
        drop(all);
        self.wake(concerned.as_ref());
        true
    }

    /// No longer sends a flag to anybody. The record that was sent last.
    pub(crate) fn withdraw(&self, flag: &str) -> Option<Record> {
        let withdrawn = lock(&self.all).take(flag)?;
        self.wake(withdrawn.audience.as_ref());
        Some(withdrawn.record)
    }

    /// The gate of what proxies are sent of a flag.
    pub(crate) fn gate_of(&self, flag: &str, uid: &str) -> Option<Gate> {
        lock(&self.all).by_flag.get(flag).filter(|one| one.record.uid == uid).map(|one| one.record.gate)
    }

    /// So many proxies are known. Where a fleet at rest reports at another pace then, it is told.
    pub(crate) fn set_known(&self, known: usize) {
        let mut all = lock(&self.all);
        // Nearly every report is of one that was known.
        if all.known == known {
            return;
        }
        let at_rest = |known| pace(STEADY, known, all.cores);
        let changes = at_rest(all.known) != at_rest(known);
        all.known = known;
        drop(all);
        if changes {
            self.pollers.wake_all();
        }
    }

    /// Between two reports of a proxy.
    pub(crate) fn pace_of(&self, proxy: &str) -> Millis {
        let all = lock(&self.all);
        all.pace(&all.names_for(proxy))
    }

    /// Whether proxies get nothing from here, because another controller leads. Polls that wait see it at once. Whether
    /// that is new.
    pub(crate) fn withhold(&self, withheld: bool) -> bool {
        let changes = self.withheld.swap(withheld, Ordering::SeqCst) != withheld;
        if changes {
            self.pollers.wake_all();
        }
        changes
    }

    /// Whether some flags are not published yet: a proxy would take a list without them for the whole one, so that polls
    /// wait meanwhile.
    pub(crate) fn set_incomplete(&self, incomplete: bool) {
        if self.incomplete.swap(incomplete, Ordering::SeqCst) != incomplete {
            self.pollers.wake_all();
        }
    }

    /// Whether proxies have to look for another controller.
    pub(crate) fn are_withheld(&self) -> bool {
        self.withheld.load(Ordering::SeqCst)
    }

    /// All that a proxy of this level is sent; `None`: nothing is published yet, or not all.
    pub(crate) fn snapshot_for(&self, proxy: &str, level: u32) -> Option<Arc<Ready>> {
        let is_complete = self.begun.load(Ordering::SeqCst) && !self.incomplete.load(Ordering::SeqCst);
        let mut all = lock(&self.all);
        let names = all.names_for(proxy);
        is_complete.then(|| all.ready(names, level))
    }

    fn wake(&self, concerned: Option<&BTreeSet<String>>) {
        // Until something is published all wait.
        let begins = !self.begun.swap(true, Ordering::SeqCst);
        match concerned.filter(|_| !begins) {
            Some(proxies) => self.pollers.wake(proxies.iter().map(String::as_str)),
            None => self.pollers.wake_all(),
        }
    }
}

/// Whether two publications differ in nothing but which proxies are sent them.
fn are_told_the_same(old: &Publication, new: &Publication) -> bool {
    // An audience may be large, and is neither compared nor copied for this.
    fn told(one: &Publication) -> impl PartialEq {
        let Publication { record, report_every, prove_routes, measure, probe, health, fence, audience } = one;
        (record, report_every, (prove_routes, measure), (probe, health, fence), audience.is_some())
    }
    new.audience.is_some() && told(old) == told(new)
}

fn encode<'a>(publications: impl Iterator<Item = &'a Publication> + Clone, pace: Millis, level: u32) -> Ready {
    let uids = |asked: fn(&Publication) -> bool| {
        publications.clone().filter(|one| asked(one)).map(|one| one.record.uid.clone()).collect()
    };
    let mut snapshot = Snapshot {
        protocol: PROTOCOL,
        revision: String::new(),
        report_every_ms: u32::try_from(pace.0).unwrap_or(u32::MAX),
        prove_routes: uids(|one| one.prove_routes),
        measure: uids(|one| one.measure),
        flags: publications.clone().map(|one| one.record.clone()).collect(),
        asks: (level >= LEVEL).then(|| Asks {
            revision: String::new(),
            probes: publications.clone().filter_map(|one| one.probe.clone()).collect(),
            health: publications.clone().filter_map(|one| one.health.clone()).collect(),
            fences: publications.filter_map(|one| one.fence.clone()).collect(),
        }),
    };
    // Nothing in it can fail to be written; what is empty is no snapshot to whoever gets it.
    let revision = digest::hex_prefix(&snapshot.to_bytes().unwrap_or_default(), REVISION_BYTES);
    if let Some(asks) = &mut snapshot.asks {
        asks.revision.clone_from(&revision);
    }
    snapshot.revision.clone_from(&revision);
    let epochs = snapshot.flags.iter().map(|record| (record.uid.clone(), record.epoch)).collect();
    Ready { revision, bytes: snapshot.to_bytes().unwrap_or_default().into(), epochs, pace }
}

#[cfg(test)]
mod tests;
