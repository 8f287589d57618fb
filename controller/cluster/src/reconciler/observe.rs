//! One look at everything in the cluster that concerns one VersionFlag. I/O: reads the clock, and what
//! watches and reports have told.

use crate::names::REQUEST;
use std::collections::{BTreeMap, BTreeSet};

use flag::probe::Probe;
use kube::ResourceExt;
use machine::action::Request;
use machine::checks::Questions;
use machine::fleet::ledger::{Fleet, FleetQuestion};
use machine::observation::{Headroom, Keeper, Observation, VersionState};
use machine::reach;
use machine::reason::{Problem, Reason};
use machine::spec::Spec;
use machine::status::Phase;
use machine::time::UnixMs;
use service::Hub;
use service::clock::now;

use super::Reconciler;
use crate::cache::Cache;
use crate::context::Context;
use crate::headroom;
use crate::providers::{ProxySet, Subject, provider};
use crate::status::cannot_begin;
use crate::workloads::{Objects, Workloads};

/// What is in the cluster for a flag.
pub(super) struct Look {
    pub(super) now: UnixMs,
    /// Of the flag.
    namespace: String,
    /// The spec in force; the one of the resource where none was ever valid.
    pub(super) spec: Spec,
    objects: Objects,
    pub(super) workloads: Workloads,
}

/// What one look has shown.
pub(super) struct Seen {
    pub(super) look: Look,
    /// The proxies that have to ack.
    pub(super) expected: BTreeSet<String>,
    pub(super) observation: Observation,
}

impl Reconciler {
    pub(super) fn observe(&mut self, claimed: Option<&str>, context: &Context<'_>) -> Seen {
        let (now, namespace) = (now(), self.namespace());
        // Those of a pass before are out of date.
        self.gathered.clear();
        let invalid = self.validate(context);
        let spec = self.spec.as_ref().unwrap_or(&self.resource.spec).clone();
        let objects = near(&namespace, &spec, context.cache);
        let workloads = Workloads::find(&namespace, &spec, &objects);
        let look = Look { now, namespace, spec, objects, workloads };
        let versions = self.versions(&look);
        if look.spec.routing.in_mesh() {
            context.mesh.istio.want(look.spec.routing.provider);
        }
        let subject = self.subject(&look, &versions);
        let by = provider(&look.spec);
        let ProxySet { expected, audience } = by.proxies(&subject);
        let problem = self.problem(claimed, invalid.as_ref(), &subject, context);
        let services = by.services(&subject, context);
        let probe = reach::probe(&look.spec, &self.status, &services);
        let fleet = self.fleet(now, &expected, probe.clone(), context);
        let observation = Observation {
            checks: context.checks.run_due_checks(now, &self.name, Questions::of(&look.spec, &self.status), &fleet),
            headroom: self.headroom(&look, context.cache),
            fleet,
            request: self.request(context.hub),
            spec_unknown: self.spec.is_none(),
            spec_error: invalid.map(|problem| problem.message),
            namespace: by.namespace(&subject),
            services,
            probe,
            audience: Some(audience),
            problem,
            routes: by.routes(&subject, context),
            keeper: Keeper::Platform,
            versions,
        };
        Seen { look, expected, observation }
    }

