//! Whether a proxy reaches the version that is gone to, and since when it has without a break. Unknown is never
//! reached. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flag::probe::{Probe, Probed};
use flag::report::Report;

/// What one proxy has shown for one probe.
#[derive(Debug, Clone)]
struct Shown {
    probed: Probed,
    /// Since when it has reached all that was asked for.
    since_ms: Option<u64>,
    /// It did once, and then did not.
    broke: bool,
    /// Another question was answered before: only what came since counts.
    counts: bool,
}

/// What one proxy has shown, by the uid of the flag.
#[derive(Debug, Clone, Default)]
pub(super) struct Reached {
    all: BTreeMap<String, Shown>,
    /// The flags of which something was ever asked.
    asked: BTreeSet<String>,
    /// Something of this proxy's life was not seen.
    lost: bool,
}

impl Reached {
    /// Something was not seen: what was reached before may not have stayed so.
    pub(super) fn lose(&mut self) {
        *self = Reached { lost: true, ..Reached::default() };
    }

    /// Takes in a complete report.
    pub(super) fn take(&mut self, now_ms: u64, report: &Report) {
        let mut known = std::mem::take(&mut self.all);
        for found in &report.findings {
            let Some(probed) = found.probed.clone() else { continue };
            let (known, all) = (known.remove(&found.flag), probed.is_reached());
            let shown = match known.filter(|known| known.probed.id == probed.id) {
                Some(before) => Shown {
                    since_ms: all.then(|| before.since_ms.unwrap_or(now_ms)),
                    broke: before.broke || (before.since_ms.is_some() && !all),
                    counts: before.counts,
                    probed,
                },
                None => Shown {
                    since_ms: all.then_some(now_ms),
                    broke: false,
                    // The answer to another question says nothing of the time before this one.
                    counts: self.asked.contains(&found.flag),
                    probed,
                },
            };
            self.asked.insert(found.flag.clone());
            self.all.insert(found.flag.clone(), shown);
        }
    }

    /// Since when a probe has succeeded without a break, if it ever broke; 0: it never did, as far as all of this
    /// proxy's life was seen. The error says what is in the way, and whether it was reached before.
    pub(super) fn since(&self, probe: &Probe) -> Result<u64, (String, bool)> {
        let Some(shown) = self.all.get(&probe.flag) else {
            return Err((
                "it has not tried yet: a filter that is older than this controller never does".to_owned(),
                false,
            ));
        };
        if let Some(why) = shown.probed.lacks(probe) {
            return Err((why, shown.broke));
        }
        Ok(shown.since_ms.filter(|_| shown.broke || shown.counts || self.lost).unwrap_or(0))
    }
}
