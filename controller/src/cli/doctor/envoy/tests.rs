//! What an Envoy of the shape `edge` says of itself, with something wrong in it. T18

use std::path::Path;

use local::file::File;
use rstest::rstest;
use serde_json::{Value, json};

use super::super::judge::Severity;
use super::facts::Facts;
use super::judge::judge;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoys").join(name)).unwrap()
}

fn flag(change: impl FnOnce(String) -> String) -> File {
    File::parse(&change(read("reviews.yaml")), Path::new("/x/reviews.yaml")).unwrap()
}

/// What `/config_dump` says of an Envoy with this configuration, and with this flag in its filter.
fn dump(config: &str, hosts: &[&str], name: &str) -> Value {
    let config: Value = serde_saphyr::from_str(config).unwrap();
    let all = |list: &str, below: &str| {
        let all = config["static_resources"][list].as_array().cloned().unwrap_or_default();
        all.into_iter().map(|one| json!({ below: one })).collect::<Vec<_>>()
    };
    let flags = json!({ "flags": [{ "name": name, "members": [{ "hosts": hosts }] }] }).to_string();
    let filter =
        json!({ "name": "versionflag", "typed_config": { "config": { "configuration": { "value": flags } } } });
    json!({ "configs": [
        { "static_clusters": all("clusters", "cluster") },
        { "static_listeners": all("listeners", "listener") },
        { "ecds_filters": [{ "ecds_filter": filter }] },
    ] })
}

const LOADED: &str = "extension_config_discovery.http_filter.versionflag.update_success: 1\n";

fn found(file: &File, id: &str, dump: &Value, stats: &str) -> Vec<String> {
    found_beside(file, id, dump, stats, &[])
}

/// The same where nothing runs behind some clusters.
fn found_beside(file: &File, id: &str, dump: &Value, stats: &str, gone: &[&str]) -> Vec<String> {
    let info = json!({ "node": { "id": id } }).to_string();
    let mut facts = Facts::read(info.as_bytes(), dump.to_string().as_bytes(), stats).unwrap();
    facts.gone = gone.iter().map(|one| (*one).to_owned()).collect();
    let mark = |severity| if severity == Severity::Error { "✗" } else { "!" };
    judge(file, &facts)
        .unwrap()
        .iter()
        .map(|one| format!("{} {}: {}", mark(one.severity), one.check, one.message))
        // Some shapes serve all hosts, which is said of each.
        .filter(|one| !one.contains("leads requests for *, but for hosts of the flag,"))
        .collect()
}

#[rstest]
fn nothing_is_wrong_with_what_was_merged(
    #[values(
        "edge/merged/envoy.yaml",
        "virtual-hosts/merged/envoy.yaml",
        "regex/merged/envoy.yaml",
        "weighted/merged/envoy.json",
        "authz/merged/envoy.yaml",
        "grpc/merged/envoy.yaml",
        "tls/merged/envoy.yaml"
    )]
    name: &str,
) {
    // An Envoy has one spelling of its fields, whatever its file has.
    let text = read(name);
    let text = if name.ends_with("json") { snake(&text) } else { text };
    let dump = dump(&text, &["reviews.example"], "reviews");
    assert_eq!(found(&flag(|text| text), "edge", &dump, LOADED), [""; 0]);
}

fn snake(text: &str) -> String {
    ["staticResources", "filterChains"].iter().fold(text.to_owned(), |text, field| {
        text.replace(
            field,
            match *field {
                "staticResources" => "static_resources",
                _ => "filter_chains",
            },
        )
    })
}

