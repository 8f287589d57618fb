//! Routes that are attached to Gateways.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::domain::Domain;
use cluster::gateway_api::attach::all;
use cluster::gateway_api::check::{GatewayObjects, managed, user_provided};
use cluster::gateway_api::routes::{http_route, routed, service};
use cluster::istio::check::RouteNeeds;
use cluster::istio::object::{HTTPRoute, MeshObject};
use cluster::prune::Trim;
use k8s_openapi::api::core::v1::Service;
use machine::reason::Problem;
use machine::spec::Attachment;
use rstest::rstest;
use serde_json::{Value, json};

use super::istio::record;
use crate::objects::parse;

const HEADER: &str = "x-versionflag";

fn service_of(name: &str, ports: &[i32]) -> Service {
    let ports: Vec<String> = ports.iter().map(|port| format!("{{port: {port}, name: http-{port}}}")).collect();
    parse(&format!(
        "{{metadata: {{name: {name}, namespace: shop}}, spec: {{selector: {{app: {name}}}, ports: [{}]}}}}",
        ports.join(", ")
    ))
}

/// Service reviews of namespace shop.
fn whole(ports: &[i32]) -> Service {
    service_of("reviews", ports)
}

fn attachments(all: &[&str]) -> Vec<Attachment> {
    all.iter().map(|one| parse(&format!("{{{one}}}"))).collect()
}

/// The names of the routes of gateways, and what is wrong.
fn named(ports: &[i32], gateways: &[&str]) -> (Vec<String>, Vec<String>) {
    let (whole, gateways) = (whole(ports), attachments(gateways));
    let (found, wrong) = all("shop", &whole, &gateways);
    assert_eq!(found.iter().filter(|one| one.gateway.is_none()).count(), ports.len());
    (found.into_iter().filter(|one| one.gateway.is_some()).map(|one| one.name).collect(), wrong)
}

/// The route of one Gateway, as it is written.
fn written(gateway: &str) -> MeshObject<HTTPRoute> {
    let (whole, gateways) = (whole(&[80]), attachments(&[gateway]));
    let (found, wrong) = all("shop", &whole, &gateways);
    assert_eq!(wrong, Vec::<String>::new());
    http_route("shop", "reviews", found.last().unwrap(), HEADER, &record("reviews", 5, "v1", &["v1", "v2"]))
}

#[test]
fn what_is_written_for_a_gateway_leads_to_each_version_and_the_rest_to_the_active_one() {
    let gateway = "name: public, namespace: edge, sectionName: https, hostnames: [shop.example], path: /reviews";
    let route = written(gateway);
    assert!(route.name().starts_with("shop/versionflag-reviews-80-gateway-"), "{}", route.name());
    let parent = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "edge", "name": "public",
        "sectionName": "https",
    });
    assert_eq!(route.spec["parentRefs"], json!([parent]));
    assert_eq!(route.spec["hostnames"], json!(["shop.example"]));
    let rules = route.spec["rules"].as_array().unwrap();
    let short = |rule: &Value| {
        let one = &rule["matches"][0];
        assert_eq!(one["path"], json!({ "type": "PathPrefix", "value": "/reviews" }));
        (rule["name"].clone(), one["headers"][0]["value"].clone(), rule["backendRefs"][0]["name"].clone())
    };
    let rule =
        |index: usize, marked: Value, to: &str| (json!(format!("versionflag.{index}.v1.v1.v2")), marked, json!(to));
    let expected =
        [rule(0, json!("v1"), "reviews-v1"), rule(1, json!("v2"), "reviews-v2"), rule(2, json!(null), "reviews-v1")];
    assert_eq!(rules.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(routed(&route, HEADER), BTreeSet::from(["v1".to_owned(), "v2".to_owned()]));
    // What is not asked for is left to the Gateway. No hostnames are said, so that none of before stay.
    let near = written("name: public");
    let parent = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop", "name": "public",
    });
    assert_eq!((&near.spec["parentRefs"], &near.spec["hostnames"]), (&json!([parent]), &json!([])));
}

