//! Two flags that name the same host: one of both is refused, and what was in force stays.

use cluster::domain::Domain;
use cluster::hosts::taken;
use cluster::reading::Reading;
use machine::status::Status;
use machine::time::UnixMs;
use rstest::rstest;
use serde_json::{Value, json};

/// A flag of its own Service, created in this second, whose proxies have these hosts already.
fn flag(name: &str, second: u8, spec: Value, recorded: &[&str]) -> Reading {
    let (namespace, name) = name.split_once('/').unwrap();
    let mut status = Status::new(name, name, UnixMs(1));
    let record = json!({
        "uid": name, "name": name, "epoch": 1, "active": "v1", "versions": ["v1"],
        "members": [{ "service": name, "hosts": recorded }],
    });
    status.record = (!recorded.is_empty()).then(|| serde_json::from_value(record).unwrap());
    let own = json!({ "version": "v1", "services": [{ "name": name }], "routing": { "provider": "External" } });
    let value = json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": {
            "name": name, "namespace": namespace, "uid": name,
            "creationTimestamp": format!("2027-01-15T08:00:{second:02}Z"),
        },
        "spec": merged(own, spec),
        "status": { "machine": status },
    });
    Reading::of(value).unwrap()
}

fn hosts(service: &str, hosts: &[&str]) -> Value {
    json!({ "services": [{ "name": service, "hosts": hosts }] })
}

fn merged(mut one: Value, other: Value) -> Value {
    let all = one.as_object_mut().unwrap();
    all.extend(other.as_object().unwrap().clone());
    one
}

fn refused(flags: &[Reading]) -> Vec<String> {
    taken(&Domain::default(), flags.iter()).into_keys().collect()
}

#[rstest]
#[case::own_names(json!({}), json!({}), &[])]
#[case::same(hosts("a", &["x.example"]), hosts("b", &["x.example"]), &["b"])]
#[case::other_spelling(hosts("a", &["x.example"]), hosts("b", &["X.example.:80"]), &["b"])]
#[case::name_of_a_service(json!({}), hosts("b", &["a.shop.svc"]), &["b"])]
#[case::short_name_of_a_service(json!({}), hosts("b", &["a"]), &["b"])]
#[case::others(hosts("a", &["x.example"]), hosts("b", &["y.example"]), &[])]
fn the_younger_of_two_is_refused(#[case] older: Value, #[case] younger: Value, #[case] expected: &[&str]) {
    let flags = [flag("shop/b", 2, younger, &[]), flag("shop/a", 1, older, &[])];
    assert_eq!(refused(&flags), expected);
}

/// In another domain the full name of a Service is one like any other.
#[rstest]
#[case("cluster.local", "a.shop.svc.cluster.local", true)]
#[case("cluster.local", "a.shop.svc.corp.example", false)]
#[case("corp.example", "a.shop.svc.cluster.local", false)]
#[case("corp.example", "a.shop.svc.corp.example", true)]
fn the_full_name_of_a_service_is_its_own(#[case] domain: &str, #[case] host: &str, #[case] is_taken: bool) {
    let flags = [flag("shop/b", 2, hosts("b", &[host]), &[]), flag("shop/a", 1, json!({}), &[])];
    assert_eq!(taken(&domain.parse().unwrap(), flags.iter()).contains_key("b"), is_taken);
}

#[test]
fn the_message_names_both_and_what_to_do() {
    let flags =
        [flag("shop/a", 1, hosts("a", &["x.example"]), &[]), flag("shop/b", 2, hosts("b", &["x.example"]), &[])];
    assert_eq!(
        taken(&Domain::default(), flags.iter())["b"],
        "host x.example of Service b belongs to VersionFlag shop/a already, for Service a: take it out of \
         spec.services[].hosts of one of both, or put both Services into one VersionFlag"
    );
}

/// What proxies have goes before age: an edit of an older flag does not stop a younger one.
#[test]
fn what_is_in_force_stays() {
    let (one, other) = (hosts("a", &["x.example"]), hosts("b", &["x.example"]));
    let flags = [flag("shop/a", 1, one.clone(), &["a.example"]), flag("shop/b", 2, other.clone(), &["x.example"])];
    assert_eq!(refused(&flags), ["a"]);
    let flags = [flag("shop/a", 1, one, &["x.example"]), flag("shop/b", 2, other, &["x.example"])];
    assert_eq!(refused(&flags), ["b"]);
}

/// The same name means something else to other callers.
#[rstest]
#[case::apart(json!({}), &[])]
#[case::shared_callers(json!({ "callers": { "namespaces": ["shop"] } }), &["b"])]
#[case::a_gateway_there(json!({ "callers": { "gateways": [{ "namespace": "shop", "matchLabels": { "a": "b" } }] } }), &["b"])]
fn flags_that_no_proxy_is_sent_together_may_have_the_same(#[case] callers: Value, #[case] expected: &[&str]) {
    let flags = [
        flag("shop/a", 1, hosts("a", &["x.example"]), &[]),
        flag("web/b", 2, merged(hosts("b", &["x.example"]), callers), &[]),
    ];
    assert_eq!(refused(&flags), expected);
}
