//! Requests that went to a version past the flag: by a route that the marker does not move, or by a host that no flag
//! has. Pure.

use serde::Serialize;

use crate::read_fields;

/// How many places one VM instance tells apart.
pub const MOST: usize = 8;

/// What went past the flag at one place: a host and a path.
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
pub fn place(host: &str, path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{host}{path}").chars().take(120).collect()
}

/// Adds what another VM instance has.
pub fn add(sum: &mut Vec<Stray>, part: &[Stray]) {
    for stray in part {
        match sum.iter_mut().find(|known| (&known.place, &known.version) == (&stray.place, &stray.version)) {
            Some(known) => known.count = known.count.saturating_add(stray.count),
            None => sum.push(stray.clone()),
        }
    }
}
