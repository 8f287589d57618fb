//! One look at everything in the cluster that concerns one VersionFlag. I/O: reads the clock, and what
//! watches and reports have told.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use machine::fleet::ledger::Fleet;

use super::execute::like;
use super::{Flag, Surroundings, mesh};
use crate::cache::Cache;
use crate::domain::Domain;
use crate::hosts::host_names;
use crate::istio::place;
use crate::resource::REQUEST;
use crate::status::{Problem, cannot_begin, unsupported};
use crate::workloads::Workloads;
use crate::{headroom, proxies};
use machine::checks::Questions;
use machine::observation::{Headroom, Observation, Place, Request};
use machine::spec::Spec;
use machine::status::{Phase, Status};
use service::clock::now_ms;
use service::{Hub, Post};

/// One look at everything that concerns the flag.
pub(super) struct Look {
    pub(super) now_ms: u64,
    pub(super) spec: Spec,
    pub(super) workloads: Workloads,
    pub(super) expected: BTreeSet<String>,
    /// Who is sent its record.
    pub(super) audience: BTreeSet<String>,
    pub(super) problem: Option<Problem>,
    pub(super) seen: Observation,
}

impl Flag {
    pub(super) fn look(&mut self, claimed: Option<&str>, around: &Surroundings<'_>) -> Look {
        let now_ms = now_ms();
        let namespace = self.resource.namespace().unwrap_or_default();
        let taken = self.resource.uid().and_then(|uid| around.taken.get(&uid));
        let mut wrong = self.resource.spec.validate();
        let reason = if wrong.is_empty() && taken.is_some() { "HostTaken" } else { "InvalidSpec" };
        // Both together would be refused by every proxy that is sent both.
        wrong.extend(taken.cloned());
        let valid = wrong.is_empty().then(|| self.resource.spec.0.clone());
        self.spec = valid.or_else(|| self.spec.take());
        let spec = self.spec.as_ref().unwrap_or(&self.resource.spec).clone();
        let callers = spec.all_callers();
        let gateways = callers.gateways.iter().filter_map(|gateway| gateway.namespace.as_ref());
        let others: BTreeSet<&String> = callers.namespaces.iter().chain(gateways).collect();
        let objects = around.cache.near(&namespace, others);
        let workloads = Workloads::find(&namespace, &spec, &objects);
        let before = self.machine.record.as_ref();
        let (spec, place, expected, audience) = if spec.routing.in_mesh() {
            around.mesh.istio.want(spec.routing.provider);
            let versions = known_versions(&self.machine, &workloads, &spec.version);
            let expected = proxies::expected_in_mesh(&namespace, &spec, &workloads, &objects.pods);
            let mut audience = proxies::audience_in_mesh(&namespace, &spec, &objects.pods);
            audience.extend(expected.iter().cloned());
            let place = place::place(&namespace, &spec, &objects.services, before);
            (
                place::complete(around.domain, &namespace, &spec, &objects.services, &versions, before),
                place,
                expected,
                audience,
            )
        } else {
            let spec = with_hosts(around.domain, &spec, &namespace);
            let expected = proxies::expected(&namespace, &spec, &objects.pods);
            (spec, Place::default(), expected.clone(), expected)
        };
        let spec_error = (!wrong.is_empty()).then(|| wrong.join("; "));
        let invalid = spec_error.clone().filter(|_| self.spec.is_none());
        let problem = |reason, message| Problem { reason, message };
        // Who shares a Service has the same hosts, too.
        let found = claimed.map(|message| problem("ServiceTaken", message.to_owned()));
        let found = found.or_else(|| invalid.map(|message| problem(reason, message)));
        let found = found.or_else(|| unsupported(&spec));
        let found = found.or_else(|| mesh::problem(&self.name, &namespace, &spec, around));
        let found = found.or_else(|| workloads.errors.first().map(|message| problem("Workloads", message.clone())));
        let versions = self.versions(now_ms, &workloads);
        let status = &self.machine;
        let routes = mesh::routes(&namespace, &spec, status, &versions, self.unwritten.as_ref(), around);
        let found = found.or_else(|| cannot_begin(&spec, status, &versions)).or_else(|| self.refused.clone());
        let asked = status.asked();
        let fleet = status.record.as_ref().map(|record| around.hub.fleet(now_ms, record, &expected, &asked));
        let mut fleet = fleet.unwrap_or_else(|| Fleet::unknown(expected.len()));
        around.cache.name_strangers(&mut fleet.strangers);
        let seen = Observation {
            checks: around.checks.look(now_ms, &self.name, Questions::of(&spec, status), &fleet),
            headroom: self.headroom(&namespace, &spec, &workloads, around.cache),
            versions,
            fleet,
            request: self.request(around.hub),
            spec_error,
            place,
            routes,
        };
        Look { now_ms, spec, workloads, expected, audience, problem: found, seen }
    }

    fn versions(&mut self, now_ms: u64, workloads: &Workloads) -> BTreeMap<String, machine::observation::Workload> {
        let mut versions = BTreeMap::new();
        for version in workloads.versions() {
            let mut workload = workloads.observe(version);
            if workload.ready {
                workload.ready_since = Some(*self.ready_since.entry(version.to_owned()).or_insert(now_ms));
            } else {
                self.ready_since.remove(version);
            }
            versions.insert(version.to_owned(), workload);
        }
        versions
    }

    fn headroom(&self, namespace: &str, spec: &Spec, workloads: &Workloads, cache: &Cache) -> Headroom {
        let asks = self.machine.switch.as_ref();
        let asks = asks.filter(|switch| self.machine.phase == Phase::Coexisting && switch.headroom_at.is_none());
        asks.map_or(Headroom::Unknown, |switch| {
            let scales = workloads.start(&switch.to, like(spec, &self.machine));
            headroom::look(namespace, &switch.to, &scales, &cache.room(namespace))
        })
    }

    /// What people ask for, by the annotation or through the flag service.
    fn request(&self, hub: &Hub) -> Option<Request> {
        let answered = self.machine.last_request.as_ref().map(|last| last.id.as_str());
        let annotated = self.resource.annotations().get(REQUEST);
        let annotated = annotated.and_then(|text| serde_json::from_str::<Request>(text).ok());
        let annotated = annotated.filter(|request| Some(request.id.as_str()) != answered);
        annotated.or_else(|| hub.next_request(&self.name, answered))
    }
}

/// Every version that a record may name.
fn known_versions(machine: &Status, workloads: &Workloads, wanted: &str) -> BTreeSet<String> {
    let recorded = machine.record.iter().flat_map(|record| &record.versions);
    let found = workloads.versions().into_iter().map(str::to_owned);
    found.chain(recorded.cloned()).chain([wanted.to_owned()]).collect()
}

/// The spec with the names of its Services that their callers may use.
fn with_hosts(domain: &Domain, spec: &Spec, namespace: &str) -> Spec {
    let mut named = spec.clone();
    for service in &mut named.services {
        service.hosts = host_names(domain, spec, service, namespace);
    }
    named
}

/// Whose reports a flag waits for: while acks or quiet are to be seen everybody's, otherwise those of
/// the proxies that have not acked.
pub(super) fn awaited(machine: &Status, look: &Look) -> BTreeSet<String> {
    if Post::watches(machine.phase) {
        return look.expected.clone();
    }
    look.seen.fleet.laggards.iter().map(|laggard| laggard.proxy.clone()).collect()
}
