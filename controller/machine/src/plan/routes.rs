//! Which routes may be written now. A route that reaches a proxy before the endpoints of what it leads to fails
//! requests, and a proxy says nothing of the endpoints that it has: so there is a while between both. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flag::record::Record;

use super::{Pass, goes_back};
use crate::duration::Millis;
use crate::observation::{Destination, ServiceFacts};
use crate::spec::Management;
use crate::status::{Phase, Status};
use crate::time::UnixMs;

/// How long a subset or a Service of a version is there before a route leads to it.
pub const WARM_UP: Millis = Millis(2_000);

/// The routes of a record, as they are written now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteOrder {
    /// The record whose versions they lead to.
    pub record: Record,
    /// What is written for each service, where a mesh has the routes; by name.
    pub services: BTreeMap<String, ServiceRoutes>,
}

/// What is written for one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRoutes {
    /// The versions that routes may lead to, now or later: each has a subset or a Service.
    pub destinations: BTreeSet<String>,
    /// The versions that each route object leads to, by its name. One that is not here is left as it is.
    pub routes: BTreeMap<String, BTreeSet<String>>,
}

impl RouteOrder {
    /// The routes to write, and when more may be written; `None`: none are the controller's to write now.
    pub(super) fn of(pass: Pass<'_>, status: &Status, record: &Record) -> Option<(RouteOrder, Option<UnixMs>)> {
        let routing = &pass.spec.routing;
        if !routing.in_mesh() {
            return Some((RouteOrder { record: record.clone(), services: BTreeMap::new() }, None));
        }
        // Whoever goes back waits only for what may be somebody else's: the rest may be what he goes back from.
        let problem = if goes_back(status) { pass.holding() } else { pass.seen.problem.as_ref() };
        if routing.management != Management::Managed || problem.is_some() {
            return None;
        }
        let mut next: Option<UnixMs> = None;
        let services = pass.spec.services.iter().filter_map(|service| {
            let facts = pass.seen.services.get(&service.name)?;
            let (routes, later) = ServiceRoutes::of(pass.now, removed(status), record, facts);
            next = next.into_iter().chain(later).min();
            Some((service.name.clone(), routes))
        });
        let services = services.collect();
        Some((RouteOrder { record: record.clone(), services }, next))
    }
}

impl ServiceRoutes {
    fn of(
        now: UnixMs,
        removed: Option<&String>,
        record: &Record,
        facts: &ServiceFacts,
    ) -> (ServiceRoutes, Option<UnixMs>) {
        // A subset may be used as long as a route leads to it, or one may be left at a proxy.
        let led_to = facts.routed.values().flatten().chain(removed);
        let kept = led_to.filter(|version| facts.destinations.contains_key(*version));
        let mut order =
            ServiceRoutes { destinations: record.versions.iter().chain(kept).cloned().collect(), ..Self::default() };
        let mut next = None;
        for (name, routed) in &facts.routed {
            let (warm, later) = warm(now, record, routed, &facts.destinations);
            next = next.into_iter().chain(later).min();
            if warm.contains(&record.active) {
                order.routes.insert(name.clone(), warm);
            }
        }
        (order, next)
    }
}

/// The version that is being removed.
fn removed(status: &Status) -> Option<&String> {
    status.switch.as_ref().filter(|_| status.phase == Phase::Removing).map(|switch| &switch.from)
}

/// The versions that a route object may lead to now: those that it leads to already, and those whose destination
/// has been there for a while. And when there will be more.
fn warm(
    now: UnixMs,
    record: &Record,
    routed: &BTreeSet<String>,
    destinations: &BTreeMap<String, Destination>,
) -> (BTreeSet<String>, Option<UnixMs>) {
    let due = |version: &String| {
        let there = destinations.get(version);
        // Requests go to the active version by this route at once: it has to have somebody to serve them.
        let since = if *version == record.active {
            there.and_then(|one| one.serving_since)
        } else {
            there.map(|one| one.since)
        };
        since.unwrap_or(now).plus(WARM_UP)
    };
    let is_warm = |version: &&String| routed.contains(*version) || due(version) <= now;
    let warm: BTreeSet<String> = record.versions.iter().filter(is_warm).cloned().collect();
    let next = record.versions.iter().filter(|version| !warm.contains(*version)).map(due).min();
    (warm, next)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    fn there(since: u64, serving: bool) -> Destination {
        Destination { since: UnixMs(since), serving_since: serving.then_some(UnixMs(since)) }
    }

    #[rstest]
    #[case::nothing_is_there_yet(&[], &[], &[], Some(12_000))]
    #[case::just_now(&[("v1", there(10_000, true)), ("v2", there(9_000, true))], &[], &[], Some(11_000))]
    #[case::for_a_while(&[("v1", there(8_000, true)), ("v2", there(9_000, true))], &[], &["v1"], Some(11_000))]
    #[case::for_long(&[("v1", there(0, true)), ("v2", there(0, true))], &[], &["v1", "v2"], None)]
    #[case::a_route_that_is_there_stays(&[("v2", there(10_000, true))], &["v1"], &["v1"], Some(12_000))]
    #[case::the_active_one_has_nobody(&[("v1", there(0, false)), ("v2", there(0, false))], &[], &["v2"], Some(12_000))]
    fn a_route_comes_a_while_after_what_it_leads_to(
        #[case] destinations: &[(&str, Destination)],
        #[case] routed: &[&str],
        #[case] expected: &[&str],
        #[case] next: Option<u64>,
    ) {
        let record = Record { active: "v1".to_owned(), versions: names(&["v1", "v2"]), ..crate::fixtures::record() };
        let destinations = destinations.iter().map(|(name, one)| ((*name).to_owned(), *one)).collect();
        let found = warm(UnixMs(10_000), &record, &names(routed), &destinations);
        assert_eq!(found, (names(expected), next.map(UnixMs)));
    }
}
