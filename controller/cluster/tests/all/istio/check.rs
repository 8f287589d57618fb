//! Whether routes let the flag decide.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::domain::Domain;
use cluster::istio::check::{IstioObjects, RouteNeeds, managed, user_provided};
use cluster::istio::routes::{RouteSource, destination_rule, virtual_service};
use machine::reason::Problem;
use rstest::rstest;

use super::{everybody, record};
use crate::objects::parse;

/// A VirtualService `NAMESPACE/NAME` with this spec.
pub(super) fn service(found: &mut IstioObjects, name: &str, spec: &str) {
    let (namespace, name) = name.split_once('/').unwrap();
    let object = parse(&format!("{{metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}"));
    found.services.push(Arc::new(object));
}

pub(super) fn rule(found: &mut IstioObjects, name: &str, spec: &str) {
    let (namespace, name) = name.split_once('/').unwrap();
    let object = parse(&format!("{{metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}"));
    found.rules.push(Arc::new(object));
}

/// From v1 to v2, with callers in shop and web.
pub(crate) fn asked(check: impl Fn(&RouteNeeds<'_>) -> Option<Problem>) -> Option<Problem> {
    let versions = BTreeSet::from(["v1".to_owned(), "v2".to_owned()]);
    let callers = BTreeSet::from(["shop".to_owned(), "web".to_owned()]);
    check(&RouteNeeds {
        domain: &Domain::default(),
        namespace: "shop",
        service: "reviews",
        header: "x-versionflag",
        label: "version",
        versions: &versions,
        active: "v1",
        ports: &[80],
        callers: &callers,
        gateway_places: &BTreeSet::from(["edge".to_owned()]),
        root: "istio-system",
        gateways: &[],
    })
}

/// What the controller writes.
pub(super) fn written() -> IstioObjects {
    let record = record("reviews", 5, "v1", &["v1", "v2"]);
    let export_to = &everybody();
    let source = RouteSource {
        domain: &Domain::default(),
        namespace: "shop",
        service: "reviews",
        header: "x-versionflag",
        record: &record,
        export_to,
    };
    let rule = destination_rule(&Domain::default(), "shop", "reviews", "version", ["v1", "v2"], export_to);
    IstioObjects { services: vec![Arc::new(virtual_service(&source))], rules: vec![Arc::new(rule)] }
}

const ANY: &str = "http: [{route: [{destination: {host: reviews.shop.svc.cluster.local}}]}]";

#[test]
fn the_controllers_own_routes_are_no_conflict() {
    assert_eq!(asked(|wanted| managed(wanted, &written())), None);
    assert_eq!(asked(|wanted| managed(wanted, &IstioObjects::default())), None);
}

#[rstest]
#[case::short("shop/mine", "{hosts: [reviews]}", true)]
#[case::namespaced("web/mine", "{hosts: [reviews.shop]}", true)]
#[case::full("web/mine", "{hosts: [other, reviews.shop.svc.cluster.local]}", true)]
#[case::the_mesh_by_name("shop/mine", "{hosts: [reviews], gateways: [mesh, edge]}", true)]
#[case::a_gateway_only("shop/mine", "{hosts: [reviews], gateways: [edge]}", false)]
#[case::another_of_the_name("web/mine", "{hosts: [reviews]}", false)]
#[case::another_service("shop/mine", "{hosts: [ratings]}", false)]
// The controller's has the more exact host.
#[case::a_pattern("shop/mine", "{hosts: ['*.shop.svc.cluster.local']}", false)]
#[case::for_others("shop/mine", "{hosts: [reviews], exportTo: [backend]}", false)]
#[case::for_a_caller("shop/mine", "{hosts: [reviews], exportTo: [web]}", true)]
#[case::for_its_own_namespace("shop/mine", "{hosts: [reviews], exportTo: ['.']}", true)]
#[case::for_its_own_which_does_not_call("backend/mine", "{hosts: [reviews.shop], exportTo: ['.']}", false)]
#[case::a_name_that_is_needed("shop/versionflag-reviews", "{hosts: [other]}", true)]
#[case::another_name_that_is_needed("shop/versionflag-reviews-delegate", "{hosts: []}", true)]
#[case::that_name_elsewhere("web/versionflag-reviews", "{hosts: [other]}", false)]
fn another_virtual_service_of_the_host_is_named(#[case] name: &str, #[case] spec: &str, #[case] conflict: bool) {
    let mut found = written();
    service(&mut found, name, spec);
    let problem = asked(|wanted| managed(wanted, &found));
    assert_eq!(problem.is_some(), conflict, "{problem:?}");
    if let Some(problem) = problem {
        assert_eq!(problem.reason.name(), "RouteConflict");
        assert!(problem.message.contains(&format!("VirtualService {name} ")), "{}", problem.message);
    }
}

/// Routes of another host that lead to reviews.
#[rstest]
#[case::past_the_flag(ANY, Some("it has no route for v1"))]
#[case::to_one_subset(
    "http: [{route: [{destination: {host: reviews.shop, subset: v1}}]}]",
    Some("it has no route for v1")
)]
#[case::a_part_of_it(
    "http: [{route: [{destination: {host: ratings}, weight: 90}, {destination: {host: reviews.shop}, weight: 10}]}]",
    Some("it has no route for v1")
)]
#[case::no_share_of_it(
    "http: [{route: [{destination: {host: ratings}, weight: 100}, {destination: {host: reviews.shop}, weight: 0}]}]",
    None
)]
#[case::elsewhere("http: [{route: [{destination: {host: ratings}}]}]", None)]
#[case::delegated(
    "http: [{match: [{uri: {prefix: /r}}], delegate: {name: versionflag-reviews-delegate, namespace: shop}}]",
    None
)]
#[case::by_version(
    "http: [
       {match: [{uri: {prefix: /r}, headers: {x-versionflag: {exact: v1}}}], route: [{destination: {host: reviews.shop, subset: v1}}]},
       {match: [{uri: {prefix: /r}, headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews.shop, subset: v2}}]},
       {match: [{uri: {prefix: /r}}], route: [{destination: {host: reviews.shop, subset: v1}}]}]",
    None
)]
// F22
#[case::mirrored(
    "http: [{route: [{destination: {host: ratings}}], mirror: {host: reviews.shop, subset: v1}}]",
    Some("it mirrors requests there")
)]
#[case::mirrored_to_several(
    "http: [{route: [{destination: {host: ratings}}], mirrors: [{destination: {host: ratings}}, {destination: {host: reviews.shop}}]}]",
    Some("it mirrors requests there")
)]
#[case::mirrored_elsewhere("http: [{route: [{destination: {host: ratings}}], mirror: {host: ratings}}]", None)]
#[case::by_tcp("tcp: [{route: [{destination: {host: reviews.shop}}]}]", Some("it has tcp routes there"))]
#[case::by_tls(
    "tls: [{match: [{sniHosts: [a.example]}], route: [{destination: {host: reviews.shop}}]}]",
    Some("it has tls routes there")
)]
#[case::by_tcp_elsewhere("tcp: [{route: [{destination: {host: ratings}}]}]", None)]
// Item 5 of F22: whatever the header says.
#[case::any_version_before(
    "http: [
       {match: [{headers: {x-versionflag: {regex: v.}}}], route: [{destination: {host: reviews.shop, subset: v1}}]},
       {match: [{headers: {x-versionflag: {exact: v1}}}], route: [{destination: {host: reviews.shop, subset: v1}}]},
       {match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews.shop, subset: v2}}]},
       {route: [{destination: {host: reviews.shop, subset: v1}}]}]",
    Some("a route for other values of the header comes before that for v2")
)]
#[case::any_version_after(
    "http: [
       {match: [{headers: {x-versionflag: {exact: v1}}}], route: [{destination: {host: reviews.shop, subset: v1}}]},
       {match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews.shop, subset: v2}}]},
       {match: [{headers: {x-versionflag: {}}}], route: [{destination: {host: reviews.shop, subset: v1}}]},
       {route: [{destination: {host: reviews.shop, subset: v1}}]}]",
    None
)]
#[case::by_version_with_the_wrong_default(
    "http: [
       {match: [{headers: {x-versionflag: {exact: v1}}}], route: [{destination: {host: reviews.shop, subset: v1}}]},
       {match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews.shop, subset: v2}}]},
       {route: [{destination: {host: reviews.shop, subset: v2}}]}]",
    Some("requests without a version do not go to v1")
)]
fn a_way_past_the_flag_is_named(#[case] http: &str, #[case] why: Option<&str>) {
    for gateways in ["", "gateways: [edge], "] {
        let mut found = written();
        service(&mut found, "web/mine", &format!("{{hosts: [shop.example.com], {gateways}{http}}}"));
        let problem = asked(|wanted| managed(wanted, &found));
        assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
        if let Some((problem, why)) = problem.zip(why) {
            assert!(problem.message.contains(why), "{}", problem.message);
            // What is no request cannot be delegated.
            let delegates = problem.message.ends_with("let it delegate");
            assert_eq!(delegates, problem.fix.contains("name: versionflag-reviews-delegate"), "{}", problem.fix);
            assert!(
                delegates || ["mirrors", "tcp", "tls"].iter().any(|it| problem.message.contains(it)),
                "{problem:?}"
            );
        }
    }
}

