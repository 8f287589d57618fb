//! What proxies are told to find themselves in a record.

use std::collections::{BTreeMap, BTreeSet};

use cluster::domain::Domain;
use cluster::istio::routes::subset;
use cluster::service_facts::ServicePlace;
use flag::record::Record;
use machine::observation::ServiceFacts;
use machine::spec::Spec;

use crate::istio::record;
use crate::objects::{Cluster, spec};

fn facts(domain: &str, spec: &Spec, cluster: &Cluster, versions: &[&str], before: Option<&Record>) -> ServiceFacts {
    let domain: Domain = domain.parse().unwrap();
    let place = ServicePlace {
        domain: &domain,
        namespace: "shop",
        services: &cluster.objects.services,
        groups: &BTreeMap::new(),
    };
    let versions = versions.iter().map(|version| (*version).to_owned()).collect();
    let mut all: BTreeMap<String, ServiceFacts> = place.in_mesh(spec, &versions, before);
    all.remove("reviews").unwrap()
}

const DOMAIN: &str = "cluster.local";

#[test]
fn a_selector_is_that_of_the_service() {
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", "{selector: {app: reviews, tier: back}, ports: [{port: 80}]}");
    let found = facts(DOMAIN, &spec(""), &cluster, &[], None);
    assert_eq!(found.selector, ["app=reviews", "tier=back"].map(String::from).into());
}

#[test]
fn a_service_that_is_gone_keeps_what_it_had() {
    let before = record("reviews", 5, "v1", &["v1"]);
    let none = Cluster::default();
    let found = facts(DOMAIN, &spec(""), &none, &[], Some(&before));
    assert_eq!(found.selector, BTreeSet::from(["app=reviews".to_owned()]));
    assert!(facts(DOMAIN, &spec(""), &none, &[], None).selector.is_empty());
    // One that lost its selector has none.
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", "{selector: {}, ports: [{port: 80}]}");
    assert!(facts(DOMAIN, &spec(""), &cluster, &[], Some(&before)).selector.is_empty());
}

#[test]
fn a_service_has_its_long_names_and_those_of_the_spec() {
    let mut cluster = Cluster::default();
    cluster.service("reviews");
    let spec = spec(", services: [{name: reviews, hosts: [shop.example.com]}]");
    let found = facts(DOMAIN, &spec, &cluster, &["v1", "1.2"], None);
    let hosts = ["reviews.shop", "reviews.shop.svc", "reviews.shop.svc.cluster.local", "shop.example.com"];
    assert_eq!(found.hosts, hosts.map(String::from).into());
    let named = format!("outbound|80|{}|reviews.shop.svc.cluster.local", subset("1.2"));
    assert_eq!(found.clusters, [("1.2".to_owned(), [named].into())].into());
    // In another domain its full name is another one.
    let elsewhere = facts("corp.example", &spec, &cluster, &["v1", "1.2"], None);
    let hosts = ["reviews.shop", "reviews.shop.svc", "reviews.shop.svc.corp.example", "shop.example.com"];
    assert_eq!(elsewhere.hosts, hosts.map(String::from).into());
    // Without the Service its ports are not known: what was known of them stays.
    let mut known = record("reviews", 5, "1.2", &["1.2"]);
    known.members[0].clusters = found.clusters.clone();
    let gone = facts(DOMAIN, &spec, &Cluster::default(), &["v1", "1.2"], Some(&known));
    assert_eq!(gone.clusters, found.clusters);
}
