//! What proxies are told to find themselves in a record.

use std::collections::BTreeSet;

use cluster::domain::Domain;
use cluster::istio::place::{complete, place};
use cluster::istio::routes::subset;

use super::record;
use crate::objects::{Cluster, spec};

#[test]
fn a_selector_is_that_of_the_service() {
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", "{selector: {app: reviews, tier: back}, ports: [{port: 80}]}");
    let found = place("shop", &spec(""), &cluster.objects.services, None);
    assert_eq!(found.namespace, "shop");
    assert_eq!(found.selectors["reviews"], ["app=reviews", "tier=back"].map(String::from).into());
}

#[test]
fn a_service_that_is_gone_keeps_what_it_had() {
    let before = record("reviews", 5, "v1", &["v1"]);
    let found = place("shop", &spec(""), &[], Some(&before));
    assert_eq!(found.selectors["reviews"], BTreeSet::from(["app=reviews".to_owned()]));
    assert!(place("shop", &spec(""), &[], None).selectors["reviews"].is_empty());
    // One that lost its selector has none.
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", "{selector: {}, ports: [{port: 80}]}");
    assert!(place("shop", &spec(""), &cluster.objects.services, Some(&before)).selectors["reviews"].is_empty());
}

#[test]
fn a_service_has_its_long_names_and_those_of_the_spec() {
    let mut cluster = Cluster::default();
    cluster.service("reviews");
    let versions = BTreeSet::from(["v1".to_owned(), "1.2".to_owned()]);
    let spec = spec(", services: [{name: reviews, hosts: [shop.example.com]}]");
    let found = complete(&Domain::default(), "shop", &spec, &cluster.objects.services, &versions, None);
    let service = &found.services[0];
    let hosts = ["reviews.shop", "reviews.shop.svc", "reviews.shop.svc.cluster.local", "shop.example.com"];
    assert_eq!(service.hosts, hosts.map(String::from).into());
    let named = format!("outbound|80|{}|reviews.shop.svc.cluster.local", subset("1.2"));
    assert_eq!(service.clusters, [("1.2".to_owned(), [named].into())].into());
    // In another domain its full name is another one.
    let domain: Domain = "corp.example".parse().unwrap();
    let elsewhere = complete(&domain, "shop", &spec, &cluster.objects.services, &versions, None);
    let hosts = ["reviews.shop", "reviews.shop.svc", "reviews.shop.svc.corp.example", "shop.example.com"];
    assert_eq!(elsewhere.services[0].hosts, hosts.map(String::from).into());
    // Without the Service its ports are not known: what was known of them stays.
    let mut known = record("reviews", 5, "1.2", &["1.2"]);
    known.members[0].clusters = service.clusters.clone();
    let found = complete(&Domain::default(), "shop", &spec, &[], &versions, Some(&known));
    assert_eq!(found.services[0].clusters, service.clusters);
}
