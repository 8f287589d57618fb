//! The routes that the controller writes.

use cluster::domain::Domain;
use cluster::istio::routes::{RouteSource, clusters, delegates, destination_rule, routed, subset, virtual_service};
use flag::record::Record;
use rstest::rstest;
use serde_json::json;

use super::{everybody, record};

fn source<'a>(domain: &'a Domain, record: &'a Record, export_to: &'a [String]) -> RouteSource<'a> {
    RouteSource { domain, namespace: "shop", service: "reviews", header: "x-flag", record, export_to }
}

// F05
#[test]
fn a_version_has_a_route_and_the_rest_goes_to_the_active_one() {
    let record = record("reviews", 5, "v1", &["v1", "v2"]);
    let (domain, export_to) = (Domain::default(), everybody());
    let source = source(&domain, &record, &export_to);
    let object = serde_json::to_value(virtual_service(&source)).unwrap();
    let host = "reviews.shop.svc.cluster.local";
    let name = "versionflag:shop/reviews:v1,v2:v1";
    let to = |version: &str| json!([{ "destination": { "host": host, "subset": version } }]);
    let marked = |version: &str| json!({ "name": name, "match": [{ "headers": { "x-flag": { "exact": version } } }], "route": to(version) });
    let http = json!([marked("v1"), marked("v2"), { "name": name, "route": to("v1") }]);
    assert_eq!(
        object,
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {
                "name": "versionflag-reviews", "namespace": "shop",
                "labels": { "app.kubernetes.io/managed-by": "versionflag" },
            },
            // A mesh may hide by default what does not say whom it is for.
            "spec": { "hosts": [host], "exportTo": ["*"], "http": http },
        })
    );
    // What a gateway delegates to has the same routes, and no hosts.
    let [delegate] = delegates(&source, &[]).try_into().unwrap();
    assert_eq!(delegate.metadata.name.as_deref(), Some("versionflag-reviews-delegate"));
    assert_eq!(delegate.spec, json!({ "exportTo": ["*"], "http": http }));
}

// F06
#[test]
fn a_delegate_says_the_port() {
    let (domain, export_to) = (Domain::default(), everybody());
    let record = record("reviews", 5, "v1", &["v1"]);
    let ports = |ports: &[i32]| {
        let all = delegates(&source(&domain, &record, &export_to), ports);
        let port = |one: &cluster::istio::object::MeshObject<_>| {
            let routes = one.spec["http"].as_array().unwrap();
            let ports: Vec<_> =
                routes.iter().map(|it| it["route"][0]["destination"]["port"]["number"].as_i64()).collect();
            assert_eq!(ports, [ports[0]; 2]);
            (one.metadata.name.clone().unwrap(), ports[0])
        };
        all.iter().map(port).collect::<Vec<_>>()
    };
    let named = |end: &str| format!("versionflag-reviews-delegate{end}");
    assert_eq!(ports(&[9080]), [(named(""), Some(9080))]);
    let several = [(named(""), None), (named("-9080"), Some(9080)), (named("-9090"), Some(9090))];
    assert_eq!(ports(&[9080, 9090]), several);
}

#[test]
fn a_subset_is_all_pods_of_a_version() {
    let rule = destination_rule(&Domain::default(), "shop", "reviews", "release", ["v1", "1.2.0"], &everybody());
    let spec = json!({
        "host": "reviews.shop.svc.cluster.local",
        "exportTo": ["*"],
        "subsets": [
            { "name": "v1", "labels": { "release": "v1" } },
            { "name": subset("1.2.0"), "labels": { "release": "1.2.0" } },
        ],
    });
    assert_eq!(rule.spec, spec);
}

#[rstest]
#[case("v1", Some("v1"))]
#[case("2026-01", Some("2026-01"))]
#[case("1.2.0", None)]
#[case("1_2_0", None)]
#[case("V1", None)]
#[case("x.0123456789012345678901234567890123456789012345678901234567890", None)]
fn a_subset_has_the_name_of_a_dns_label(#[case] version: &str, #[case] same: Option<&str>) {
    let name = subset(version);
    assert!(name.len() <= 63 && !name.is_empty(), "{name}");
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{name}");
    assert!(!name.starts_with('-') && !name.ends_with('-'), "{name}");
    assert_eq!(same.unwrap_or(&name), name);
    assert_eq!(name == version, same.is_some());
}

#[test]
fn versions_that_look_alike_have_subsets_of_their_own() {
    let names: std::collections::BTreeSet<String> = ["1.2", "1_2", "1-2", "a", "A"].into_iter().map(subset).collect();
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn proxies_are_told_the_clusters_of_renamed_versions() {
    let found = clusters(&Domain::default(), "reviews", "shop", &[80, 9080], ["v1", "1.2.0"]);
    let name = subset("1.2.0");
    let of = |port: u16| format!("outbound|{port}|{name}|reviews.shop.svc.cluster.local");
    assert_eq!(found, [("1.2.0".to_owned(), [of(80), of(9080)].into())].into());
    assert!(clusters(&Domain::default(), "reviews", "shop", &[], ["1.2.0"]).is_empty());
}

/// Istio takes the full name of a Service as it is, and knows none of another domain.
#[test]
fn what_is_written_has_the_names_of_the_cluster() {
    let domain: Domain = "corp.example".parse().unwrap();
    let record = record("reviews", 5, "1.2", &["1.2", "v2"]);
    let export_to = everybody();
    let source = source(&domain, &record, &export_to);
    let service = virtual_service(&source).spec;
    let delegate = delegates(&source, &[80]).remove(0).spec;
    let rule = destination_rule(&domain, "shop", "reviews", "version", ["v1"], &export_to).spec;
    let clusters = clusters(&domain, "reviews", "shop", &[80], ["1.2"]);
    let host = "reviews.shop.svc.corp.example";
    assert_eq!((&service["hosts"], &rule["host"]), (&json!([host]), &json!(host)));
    for route in [&service, &delegate].into_iter().flat_map(|spec| spec["http"].as_array().unwrap()) {
        assert_eq!(route["route"][0]["destination"]["host"], host);
    }
    assert_eq!(clusters["1.2"], [format!("outbound|80|{}|{host}", subset("1.2"))].into());
    let all = format!("{service}{delegate}{rule}{clusters:?}");
    assert!(!all.contains("cluster.local"), "{all}");
}

#[test]
fn routes_say_where_they_lead() {
    let record = record("reviews", 5, "v1", &["v1", "v2"]);
    let (domain, export_to) = (Domain::default(), everybody());
    let found = virtual_service(&source(&domain, &record, &export_to));
    assert_eq!(routed(&found, "x-flag"), record.versions);
    assert!(routed(&found, "x-other").is_empty());
}
