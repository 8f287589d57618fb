//! What is decided about routes of the Gateway API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::domain::Domain;
use cluster::gateway_api::attach::Attached;
use cluster::gateway_api::check::{GatewayObjects, managed, user_provided};
use cluster::gateway_api::routes::{
    as_object, clusters, has_endpoints, http_route, route_name, routed, service, service_name, version_of,
};
use cluster::istio::check::RouteNeeds;
use cluster::istio::object::contains;
use cluster::service_facts::ServicePlace;
use machine::reason::Problem;
use rstest::rstest;
use serde_json::{Value, json};

use super::istio::record;
use crate::objects::{Cluster, parse, spec};

const HEADER: &str = "x-versionflag";

fn object<T: k8s_openapi::serde::de::DeserializeOwned>(name: &str, spec: &str) -> Arc<T> {
    let (namespace, name) = name.split_once('/').unwrap();
    Arc::new(parse(&format!("{{metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}")))
}

fn of_port(port: i32) -> Attached<'static> {
    Attached { name: route_name("reviews", port), port, gateway: None }
}

/// Namespace shop, with reviews on one port.
fn plain() -> GatewayObjects {
    let mut found = GatewayObjects::default();
    found.services.push(object("shop/reviews", "{selector: {app: reviews}, ports: [{port: 80, name: http}]}"));
    found
}

/// The same with Services of two versions that somebody else wrote.
fn with_versions() -> GatewayObjects {
    let mut found = plain();
    for version in ["v1", "v2"] {
        let spec = format!("{{selector: {{app: reviews, version: {version}}}, ports: [{{port: 80}}]}}");
        found.services.push(object(&format!("shop/mine-{version}"), &spec));
    }
    found
}

/// From v1 to v2, with callers in shop and web.
fn wanted_of(active: &'static str) -> RouteNeeds<'static> {
    type Names = (Domain, BTreeSet<String>, BTreeSet<String>);
    static NAMES: std::sync::OnceLock<Names> = std::sync::OnceLock::new();
    let set = |all: [&str; 2]| all.map(String::from).into();
    let (domain, versions, callers) =
        NAMES.get_or_init(|| (Domain::default(), set(["v1", "v2"]), set(["shop", "web"])));
    RouteNeeds {
        domain,
        namespace: "shop",
        service: "reviews",
        header: HEADER,
        label: "version",
        versions,
        active,
        ports: &[80],
        callers,
        gateway_places: const { &BTreeSet::new() },
        root: "istio-system",
        gateways: &[],
    }
}

const PARENT: &str = "parentRefs: [{group: '', kind: Service, name: reviews, namespace: shop}]";
const TO: &str = "backendRefs: [{name: reviews, namespace: shop, port: 80}]";

#[test]
fn what_is_written_leads_to_each_version_and_the_rest_to_the_active_one() {
    let found = plain();
    let record = record("reviews", 5, "v1", &["v1", "v2"]);
    let written = http_route("shop", "reviews", &of_port(80), HEADER, &record);
    assert_eq!(written.name(), "shop/versionflag-reviews-80");
    let rule = |rule: usize, version: &str, marked: bool| {
        let mut condition = json!({ "path": { "type": "PathPrefix", "value": "/" } });
        if marked {
            condition["headers"] = json!([{ "type": "Exact", "name": HEADER, "value": version }]);
        }
        let backend = json!({
            "group": "", "kind": "Service", "name": format!("reviews-{version}"), "port": 80, "weight": 1,
        });
        json!({ "name": format!("versionflag.{rule}.v1.v1.v2"), "matches": [condition], "backendRefs": [backend] })
    };
    let expected = json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": "reviews", "port": 80 }],
        "rules": [rule(0, "v1", true), rule(1, "v2", true), rule(2, "v1", false)],
    });
    assert_eq!(written.spec, expected);
    assert_eq!(routed(&written, HEADER), BTreeSet::from(["v1".to_owned(), "v2".to_owned()]));
    let of_version = service("shop", &found.services[0], "version", "v2");
    assert_eq!(of_version.name(), "shop/reviews-v2");
    assert_eq!(of_version.spec["selector"], json!({ "app": "reviews", "version": "v2" }));
    assert_eq!(serde_json::to_value(&of_version).unwrap()["apiVersion"], "v1");

    // It is no conflict, also beside the Services of versions.
    let mut all = GatewayObjects { http: vec![Arc::new(written)], ..plain() };
    for version in ["v1", "v2"] {
        let text = serde_json::to_string(&service("shop", &found.services[0], "version", version)).unwrap();
        all.services.push(Arc::new(parse(&text)));
        assert_eq!(version_of(all.services.last().unwrap(), &found.services[0], "version"), Some(version));
    }
    assert_eq!(managed(&wanted_of("v1"), &all), None);
    // And the operator's check would find nothing missing.
    assert_eq!(user_provided(&wanted_of("v1"), &all), None);
}