#[rstest]
#[case::no_filter(
    "- name: versionflag\n            config_discovery",
    "- name: other\n            config_discovery",
    "✗ filter: listener public has the filter as other, and /var/lib/versionflag/filter.json as versionflag: Envoy does not find it"
)]
#[case::other_file(
    "path: /var/lib/versionflag/filter.json",
    "path: /tmp/other.json",
    "✗ filter: the filter of listener public reads /tmp/other.json, and the controller writes /var/lib/versionflag/filter.json"
)]
#[case::disabled(
    "- name: versionflag\n            config_discovery",
    "- name: versionflag\n            disabled: true\n            config_discovery",
    "✗ filter: the filter of listener public is disabled"
)]
#[case::filter_behind(
    "          - name: envoy.filters.http.router",
    "          - {name: lua, typed_config: {\"@type\": x/envoy.extensions.filters.http.lua.v3.Lua}}\n          - name: envoy.filters.http.router",
    "! filter: lua is behind the filter of listener public, and may change :authority or x-versionflag"
)]
#[case::header_of_clients(
    "- remove: x-versionflag",
    "- remove: x-other",
    "✗ filter: listener public takes x-versionflag from clients, who choose a version where the filter fails"
)]
#[case::past_the_flag(
    "exact: v2",
    "exact: v9",
    "✗ routes: route 3 (/report) of virtual host everything in listener public does not lead to v1, v2 as the file has them"
)]
#[case::other_host_past_the_flag(
    "            - name: everything",
    "            - {name: past, domains: [past.example], routes: [{match: {prefix: /}, route: {cluster: reviews}}]}\n            - name: everything",
    "! routes: virtual host past of listener public leads requests for past.example to a version of the flag, past it"
)]
#[case::more_hosts_than_the_flag_has(
    "domains: [\"*\"]",
    "domains: [reviews.example, \"*.reviews.example\"]",
    "! routes: virtual host everything of listener public leads requests for *.reviews.example, but for hosts of the flag, to a version of the flag, past it"
)]
#[case::no_cluster("- name: reviews-v2", "- name: reviews-v3", "✗ clusters: there is no cluster reviews-v2, of v2")]
#[case::cluster_elsewhere(
    "port_value: 9002",
    "port_value: 9009",
    "! clusters: cluster reviews-v2 leads to 127.0.0.1:9009, and v2 listens on 127.0.0.1:9002 (local.versions)"
)]
#[case::no_flag_service(
    "- name: versionflag\n    type",
    "- name: gone\n    type",
    "✗ clusters: there is no cluster versionflag: the filter does not reach the flag service"
)]
#[case::flag_service_elsewhere(
    "port_value: 7070",
    "port_value: 7079",
    "✗ clusters: cluster versionflag leads to 127.0.0.1:7079, and the flag service listens on 127.0.0.1:7070 (local.listen)"
)]
#[case::no_host(
    "domains: [\"*\"]",
    "domains: [other.example]",
    "✗ hosts: no virtual host that serves reviews.example leads to one of reviews, reviews-v2"
)]
fn what_is_wrong_is_named(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
    let text = read("edge/merged/envoy.yaml");
    assert!(text.contains(from), "{from}");
    let dump = dump(&text.replace(from, to), &["reviews.example"], "reviews");
    let found = found(&flag(|text| text), "edge", &dump, LOADED);
    assert!(found.iter().any(|one| one == expected), "{found:#?}");
}

#[rstest]
#[case::before(read("edge/envoy.yaml"), &[
    "✗ node: its node id is \"me\", and local.proxies has edge: what it reports is refused",
    "✗ filter: listener public has no filter versionflag: nothing there goes by the flag",
    "✗ routes: route 1 (/report) of virtual host everything in listener public leads to reviews past the flag: it has no route for each version",
    "✗ routes: route 3 (/) of virtual host everything in listener public leads to reviews past the flag: it has no route for each version",
    "✗ clusters: there is no cluster reviews-v2, of v2",
    "✗ clusters: there is no cluster versionflag: the filter does not reach the flag service",
])]
fn what_was_not_merged_lacks_all_of_it(#[case] text: String, #[case] expected: &[&str]) {
    assert_eq!(found(&flag(|text| text), "me", &dump(&text, &[], "reviews"), ""), expected);
}

#[rstest]
#[case::not_yet("", "it has not been read yet")]
#[case::refused("extension_config_discovery.http_filter.versionflag.update_rejected: 1\n", "it was refused")]
fn a_filter_that_is_not_loaded_is_said(#[case] stats: &str, #[case] why: &str) {
    let dump = dump(&read("edge/merged/envoy.yaml"), &["reviews.example"], "reviews");
    let expected = format!("✗ filter: Envoy has not taken the filter from /var/lib/versionflag/filter.json: {why}");
    assert_eq!(found(&flag(|text| text), "edge", &dump, stats), [expected]);
}

