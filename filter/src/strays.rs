//! Where requests went past the flags, as this VM instance saw it. Hostcalls.

use flag::stray::{self, Stray};

use crate::request::property;

/// With the uid of the flag; the oldest first.
#[derive(Debug, Default)]
pub(crate) struct StrayList(Vec<(String, Stray)>);

impl StrayList {
    /// The request in context, to this place, goes to a version of a flag past it.
    #[inline(never)]
    pub(crate) fn note(&mut self, uid: &str, place: String, version: &str) {
        // It may have been led to another version since.
        self.0.retain(|(_, stray)| stray.place != place || stray.version == version);
        let known = self.0.iter_mut().find(|(of, stray)| of == uid && stray.place == place);
        if let Some((_, stray)) = known {
            stray.count = stray.count.saturating_add(1);
            return;
        }
        if self.0.len() >= stray::MOST {
            self.0.remove(0);
        }
        let of = |path: &str| property(path).unwrap_or_default();
        let (version, route, cluster) = (version.to_owned(), of("xds\0route_name"), of("xds\0cluster_name"));
        self.0.push((uid.to_owned(), Stray { place, version, route, cluster, count: 1 }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A request to this place went where it ought to: it has been put right.
    pub(crate) fn clear(&mut self, place: &str) {
        if !self.0.is_empty() {
            self.0.retain(|(_, stray)| stray.place != place);
        }
    }

    /// Those of one flag.
    pub(crate) fn of(&self, uid: &str) -> Vec<Stray> {
        self.0.iter().filter(|(of, _)| of == uid).map(|(_, stray)| stray.clone()).collect()
    }
}