#[test]
fn a_port_of_a_node_and_what_the_api_fills_in_make_no_difference() {
    let whole = "{selector: {app: reviews}, type: NodePort, clusterIP: 10.0.0.1,
                  ports: [{name: http, port: 80, protocol: TCP, targetPort: 8080, nodePort: 30000}]}";
    let whole = object("shop/reviews", whole);
    let wanted = service("shop", &whole, "version", "v1");
    assert_eq!(wanted.spec["ports"], json!([{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }]));
    let there = object(
        "shop/reviews-v1",
        "{selector: {app: reviews, version: v1}, type: ClusterIP, clusterIP: 10.0.0.2,
          ports: [{name: http, port: 80, protocol: TCP, targetPort: 8080}]}",
    );
    assert!(contains(&as_object(&there).spec, &wanted.spec));
}

#[rstest]
#[case::plain("reviews", "v1", "reviews-v1")]
#[case::dots("reviews", "1.2.0", "reviews-1-2-0-")]
#[case::long("a-service-with-a-name-that-is-rather-long-already", "2026-11-24-0123456789", "a-service-with-a-name-")]
fn the_service_of_a_version_has_a_name_that_is_allowed(
    #[case] service: &str,
    #[case] version: &str,
    #[case] begins: &str,
) {
    let name = service_name(service, version);
    assert!(name.starts_with(begins) && name.len() <= 63, "{name}");
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{name}");
    assert_ne!(name, service_name(service, &format!("{version}0")));
}

#[test]
fn clusters_of_every_service_that_stands_for_a_version_are_known() {
    let found = with_versions();
    let named = clusters(&Domain::default(), "shop", &found.services[0], &found.services, "version", ["v1", "v9"]);
    let cluster = |name: &str| format!("outbound|80||{name}.shop.svc.cluster.local");
    assert_eq!(named["v1"], BTreeSet::from([cluster("reviews-v1"), cluster("mine-v1")]));
    assert_eq!(named["v9"], BTreeSet::from([cluster("reviews-v9")]));
    let domain: Domain = "corp.example".parse().unwrap();
    let elsewhere = clusters(&domain, "shop", &found.services[0], &found.services, "version", ["v9"]);
    assert_eq!(elsewhere["v9"], ["outbound|80||reviews-v9.shop.svc.corp.example".to_owned()].into());
    // The record has them by this provider only.
    let versions = BTreeSet::from(["v1".to_owned()]);
    for (provider, count) in [("GatewayAPI", 1), ("Istio", 0)] {
        let spec = spec(&format!(", routing: {{provider: {provider}}}"));
        let (domain, groups) = (Domain::default(), BTreeMap::new());
        let place = ServicePlace { domain: &domain, namespace: "shop", services: &found.services, groups: &groups };
        assert_eq!(place.in_mesh(&spec, &versions, None)["reviews"].clusters.len(), count, "{provider}");
    }
}

