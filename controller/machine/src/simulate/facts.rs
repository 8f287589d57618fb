//! Versions, checks and routes of a simulated world: what is there, and what an effect makes of it. Pure.

use std::collections::BTreeMap;

use crate::checks::{CheckAnswer, CheckAnswers, Questions, Verdict};
use crate::duration::Millis;
use crate::observation::{Destination, ServiceFacts, VersionState};
use crate::plan::{RouteOrder, WARM_UP};
use crate::reason::{Problem, Reason};
use crate::spec::{Management, Service, Spec, When};
use crate::status::Status;
use crate::time::UnixMs;

/// Where a version stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It serves at full strength.
    Ready,
    /// It runs and does not serve yet.
    Running,
    /// It runs and is being stopped.
    Stopping,
    /// It does not stay up, and how it ended.
    Exited(String),
    /// It does not run, and can be started.
    Stopped,
    /// Nothing of it is there.
    Gone,
}

/// One version.
#[derive(Debug, Clone)]
pub(super) struct Version {
    state: State,
    since: UnixMs,
    /// When it gets ready, or has stopped.
    due: Option<UnixMs>,
    /// The epoch at which it was marked to be kept.
    kept_at: Option<u64>,
}

impl Version {
    pub(super) fn new(state: State, since: UnixMs) -> Version {
        Version { state, since, due: None, kept_at: None }
    }

    /// A version of which nothing was said.
    fn unnamed() -> Version {
        Version::new(State::Stopped, UnixMs(0))
    }

    fn workload(&self) -> VersionState {
        let there = self.state != State::Gone;
        let exited = if let State::Exited(how) = &self.state { Some(how.clone()) } else { None };
        VersionState {
            declared: there,
            running: there && self.state != State::Stopped,
            ready: self.state == State::Ready,
            ready_since: self.ready_since(),
            exited,
            exists: there,
            stopped: matches!(self.state, State::Stopping | State::Stopped),
            kept_at: self.kept_at,
            ..VersionState::default()
        }
    }

    fn ready_since(&self) -> Option<UnixMs> {
        (self.state == State::Ready).then_some(self.since)
    }
}

/// All versions.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<String, Version>);

impl Versions {
    pub(super) fn see(&mut self, now: UnixMs, name: &str, state: &State) {
        if self.0.get(name).is_none_or(|version| version.state != *state || version.due.is_some()) {
            self.0.insert(name.to_owned(), Version::new(state.clone(), now));
        }
    }

    /// What is seen of those that were named, and of `others`.
    pub(super) fn workloads(&self, others: impl Iterator<Item = String>) -> BTreeMap<String, VersionState> {
        let others = others.map(|name| (name, Version::unnamed().workload()));
        others.chain(self.0.iter().map(|(name, version)| (name.clone(), version.workload()))).collect()
    }

    fn ready_since(&self, name: &str) -> Option<UnixMs> {
        self.0.get(name).and_then(Version::ready_since)
    }

    /// Starts what is stopped, to be ready after so long; without that, never. True: something changed.
    pub(super) fn start(&mut self, now: UnixMs, name: &str, ready: Option<Millis>) -> bool {
        let version = self.0.entry(name.to_owned()).or_insert_with(Version::unnamed);
        let starts = version.state == State::Stopped;
        if starts {
            *version = Version { due: ready.map(|ready| now.plus(ready)), ..Version::new(State::Running, now) };
        }
        starts
    }

    /// Stops what runs. True: something changed.
    pub(super) fn stop(&mut self, now: UnixMs, name: &str, takes: Option<Millis>) -> bool {
        let version = self.0.entry(name.to_owned()).or_insert_with(Version::unnamed);
        let stops = !matches!(version.state, State::Stopping | State::Stopped | State::Gone);
        if stops {
            *version = Version { due: takes.map(|takes| now.plus(takes)), ..Version::new(State::Stopping, now) };
        }
        stops
    }

    /// Marks a version to be kept. True: it was not marked so.
    pub(super) fn protect(&mut self, name: &str, epoch: u64) -> bool {
        let version = self.0.entry(name.to_owned()).or_insert_with(Version::unnamed);
        version.kept_at.replace(epoch) != Some(epoch)
    }

    /// When the next of them changes by itself.
    pub(super) fn due(&self) -> Option<UnixMs> {
        self.0.values().filter_map(|version| version.due).min()
    }

    /// Has happen what is due, and tells of it.
    pub(super) fn happen(&mut self, now: UnixMs) -> Vec<String> {
        let due = self.0.iter_mut().filter(|(_, version)| version.due.is_some_and(|due| due <= now));
        let change = |(name, version): (&String, &mut Version)| {
            let stops = version.state == State::Stopping;
            *version = Version::new(if stops { State::Stopped } else { State::Ready }, now);
            if stops { format!("{name} has stopped") } else { format!("{name} is ready") }
        };
        due.map(change).collect()
    }
}

/// What the checks say.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// By name, since when.
    scripted: BTreeMap<String, (Verdict, String, UnixMs)>,
    /// What is asked, and since when.
    asked: Option<(When, u64, UnixMs)>,
}