#[rstest]
// Istio makes one of both.
#[case::a_policy("shop/mine", "{host: reviews, trafficPolicy: {tls: {mode: DISABLE}}}", None)]
#[case::other_subsets("shop/mine", "{host: reviews, subsets: [{name: blue, labels: {colour: blue}}]}", None)]
#[case::the_same_subset("shop/mine", "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}", None)]
#[case::an_equal_name(
    "shop/mine",
    "{host: reviews, subsets: [{name: v1, labels: {colour: blue}}]}",
    Some("has a subset v1")
)]
#[case::a_narrower_one(
    "shop/mine",
    "{host: reviews, subsets: [{name: v1, labels: {version: v1, colour: blue}}]}",
    Some("has a subset v1")
)]
#[case::not_for_all("shop/mine", "{host: reviews, exportTo: ['.']}", Some("set its exportTo to [\"*\"]"))]
#[case::for_others("backend/mine", "{host: reviews.shop, exportTo: ['.']}", None)]
#[case::some_clients(
    "shop/mine",
    "{host: reviews, workloadSelector: {matchLabels: {a: b}}, exportTo: ['.']}",
    Some("is for some pods")
)]
#[case::some_clients_with_all(
    "shop/mine",
    "{host: reviews, workloadSelector: {matchLabels: {a: b}}, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
    None
)]
#[case::a_name_that_is_needed("shop/versionflag-reviews", "{host: reviews}", Some("rename it"))]
fn a_rule_that_is_not_merged_is_named(#[case] name: &str, #[case] spec: &str, #[case] why: Option<&str>) {
    let mut found = IstioObjects { rules: vec![], ..written() };
    rule(&mut found, name, spec);
    let problem = asked(|wanted| managed(wanted, &found));
    assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
    if let Some((problem, why)) = problem.zip(why) {
        assert_eq!(problem.reason.name(), "RouteConflict");
        assert!(problem.message.starts_with(&format!("DestinationRule {name} ")), "{}", problem.message);
        assert!(problem.message.contains(why), "{}", problem.message);
    }
}