#[test]
fn a_service_has_endpoints_when_one_is_ready() {
    let mut cluster = Cluster::default();
    // F08: a slice without a port leads nowhere.
    cluster.slice("reviews-v1", &["a"]).slice("reviews-v2", &[]).slice_of("reviews-v3", "[]", &["a"]);
    let slices = &cluster.objects.slices;
    assert!(has_endpoints("reviews-v1", slices));
    assert!(!has_endpoints("reviews-v2", slices) && !has_endpoints("reviews-v3", slices));
    assert!(!has_endpoints("reviews-v4", slices));
}

#[rstest]
#[case::of_the_service("shop/mine", PARENT, true)]
#[case::of_a_caller("web/mine", PARENT, true)]
#[case::of_others("backend/mine", PARENT, false)]
#[case::of_another_service("shop/mine", "parentRefs: [{group: '', kind: Service, name: ratings}]", false)]
#[case::of_a_gateway("shop/mine", "parentRefs: [{name: reviews}]", false)]
#[case::elsewhere("web/mine", "parentRefs: [{group: '', kind: Service, name: reviews}]", false)]
#[case::a_name_that_is_needed("shop/versionflag-reviews-80", "parentRefs: []", true)]
#[case::a_name_for_another_port("shop/versionflag-reviews-81", "parentRefs: []", false)]
fn another_route_of_the_service_is_named(#[case] name: &str, #[case] parents: &str, #[case] conflict: bool) {
    for grpc in [false, true] {
        let (mut found, spec) = (plain(), format!("{{{parents}, rules: [{{{TO}}}]}}"));
        // Where it leads is another question.
        let spec =
            if conflict { spec } else { spec.replace("name: reviews, namespace: shop, port", "name: web, port") };
        let kind = if grpc {
            found.grpc.push(object(name, &spec));
            "GRPCRoute"
        } else {
            found.http.push(object(name, &spec));
            "HTTPRoute"
        };
        let problem = managed(&wanted_of("v1"), &found);
        assert_eq!(problem.is_some(), conflict, "{problem:?}");
        if let Some(problem) = problem {
            assert_eq!(problem.reason.name(), "RouteConflict");
            assert!(problem.message.starts_with(&format!("{kind} {name} ")), "{}", problem.message);
        }
    }
}

#[rstest]
#[case::of_the_host("{hosts: [reviews]}", Some("and Istio goes by them"))]
#[case::past_the_flag(
    "{hosts: [shop.example.com], gateways: [edge], http: [{route: [{destination: {host: reviews}}]}]}",
    Some("leads past the flag of Service reviews")
)]
// F22
#[case::mirrored(
    "{hosts: [a.example], http: [{route: [{destination: {host: ratings}}], mirror: {host: reviews}}]}",
    Some("it mirrors requests there")
)]
#[case::by_tcp(
    "{hosts: [a.example], tcp: [{route: [{destination: {host: reviews}}]}]}",
    Some("it has tcp routes there")
)]
#[case::of_others("{hosts: [reviews], exportTo: [backend]}", None)]
#[case::elsewhere("{hosts: [ratings]}", None)]
fn a_virtual_service_comes_first_and_is_named(#[case] spec: &str, #[case] why: Option<&str>) {
    for check in [managed, user_provided] {
        let mut found = with_versions();
        // Routes that would do.
        found.http.push(object("shop/mine", &provided(&[V1, V2, DEFAULT])));
        if check(&wanted_of("v1"), &found).is_some() {
            found.http.clear();
        }
        found.virtual_services.push(object("shop/theirs", spec));
        let problem = check(&wanted_of("v1"), &found);
        assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
        if let Some((problem, why)) = problem.zip(why) {
            assert!(problem.message.starts_with("VirtualService shop/theirs "), "{}", problem.message);
            assert!(problem.message.contains(why), "{}", problem.message);
        }
    }
}

