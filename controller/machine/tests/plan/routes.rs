//! Which routes may be written now, and when more may.

use machine::duration::Millis;
use machine::plan::{Effect, RouteOrder, ServiceRoutes, WARM_UP};
use machine::reason::Reason;
use machine::status::{Phase, Status};
use rstest::rstest;

use crate::fixtures::*;

/// The routes of a phase in which nothing may move, and when to look again.
fn ordered(more: &str, status: &Status, seen: &Seen) -> (Option<RouteOrder>, Option<Millis>) {
    let spec = spec(&format!("suspend: true, {more}"));
    let status = pass(&spec, status, seen).status;
    let plan = pass(&spec, &status, seen);
    let order = plan.effects.into_iter().find_map(|effect| match effect {
        Effect::Route(order) => Some(*order),
        _ => None,
    });
    if let Some(order) = &order {
        assert_eq!(Some(&order.record), status.record.as_ref(), "what is remembered is what is routed");
    }
    (order, plan.requeue)
}

fn of_reviews(more: &str, status: &Status, seen: &Seen) -> (ServiceRoutes, Option<Millis>) {
    let (order, requeue) = ordered(more, status, seen);
    (order.unwrap().services.remove("reviews").unwrap(), requeue)
}

/// v1 and v2 have had subsets for a minute, and somebody who serves.
fn warm() -> Seen {
    seen().destination("v1", there(LONG_AGO, true)).destination("v2", there(LONG_AGO, true))
}

fn routes(all: &[(&str, &[&str])]) -> std::collections::BTreeMap<String, std::collections::BTreeSet<String>> {
    all.iter().map(|(object, versions)| ((*object).to_owned(), names(versions))).collect()
}

const JUST_NOW: u64 = NOW - 500;
const BOTH: &[&str] = &["v1", "v2"];
const V1: &[&str] = &["v1"];

#[rstest]
#[case::all_is_warm(warm().routed("a", &[]), &[("a", BOTH)], None)]
#[case::a_moment_too_early(
    warm().destination("v2", there(NOW - WARM_UP.0 + 1, true)).routed("a", &[]), &[("a", V1)], Some(1))]
#[case::in_time(warm().destination("v2", there(NOW - WARM_UP.0, true)).routed("a", &[]), &[("a", BOTH)], None)]
#[case::what_a_route_leads_to_stays(
    warm().destination("v2", there(JUST_NOW, true)).routed("a", &["v2"]), &[("a", BOTH)], None)]
#[case::by_object(
    warm().destination("v2", there(JUST_NOW, true)).routed("a", &["v2"]).routed("b", &[]),
    &[("a", BOTH), ("b", V1)],
    Some(1_500)
)]
#[case::a_new_version_needs_nobody_who_serves(
    warm().destination("v2", there(LONG_AGO, false)).routed("a", &[]), &[("a", BOTH)], None)]
// A default that nobody serves would fail every request: the object is left as it is.
#[case::the_active_version_does(
    warm().destination("v1", there(LONG_AGO, false)).routed("a", &[]), &[], Some(2_000))]
#[case::the_active_version_is_new(
    warm().destination("v1", there(JUST_NOW, true)).routed("a", &[]), &[], Some(1_500))]
#[case::it_is_left_as_it_is_by_itself(
    warm().destination("v1", there(JUST_NOW, true)).routed("a", &[]).routed("b", &["v1"]),
    &[("b", BOTH)],
    Some(1_500)
)]
#[case::nothing_is_there(seen().routed("a", &[]), &[], Some(2_000))]
#[case::no_object(warm(), &[], None)]
fn a_route_comes_a_while_after_what_it_leads_to(
    #[case] seen: Seen,
    #[case] expected: &[(&str, &[&str])],
    #[case] requeue: Option<u64>,
) {
    let (order, again) = of_reviews("", &switching(Phase::ProvingRoutes), &seen);
    assert_eq!((order.destinations, order.routes), (names(BOTH), routes(expected)));
    assert_eq!(again, requeue.map(Millis));
}