const SUBSETS: &str =
    "{host: reviews, subsets: [{name: old, labels: {version: v1}}, {name: new, labels: {version: v2, more: x}}]}";
const V1: &str =
    "{match: [{headers: {x-versionflag: {exact: v1}}}], route: [{destination: {host: reviews, subset: old}}]}";
const V2: &str =
    "{match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews, subset: new}}]}";
const DEFAULT: &str = "{route: [{destination: {host: reviews, subset: old}}]}";

fn provided(http: &[&str], rules: &str) -> Option<Problem> {
    let mut found = IstioObjects::default();
    rule(&mut found, "shop/mine", rules);
    service(&mut found, "shop/mine", &format!("{{hosts: [reviews], http: [{}]}}", http.join(", ")));
    asked(|wanted| user_provided(wanted, &found))
}

#[rstest]
#[case::all(&[V1, V2, DEFAULT], None)]
#[case::any_order(&[V2, V1, DEFAULT], None)]
#[case::no_default(&[V1, V2], None)]
#[case::whole_by_path(&[V1, "{match: [{headers: {x-versionflag: {exact: v2}}, uri: {prefix: /}}], route: [{destination: {host: reviews, subset: new}}]}", DEFAULT], None)]
#[case::other_paths_elsewhere(&["{match: [{uri: {prefix: /ratings}}], route: [{destination: {host: ratings}}]}", V1, V2, DEFAULT], None)]
#[case::redirected_paths(&["{match: [{uri: {exact: /old}}], redirect: {uri: /new}}", V1, V2, DEFAULT], None)]
#[case::no_route(&[V1, DEFAULT], Some("does not resolve v2 of Service reviews: it has no route for the header x-versionflag: v2"))]
#[case::for_some_paths(&[V1, "{match: [{headers: {x-versionflag: {exact: v2}}, uri: {prefix: /a}}], route: [{destination: {host: reviews, subset: new}}]}", DEFAULT], Some("a route without the header comes before"))]
#[case::for_some_users(&[V1, "{match: [{headers: {x-versionflag: {exact: v2}, user: {exact: me}}}], route: [{destination: {host: reviews, subset: new}}]}"], Some("it has no route for the header x-versionflag: v2"))]
#[case::too_late(&[V1, DEFAULT, V2], Some("a route without the header comes before"))]
#[case::behind_a_redirect(&[V1, "{redirect: {uri: /}}", V2], Some("it has no route for the header x-versionflag: v2"))]
#[case::some_paths_before(&["{match: [{uri: {prefix: /a}}], route: [{destination: {host: reviews, subset: old}}]}", V1, V2, DEFAULT], Some("does not resolve v1 of Service reviews: a route without"))]
#[case::to_the_wrong_subset(&[V1, "{match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews, subset: old}}]}", DEFAULT], Some("its route for v2 leads elsewhere"))]
#[case::to_two_subsets(&[V1, "{match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews, subset: new}, weight: 99}, {destination: {host: reviews, subset: old}, weight: 1}]}", DEFAULT], Some("its route for v2 leads elsewhere"))]
#[case::to_no_subset(&[V1, "{match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: reviews}}]}", DEFAULT], Some("its route for v2 leads elsewhere"))]
#[case::to_another_service(&[V1, "{match: [{headers: {x-versionflag: {exact: v2}}}], route: [{destination: {host: ratings}}]}", DEFAULT], Some("its route for v2 leads elsewhere"))]
#[case::any_value_before(&["{match: [{headers: {x-versionflag: {regex: '.*'}}}], route: [{destination: {host: reviews, subset: old}}]}", V1, V2, DEFAULT], Some("does not resolve v2 of Service reviews: a route for other values of the header"))]
#[case::by_a_prefix(&[V1, "{match: [{headers: {x-versionflag: {prefix: v2}}}], route: [{destination: {host: reviews, subset: new}}]}", DEFAULT], Some("does not resolve v2"))]
fn every_version_needs_a_route_of_the_operators(#[case] http: &[&str], #[case] why: Option<&str>) {
    let problem = provided(http, SUBSETS);
    assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
    if let Some((problem, why)) = problem.zip(why) {
        assert_eq!(problem.reason.name(), "RouteMissing");
        assert!(problem.message.starts_with("VirtualService shop/mine does not resolve v"), "{}", problem.message);
        assert!(problem.message.contains(why), "{}", problem.message);
    }
}

