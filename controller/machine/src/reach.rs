//! Which version the proxies have to reach, and by which clusters. Pure.

use std::collections::BTreeMap;

use flag::probe::{Place, Probe};
use flag::record::{Record, check_name};
use serde_json::json;

use crate::observation::ServiceFacts;
use crate::spec::{ProbeMode, ProbeSpec, Spec};
use crate::status::{Phase, Status, Switch};

/// What the platform knows of how a version of a service can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// The host that each Envoy cluster of it is asked for; empty: the clusters are those of the record.
    pub clusters: BTreeMap<String, String>,
    /// What its readiness check asks for, on a port of these clusters.
    pub readiness: Option<String>,
}

impl Phase {
    /// Whether proxies try to reach the version that is gone to. They do while it waits to be let in, so that the flip
    /// has not to wait for them.
    fn probes(self) -> bool {
        use Phase::{AwaitingPromotion, ProvingRoutes, Removing, Retaining, Settling, Switching};
        self.holds() || matches!(self, AwaitingPromotion | ProvingRoutes | Switching | Settling | Retaining | Removing)
    }
}

/// What proxies are asked to try: the version that is gone to, from when it waits to be let in until the old one is gone.
/// `None`: nothing is switched, the spec wants no probe, or nobody knows what could be asked for.
pub fn probe(spec: &Spec, status: &Status, services: &BTreeMap<String, ServiceFacts>) -> Option<Probe> {
    let asked = &spec.coexistence.probe;
    let switch = status.switch.as_ref().filter(|_| asked.mode == ProbeMode::Require && status.phase.probes())?;
    // What is gone back to was reached before, and nothing may hold that up.
    if switch.rollback && (status.phase.before_flip() || status.phase.holds()) {
        return None;
    }
    let record = status.record.as_ref()?;
    let (lowest, highest) = asked.statuses()?;
    let clusters: Vec<Place> = spec
        .services
        .iter()
        .filter_map(|service| {
            let reach = services.get(&service.name).and_then(|facts| facts.reach.get(&switch.to));
            let readiness = || reach?.readiness.clone().filter(|path| check_name("path", path).is_ok());
            let path = asked.path.clone().or_else(readiness)?;
            let known = reach.map(|reach| reach.clusters.clone()).filter(|clusters| !clusters.is_empty());
            let clusters = known.or_else(|| recorded(record, &service.name, &switch.to))?;
            Some(clusters.into_iter().map(move |(cluster, host)| Place { cluster, host, path: path.clone() }))
        })
        .flatten()
        .collect();
    let timeout_ms = u32::try_from(asked.timeout.0).unwrap_or(u32::MAX);
    let probe = Probe {
        flag: status.uid.clone(),
        id: id(switch, &clusters, asked),
        version: switch.to.clone(),
        clusters,
        lowest,
        highest,
        timeout_ms,
    };
    (!probe.clusters.is_empty()).then_some(probe)
}

/// The clusters of a version as the record has them, each with the first host of its service.
fn recorded(record: &Record, service: &str, version: &str) -> Option<BTreeMap<String, String>> {
    let member = record.members.iter().find(|member| member.service == service)?;
    let host = member.hosts.first()?;
    Some(member.clusters.get(version)?.iter().map(|cluster| (cluster.clone(), host.clone())).collect())
}

/// Another switch, or another question of it, has another name.
fn id(switch: &Switch, clusters: &[Place], asked: &ProbeSpec) -> String {
    let what = json!([switch.to, switch.started_at, clusters, asked.expect, asked.timeout]).to_string();
    flag::digest::hex_prefix(what.as_bytes(), 6)
}
