//! Whether a proxy reaches the version that is gone to, and since when it has without a break. Unknown is never
//! reached. Pure.

use std::collections::BTreeMap;

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
}

/// What one proxy has shown, by the uid of the flag.
#[derive(Debug, Default)]
pub(super) struct Reached {
    all: BTreeMap<String, Shown>,
    /// Something of this proxy's life was not seen.
    lost: bool,
}

impl Reached {
    /// Something was not seen: what was reached before may not have stayed so.
    pub(super) fn lose(&mut self) {
        *self = Reached { all: BTreeMap::new(), lost: true };
    }

    /// Takes in a complete report.
    pub(super) fn take(&mut self, now_ms: u64, report: &Report) {
        let mut known = std::mem::take(&mut self.all);
        for found in &report.findings {
            let Some(probed) = found.probed.clone() else { continue };
            let before = known.remove(&found.flag).filter(|before| before.probed.id == probed.id);
            let all = probed.is_reached();
            let was = before.as_ref().and_then(|before| before.since_ms);
            let broke = before.is_some_and(|before| before.broke) || (was.is_some() && !all);
            self.all.insert(found.flag.clone(), Shown { probed, since_ms: all.then(|| was.unwrap_or(now_ms)), broke });
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
        Ok(shown.since_ms.filter(|_| shown.broke || self.lost).unwrap_or(0))
    }
}