// F22
#[rstest]
#[case::mirrored(
    "web/other",
    "{hosts: [other], http: [{route: [{destination: {host: other}}], mirror: {host: reviews.shop}}]}",
    "mirrors"
)]
#[case::past_the_flag(
    "web/other",
    "{hosts: [other], http: [{route: [{destination: {host: reviews.shop}}]}]}",
    "has no route for v1"
)]
#[case::by_tcp(
    "edge/other",
    "{hosts: [other], gateways: [edge], tcp: [{route: [{destination: {host: reviews.shop}}]}]}",
    "tcp routes"
)]
fn a_way_past_the_operators_routes_is_named(#[case] name: &str, #[case] spec: &str, #[case] why: &str) {
    let mut found = IstioObjects::default();
    rule(&mut found, "shop/mine", SUBSETS);
    service(&mut found, "shop/mine", &format!("{{hosts: [reviews], http: [{V1}, {V2}, {DEFAULT}]}}"));
    assert_eq!(asked(|wanted| user_provided(wanted, &found)), None);
    service(&mut found, name, spec);
    let problem = asked(|wanted| user_provided(wanted, &found)).unwrap();
    assert_eq!(problem.reason.name(), "RouteConflict");
    assert!(problem.message.starts_with(&format!("VirtualService {name} leads past the flag")), "{}", problem.message);
    assert!(problem.message.contains(why), "{}", problem.message);
}

