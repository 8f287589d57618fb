//! Which plugins may not be as they have to be: each is looked at again when a part of it has changed, or the plugin
//! itself. Pure, but for the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plugin::{Part, Target};

/// What the watches have shown of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Its resource version of each kind.
    pub versions: (Option<u64>, Option<u64>),
    /// New plugins are of the newer kind.
    pub extends: bool,
    /// What was written last has been shown.
    pub known: bool,
}

/// One plugin.
#[derive(Debug, Default)]
struct Looked {
    /// Grows with each change of a part of it.
    revision: u64,
    /// When it was as it has to be: the revision by then, and what was shown.
    fine: Option<(u64, Shown)>,
    /// When it was written last, or its watch was waited for.
    written: Option<Instant>,
    trouble: Option<String>,
}

/// All plugins, and what flags have in them.
#[derive(Debug, Default)]
pub struct Plugins {
    /// By uid of the flag.
    parts: BTreeMap<String, Arc<Part>>,
    /// Where flags have a part.
    targets: BTreeSet<Target>,
    looked: BTreeMap<Target, Looked>,
    /// The flags that there were last.
    flags: BTreeSet<String>,
}

impl Plugins {
    /// Takes in what a flag has in its plugins.
    pub fn offer(&mut self, uid: &str, part: Part) {
        let before = self.parts.get(uid);
        if before.is_some_and(|before| **before == part) {
            return;
        }
        let touched: BTreeSet<Target> =
            before.iter().flat_map(|before| before.targets.iter()).chain(&part.targets).cloned().collect();
        let moved = before.is_none_or(|before| before.targets != part.targets);
        self.parts.insert(uid.to_owned(), Arc::new(part));
        if moved {
            self.find_targets();
        }
        self.touch(touched);
    }

    /// Drops what flags have that are not among these, by uid. Whatever they had a part in is looked at.
    pub fn retain_parts(&mut self, flags: &BTreeMap<String, String>) {
        if flags.len() == self.flags.len() && flags.keys().all(|uid| self.flags.contains(uid)) {
            return;
        }
        self.flags = flags.keys().cloned().collect();
        self.parts.retain(|uid, _| flags.contains_key(uid));
        self.find_targets();
        let all: Vec<Target> = self.looked.keys().cloned().collect();
        self.touch(all);
    }

    fn find_targets(&mut self) {
        self.targets = self.parts.values().flat_map(|part| part.targets.iter().cloned()).collect();
    }

    fn touch(&mut self, targets: impl IntoIterator<Item = Target>) {
        for target in targets {
            let looked = self.looked.entry(target).or_default();
            looked.revision = looked.revision.saturating_add(1);
        }
    }

    /// Where flags have a part.
    pub fn targets(&self) -> &BTreeSet<Target> {
        &self.targets
    }

    /// All parts, and the revision of a plugin with them.
    pub fn parts_of(&self, target: &Target) -> (BTreeMap<String, Arc<Part>>, u64) {
        (self.parts.clone(), self.looked.get(target).map_or(0, |looked| looked.revision))
    }

    /// Whether a plugin has to be looked at.
    pub fn is_due(&self, target: &Target, shown: Shown) -> bool {
        let looked = self.looked.get(target);
        !shown.known || looked.is_none_or(|looked| looked.fine != Some((looked.revision, shown)))
    }

    /// How long it has to wait, because it was written a moment ago.
    pub fn rest(&self, target: &Target, pause: Duration) -> Option<Duration> {
        pause.checked_sub(self.looked.get(target)?.written?.elapsed())
    }

    /// Takes in that a plugin was looked at. It is `fine`, or it was written, or that was tried.
    pub fn looked(&mut self, target: &Target, fine: Option<(u64, Shown)>, trouble: Option<String>) {
        let looked = self.looked.entry(target.clone()).or_default();
        if fine.is_none_or(|(_, shown)| !shown.known) {
            looked.written = Some(Instant::now());
        }
        (looked.fine, looked.trouble) = (fine, trouble);
    }

    /// What went wrong with one of these plugins, last.
    pub fn trouble(&self, targets: &BTreeSet<Target>) -> Option<String> {
        targets.iter().find_map(|target| self.looked.get(target)?.trouble.clone())
    }
}
