//! Routes of two services in a mesh: subsets that appear a while after they were written, and route objects by name.

use std::collections::{BTreeMap, BTreeSet};

use flag::route;
use machine::observation::{Destination, ServiceFacts, VersionState};
use machine::plan::{RouteOrder, WARM_UP};
use machine::reach::Reach;
use machine::reason::{Problem, Reason};
use machine::spec::Spec;
use machine::status::Status;
use machine::time::UnixMs;

type Versions = BTreeSet<String>;

/// What one route object says: its versions, and the default. Before it is written it leads nowhere.
#[derive(Debug, Default)]
struct Object {
    versions: Versions,
    default: String,
}

/// One service.
#[derive(Debug, Default)]
struct Service {
    /// The versions that it has subsets of, and when each appears.
    subsets: BTreeMap<String, u64>,
    /// The same as this process has seen them.
    seen: BTreeMap<String, Destination>,
    objects: BTreeMap<String, Object>,
}

/// How a version is reached.
fn reach(name: &str, version: &str) -> Reach {
    let clusters = BTreeMap::from([(format!("outbound|80|{version}|{name}"), name.to_owned())]);
    Reach { clusters, readiness: Some("/ready".to_owned()) }
}

/// All services.
#[derive(Debug)]
pub(crate) struct Mesh {
    services: BTreeMap<String, Service>,
    /// Between a subset is written and is there.
    pub(crate) lag: u64,
    /// Somebody else has routes, too.
    pub(crate) conflict: bool,
}

impl Mesh {
    pub(crate) fn new(spec: &Spec) -> Mesh {
        let service = |name: &str| {
            // The first has routes for a gateway, too.
            let objects: &[&str] = if name == "reviews" { &["reviews", "reviews-gateway"] } else { &[name] };
            let objects = objects.iter().map(|object| ((*object).to_owned(), Object::default())).collect();
            Service { objects, ..Service::default() }
        };
        let services = spec.services.iter().map(|one| (one.name.clone(), service(&one.name))).collect();
        Mesh { services, lag: 0, conflict: false }
    }

    /// Another process has not seen since when subsets have been there.
    pub(crate) fn forget(&mut self) {
        for service in self.services.values_mut() {
            service.seen.clear();
        }
    }

    pub(crate) fn look(
        &mut self,
        now: u64,
        versions: &BTreeMap<String, VersionState>,
    ) -> BTreeMap<String, ServiceFacts> {
        let facts = |(name, service): (&String, &mut Service)| (name.clone(), service.look(name, now, versions));
        self.services.iter_mut().map(facts).collect()
    }

    /// What is wrong with the routes, as an adapter sees it.
    pub(crate) fn problem(&self, status: &Status) -> Option<Problem> {
        let record = status.record.as_ref()?;
        if self.conflict {
            return Some(Problem::new(Reason::RouteConflict, "somebody else's route"));
        }
        self.services.values().find_map(|service| {
            let everywhere = |version: &&String| service.objects.values().all(|one| one.versions.contains(*version));
            let missing: Vec<&str> =
                record.versions.iter().filter(|version| !everywhere(version)).map(String::as_str).collect();
            let warms = everywhere(&&record.active);
            let reason = if warms { Reason::RoutesWarming } else { Reason::RoutesPending };
            (!missing.is_empty()).then(|| Problem::new(reason, format!("no route to {}", missing.join(", "))))
        })
    }

    /// The names of all routes, as proxies show them.
    pub(crate) fn route_names(&self) -> BTreeSet<String> {
        let objects = self.services.values().flat_map(|service| service.objects.values());
        let name = |one: &Object| {
            let versions: Vec<&str> = one.versions.iter().map(String::as_str).collect();
            format!("{}:{}", route::name_of_versions("reviews", versions), one.default)
        };
        objects.filter(|one| !one.versions.is_empty()).map(name).collect()
    }

    /// No route leads to a version before what it leads to has been there for a while.
    pub(crate) fn guard(&self, now: u64, order: &RouteOrder) {
        for (name, ordered) in &order.services {
            let service = &self.services[name];
            for (object, versions) in &ordered.routes {
                let before = &service.objects[object];
                assert!(versions.contains(&order.record.active), "{object} does not lead to the active version");
                for version in versions {
                    assert!(order.record.versions.contains(version), "{object} leads to {version}, which is gone");
                    assert!(ordered.destinations.contains(version), "{object} leads to {version}, which has no subset");
                    let is_warm = service.is_warm(now, version, *version == order.record.active);
                    assert!(before.versions.contains(version) || is_warm, "{object} leads to {version} too early");
                }
            }
        }
    }

    /// C01: an object that is left as it is, because nobody serves what is adopted, may lead to a version whose subset
    /// is taken away here.
    pub(crate) fn write(&mut self, now: u64, order: &RouteOrder) {
        let lag = self.lag;
        for (name, ordered) in &order.services {
            let service = self.services.get_mut(name).unwrap();
            service.subsets.retain(|version, _| ordered.destinations.contains(version));
            for version in &ordered.destinations {
                service.subsets.entry(version.clone()).or_insert(now + lag);
            }
            for (object, versions) in &ordered.routes {
                let written = Object { versions: versions.clone(), default: order.record.active.clone() };
                service.objects.insert(object.clone(), written);
            }
        }
    }

    /// Whether any route object still leads to a version.
    pub(crate) fn leads_to(&self, version: &str) -> bool {
        self.services.values().flat_map(|service| service.objects.values()).any(|one| one.versions.contains(version))
    }
}

impl Service {
    fn look(&mut self, name: &str, now: u64, versions: &BTreeMap<String, VersionState>) -> ServiceFacts {
        let there: BTreeSet<&String> =
            self.subsets.iter().filter(|(_, at)| **at <= now).map(|(version, _)| version).collect();
        self.seen.retain(|version, _| there.contains(version));
        for version in there {
            let since = UnixMs(now);
            let one = self.seen.entry(version.clone()).or_insert(Destination { since, serving_since: None });
            let serves = versions.get(version).is_some_and(|workload| workload.ready);
            one.serving_since = serves.then(|| one.serving_since.unwrap_or(since));
        }
        let cluster = |version: &String| (version.clone(), BTreeSet::from([format!("outbound|80|{version}|{name}")]));
        ServiceFacts {
            hosts: BTreeSet::from([name.to_owned(), format!("{name}.shop.svc.cluster.local")]),
            clusters: versions.keys().map(cluster).collect(),
            selector: BTreeSet::from([format!("app={name}")]),
            reach: versions.keys().map(|version| (version.clone(), reach(name, version))).collect(),
            destinations: self.seen.clone(),
            routed: self.objects.iter().map(|(object, one)| (object.clone(), one.versions.clone())).collect(),
        }
    }

    fn is_warm(&self, now: u64, version: &str, active: bool) -> bool {
        // By when it really was there, whatever this process has seen; who serves is only known by looks.
        let there = self.subsets.get(version).is_some_and(|at| at + WARM_UP.0 <= now);
        let serving_since = self.seen.get(version).and_then(|one| one.serving_since);
        there && (!active || serving_since.is_some_and(|since| since.plus(WARM_UP).0 <= now))
    }
}
