//! Where requests went past the flags, as this VM instance saw it. Hostcalls.

use flag::stray::{self, OTHERS, Stray};

use crate::request::property;

/// By uid.
#[derive(Debug, Default)]
pub(crate) struct StrayList(Vec<(String, Vec<Stray>)>);

impl StrayList {
    /// The request in context, to this place, goes to a version of a flag past it.
    #[inline(never)]
    pub(crate) fn note(&mut self, uid: &str, place: String, version: &str) {
        // It may have been led to another version since.
        self.clear_but(&place, version);
        let index = self.0.iter().position(|(of, _)| of == uid);
        let index = index.unwrap_or_else(|| {
            self.0.push((uid.to_owned(), Vec::new()));
            self.0.len().saturating_sub(1)
        });
        let Some((_, strays)) = self.0.get_mut(index) else { return };
        if let Some(known) = stray::find(strays.iter_mut(), &place, version) {
            known.count = known.count.saturating_add(1);
            return;
        }
        let of = |path: &str| stray::short(&property(path).unwrap_or_default());
        let (version, route, cluster) = (version.to_owned(), of("xds\0route_name"), of("xds\0cluster_name"));
        stray::push(strays, Stray { place, version, route, cluster, count: 1 });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, strays)| strays.is_empty())
    }

    /// A request to this place went where it ought to: it has been put right.
    pub(crate) fn clear(&mut self, place: &str) {
        self.clear_but(place, "");
    }

    fn clear_but(&mut self, place: &str, version: &str) {
        if place != OTHERS {
            for (_, strays) in &mut self.0 {
                strays.retain(|stray| stray.place != place || stray.version == version);
            }
        }
    }

    /// Those of one flag.
    pub(crate) fn of(&self, uid: &str) -> Vec<Stray> {
        let ours = self.0.iter().find(|(of, _)| of == uid);
        ours.map(|(_, strays)| strays.clone()).unwrap_or_default()
    }
}
