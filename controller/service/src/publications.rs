//! Which record each proxy is sent, and the snapshot that it gets. No I/O.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use flag::PROTOCOL;
use flag::digest;
use flag::level::LEVEL;
use flag::record::Record;
use flag::snapshot::{Asks, Snapshot};
use machine::publication::Publication;
use tokio::sync::watch;

use crate::lock::lock;

/// Milliseconds between two reports of a proxy that is sent no flag.
const SLOW_REPORTS_MS: u32 = 1_000;
/// Bytes of the SHA-256 of a snapshot that are its revision.
const REVISION_BYTES: usize = 12;

/// The publications of all flags.
#[derive(Debug)]
pub(crate) struct Publications {
    by_flag: Mutex<BTreeMap<String, Publication>>,
    /// Grows with every change of what is published; 0: nothing is yet.
    changes: watch::Sender<u64>,
    /// Another controller leads: what is known here may be out of date.
    withheld: AtomicBool,
    /// Not every flag was published yet since this controller began.
    incomplete: AtomicBool,
}

impl Default for Publications {
    fn default() -> Publications {
        let (withheld, incomplete) = (AtomicBool::new(false), AtomicBool::new(false));
        Publications { by_flag: Mutex::default(), changes: watch::Sender::new(0), withheld, incomplete }
    }
}

impl Publications {
    /// Replaces the publication of a flag. Where that changes its active version, `before_flip` is called with the
    /// flag's uid and both versions before any proxy can be sent it. Whether anything changed.
    pub(crate) fn replace(&self, new: Publication, before_flip: impl FnOnce(&str, &str, &str)) -> bool {
        let mut by_flag = lock(&self.by_flag);
        let old = by_flag.get(&new.record.name);
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
        by_flag.insert(new.record.name.clone(), new);
        drop(by_flag);
        self.count_change();
        true
    }

    /// No longer sends a flag to anybody. The record that was sent last.
    pub(crate) fn withdraw(&self, flag: &str) -> Option<Record> {
        let withdrawn = lock(&self.by_flag).remove(flag)?;
        self.count_change();
        Some(withdrawn.record)
    }

    /// Whether proxies get nothing from here, because another controller leads. Polls that wait see it at once. Whether
    /// that is new.
    pub(crate) fn withhold(&self, withheld: bool) -> bool {
        let changes = self.withheld.swap(withheld, Ordering::SeqCst) != withheld;
        if changes {
            self.changes.send_modify(|_| ());
        }
        changes
    }

    /// Whether some flags are not published yet: a proxy would take a list without them for the whole one, so that polls
    /// wait meanwhile.
    pub(crate) fn set_incomplete(&self, incomplete: bool) {
        if self.incomplete.swap(incomplete, Ordering::SeqCst) != incomplete {
            self.changes.send_modify(|_| ());
        }
    }

    /// Whether proxies have to look for another controller.
    pub(crate) fn are_withheld(&self) -> bool {
        self.withheld.load(Ordering::SeqCst)
    }

    /// Tells of every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All that a proxy of this level is sent; `None`: nothing is published yet, or not all.
    pub(crate) fn snapshot_for(&self, proxy: &str, level: u32) -> Option<Snapshot> {
        let by_flag = lock(&self.by_flag);
        let for_it = |one: &&Publication| one.audience.as_ref().is_none_or(|audience| audience.contains(proxy));
        let is_complete = !self.incomplete.load(Ordering::SeqCst);
        (is_complete && *self.changes.borrow() > 0).then(|| snapshot_of(by_flag.values().filter(for_it), level))
    }

    fn count_change(&self) {
        self.changes.send_modify(|changes| *changes = changes.saturating_add(1));
    }
}

fn snapshot_of<'a>(publications: impl Iterator<Item = &'a Publication> + Clone, level: u32) -> Snapshot {
    let uids = |asked: fn(&Publication) -> bool| {
        publications.clone().filter(|one| asked(one)).map(|one| one.record.uid.clone()).collect()
    };
    let report_every = publications.clone().map(|one| one.report_every).min();
    let mut snapshot = Snapshot {
        protocol: PROTOCOL,
        revision: String::new(),
        report_every_ms: report_every.map_or(SLOW_REPORTS_MS, |every| u32::try_from(every.0).unwrap_or(u32::MAX)),
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
    let bytes = snapshot.to_bytes().unwrap_or_default();
    snapshot.revision = digest::hex_prefix(&bytes, REVISION_BYTES);
    if let Some(asks) = &mut snapshot.asks {
        asks.revision.clone_from(&snapshot.revision);
    }
    snapshot
}
