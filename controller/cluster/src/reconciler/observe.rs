//! One look at everything in the cluster that concerns one VersionFlag. I/O: reads the clock, and what
//! watches and reports have told.

use crate::names::REQUEST;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use flag::probe::Probe;
use kube::ResourceExt;
use machine::action::{ID_BYTES, Request};
use machine::checks::Questions;
use machine::fleet::ledger::{Fleet, FleetQuestion};
use machine::fleet::traffic::OpenRequests;
use machine::observation::{Headroom, Keeper, Observation, VersionState};
use machine::reach;
use machine::reason::{Problem, Reason};
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::Hub;
use service::clock::now;

use super::Reconciler;
use crate::cache::Cache;
use crate::context::Context;
use crate::providers::{ProxySet, Subject, provider};
use crate::status::{cannot_begin, foremost};
use crate::workloads::{Objects, Workloads};
use crate::{headroom, proxies};

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

impl Look {
    /// What the proxies' reports are asked for, of a status.
    pub(super) fn question(&self, status: &Status, probe: Option<Probe>) -> FleetQuestion {
        let asked = status.asked(&self.spec);
        let members = self.workloads.pods(&asked.old).filter_map(proxies::name).collect();
        FleetQuestion { probe, members, drain_ms: self.spec.drain_time().0, ..asked }
    }
}

/// What one look has shown.
pub(super) struct Seen {
    /// When it was begun.
    pub(super) began: Instant,
    pub(super) look: Look,
    /// The proxies that have to ack.
    pub(super) expected: BTreeSet<String>,
    pub(super) observation: Observation,
}

impl Reconciler {
    pub(super) fn observe(&mut self, claimed: Option<&str>, context: &Context<'_>) -> Seen {
        let (began, now, namespace) = (Instant::now(), now(), self.namespace());
        // Those of a pass before are out of date.
        self.gathered.clear();
        let invalid = self.validate(context);
        let spec = self.spec.as_ref().unwrap_or(&self.resource.spec).clone();
        let objects = near(&namespace, &spec, context.cache);
        let mut workloads = Workloads::find(&namespace, &spec, &objects);
        if let Some(left) = self.status.left() {
            workloads.keep_to(left, &namespace, &objects);
        }
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
        let mut fleet = self.fleet(&look, &expected, probe.clone(), context);
        proxies::keep_late(&mut fleet.late_filters, by.filter_since(&subject, context), &look.spec, &look.objects);
        proxies::explain(&mut fleet.laggards, &look.namespace, &look.spec, &look.workloads, &look.objects);
        let observation = Observation {
            clusters: None,
            checks: context.checks.run_due_checks(now, &self.name, Questions::of(&look.spec, &self.status), &fleet),
            headroom: self.headroom(&look, context.cache),
            fleet,
            request: self.request(context.hub),
            // The platform starts pods anew, and stops them.
            order: None,
            open: OpenRequests::default(),
            occurred: vec![],
            spec_unknown: self.spec.is_none(),
            spec_error: invalid.map(|problem| problem.message),
            namespace: by.namespace(&subject),
            services,
            probe,
            audience: Some(audience),
            problem,
            routes: by.routes(&subject, context),
            keeper: Keeper::Platform,
            leads_since: context.hub.leads_since(),
            leaving: context.hub.is_leaving(),
            given_out: context.hub.given_out(&self.name, &self.status.uid),
            other_fence: context.hub.fences.other(&self.status.uid, &expected),
            uncovered: proxies::uncovered(&look.spec, &look.workloads, &expected),
            versions,
        };
        Seen { began, look, expected, observation }
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
        let refusal = context.consents.refusal(context.domain, &self.resource);
        let mut wrong = self.resource.spec.validate();
        let reason = match (wrong.is_empty(), &refusal, taken) {
            (true, Some(_), _) => Reason::NoConsent,
            (true, None, Some(_)) => Reason::HostTaken,
            _ => Reason::InvalidSpec,
        };
        // Both flags together would be refused by every proxy that is sent both.
        wrong.extend(refusal.into_iter().chain(taken.cloned()));
        if wrong.is_empty() {
            self.spec = Some(self.resource.spec.0.clone());
            return None;
        }
        Some(Problem::new(reason, wrong.join("; ")))
    }