#[test]
fn the_next_route_is_looked_at_in_time_whatever_else_is_waited_for() {
    let seen = warm().destination("v2", there(JUST_NOW, true)).routed("a", &[]).quiet_since(NOW - 9_900);
    let plan = pass(&spec(""), &switching(Phase::Settling), &seen.clone().destination("v1", there(LONG_AGO, true)));
    assert_eq!(plan.requeue, Some(Millis(100)), "the quiet period is over before");
    let seen = seen.quiet_since(NOW);
    assert_eq!(pass(&spec(""), &switching(Phase::Settling), &seen).requeue, Some(Millis(1_500)));
}

/// What was left may still be led to by a proxy while it is removed, and by none after that; and by a route as long as
/// that is not written anew.
#[rstest]
#[case(Phase::Coexisting, &["v1", "v2"])]
#[case(Phase::Settling, &["v1", "v2"])]
#[case(Phase::Retaining, &["v1", "v2"])]
#[case(Phase::Removing, &["v1", "v2"])]
#[case(Phase::Stable, &["v2"])]
fn a_destination_outlives_its_routes(#[case] phase: Phase, #[case] kept: &[&str]) {
    let seen = warm().destination("v0", there(0, true));
    let (order, _) = of_reviews("", &switching(phase), &seen.clone().routed("a", kept));
    assert_eq!(order.destinations, names(kept));
    let (order, _) = of_reviews("", &switching(phase), &seen.routed("a", &["v0", "v1", "v2"]));
    assert_eq!(order.destinations, names(&["v0", "v1", "v2"]));
    let led_to = order.routes.get("a").unwrap();
    assert!(!led_to.contains("v0"), "it is no version of the record");
    assert_eq!(led_to.contains("v1"), !matches!(phase, Phase::Removing | Phase::Stable));
}

#[rstest]
#[case::managed("Istio", "Managed", None, true)]
#[case::by_the_gateway_api("GatewayAPI", "Managed", None, true)]
#[case::of_the_operator("Istio", "UserProvided", None, false)]
#[case::of_the_operator_by_the_gateway_api("GatewayAPI", "UserProvided", None, false)]
#[case::a_problem("Istio", "Managed", Some(Reason::Forbidden), false)]
#[case::a_problem_by_the_gateway_api("GatewayAPI", "Managed", Some(Reason::GatewayApiMissing), false)]
#[case::files("External", "Managed", None, true)]
#[case::files_whatever_is_wrong("External", "UserProvided", Some(Reason::Forbidden), true)]
fn routes_are_written_where_they_are_the_controllers(
    #[case] provider: &str,
    #[case] management: &str,
    #[case] problem: Option<Reason>,
    #[case] written: bool,
) {
    let more = format!("routing: {{provider: {provider}, management: {management}}}");
    let seen = warm().routed("a", &["v1"]);
    let seen = problem.map_or(seen.clone(), |reason| seen.problem(reason));
    let (order, requeue) = ordered(&more, &switching(Phase::ProvingRoutes), &seen);
    assert_eq!((order.is_some(), requeue), (written, None));
    let in_mesh = provider != "External";
    assert!(order.is_none_or(|order| order.services.contains_key("reviews") == in_mesh));
}

#[rstest]
#[case::may_be_what_it_goes_back_from(Reason::Forbidden, true)]
#[case::may_be_somebody_elses(Reason::ServiceTaken, false)]
fn a_rollback_writes_its_routes_past_what_only_stops_the_rest(#[case] problem: Reason, #[case] written: bool) {
    let seen = warm().routed("a", &["v2"]).problem(problem);
    let (order, _) = ordered("", &going_back(Phase::Settling), &seen);
    assert_eq!(order.is_some(), written);
}

/// What is wrong with the routes themselves is put right by writing them.
#[test]
fn a_problem_of_the_routes_does_not_keep_them_from_being_written() {
    for reason in [Reason::RoutesNotWritten, Reason::RouteConflict, Reason::RoutesPending] {
        let (order, _) = ordered("", &switching(Phase::ProvingRoutes), &warm().routes(reason));
        assert!(order.is_some());
    }
}

#[test]
fn a_service_that_was_not_seen_is_left_alone() {
    let (order, requeue) = ordered("", &switching(Phase::ProvingRoutes), &seen());
    assert_eq!((order.unwrap().services.len(), requeue), (0, None));
}