#[rstest]
#[case::the_only_port(&[80], "name: a", Ok("80"))]
#[case::one_of_several(&[80, 81], "name: a, port: 81", Ok("81"))]
#[case::unclear(&[80, 81], "name: a, namespace: edge", Err("Gateway edge/a: Service reviews has several ports, 80, 81: name"))]
#[case::another(&[80], "name: a, port: 82", Err("Gateway shop/a: Service reviews has no port 82: it has 80"))]
#[case::none(&[], "name: a", Err("Service reviews has no port"))]
fn the_port_is_that_of_the_service(#[case] ports: &[i32], #[case] gateway: &str, #[case] expected: Result<&str, &str>) {
    let (names, wrong) = named(ports, &[gateway]);
    match expected {
        Ok(port) => {
            assert_eq!(wrong, Vec::<String>::new());
            assert!(names[0].starts_with(&format!("versionflag-reviews-{port}-gateway-")), "{names:?}");
        }
        Err(why) => assert!(names.is_empty() && wrong.len() == 1 && wrong[0].contains(why), "{names:?} {wrong:?}"),
    }
}

#[rstest]
#[case::namespaces("name: a", "name: a, namespace: edge", true)]
#[case::listeners("name: a", "name: a, sectionName: http", true)]
#[case::paths("name: a", "name: a, path: /a", true)]
#[case::ports("name: a, port: 80", "name: a, port: 81", true)]
#[case::hostnames("name: a, port: 80", "name: a, port: 80, hostnames: [shop.example]", false)]
#[case::namespaces_said("name: a, port: 80", "name: a, port: 80, namespace: shop", false)]
fn gateways_are_told_apart_by_name(#[case] one: &str, #[case] other: &str, #[case] differ: bool) {
    let port = |text: &str| if text.contains("port") { text.to_owned() } else { format!("{text}, port: 80") };
    let (names, wrong) = named(&[80, 81], &[&port(one), &port(other)]);
    assert_eq!((names.len(), wrong.len()), if differ { (2, 0) } else { (1, 1) }, "{names:?} {wrong:?}");
    if let Some(wrong) = wrong.first() {
        assert!(wrong.contains("names Gateway shop/a twice for path / of Service reviews"), "{wrong}");
    }
}

#[test]
fn a_route_of_a_gateway_has_a_name_that_is_allowed() {
    let long = "a-service-with-a-name-that-is-as-long-as-the-name-of-one-may-be";
    let (whole, gateways) = (service_of(long, &[65_535]), attachments(&["name: a", "name: b"]));
    let (found, _) = all("shop", &whole, &gateways);
    let names: BTreeSet<&str> = found.iter().filter(|one| one.gateway.is_some()).map(|one| one.name.as_str()).collect();
    assert_eq!(names.len(), 2);
    for name in names {
        assert!(name.starts_with("versionflag-a-service-with-a-name-") && name.len() <= 63, "{name}");
    }
}

#[test]
fn a_gateway_of_another_service_is_not_its_own() {
    assert_eq!(named(&[80], &["name: a, service: ratings"]), (vec![], vec![]));
    assert_eq!(named(&[80], &["name: a, service: reviews"]).0.len(), 1);
}