// F06
#[test]
fn a_delegation_to_several_ports_has_to_say_which() {
    let delegating = |name: &str| {
        let mut found = written();
        let spec = format!(
            "{{hosts: [a.example], gateways: [edge], http: [{{delegate: {{name: {name}, namespace: shop}}}}]}}"
        );
        service(&mut found, "edge/edge", &spec);
        let several = |wanted: &RouteNeeds<'_>| managed(&RouteNeeds { ports: &[80, 90], ..*wanted }, &found);
        assert_eq!(asked(|wanted| managed(wanted, &found)), None);
        asked(several)
    };
    let problem = delegating("versionflag-reviews-delegate").unwrap();
    assert!(
        problem.message.ends_with("delegate to versionflag-reviews-delegate-80 or versionflag-reviews-delegate-90")
    );
    assert_eq!(delegating("versionflag-reviews-delegate-90"), None);
}

#[test]
fn the_default_has_to_go_to_the_active_version() {
    for wrong in ["new", "''"] {
        let default = format!("{{route: [{{destination: {{host: reviews, subset: {wrong}}}}}]}}");
        let problem = provided(&[V1, V2, &default], SUBSETS).unwrap();
        assert_eq!(problem.reason.name(), "RouteDefault");
        assert!(problem.message.contains("without a version do not go to v1, which is active"), "{}", problem.message);
        assert!(problem.fix.contains("subset: v1"), "{}", problem.fix);
    }
}

#[test]
fn what_is_missing_is_given_as_it_has_to_be() {
    let problem = provided(&[V1, DEFAULT], SUBSETS).unwrap();
    let snippet: serde_json::Value = parse(&problem.fix);
    let route = serde_json::json!({
        "match": [{ "headers": { "x-versionflag": { "exact": "v2" } } }],
        "route": [{ "destination": { "host": "reviews.shop.svc.cluster.local", "subset": "v2" } }],
    });
    assert_eq!(snippet, serde_json::json!({ "http": [route] }));

    let problem = provided(&[V1, V2], "{host: reviews, subsets: [{name: old, labels: {version: v1}}]}").unwrap();
    assert_eq!(problem.message, "no DestinationRule of Service reviews has a subset for v2");
    let snippet: serde_json::Value = parse(&problem.fix);
    let subsets = serde_json::json!([{ "name": "v2", "labels": { "version": "v2" } }]);
    assert_eq!(snippet, serde_json::json!({ "host": "reviews.shop.svc.cluster.local", "subsets": subsets }));

    // What is given suffices.
    let problem = asked(|wanted| user_provided(wanted, &IstioObjects::default())).unwrap();
    assert_eq!(problem.message, "there is no VirtualService for Service reviews");
    let found = IstioObjects { services: vec![Arc::new(parse(&problem.fix))], ..written() };
    assert_eq!(asked(|wanted| user_provided(wanted, &found)), None);
}

#[rstest]
#[case::two(&[("shop/one", "{hosts: [reviews]}"), ("web/two", "{hosts: [reviews.shop]}")], "RouteConflict", "VirtualServices shop/one and web/two both")]
#[case::not_for_all(&[("shop/one", "{hosts: [reviews], exportTo: ['.']}")], "RouteMissing", "is not seen by all callers")]
#[case::for_a_gateway(&[("shop/one", "{hosts: [reviews], gateways: [edge]}")], "RouteMissing", "there is no VirtualService")]
fn the_operators_routes_have_to_be_for_all_callers(
    #[case] services: &[(&str, &str)],
    #[case] reason: &str,
    #[case] why: &str,
) {
    let mut found = IstioObjects::default();
    services.iter().for_each(|(name, spec)| service(&mut found, name, spec));
    let problem = asked(|wanted| user_provided(wanted, &found)).unwrap();
    assert_eq!(problem.reason.name(), reason);
    assert!(problem.message.contains(why), "{}", problem.message);
}
