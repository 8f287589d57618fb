//! Which flags the filter has where.

use cluster::istio::object::{MeshObject, TrafficExtension, WasmPlugin, contains};
use cluster::istio::plugin::{Image, Part, Target, config, known, left, spec, targets, too_wide};
use cluster::istio::routes::metadata;
use flag::config::Config;
use rstest::rstest;
use serde_json::{Value, json};

use super::record;

const CLUSTER: &str = "outbound|7070||versionflag.versionflag.svc.cluster.local";

fn all(namespace: &str) -> Target {
    Target { namespace: namespace.to_owned(), labels: Default::default() }
}

fn part(uid: &str, age: i64, header: &str) -> Part {
    Part {
        age: (k8s_openapi::jiff::Timestamp::from_second(age).ok(), uid.to_owned()),
        targets: [all("shop")].into(),
        header: header.to_owned(),
        record: record(uid, 5, "v1", &["v1"]),
    }
}

fn names(config: &Config) -> Vec<&str> {
    config.flags.iter().map(|flag| flag.name.as_str()).collect()
}

fn image() -> Image {
    let url = Some("oci://registry.example/versionflag@sha256:00".to_owned());
    Image { url, sha256: None, pull_secret: None, cluster: CLUSTER.to_owned(), root: "istio-system".to_owned() }
}