/// The check of namespace shop with these Gateways in the spec, and these HTTPRoutes there.
fn checked(
    check: fn(&RouteNeeds<'_>, &GatewayObjects) -> Option<Problem>,
    gateways: &[&str],
    http: Vec<MeshObject<HTTPRoute>>,
) -> Option<Problem> {
    let (versions, callers) = (["v1", "v2"].map(String::from).into(), BTreeSet::from(["shop".to_owned()]));
    let whole = whole(&[80]);
    let of_version =
        |version| Arc::new(parse(&serde_json::to_string(&service("shop", &whole, "version", version)).unwrap()));
    let services = ["v1", "v2"].map(of_version).into_iter().chain([Arc::new(whole.clone())]).collect();
    let wanted = RouteNeeds {
        domain: &Domain::default(),
        namespace: "shop",
        service: "reviews",
        header: HEADER,
        label: "version",
        versions: &versions,
        active: "v1",
        ports: &[80],
        callers: &callers,
        gateway_places: &BTreeSet::new(),
        root: "istio-system",
        gateways: &attachments(gateways),
    };
    check(
        &wanted,
        &GatewayObjects { http: http.into_iter().map(Arc::new).collect(), services, ..GatewayObjects::default() },
    )
}

#[test]
fn routes_of_gateways_that_the_spec_has_are_no_conflict_and_others_are() {
    let gateway = "name: public, namespace: edge, path: /reviews";
    assert_eq!(checked(managed, &[gateway], vec![written(gateway)]), None);
    // Edited since: it is put right, and is no conflict.
    let mut edited = written(gateway);
    edited.spec["rules"] = json!([]);
    assert_eq!(checked(managed, &[gateway], vec![edited]), None);

    // Taken out of the spec, nobody changes it any more.
    for check in [managed, user_provided] {
        let left = checked(check, &[], vec![written(gateway), written_for_the_service()]).unwrap();
        assert_eq!(left.reason.name(), "RouteConflict");
        let why = "spec.routing.gateways does not ask for it any more: delete it";
        assert!(left.message.starts_with("HTTPRoute shop/versionflag-reviews-80-gateway-"), "{}", left.message);
        assert!(left.message.ends_with(why), "{}", left.message);
    }

    // Somebody else's by that name, and one that leads past the flag.
    let mut theirs = written(gateway);
    theirs.metadata.labels = None;
    let taken = checked(managed, &[gateway], vec![theirs.clone()]).unwrap();
    assert!(taken.message.ends_with("has a name that the controller needs: rename it"), "{}", taken.message);
    theirs.metadata.name = Some("theirs".to_owned());
    // As long as it leads to the same.
    assert_eq!(checked(managed, &[gateway], vec![theirs.clone()]), None);
    theirs.spec["rules"].as_array_mut().unwrap().remove(1);
    let past = checked(managed, &[gateway], vec![theirs]).unwrap();
    assert_eq!(past.message, "HTTPRoute shop/theirs leads past the flag of Service reviews: it has no rule for v2");

    let unclear = checked(managed, &["name: public, port: 82"], vec![]).unwrap();
    assert_eq!(unclear.reason.name(), "InvalidGateway");
}

fn written_for_the_service() -> MeshObject<HTTPRoute> {
    let whole = whole(&[80]);
    let (found, _) = all("shop", &whole, &[]);
    http_route("shop", "reviews", found.first().unwrap(), HEADER, &record("reviews", 5, "v1", &["v1", "v2"]))
}

const NO: &str = "status: 'False', reason: NotAllowedByListeners, message: hostnames do not fit";

#[rstest]
#[case::nobody("", Some(("GatewayUnknown", "nobody answers for Gateway edge/public")))]
#[case::no_parents("parents: []", Some(("GatewayUnknown", "nobody answers for Gateway edge/public")))]
#[case::accepted(
    "parents: [{conditions: [{type: Accepted, status: 'True'}, {type: ResolvedRefs, status: 'True'}]}]",
    None
)]
#[case::nothing_said("parents: [{conditions: []}]", None)]
#[case::refused(
    &format!("parents: [{{conditions: [{{type: Accepted, {NO}}}]}}]"),
    Some(("GatewayRefused", "Gateway edge/public does not accept HTTPRoute shop/it (NotAllowedByListeners): hostnames do not fit"))
)]
#[case::unresolved(
    &format!("parents: [{{conditions: [{{type: Accepted, status: 'True'}}, {{type: ResolvedRefs, {NO}}}]}}]"),
    Some(("GatewayRefused", "Gateway edge/public does not resolve HTTPRoute shop/it (NotAllowedByListeners): hostnames"))
)]
#[case::of_this_generation(
    &format!("parents: [{{conditions: [{{type: Accepted, observedGeneration: 3, {NO}}}]}}]"),
    Some(("GatewayRefused", "does not accept"))
)]
#[case::of_the_one_before(&format!("parents: [{{conditions: [{{type: Accepted, observedGeneration: 2, {NO}}}]}}]"), None)]
#[case::of_something_else(&format!("parents: [{{conditions: [{{type: Other, {NO}}}]}}]"), None)]
fn what_a_gateway_says_is_told(#[case] status: &str, #[case] expected: Option<(&str, &str)>) {
    let labels = "app.kubernetes.io/managed-by: versionflag";
    let text = format!(
        "{{metadata: {{name: it, namespace: shop, generation: 3, labels: {{{labels}}}}}, status: {{{status}}}}}"
    );
    let mut route: MeshObject<HTTPRoute> = parse(&text);
    // It outlives what is dropped of objects that are watched, here and only here.
    route.trim();
    let (whole, gateways) = (whole(&[80]), attachments(&["name: public, namespace: edge"]));
    let (found, _) = all("shop", &whole, &gateways);
    let problem = found[1].refusal(&route);
    let (reason, message) = problem.as_ref().map_or(("", ""), |it| (it.reason.name(), it.message.as_str()));
    let (expected_reason, words) = expected.unwrap_or_default();
    assert_eq!(reason, expected_reason, "{message}");
    assert!(message.contains(words), "{message}");
    // A route of the Service itself has no Gateway.
    assert_eq!(found[0].refusal(&route), None);
    let mut theirs: MeshObject<HTTPRoute> = parse(&text.replace(labels, ""));
    theirs.trim();
    assert_eq!(theirs.status, Value::Null);
}
