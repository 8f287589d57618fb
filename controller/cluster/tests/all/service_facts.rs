//! What proxies are told to find themselves in a record.

use std::collections::{BTreeMap, BTreeSet};

use cluster::domain::Domain;
use cluster::istio::routes::subset;
use cluster::service_facts::ServicePlace;
use cluster::workloads::Workloads;
use flag::record::Record;
use machine::observation::ServiceFacts;
use machine::spec::Spec;
use rstest::rstest;

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

/// How v2 of `reviews` can be reached, by its container, the ports of the Service, and more of a spec.
fn reach(container: &str, ports: &str, more: &str) -> (Vec<String>, Option<String>) {
    let mut cluster = Cluster::default();
    cluster.service_spec("reviews", &format!("{{selector: {{app: reviews}}, ports: {ports}}}"));
    cluster.deployment_of("v2", 1, &format!("containers: [{{name: app, {container}}}]"));
    let spec = spec(more);
    let groups = Workloads::find("shop", &spec, &cluster.objects).services;
    let domain = Domain::default();
    let services = &cluster.objects.services;
    let place = ServicePlace { domain: &domain, namespace: "shop", services, groups: &groups };
    let mut facts = place.in_mesh(&spec, &BTreeSet::new(), None);
    let reach = facts.remove("reviews").unwrap().reach.remove("v2").unwrap();
    assert!(reach.clusters.values().all(|host| host == "reviews.shop.svc.cluster.local"));
    (reach.clusters.into_keys().collect(), reach.readiness)
}

const TWO_PORTS: &str = "[{name: http, port: 80, targetPort: web}, {name: http-admin, port: 81, targetPort: 8081}]";
const NAMED: &str = "ports: [{name: web, containerPort: 8080}, {name: admin, containerPort: 8081}]";

#[rstest]
#[case::by_name("{path: /ready, port: web}", &["outbound|80|v2|reviews.shop.svc.cluster.local"], Some("/ready"))]
#[case::by_number("{path: ready, port: 8080}", &["outbound|80|v2|reviews.shop.svc.cluster.local"], Some("/ready"))]
#[case::another_port("{port: admin}", &["outbound|81|v2|reviews.shop.svc.cluster.local"], Some("/"))]
// Nothing leads there, or it is asked in another way.
#[case::no_port_of_the_service("{path: /ready, port: 9000}", &[], None)]
#[case::no_such_port("{path: /ready, port: other}", &[], None)]
#[case::by_tls("{path: /ready, port: web, scheme: HTTPS}", &[], None)]
#[case::with_headers("{path: /ready, port: web, httpHeaders: [{name: a, value: b}]}", &[], None)]
fn what_a_readiness_check_asks_for_is_asked_of_its_port(
    #[case] check: &str,
    #[case] clusters: &[&str],
    #[case] path: Option<&str>,
) {
    let container = format!("{NAMED}, readinessProbe: {{httpGet: {check}}}");
    let (found, readiness) = reach(&container, TWO_PORTS, "");
    assert_eq!(readiness.as_deref(), path);
    if path.is_some() {
        assert_eq!(found, clusters);
    }
}

#[test]
fn what_a_spec_asks_for_is_asked_of_the_same_port() {
    let container = format!("{NAMED}, readinessProbe: {{httpGet: {{path: /ready, port: web}}}}");
    let (clusters, readiness) = reach(&container, TWO_PORTS, ", coexistence: {probe: {path: /x}}");
    assert_eq!((clusters.len(), readiness.as_deref()), (1, Some("/ready")));
    let (clusters, _) = reach(NAMED, TWO_PORTS, ", coexistence: {probe: {path: /x}}");
    assert_eq!(clusters.len(), 2, "where none is known, of every port");
    // Without a target port it is the port itself.
    let plain = "readinessProbe: {httpGet: {path: /ready, port: 80}}";
    assert_eq!(reach(plain, "[{name: http, port: 80}]", "").1.as_deref(), Some("/ready"));
}

#[test]
fn a_version_of_the_gateway_api_has_its_own_services() {
    let routing = ", routing: {provider: GatewayAPI}";
    let container = format!("{NAMED}, readinessProbe: {{httpGet: {{path: /ready, port: web}}}}");
    // The Service of the version is not written yet.
    assert_eq!(reach(&container, TWO_PORTS, routing).0, Vec::<String>::new());
}