#[rstest]
#[case("", &[("shop", "versionflag")])]
#[case("namespaces: [web]", &[("shop", "versionflag"), ("web", "versionflag")])]
#[case(
    "gateways: [{namespace: istio-system, matchLabels: {istio: ingressgateway}}]",
    &[("istio-system", "versionflag-gateway-9bb2739e"), ("shop", "versionflag")]
)]
// The plugin of the namespace is in its gateways too.
#[case("gateways: [{matchLabels: {istio: ingressgateway}}]", &[("shop", "versionflag")])]
#[case(
    "namespaces: [web], gateways: [{namespace: web, matchLabels: {istio: ingressgateway}}]",
    &[("shop", "versionflag"), ("web", "versionflag")]
)]
fn a_flag_has_a_part_in_the_plugin_of_each_namespace(#[case] callers: &str, #[case] expected: &[(&str, &str)]) {
    let callers = crate::objects::parse(&format!("{{{callers}}}"));
    let found = targets("shop", &callers);
    let found: Vec<(&str, String)> = found.iter().map(|target| (target.namespace.as_str(), target.name())).collect();
    let expected: Vec<(&str, String)> = expected.iter().map(|(place, name)| (*place, (*name).to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_gateway_that_a_route_is_attached_to_has_a_plugin_by_its_name() {
    let spec = crate::objects::spec(
        ", callers: {gateways: [{namespace: edge, matchLabels: {istio: ingress}}]}, \
         routing: {provider: GatewayAPI, gateways: [{name: public, namespace: edge}, {name: near}]}",
    );
    let found = targets("shop", &spec.all_callers());
    let labels = |(key, value): (&str, &str)| [(key.to_owned(), value.to_owned())].into();
    let expected = [("istio", "ingress"), ("gateway.networking.k8s.io/gateway-name", "public")];
    let expected = expected.map(|label| Target { namespace: "edge".to_owned(), labels: labels(label) });
    // Where all pods have the filter, the near one has it too.
    assert_eq!(found, expected.into_iter().chain([all("shop")]).collect());
}

#[rstest]
#[case("shop", "", false)]
#[case("shop", "gateways: [{namespace: istio-system, matchLabels: {istio: ingressgateway}}]", false)]
#[case("shop", "namespaces: [istio-system]", true)]
#[case("istio-system", "", true)]
fn a_plugin_for_all_namespaces_is_refused(#[case] namespace: &str, #[case] callers: &str, #[case] refused: bool) {
    let callers = crate::objects::parse(&format!("{{{callers}}}"));
    assert_eq!(too_wide(namespace, &callers, "istio-system").is_some(), refused);
}

#[test]
fn flags_of_a_namespace_share_a_plugin() {
    let (one, other) = (part("ratings", 7, "x-flag"), part("reviews", 3, "x-flag"));
    let both = config([&one, &other], &[], CLUSTER).unwrap();
    assert_eq!(names(&both), ["shop/ratings", "shop/reviews"]);
    assert_eq!(config([&other, &one], &[], CLUSTER).unwrap(), both, "whatever the order");
    assert_eq!(config([], &[], CLUSTER), None);
    // What is written is what a filter takes.
    let text = serde_json::to_vec(&both).unwrap();
    assert_eq!(Config::parse(&text).unwrap(), both);
    assert_eq!(both.service.unwrap().cluster, CLUSTER);
}

#[test]
fn the_older_flag_comes_first_where_two_do_not_fit() {
    let (old, young) = (part("reviews", 3, "x-flag"), part("ratings", 7, "x-other"));
    let found = config([&young, &old], &[], CLUSTER).unwrap();
    assert_eq!((found.header.as_str(), names(&found)), ("x-flag", vec!["shop/reviews"]));

    let mut thief = part("ratings", 7, "x-flag");
    thief.record.members[0].hosts = old.record.members[0].hosts.clone();
    thief.record = thief.record.seal().unwrap();
    assert_eq!(names(&config([&thief, &old], &[], CLUSTER).unwrap()), ["shop/reviews"]);
}

#[test]
fn a_flag_that_was_not_asked_yet_keeps_what_it_has() {
    let old = record("ratings", 3, "v1", &["v1"]);
    let found = config([&part("reviews", 3, "x-flag")], std::slice::from_ref(&old), CLUSTER).unwrap();
    assert_eq!(names(&found), ["shop/ratings", "shop/reviews"]);
    assert_eq!(found.flags[0], old);
    // One that was asked is not there twice.
    let found = config([&part("ratings", 3, "x-flag")], &[old], CLUSTER).unwrap();
    assert_eq!(found.flags.iter().map(|flag| flag.epoch).collect::<Vec<_>>(), [5]);
}

#[test]
fn what_is_written_is_read_again() {
    let parts = [part("ratings", 7, "x-flag"), part("reviews", 3, "x-flag")];
    let config = config(&parts, &[], CLUSTER).unwrap();
    let target = all("shop");
    let plugin =
        MeshObject::<WasmPlugin>::new(metadata("shop", "versionflag"), spec::<WasmPlugin>(&image(), &target, &config));
    assert_eq!(known(&plugin), Some(config.clone()));
    let later = spec::<TrafficExtension>(&image(), &target, &config);
    assert_eq!(known(&MeshObject::<TrafficExtension>::new(metadata("shop", "versionflag"), later)), Some(config));
    let other = json!({ "pluginConfig": { "mine": true } });
    assert_eq!(known(&MeshObject::<WasmPlugin>::new(metadata("shop", "versionflag"), other)), None);
}

/// Plugins of web, where reviews and ratings have been; `parts`: which flags have said where they are now.
#[rstest]
#[case::taken_out(&["reviews", "ratings"], &[("reviews", "shop")], Some(vec!["ratings"]))]
#[case::all_taken_out(&["reviews", "ratings"], &[("reviews", "shop"), ("ratings", "shop")], Some(vec![]))]
#[case::still_there(&["reviews", "ratings"], &[("reviews", "web"), ("ratings", "web")], None)]
#[case::one_of_both(&["reviews", "ratings"], &[("reviews", "web"), ("ratings", "shop")], Some(vec!["reviews"]))]
#[case::nobody_was_asked(&["reviews", "ratings"], &[], None)]
#[case::deleted_or_not_asked(&["reviews"], &[("ratings", "shop")], None)]
#[case::empty(&[], &[("reviews", "shop")], None)]
fn a_flag_whose_callers_are_elsewhere_is_left_out(
    #[case] there: &[&str],
    #[case] parts: &[(&str, &str)],
    #[case] expected: Option<Vec<&str>>,
) {
    let found: Vec<Part> = there.iter().map(|uid| part(uid, 3, "x-flag")).collect();
    let found = config(&found, &[], CLUSTER).unwrap_or_else(|| {
        let some = config([&part("reviews", 3, "x-flag")], &[], CLUSTER).unwrap();
        Config { flags: vec![], ..some }
    });
    let moved = |(uid, place): &(&str, &str)| Part { targets: [all(place)].into(), ..part(uid, 3, "x-flag") };
    let parts: Vec<Part> = parts.iter().map(moved).collect();
    let left = left(found.clone(), &all("web"), &parts);
    let expected = expected.map(|all| {
        let flags = found.flags.iter().filter(|flag| all.contains(&flag.uid.as_str())).cloned().collect();
        Config { flags, ..found.clone() }
    });
    assert_eq!(left, expected);
    // A filter takes it, also without any flag.
    if let Some(left) = left {
        assert_eq!(Config::parse(&serde_json::to_vec(&left).unwrap()).unwrap(), left);
    }
}

/// One that was deleted and made again is the same flag to those who go by it.
#[test]
fn a_flag_that_was_made_again_is_left_out_where_it_was_before() {
    let found = config([&part("reviews", 3, "x-flag")], &[], CLUSTER).unwrap();
    let mut again = part("reviews", 9, "x-flag");
    again.record.uid = "other".to_owned();
    assert_eq!(left(found.clone(), &all("shop"), [&again]), None);
    assert_eq!(left(found, &all("web"), [&again]).unwrap().flags, []);
}

const OURS: &str = "labels: {app.kubernetes.io/managed-by: versionflag}";

#[rstest]
#[case::of_a_namespace(&format!("{{name: versionflag, {OURS}}}"), "{}", true)]
#[case::of_a_gateway(
    &format!("{{name: versionflag-gateway-9bb2739e, {OURS}}}"),
    "{selector: {matchLabels: {istio: ingressgateway}}}",
    true
)]
#[case::of_somebody_else("{name: versionflag}", "{}", false)]
#[case::with_another_name(&format!("{{name: mine, {OURS}}}"), "{}", false)]
#[case::with_another_selector(&format!("{{name: versionflag, {OURS}}}"), "{selector: {matchLabels: {a: b}}}", false)]
#[case::with_no_selector_at_all(&format!("{{name: versionflag, {OURS}}}"), "{selector: {matchLabels: [a]}}", false)]
fn a_plugin_says_which_pods_it_is_for(#[case] metadata: &str, #[case] spec: &str, #[case] is_ours: bool) {
    let metadata = metadata.replacen('{', "{namespace: edge, ", 1);
    let found: MeshObject<WasmPlugin> = crate::objects::parse(&format!("{{metadata: {metadata}, spec: {spec}}}"));
    let target = Target::of(&found);
    assert_eq!(target.is_some(), is_ours);
    if let Some(target) = target {
        assert_eq!((target.namespace.as_str(), target.name()), ("edge", found.metadata.name.unwrap()));
    }
}

#[test]
fn a_plugin_fails_open_and_is_pinned() {
    let config = config([&part("reviews", 3, "x-flag")], &[], CLUSTER).unwrap();
    let image = Image { sha256: Some("ab".to_owned()), pull_secret: Some("login".to_owned()), ..image() };
    let wasm = json!({
        "url": "oci://registry.example/versionflag@sha256:00",
        "sha256": "ab",
        "imagePullSecret": "login",
        "imagePullPolicy": "IfNotPresent",
        "failStrategy": "FAIL_OPEN",
        "pluginName": "versionflag",
        "pluginConfig": config,
    });
    assert_eq!(spec::<WasmPlugin>(&image, &all("shop"), &config), wasm);
    assert_eq!(spec::<TrafficExtension>(&image, &all("shop"), &config), json!({ "wasm": wasm }));
    let gateway = Target { labels: [("istio".to_owned(), "edge".to_owned())].into(), ..all("shop") };
    let selector = json!({ "matchLabels": { "istio": "edge" } });
    assert_eq!(spec::<WasmPlugin>(&image, &gateway, &config)["selector"], selector);
    let later = spec::<TrafficExtension>(&image, &gateway, &config);
    assert_eq!((&later["selector"], &later["wasm"]["selector"]), (&selector, &Value::Null));
}

const DIGEST: &str = "10fc415c8d470427d28912160ed994ede87b63c3cf3e327bb4c15a5b7ef2653c";

const PINNED: &str =
    "oci://registry.example/filter@sha256:10fc415c8d470427d28912160ed994ede87b63c3cf3e327bb4c15a5b7ef2653c";

#[rstest]
#[case(None, None, Some("start it with --plugin-url"))]
#[case(Some("oci://registry.example/filter:1"), None, Some("is not pinned"))]
#[case(Some("oci://registry.example/filter:1"), Some(DIGEST), None)]
#[case(Some(PINNED), None, None)]
#[case(Some("oci://registry.example/filter:1"), Some("ab"), Some("\"ab\" is no SHA-256"))]
#[case(Some("oci://registry.example/filter@sha256:DIGEST"), None, Some("\"DIGEST\" is no SHA-256"))]
fn a_filter_that_is_not_pinned_is_not_delivered(
    #[case] url: Option<&str>,
    #[case] sha256: Option<&str>,
    #[case] why: Option<&str>,
) {
    let image = Image { url: url.map(str::to_owned), sha256: sha256.map(str::to_owned), ..Image::default() };
    let found = image.problem();
    assert_eq!(found.is_some(), why.is_some(), "{found:?}");
    assert!(found.unwrap_or_default().contains(why.unwrap_or_default()));
}

#[rstest]
#[case("{a: 1, b: 2}", "{a: 1}", true)]
#[case("{a: {b: 1, c: 2}}", "{a: {b: 1}}", true)]
#[case("{a: {b: 2}}", "{a: {b: 1}}", false)]
#[case("{}", "{a: 1}", false)]
#[case("{a: [{b: 1}]}", "{a: [{b: 1}]}", true)]
#[case("{a: [{b: 1, c: 2}]}", "{a: [{b: 1}]}", false)]
#[case("{a: [1, 2]}", "{a: [1]}", false)]
#[case("{a: 1}", "{a: 1.0}", false)]
fn what_is_wanted_may_have_more_beside_it(#[case] found: &str, #[case] wanted: &str, #[case] is: bool) {
    let (found, wanted): (Value, Value) = (crate::objects::parse(found), crate::objects::parse(wanted));
    assert_eq!(contains(&found, &wanted), is);
}