#[rstest]
#[case::after_a_switch(
    "version: v1\n",
    "version: v2\n",
    "! default: route 3 (/report) of virtual host everything in listener public leads \
    to reviews without a version, and reviews-v2 is that of the version that serves: that counts when the filter fails"
)]
#[case::http2(
    "address: 127.0.0.1:9002",
    "http2: true, address: 127.0.0.1:9002",
    "! clusters: cluster reviews-v2 does not speak HTTP/2, and v2 nothing else (http2: true)"
)]
#[case::one_more(
    "    v2: {",
    "    v3: {command: [reviews], address: 127.0.0.1:9003}\n    v2: {",
    "✗ clusters: there is no cluster reviews-v3, of v3"
)]
fn an_edit_that_envoy_lacks_is_said(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
    let dump = dump(&read("edge/merged/envoy.yaml"), &["reviews.example"], "reviews");
    let found = found(&flag(|text| text.replace(from, to)), "edge", &dump, LOADED);
    assert!(found.iter().any(|one| one == expected), "{found:#?}");
}

/// What the filter does not decide goes nowhere: that is no warning any more.
#[test]
fn a_default_route_to_a_version_that_is_gone_is_an_error() {
    let dump = dump(&read("edge/merged/envoy.yaml"), &["reviews.example"], "reviews");
    let file = flag(|text| text.replace("version: v1\n", "version: v2\n"));
    let found = found_beside(&file, "edge", &dump, LOADED, &["reviews"]);
    let says = "leads to reviews without a version, of a version that does not run";
    assert!(found.iter().any(|one| one.starts_with("✗ default: ") && one.contains(says)), "{found:#?}");
}

/// One that was taken out of `local.versions` and not out of `clusters`: nobody goes there.
#[test]
fn a_version_that_cannot_be_started_needs_no_cluster() {
    let dump = dump(&read("edge/merged/envoy.yaml"), &["reviews.example"], "reviews");
    let more = |text: String| text.replace("v2: [reviews-v2]", "v2: [reviews-v2], v0: [reviews-v0]");
    let found = found(&flag(more), "edge", &dump, LOADED);
    assert!(!found.iter().any(|one| one.contains("reviews-v0,")), "{found:#?}");
}

#[rstest]
#[case::other_flag("ratings", &["ratings.example"], &["✗ flags: the filter has the flag ratings, and not reviews"])]
#[case::both("ratings", &["Reviews.example:80"], &[
    "✗ flags: the filter has the flag ratings, and not reviews",
    "✗ flags: the flags reviews and ratings both have Reviews.example:80",
])]
fn another_flag_in_the_filter_is_said(#[case] name: &str, #[case] hosts: &[&str], #[case] expected: &[&str]) {
    let dump = dump(&read("edge/merged/envoy.yaml"), hosts, name);
    assert_eq!(found(&flag(|text| text), "edge", &dump, LOADED), expected);
}

#[test]
fn websockets_that_do_not_get_through_are_said() {
    let text = read("grpc/merged/envoy.yaml")
        .replace("stat_prefix: grpc\n", "stat_prefix: grpc\n          upgrade_configs: [{upgrade_type: websocket}]\n");
    let dump = dump(&text, &["reviews.example"], "reviews");
    let found = found(&flag(|text| text), "edge", &dump, LOADED);
    assert_eq!(
        found[0],
        "! websocket: listener grpc takes WebSockets, and cluster reviews of v1 speaks HTTP/2, without them"
    );
}

#[rstest]
#[case::no_envoy("{}", "{\"configs\": []}", "no node in /server_info")]
#[case::no_dump("{\"node\": {\"id\": \"a\"}}", "{}", "no configs in /config_dump")]
#[case::no_json("<html>", "", "no JSON: ")]
fn what_is_no_envoy_is_said(#[case] info: &str, #[case] dump: &str, #[case] expected: &str) {
    let said = Facts::read(info.as_bytes(), dump.as_bytes(), "").unwrap_err();
    assert!(said.starts_with(expected), "{said}");
}

/// T26: Envoy's name of a file need not be the one that the controller has for it.
#[rstest]
#[case("filter.json", true)]
#[case("./filter.json", true)]
#[case("../versionflag/filter.json", true)]
#[case("/var/lib/versionflag/x/../filter.json", true)]
#[case("/var/lib/filter.json", false)]
#[case("./other.json", false)]
fn a_file_is_known_by_other_spellings(#[case] path: &str, #[case] ours: bool) {
    let text = read("edge/merged/envoy.yaml").replace("/var/lib/versionflag/filter.json", path);
    let dump = dump(&text, &["reviews.example"], "reviews");
    let found = found(&flag(|text| text), "edge", &dump, "");
    assert_eq!(found.iter().all(|one| !one.contains("reads")), ours, "{found:?}");
}
