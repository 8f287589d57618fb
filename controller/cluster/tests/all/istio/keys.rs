//! By what routes and rules are found.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluster::domain::Domain;
use cluster::gateway_api::object::RouteSpec;
use cluster::index::Index;
use cluster::istio::keys::{ANY, of_route, of_routes, of_rule, service};
use cluster::istio::object::{DestinationRule, HTTPRoute, MeshObject, VirtualService};
use kube::runtime::watcher::Event;
use rstest::rstest;

use crate::objects::parse;

fn object<K: cluster::istio::object::Kind>(name: &str, spec: &str) -> MeshObject<K> {
    parse(&format!("{{metadata: {{name: {name}, namespace: shop}}, spec: {spec}}}"))
}

#[rstest]
#[case("{hosts: [reviews]}", &["reviews.shop"])]
#[case("{hosts: [reviews.bank, Reviews.shop.svc.cluster.local., '*.shop', a.example.com]}", &["reviews.bank", "reviews.shop"])]
#[case(
    "{hosts: [web.example], http: [{route: [{destination: {host: reviews}}, {destination: {host: ratings.bank.svc}}]}]}",
    &["ratings.bank", "reviews.shop"]
)]
#[case("{hosts: [a.example.com], tcp: [{route: [{destination: {host: reviews}}]}], tls: [{route: [{destination: {host: b.bank}}]}]}", &["b.bank", "reviews.shop"])]
#[case("{hosts: [a.example.com], http: [{mirror: {host: reviews}, mirrors: [{destination: {host: b.bank}}]}]}", &["b.bank", "reviews.shop"])]
#[case("{hosts: [a.example.com], http: [{delegate: {name: d}}, {delegate: {name: e, namespace: bank}}]}", &["d/shop", "e/bank"])]
fn routes_are_found_by_the_services_that_they_are_about(#[case] spec: &str, #[case] keys: &[&str]) {
    let mut found = of_routes(&Domain::default(), &object::<VirtualService>("a", spec));
    // No Service has such a name.
    found.remove("*.shop");
    found.remove("web.example");
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), keys);
}

#[test]
fn rules_and_routes_of_gateways_have_theirs() {
    let rule = object::<DestinationRule>("a", "{host: reviews.bank.svc.cluster.local}");
    assert_eq!(of_rule(&Domain::default(), &rule), ["reviews.bank".to_owned()].into());
    for pattern in ["'*.local'", "'*.shop.svc.cluster.local'", "'*'"] {
        let rule = object::<DestinationRule>("a", &format!("{{host: {pattern}}}"));
        assert_eq!(of_rule(&Domain::default(), &rule), [ANY.to_owned()].into());
    }
    let route = object::<HTTPRoute>(
        "a",
        "{parentRefs: [{name: edge, namespace: infra}], rules: [{backendRefs: [{name: x, namespace: bank}, {name: b}]}]}",
    );
    assert_eq!(of_route(&route), ["bank", "infra", "shop"].map(String::from).into());
    let read: &RouteSpec = route.looked_at();
    assert!(std::ptr::eq(read, route.looked_at()));
}

// C04: a look at one Service of a cluster with 2,000 other VirtualServices.
#[test]
fn a_look_at_one_service_reads_no_others() {
    let keyed = Arc::new(AtomicUsize::new(0));
    let mut index = {
        let (keyed, domain) = (Arc::clone(&keyed), Domain::default());
        Index::by(move |routes: &MeshObject<VirtualService>| {
            keyed.fetch_add(1, Ordering::SeqCst);
            of_routes(&domain, routes)
        })
    };
    index.apply(Event::Init);
    for one in 0..2_000 {
        index.apply(Event::InitApply(object(&format!("other-{one}"), &format!("{{hosts: [service-{one}]}}"))));
    }
    index.apply(Event::InitApply(object("reviews", "{hosts: [reviews]}")));
    index.apply(Event::InitDone);
    // Each was parsed once, when it came.
    assert_eq!(keyed.load(Ordering::SeqCst), 2_001);
    for _ in 0..600 {
        let found: Vec<_> = index.by_key(&service("reviews", "shop")).collect();
        assert_eq!(found.len(), 1);
        assert!(std::ptr::eq(found[0].looked_at(), found[0].looked_at()));
    }
    // One that changes is one to be read again.
    index.apply(Event::Apply(object("other-7", "{hosts: [reviews, service-7]}")));
    assert_eq!(index.by_key(&service("reviews", "shop")).count(), 2);
    assert_eq!(keyed.load(Ordering::SeqCst), 2_003);
}