// F22
#[rstest]
#[case::of_all("reviews", true)]
#[case::of_a_version("mine-v1", true)]
#[case::elsewhere("ratings", false)]
fn a_mirror_is_named(#[case] to: &str, #[case] said: bool) {
    type Check = fn(&RouteNeeds<'_>, &GatewayObjects) -> Option<Problem>;
    let checks: [(Check, bool, bool); 3] =
        [(managed, false, false), (user_provided, true, false), (user_provided, true, true)];
    for (check, provides, in_it) in checks {
        let mut found = with_versions();
        let mirror =
            format!("filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: {to}, port: 80}}}}}}]");
        if provides && !in_it {
            found.http.push(object("shop/mine", &provided(&[V1, V2, DEFAULT])));
        }
        let spec = match in_it {
            false => format!(
                "{{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: ratings, port: 80}}], {mirror}}}]}}"
            ),
            true => provided(&[V1, V2, &DEFAULT.replace("backendRefs", &format!("{mirror}, backendRefs"))]),
        };
        found.http.push(object("shop/theirs", &spec));
        let problem = check(&wanted_of("v1"), &found);
        assert_eq!(problem.is_some(), said, "{problem:?}");
        let expected = "HTTPRoute shop/theirs leads past the flag of Service reviews: it mirrors requests there";
        assert!(problem.is_none_or(|problem| problem.message.starts_with(expected)));
    }
}

#[test]
fn a_service_that_has_a_name_that_is_needed_has_to_select_the_same() {
    for (selector, conflict) in
        [("{app: reviews, version: v2}", false), ("{app: reviews}", true), ("{app: other}", true)]
    {
        let mut found = plain();
        found.services.push(object("shop/reviews-v2", &format!("{{selector: {selector}, ports: [{{port: 80}}]}}")));
        let problem = managed(&wanted_of("v1"), &found);
        assert_eq!(problem.is_some(), conflict, "{selector}: {problem:?}");
        if let Some(problem) = problem {
            assert!(problem.message.starts_with("Service shop/reviews-v2 has a name"), "{}", problem.message);
            assert_eq!(parse::<Value>(&problem.fix)["selector"]["version"], "v2");
        }
    }
}

const V1: &str = "{matches: [{headers: [{name: X-VersionFlag, value: v1}]}], backendRefs: [{name: mine-v1, port: 80}]}";
const V2: &str = "{matches: [{headers: [{name: x-versionflag, value: v2}]}], backendRefs: [{name: mine-v2, port: 80}]}";
const DEFAULT: &str = "{backendRefs: [{name: mine-v1, port: 80}]}";
const PATH: &str = "{matches: [{path: {type: PathPrefix, value: /a}}], backendRefs: [{name: mine-v1, port: 80}]}";

fn provided(rules: &[&str]) -> String {
    format!("{{{PARENT}, rules: [{}]}}", rules.join(", "))
}

#[rstest]
#[case::all(&[V1, V2, DEFAULT], None)]
#[case::any_order(&[DEFAULT, V2, V1], None)]
#[case::said_at_length(&[V1, "{matches: [{path: {type: PathPrefix, value: /}, headers: [{type: Exact, name: x-versionflag, value: v2}]}], backendRefs: [{group: '', kind: Service, namespace: shop, name: mine-v2, port: 80, weight: 1}]}", DEFAULT], None)]
#[case::other_paths_elsewhere(&["{matches: [{path: {value: /r}}], backendRefs: [{name: ratings, port: 80}]}", V1, V2, DEFAULT], None)]
#[case::no_rule(&[V1, DEFAULT], Some("HTTPRoute shop/mine does not resolve v2 of Service reviews"))]
#[case::some_paths(&[V1, V2, PATH, DEFAULT], Some("does not resolve v1"))]
#[case::by_a_pattern(&[V1, "{matches: [{headers: [{type: RegularExpression, name: x-versionflag, value: v2}]}], backendRefs: [{name: mine-v2, port: 80}]}", DEFAULT], Some("does not resolve v2"))]
#[case::any_value_too(&["{matches: [{headers: [{type: RegularExpression, name: x-versionflag, value: .*}]}], backendRefs: [{name: mine-v1, port: 80}]}", V1, V2, DEFAULT], Some("a rule takes several values of the header"))]
#[case::for_some_users(&[V1, "{matches: [{headers: [{name: x-versionflag, value: v2}, {name: user, value: me}]}], backendRefs: [{name: mine-v2, port: 80}]}", DEFAULT], Some("does not resolve v2"))]
#[case::to_the_wrong_version(&[V1, "{matches: [{headers: [{name: x-versionflag, value: v2}]}], backendRefs: [{name: mine-v1, port: 80}]}", DEFAULT], Some("does not resolve v2"))]
#[case::to_two_versions(&[V1, "{matches: [{headers: [{name: x-versionflag, value: v2}]}], backendRefs: [{name: mine-v1, port: 80, weight: 1}, {name: mine-v2, port: 80, weight: 9}]}", DEFAULT], Some("does not resolve v2"))]
#[case::to_any(&[V1, "{matches: [{headers: [{name: x-versionflag, value: v2}]}], backendRefs: [{name: reviews, port: 80}]}", DEFAULT], Some("does not resolve v2"))]
#[case::no_default(&[V1, V2], Some("without a version do not go to v1, which is active: correct HTTPRoute shop/mine"))]
#[case::wrong_default(&[V1, V2, "{backendRefs: [{name: mine-v2, port: 80}]}"], Some("without a version do not go to v1"))]
#[case::default_to_any(&[V1, V2, "{backendRefs: [{name: reviews, port: 80}]}"], Some("without a version do not go to v1"))]
fn every_version_needs_a_rule_of_the_operators(#[case] rules: &[&str], #[case] why: Option<&str>) {
    let mut found = with_versions();
    found.http.push(object("shop/mine", &provided(rules)));
    let problem = user_provided(&wanted_of("v1"), &found);
    assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
    if let Some((problem, why)) = problem.zip(why) {
        let reason =
            if why.contains("resolve") || why.contains("several values") { "RouteMissing" } else { "RouteDefault" };
        assert_eq!(problem.reason.name(), reason);
        assert!(problem.message.contains(why), "{}", problem.message);
    }
}

/// Each snippet, applied, leads to the next, until nothing is missing.
#[test]
fn what_is_missing_is_given_as_it_has_to_be() {
    let mut found = plain();
    for version in ["v1", "v2"] {
        let problem = user_provided(&wanted_of("v1"), &found).unwrap();
        assert_eq!(problem.message, format!("there is no Service for {version} of Service reviews"));
        found.services.push(Arc::new(parse(&problem.fix)));
    }
    let problem = user_provided(&wanted_of("v1"), &found).unwrap();
    assert_eq!(problem.message, "there is no HTTPRoute for port 80 of Service reviews");
    let mut route: Value = parse(&problem.fix);
    let complete = parse(&route.to_string());
    assert_eq!(
        user_provided(&wanted_of("v1"), &GatewayObjects { http: vec![Arc::new(complete)], ..found.clone() }),
        None
    );
    // One that began with a path of its own.
    route["spec"]["rules"] = json!([{
        "matches": [{ "path": { "type": "PathPrefix", "value": "/a" }, "headers": [{ "name": "user", "value": "me" }] }],
        "backendRefs": [{ "name": "reviews-v1", "port": 80 }],
    }]);
    let mut steps = 0;
    loop {
        found.http = vec![Arc::new(parse(&route.to_string()))];
        let Some(problem) = user_provided(&wanted_of("v1"), &found) else { break };
        let more: Value = parse(&problem.fix);
        route["spec"]["rules"].as_array_mut().unwrap().push(more["rules"][0].clone());
        steps += 1;
        assert!(steps < 9, "{route}");
    }
    assert_eq!(steps, 5, "v1 and v2 for that path, both for all else, and the default: {route}");
}

#[test]
fn two_routes_of_a_port_are_told_and_two_ports_may_have_one_each() {
    let mut found = with_versions();
    for name in ["shop/one", "web/two"] {
        found.http.push(object(name, &provided(&[V1, V2, DEFAULT])));
    }
    let problem = user_provided(&wanted_of("v1"), &found).unwrap();
    assert_eq!(problem.reason.name(), "RouteConflict");
    assert!(problem.message.starts_with("HTTPRoute shop/one and HTTPRoute web/two both"), "{}", problem.message);
    let of_port = |port: u16| {
        provided(&[V1, V2, DEFAULT]).replace("namespace: shop}]", &format!("namespace: shop, port: {port}}}]"))
    };
    found.http = vec![object("shop/one", &of_port(80)), object("shop/two", &of_port(81))];
    assert_eq!(user_provided(&wanted_of("v1"), &found), None);
}

/// Routes of a gateway that lead to reviews.
#[rstest]
#[case::past_the_flag(&["{backendRefs: [{name: reviews, namespace: shop, port: 80}]}"], Some("it has no rule for v1"))]
#[case::by_version(
    &["{matches: [{path: {value: /r}, headers: [{name: x-versionflag, value: v1}]}], backendRefs: [{name: mine-v1, namespace: shop, port: 80}]}",
      "{matches: [{path: {value: /r}, headers: [{name: x-versionflag, value: v2}]}], backendRefs: [{name: mine-v2, namespace: shop, port: 80}]}",
      "{matches: [{path: {value: /r}}], backendRefs: [{name: mine-v1, namespace: shop, port: 80}]}"],
    None
)]
#[case::wrong_default(
    &["{matches: [{headers: [{name: x-versionflag, value: v1}]}], backendRefs: [{name: mine-v1, namespace: shop, port: 80}]}",
      "{matches: [{headers: [{name: x-versionflag, value: v2}]}], backendRefs: [{name: mine-v2, namespace: shop, port: 80}]}",
      "{backendRefs: [{name: mine-v2, namespace: shop, port: 80}]}"],
    Some("requests without a version do not go to v1 there")
)]
#[case::no_share(&["{backendRefs: [{name: reviews, namespace: shop, port: 80, weight: 0}]}"], None)]
#[case::another_of_the_name(&["{backendRefs: [{name: reviews, port: 80}]}"], None)]
fn a_gateway_that_leads_past_the_flag_is_named(#[case] rules: &[&str], #[case] why: Option<&str>) {
    let mut found = with_versions();
    let spec = format!("{{parentRefs: [{{name: edge}}], rules: [{}]}}", rules.join(", "));
    found.http.push(object("web/gateway", &spec));
    let problem = managed(&wanted_of("v1"), &found);
    assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
    if let Some((problem, why)) = problem.zip(why) {
        assert_eq!(problem.reason.name(), "RouteConflict");
        assert!(problem.message.starts_with("HTTPRoute web/gateway leads past the flag"), "{}", problem.message);
        assert!(problem.message.contains(why), "{}", problem.message);
        assert!(problem.fix.contains("mine-v1"), "{}", problem.fix);
    }
}

/// Two Services of versions that would have one name: each flag says so, and neither takes the other's.
#[test]
fn two_versions_with_one_service_are_named() {
    let mut found = plain();
    let other: k8s_openapi::api::core::v1::Service =
        parse("{metadata: {name: reviews-v2, namespace: shop}, spec: {selector: {app: more}, ports: [{port: 80}]}}");
    let theirs = service("shop", &other, "version", "canary");
    found.services.push(Arc::new(other));
    let versions = BTreeSet::from(["v1".to_owned(), "v2-canary".to_owned()]);
    let wanted = RouteNeeds { versions: &versions, ..wanted_of("v1") };
    assert_eq!(managed(&wanted, &found), None);
    found.services.push(Arc::new(parse(&serde_json::to_string(&theirs).unwrap())));
    let problem = managed(&wanted, &found).unwrap();
    let words =
        "Service shop/reviews-v2-canary is that of canary of Service reviews-v2, and would be that of v2-canary";
    assert!(problem.message.starts_with(words), "{}", problem.message);
}
