//! Requests that went to a version past the flag: by a route that the marker does not move, or by a host that no flag
//! has. Pure.

use std::hash::Hasher;

use rustc_hash::FxHasher;
use serde::Serialize;

use crate::read_fields;

/// How many places one VM instance tells apart, and a report.
pub const MOST: usize = 8;

/// Characters of a place, or of another name.
const MOST_CHARS: usize = 120;

/// Stands for those for which there was no room. No later request takes them away.
pub const OTHERS: &str = "other places";

/// What went past the flag at one place: a method, a host and a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stray {
    /// The place: what a request to it shows later, on the right way, takes this away.
    pub place: String,
    /// The version that got it.
    pub version: String,
    /// The route that led there; empty: it has no name.
    pub route: String,
    /// The Envoy cluster.
    pub cluster: String,
    /// How many requests.
    pub count: u64,
}

read_fields! { Stray { place: "place", version: "version", route: "route", cluster: "cluster", count: "count", .. } }

/// The place of a request.
pub fn place(method: &str, host: &str, path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    short(&[method, " ", host, path].concat())
}

/// Text of unknown length, short enough for a report. Two that differ do so afterwards.
pub fn short(text: &str) -> String {
    if text.chars().count() <= MOST_CHARS {
        return text.to_owned();
    }
    let mut hasher = FxHasher::default();
    hasher.write(text.as_bytes());
    let begin: String = text.chars().take(MOST_CHARS - 17).collect();
    format!("{begin}~{:016x}", hasher.finish())
}

/// The one that a request at a place is counted in, where some of the same flag are known. `None`: it is a new one.
pub fn find<'a>(known: impl Iterator<Item = &'a mut Stray> + 'a, place: &str, version: &str) -> Option<&'a mut Stray> {
    let (mut count, mut others) = (0, None);
    for stray in known.filter(|stray| stray.version == version) {
        if stray.place == place {
            return Some(stray);
        }
        count += 1;
        if stray.place == OTHERS {
            others = Some(stray);
        }
    }
    others.filter(|_| count >= MOST)
}

/// Adds what another VM instance has.
pub fn add(sum: &mut Vec<Stray>, part: &[Stray]) {
    for stray in part {
        match find(sum.iter_mut(), &stray.place, &stray.version) {
            Some(known) => known.count = known.count.saturating_add(stray.count),
            None => push(sum, stray.clone()),
        }
    }
}

/// Adds a new one; the last for which there is room stands for all others.
pub fn push(all: &mut Vec<Stray>, mut stray: Stray) {
    if all.iter().filter(|known| known.version == stray.version).count() + 1 >= MOST {
        OTHERS.clone_into(&mut stray.place);
    }
    all.push(stray);
}
