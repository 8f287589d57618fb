//! Proxies that ask or report and are not believed, for people to see: a bounded number, for a while. No I/O.

use std::collections::BTreeMap;
use std::sync::Mutex;

use machine::fleet::ledger::Laggard;
use machine::time::UnixMs;

use crate::lock::lock;

/// How many are shown.
const SHOWN: usize = 8;
/// For how long each is shown after it was refused last, in milliseconds.
const SHOWN_MS: u64 = 60_000;

/// The proxies that were refused lately, by the name that they gave, each with why and when that was.
#[derive(Debug, Default)]
pub(crate) struct RefusedProxies(Mutex<BTreeMap<String, (UnixMs, String)>>);

impl RefusedProxies {
    /// Takes note of one. Whether it is shown, and was not before.
    pub(crate) fn note(&self, now: UnixMs, proxy: &str, why: String) -> bool {
        // Anybody may give any name.
        let (mut all, name) = (lock(&self.0), flag::shortened(proxy).to_owned());
        all.retain(|_, (at, _)| now.since(*at).0 < SHOWN_MS);
        let known = all.contains_key(&name);
        let fits = known || all.len() < SHOWN;
        if fits {
            all.insert(name, (now, why));
        }
        fits && !known
    }

    /// Those that are shown now, each with the name that it gave.
    pub(crate) fn shown(&self, now: UnixMs) -> Vec<(String, Laggard)> {
        let all = lock(&self.0);
        let recent = all.iter().filter(|(_, (at, _))| now.since(*at).0 < SHOWN_MS);
        let shown = |(name, (at, why)): (&String, &(UnixMs, String))| {
            let seconds = now.since(*at).0 / 1_000;
            let why = if seconds > 0 { format!("{why}; {seconds} s ago") } else { why.clone() };
            (name.clone(), Laggard { proxy: flag::quoted(name), why })
        };
        recent.map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T22: whoever makes names up fills no memory and no log, and what is over is shown no longer.
    #[test]
    fn few_are_shown_and_not_for_long() {
        let refused = RefusedProxies::default();
        let told = (0..100).filter(|name| refused.note(UnixMs(1), &name.to_string(), "why".to_owned())).count();
        assert_eq!((told, refused.shown(UnixMs(1)).len()), (SHOWN, SHOWN));
        assert!(!refused.note(UnixMs(2), "0", "another reason".to_owned()), "it is known");
        let left = refused.shown(UnixMs(SHOWN_MS + 1));
        let why = "another reason; 59 s ago".to_owned();
        assert_eq!(left, [("0".to_owned(), Laggard { proxy: "\"0\"".to_owned(), why })]);
        assert!(refused.note(UnixMs(SHOWN_MS + 1), "new", "why".to_owned()), "there is room again");
    }
}