impl Checks {
    pub(super) fn see(&mut self, now: UnixMs, name: &str, said: Option<&(Verdict, String)>) {
        match said {
            Some((verdict, message)) => {
                let same = self.scripted.get(name).filter(|(before, ..)| before == verdict);
                let since = same.map_or(now, |(.., since)| *since);
                self.scripted.insert(name.to_owned(), (*verdict, message.clone(), since));
            }
            None => drop(self.scripted.remove(name)),
        }
    }

    /// The answers to what is asked now. Without a word of the script, a check passes after so long.
    pub(super) fn answers(&mut self, now: UnixMs, spec: &Spec, status: &Status, takes: Option<Millis>) -> CheckAnswers {
        let Some(questions) = Questions::of(spec, status) else {
            self.asked = None;
            return CheckAnswers::new();
        };
        let same = self.asked.filter(|(when, epoch, _)| (*when, *epoch) == (questions.when, questions.epoch));
        let begun = same.map_or(now, |(.., begun)| begun);
        self.asked = Some((questions.when, questions.epoch, begun));
        let passes = takes.map(|takes| begun.plus(takes)).filter(|at| *at <= now);
        let answer = |name: &String| match self.scripted.get(name) {
            Some((verdict, message, since)) => {
                Some(CheckAnswer { verdict: *verdict, message: message.clone(), since: begun.max(*since) })
            }
            None => passes.map(|since| CheckAnswer { verdict: Verdict::Passed, message: "passed".to_owned(), since }),
        };
        let named = questions.checks.iter().map(|check| &check.name);
        named.filter_map(|name| Some((name.clone(), answer(name)?))).collect()
    }

    /// When the next answer comes.
    pub(super) fn due(&self, now: UnixMs, takes: Option<Millis>) -> Option<UnixMs> {
        let (.., begun) = self.asked?;
        takes.map(|takes| begun.plus(takes)).filter(|at| *at > now)
    }

    /// What the controller knew of them ended with it.
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }
}

/// What a mesh has, as the routes were written.
#[derive(Debug, Default)]
pub(super) struct Mesh {
    /// Since when a version has a destination, by service.
    destinations: BTreeMap<String, BTreeMap<String, UnixMs>>,
    order: Option<RouteOrder>,
}

impl Mesh {
    /// Writes routes. True: something changed.
    pub(super) fn write(&mut self, now: UnixMs, order: &RouteOrder) -> bool {
        if self.order.as_ref() == Some(order) {
            return false;
        }
        for (service, routes) in &order.services {
            let there = self.destinations.entry(service.clone()).or_default();
            there.retain(|version, _| routes.destinations.contains(version));
            for version in &routes.destinations {
                there.entry(version.clone()).or_insert(now);
            }
        }
        self.order = Some(order.clone());
        true
    }

    /// What is known of the services of a spec.
    pub(super) fn services(&self, spec: &Spec, versions: &Versions) -> BTreeMap<String, ServiceFacts> {
        let services = spec.services.iter().filter(|_| spec.routing.in_mesh());
        services.map(|service| (service.name.clone(), self.service(service, versions))).collect()
    }

    fn service(&self, service: &Service, versions: &Versions) -> ServiceFacts {
        let there = self.destinations.get(&service.name).into_iter().flatten();
        let destination = |(version, since): (&String, &UnixMs)| {
            let serving_since = versions.ready_since(version).map(|ready| ready.max(*since));
            (version.clone(), Destination { since: *since, serving_since })
        };
        let written = self.order.as_ref().and_then(|order| order.services.get(&service.name));
        let routed = written.and_then(|routes| routes.routes.get(&service.name)).cloned().unwrap_or_default();
        ServiceFacts {
            destinations: there.map(destination).collect(),
            routed: BTreeMap::from([(service.name.clone(), routed)]),
            ..ServiceFacts::default()
        }
    }

    /// Which routes are still to be written, where they are the controller's.
    pub(super) fn problem(&self, spec: &Spec, status: &Status) -> Option<Problem> {
        let record = status.record.as_ref()?;
        if !spec.routing.in_mesh() || spec.routing.management != Management::Managed {
            return None;
        }
        spec.services.iter().find_map(|service| {
            let facts = self.service(service, &Versions::default());
            let routed = facts.routed.get(&service.name)?;
            let missing: Vec<&str> = record.versions.difference(routed).map(String::as_str).collect();
            let active = routed.contains(&record.active);
            let reason = if active { Reason::RoutesWarming } else { Reason::RoutesPending };
            let (versions, service) = (missing.join(" and "), &service.name);
            let message = format!(
                "routes to {versions} of Service {service} are written {WARM_UP} after what they lead to, so that none \
                 fails"
            );
            (!missing.is_empty()).then(|| Problem::new(reason, message))
        })
    }

    /// What the controller knew of when things came to be ended with it.
    pub(super) fn forget(&mut self, now: UnixMs) {
        self.destinations.values_mut().flat_map(BTreeMap::values_mut).for_each(|since| *since = now);
    }
}