    /// What has to be put right outside of the state machine; the foremost of all that was found.
    fn problem(
        &self,
        claimed: Option<&str>,
        invalid: Option<&Problem>,
        subject: &Subject<'_>,
        context: &Context<'_>,
    ) -> Option<Problem> {
        // What is out of date tells neither what is so nor what is wrong.
        let stale = context.cache.problem(Instant::now());
        // Who shares a Service has the same hosts, too.
        let taken = claimed.map(|message| Problem::new(Reason::ServiceTaken, message));
        let unusable = invalid.filter(|_| self.spec.is_none()).cloned();
        let unseen = proxies::unseen(context.cache.watched(), subject.namespace, subject.spec);
        let workloads = subject.workloads.errors.first().map(|message| Problem::new(Reason::Workloads, message));
        let begins = cannot_begin(subject.spec, &self.status, subject.versions);
        let found = stale.into_iter().chain(taken).chain(unusable).chain(unseen);
        let found = found.chain(provider(subject.spec).problems(subject, context));
        foremost(found.chain(workloads).chain(begins).chain(self.refused.clone()))
    }

    fn versions(&mut self, look: &Look) -> BTreeMap<String, VersionState> {
        let mut versions = BTreeMap::new();
        let known = look.workloads.versions();
        self.steadiness.retain(|version, _| known.contains(version.as_str()));
        for version in known {
            let mut workload = look.workloads.observe(version);
            let steadiness = self.steadiness.entry(version.to_owned()).or_default();
            workload.ready_since = steadiness.take(look.now, workload.ready, look.workloads.spare(version));
            versions.insert(version.to_owned(), workload);
        }
        versions
    }

    fn fleet(&self, look: &Look, expected: &BTreeSet<String>, probe: Option<Probe>, context: &Context<'_>) -> Fleet {
        let asked = look.question(&self.status, probe);
        let record = self.status.record.as_ref();
        let fleet = record.map(|record| context.hub.reports.fleet(look.now, record, expected, &asked));
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
            let beside = headroom::injected(&look.workloads, &[&switch.to, &switch.from]);
            headroom::look(&look.namespace, &switch.to, &scales, &beside, &cache.room(&look.namespace, Instant::now()))
        })
    }

    /// What people ask for, by the annotation or through the flag service.
    fn request(&self, hub: &Hub) -> Option<Request> {
        let answered = |id: &str| self.status.has_answered(id);
        let annotated = self.resource.annotations().get(REQUEST);
        let annotated = annotated.and_then(|text| serde_json::from_str::<Request>(text).ok());
        let annotated = annotated.filter(|request| request.id.len() <= ID_BYTES && !answered(&request.id));
        // An answer that is not stored may be lost, and the request is then answered anew.
        let stored = self.resource.status.as_ref().and_then(|status| status.machine.as_ref());
        let settled = |id: &str| stored.is_some_and(|stored| stored.has_answered(id));
        let queued = hub.requests.next_request(&self.name, settled);
        annotated.or_else(|| queued.filter(|request| !answered(&request.id)))
    }
}

/// What is in the namespace of a flag, and the pods of its callers.
fn near(namespace: &str, spec: &Spec, cache: &Cache) -> Objects {
    let callers = spec.all_callers();
    let gateways = callers.gateways.iter().filter_map(|gateway| gateway.namespace.as_ref());
    let others: BTreeSet<&String> = callers.namespaces.iter().chain(gateways).collect();
    cache.near(namespace, others, Instant::now())
}
