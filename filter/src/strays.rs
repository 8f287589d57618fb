//! Where requests went past the flags, as this VM instance saw it. Hostcalls.

use flag::stray::{self, Stray};

use crate::request::property;

/// With the uid of the flag; the oldest first.
#[derive(Debug, Default)]
pub(crate) struct StrayList(Vec<(String, Stray)>);

/// The place of the request in context.
fn place() -> String {
    let (host, path) = (property("request\0host"), property("request\0url_path"));
    stray::place(&host.unwrap_or_default(), &path.unwrap_or_default())
}

impl StrayList {
    /// The request in context went to a version of a flag past it.
    #[inline(never)]
    pub(crate) fn note(&mut self, uid: &str, version: &str) {
        let place = place();
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

    /// The request in context went where it ought to: its place has been put right.
    pub(crate) fn clear(&mut self) {
        if !self.0.is_empty() {
            let place = place();
            self.0.retain(|(_, stray)| stray.place != place);
        }
    }

    /// Those of one flag.
    pub(crate) fn of(&self, uid: &str) -> Vec<Stray> {
        self.0.iter().filter(|(of, _)| of == uid).map(|(_, stray)| stray.clone()).collect()
    }
}
