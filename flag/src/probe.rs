//! Whether every worker of a proxy reaches a version: what it is asked to try, and what came of it. Pure.
//!
//! Lists, where maps would do: each map of a type of its own is some kilobytes of the filter.

use serde::Serialize;

use crate::read_fields;
use crate::record::{RecordError, check_name, check_version};

/// What each VM instance is asked to try. A request is sent to each cluster, and again after a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Uid of the flag.
    pub flag: String,
    /// Which question this is: what was shown for another one says nothing.
    pub id: String,
    /// The version to be reached.
    pub version: String,
    /// The Envoy clusters that stand for it, and what each is asked for.
    pub clusters: Vec<Place>,
    /// The lowest status that is an answer of the version.
    pub lowest: u32,
    /// The highest one.
    pub highest: u32,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u32,
}

read_fields! { Probe {
    flag: "flag",
    id: "id",
    version: "version",
    clusters: "clusters",
    lowest: "lowest",
    highest: "highest",
    timeout_ms: "timeoutMs",
    ..
} }

/// A cluster, and what it is asked for, by GET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The Envoy cluster.
    pub cluster: String,
    /// The authority.
    pub host: String,
    /// The path.
    pub path: String,
}

read_fields! { Place { cluster: "cluster", host: "host", path: "path", .. } }

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probed {
    /// Which question it was.
    pub id: String,
    /// By cluster, in the order of the question.
    pub clusters: Vec<Outcome>,
}

/// What came of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The Envoy cluster.
    pub cluster: String,
    /// [`REACHED`], [`INSIDE`], or what was in the way, in words.
    pub outcome: String,
}

read_fields! { Outcome { cluster: "cluster", outcome: "outcome", .. } }

read_fields! { Probed { id: "id", clusters: "clusters", .. } }

/// The version answered.
pub const REACHED: &str = "reached";
/// The proxy stands beside the group, and sends that version nothing.
pub const INSIDE: &str = "inside";
/// Nothing came of it yet.
pub const NOT_TRIED: &str = "not tried yet";
/// A worker says nothing of it: its filter may be of an earlier build.
pub const SILENT: &str = "one of its workers does not try it, as where its filter is older than this controller";

/// Whether nothing is in the way.
pub fn is_reached(outcome: &str) -> bool {
    outcome == REACHED || outcome == INSIDE
}

impl Probe {
    /// Whether the names in it are such as a request may have.
    pub fn check(&self) -> Result<(), RecordError> {
        check_name("flag", &self.flag)?;
        check_version("version", &self.version)?;
        let mut names = self.clusters.iter().flat_map(|place| [&place.cluster, &place.host, &place.path]);
        names.try_for_each(|name| check_name("cluster", name))
    }
}

impl Probed {
    /// What all VM instances together have shown: a cluster is reached once each has reached it.
    pub fn all<'a>(shown: impl Iterator<Item = Option<&'a Probed>> + Clone) -> Option<Probed> {
        let first = shown.clone().flatten().next()?;
        let mut all = first.clone();
        for one in shown {
            let one = one.filter(|one| one.id == first.id);
            for Outcome { cluster, outcome } in &mut all.clusters {
                if is_reached(outcome) {
                    one.map_or(SILENT, |one| one.of(cluster)).clone_into(outcome);
                }
            }
        }
        Some(all)
    }

    fn of(&self, cluster: &str) -> &str {
        let known = self.clusters.iter().find(|one| one.cluster == cluster);
        known.map_or(NOT_TRIED, |one| &one.outcome)
    }

    /// What is in the way of this question, if anything is.
    pub fn lacks(&self, probe: &Probe) -> Option<String> {
        if self.id != probe.id {
            return Some(NOT_TRIED.to_owned());
        }
        probe.clusters.iter().find_map(|Place { cluster, .. }| {
            let outcome = self.of(cluster);
            (!is_reached(outcome)).then(|| format!("cluster {cluster}: {outcome}"))
        })
    }

    /// Whether nothing is in the way of anything that was asked for.
    pub fn is_reached(&self) -> bool {
        !self.clusters.is_empty() && self.clusters.iter().all(|one| is_reached(&one.outcome))
    }
}