    /// The flag as its provider looks at it.
    pub(super) fn subject<'a>(&'a self, look: &'a Look, versions: &'a BTreeMap<String, VersionState>) -> Subject<'a> {
        Subject {
            now: look.now,
            name: &self.name,
            namespace: &look.namespace,
            resource: &self.resource,
            spec: &look.spec,
            status: &self.status,
            objects: &look.objects,
            workloads: &look.workloads,
            versions,
            unwritten: self.unwritten.as_deref(),
        }
    }

    /// What is wrong with the spec as it is now. If nothing is, it is in force.
    fn validate(&mut self, context: &Context<'_>) -> Option<Problem> {
        let taken = self.resource.uid().and_then(|uid| context.taken.get(&uid));
        let mut wrong = self.resource.spec.validate();
        let reason = if wrong.is_empty() && taken.is_some() { Reason::HostTaken } else { Reason::InvalidSpec };
        // Both flags together would be refused by every proxy that is sent both.
        wrong.extend(taken.cloned());
        if wrong.is_empty() {
            self.spec = Some(self.resource.spec.0.clone());
            return None;
        }
        Some(Problem::new(reason, wrong.join("; ")))
    }

    /// What has to be put right outside of the state machine; the first that was found.
    fn problem(
        &self,
        claimed: Option<&str>,
        invalid: Option<&Problem>,
        subject: &Subject<'_>,
        context: &Context<'_>,
    ) -> Option<Problem> {
        // Who shares a Service has the same hosts, too.
        let taken = claimed.map(|message| Problem::new(Reason::ServiceTaken, message));
        let unusable = || invalid.filter(|_| self.spec.is_none()).cloned();
        let workloads = || subject.workloads.errors.first().map(|message| Problem::new(Reason::Workloads, message));
        taken
            .or_else(unusable)
            .or_else(|| provider(subject.spec).problem(subject, context))
            .or_else(workloads)
            .or_else(|| cannot_begin(subject.spec, &self.status, subject.versions))
            .or_else(|| self.refused.clone())
    }

    fn versions(&mut self, look: &Look) -> BTreeMap<String, VersionState> {
        let mut versions = BTreeMap::new();
        let known = look.workloads.versions();
        self.steadiness.retain(|version, _| known.contains(version.as_str()));
        for version in known {
            let mut workload = look.workloads.observe(version);
            let steadiness = self.steadiness.entry(version.to_owned()).or_default();
            workload.ready_since = steadiness.take(look.now, workload.ready, look.workloads.pods(version));
            versions.insert(version.to_owned(), workload);
        }
        versions
    }

    fn fleet(&self, now: UnixMs, expected: &BTreeSet<String>, probe: Option<Probe>, context: &Context<'_>) -> Fleet {
        let asked = FleetQuestion { probe, ..self.status.asked() };
        let fleet = self.status.record.as_ref().map(|record| context.hub.reports.fleet(now, record, expected, &asked));
        let mut fleet = fleet.unwrap_or_else(|| Fleet::unknown(expected.len()));
        context.cache.name_callers(&mut fleet.unmanaged);
        fleet
    }

    /// Whether there is room for a version that is about to be started.
    fn headroom(&self, look: &Look, cache: &Cache) -> Headroom {
        let starts = self.status.switch.as_ref();
        let starts = starts.filter(|switch| self.status.phase == Phase::Coexisting && switch.headroom_at.is_none());
        starts.map_or(Headroom::Unknown, |switch| {
            let like = self.status.strength_of_new(look.spec.coexistence.replicas);
            let scales = look.workloads.start(&switch.to, like);
            headroom::look(&look.namespace, &switch.to, &scales, &cache.room(&look.namespace))
        })
    }

    /// What people ask for, by the annotation or through the flag service.
    fn request(&self, hub: &Hub) -> Option<Request> {
        let answered = self.status.last_request.as_ref().map(|last| last.id.as_str());
        let annotated = self.resource.annotations().get(REQUEST);
        let annotated = annotated.and_then(|text| serde_json::from_str::<Request>(text).ok());
        let annotated = annotated.filter(|request| Some(request.id.as_str()) != answered);
        annotated.or_else(|| hub.requests.next_request(&self.name, answered))
    }
}

/// What is in the namespace of a flag, and the pods of its callers.
fn near(namespace: &str, spec: &Spec, cache: &Cache) -> Objects {
    let callers = spec.all_callers();
    let gateways = callers.gateways.iter().filter_map(|gateway| gateway.namespace.as_ref());
    let others: BTreeSet<&String> = callers.namespaces.iter().chain(gateways).collect();
    cache.near(namespace, others)
}
