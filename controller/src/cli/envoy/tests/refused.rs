//! What is not merged, and what is said. T17

use rstest::rstest;

use super::super::merge::{Choice, Note, merge};
use super::{changed_flag, config, flag, shape};

fn refusal(text: &str) -> String {
    merge(&flag(), config(text), &Choice::default()).map(|_| ()).unwrap_err().join("\n")
}

/// A listener with this in its connection manager.
fn listener(name: &str, more: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router =
        "{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
    format!(
        "  - name: {name}\n    filter_chains:\n    - filters:\n      - name: hcm\n        typed_config:\n          \
         \"@type\": {kind}\n          http_filters: [{router}]\n          {more}\n"
    )
}

fn bootstrap(listeners: &[String]) -> String {
    format!("static_resources:\n  listeners:\n{}", listeners.concat())
}

fn routes(domain: &str, cluster: &str) -> String {
    format!(
        "route_config: {{virtual_hosts: [{{name: h, domains: [\"{domain}\"], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}"
    )
}

#[rstest]
#[case::nobody_leads_there(
    bootstrap(&[listener("a", &routes("*", "web"))]),
    "no virtual host that serves reviews.example leads to one of reviews, reviews-v2. Name the cluster that serves now in \
     spec.services[].clusters.v1, or give the host a route to it"
)]
#[case::other_host(
    bootstrap(&[listener("a", &routes("ratings.example", "reviews"))]),
    "no virtual host that serves reviews.example leads to one of reviews, reviews-v2"
)]
#[case::several_listeners(
    bootstrap(&[listener("a", &routes("*", "reviews")), listener("b", &routes("*.example", "reviews"))]),
    "several listeners serve reviews.example: a, b. Say which ones are to go by the flag: --listener a --listener b"
)]
#[case::routes_of_a_server(
    bootstrap(&[listener("a", "rds: {route_config_name: r, config_source: {ads: {}}}")]),
    "listener a: its routes r come from a server (rds): its routes cannot be merged"
)]
#[case::scopes(
    bootstrap(&[listener("a", "scoped_routes: {name: s}")]),
    "listener a: its routes are chosen by scope (scoped_routes)"
)]
#[case::no_router(
    bootstrap(&[listener("a", &routes("*", "reviews")).replace("filters.http.router", "filters.http.other")]),
    "listener a: it has no router among its http_filters"
)]
#[case::name_is_taken(
    bootstrap(&[listener("a", &routes("*", "reviews")).replace("{name: router", "{name: versionflag, typed_config: {\"@type\": x/http.lua.v3.Lua}}, {name: router")]),
    "listener a: it has an HTTP filter named versionflag of another type (x/http.lua.v3.Lua): give that one another name"
)]
fn what_cannot_be_merged_is_said(#[case] text: String, #[case] expected: &str) {
    let said = refusal(&text);
    assert!(said.contains(expected), "{said}");
}

#[rstest]
#[case::managed_routes("wasm: ", "routes: routes.json, wasm: ", "local.filterConfig.routes is a route table")]
#[case::no_filter("  filterConfig:", "  # filterConfig:", "local.filterConfig is missing")]
#[case::sidecar(
    "{id: edge}",
    "{id: edge, sidecar: {service: reviews, version: v1, filter: f.json, listen: '127.0.0.1:9101'}}",
    "edge stands in front of one version"
)]
fn a_flag_that_does_not_fit_is_said(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
    let flag = changed_flag(|text| text.replace(from, to));
    let said = merge(&flag, shape("edge"), &Choice::default()).map(|_| ()).unwrap_err().join("\n");
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_listener_that_is_named_is_changed_alone() {
    let text = bootstrap(&[listener("a", &routes("*", "reviews")), listener("b", &routes("*", "reviews"))]);
    let named = |name: &str| Choice { listeners: vec![name.to_owned()], ..Choice::default() };
    let (after, notes) = merge(&flag(), config(&text), &named("b")).unwrap();
    let count = |index: usize| {
        let path = format!("static_resources/listeners/{index}/filter_chains/0/filters/0/typed_config");
        let manager = after.files[0].tree.find(&path).unwrap().clone();
        (manager.list_at("http_filters").len(), manager.list_at("route_config/virtual_hosts/0/routes").len())
    };
    assert_eq!((count(0), count(1)), ((1, 1), (2, 3)));
    let past = "virtual host h of listener a leads requests for * to a version of the flag, past it";
    assert!(notes.iter().any(|note| matches!(note, Note::Look(what) if what.starts_with(past))), "{notes:?}");
    let unknown = merge(&flag(), config(&text), &named("c")).map(|_| ()).unwrap_err();
    assert_eq!(unknown, ["--listener c: no listener of that name speaks HTTP"]);
}

#[rstest]
#[case::node_id("node: {id: other}\n", "node id other is none of local.proxies")]
#[case::filter_behind(
    "lua.v3.Lua",
    "lua is behind the filter: if it changes :authority or x-versionflag, put versionflag behind it"
)]
#[case::address("port_value: 9009", "cluster reviews leads to 127.0.0.1:9009, and v1 listens on 127.0.0.1:9001")]
#[case::mirror("request_mirror_policies", "is mirrored to reviews whatever the flag says")]
#[case::pasted("pasted", "is for one version, and takes requests before the routes behind it")]
#[case::own_header("name: x-versionflag,", "it looks at x-versionflag by itself")]
fn what_somebody_has_to_look_at_is_said(#[case] what: &str, #[case] expected: &str) {
    let mut text = bootstrap(&[listener("a", &routes("*", "reviews"))]);
    match what {
        node if node.starts_with("node") => text = format!("{node}{text}"),
        "lua.v3.Lua" => {
            let lua = "{name: versionflag, config_discovery: {}}, {name: lua, typed_config: {\"@type\": x/http.lua.v3.Lua}}, {name: router";
            text = text.replace("{name: router", lua);
        }
        "port_value: 9009" => {
            text += "  clusters:\n  - name: reviews\n    load_assignment:\n      endpoints:\n      - lb_endpoints:\n        \
                     - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9009}}}\n";
        }
        "request_mirror_policies" => {
            text =
                text.replace("{cluster: reviews}", "{cluster: reviews, request_mirror_policies: [{cluster: reviews}]}");
        }
        "pasted" => {
            let pasted = "routes: [{name: \"versionflag:reviews:v1\", match: {prefix: /, headers: [{name: x-versionflag, string_match: {exact: v1}}]}, \
                route: {cluster: reviews}}, {match: {path: /a}, redirect: {https_redirect: true}}, ";
            text = text.replace("routes: [", pasted);
        }
        _ => {
            let own = "routes: [{match: {prefix: /, headers: [{name: x-versionflag, present_match: true}]}, route: {cluster: reviews}}, ";
            text = text.replace("routes: [", own);
        }
    }
    let (_, notes) = merge(&flag(), config(&text), &Choice::default()).unwrap();
    assert!(notes.iter().any(|note| format!("{note:?}").contains(expected)), "{notes:#?}");
}

const OFF: &str =
    "typed_per_filter_config: {versionflag: {\"@type\": x/envoy.config.route.v3.FilterConfig, disabled: true}}";

/// T35: requests that would go past the flag without a word.
#[rstest]
#[case::off_for_a_route(
    "{match: {prefix: /}, ",
    "the filter is switched off for route 1 (/) of virtual host h: its requests"
)]
#[case::off_for_a_host(
    "{name: h, ",
    "the filter is switched off for virtual host h: its requests go to the version of the"
)]
#[case::off_for_a_table(
    "route_config: {",
    "the filter is switched off for route table without a name: its requests go to the version of the"
)]
#[case::not_off("", "")]
fn where_the_filter_is_switched_off_is_said(#[case] before: &str, #[case] expected: &str) {
    let text = bootstrap(&[listener("a", &routes("*", "reviews"))]);
    let text = if before.is_empty() { text } else { text.replace(before, &format!("{before}{OFF}, ")) };
    let (_, notes) = merge(&flag(), config(&text), &Choice::default()).unwrap();
    let said: Vec<_> =
        notes.iter().filter(|note| matches!(note, Note::Look(what) if what.contains("switched off"))).collect();
    match said.as_slice() {
        [] => assert!(expected.is_empty(), "{notes:?}"),
        [Note::Look(what)] => assert!(what.starts_with(expected) && !expected.is_empty(), "{what}"),
        _ => panic!("{said:?}"),
    }
}

/// T35: the same of one of several clusters.
#[test]
fn a_part_for_which_the_filter_is_switched_off_is_said() {
    let part =
        format!("weighted_clusters: {{clusters: [{{name: reviews, weight: 1, {OFF}}}, {{name: web, weight: 1}}]}}");
    let text = bootstrap(&[listener("a", &routes("*", "reviews"))]).replace("cluster: reviews", &part);
    let (_, notes) = merge(&flag(), config(&text), &Choice::default()).unwrap();
    assert!(
        notes.iter().any(|note| matches!(note, Note::Look(what) if what.contains("switched off for route 1"))),
        "{notes:?}"
    );
}

/// T35: what a filter of HTTP does not see, and routes that are not merged.
#[rstest]
#[case::tcp("cluster: reviews", "listener t leads streams of TCP to reviews, past the flag and uncounted")]
#[case::weighted(
    "weighted_clusters: {clusters: [{name: web, weight: 1}, {name: reviews-v2, weight: 1}]}",
    "listener t leads streams of TCP to reviews-v2"
)]
#[case::elsewhere("cluster: web", "")]
fn streams_of_tcp_are_said(#[case] to: &str, #[case] expected: &str) {
    let tcp = format!(
        "  - name: t\n    filter_chains:\n    - filters:\n      - name: t\n        typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, {to}}}\n"
    );
    let text = bootstrap(&[listener("a", &routes("*", "reviews")), tcp]);
    let (_, notes) = merge(&flag(), config(&text), &Choice::default()).unwrap();
    let said = notes
        .iter()
        .any(|note| matches!(note, Note::Look(what) if what.contains("streams of TCP") && what.starts_with(expected)));
    assert_eq!(said, !expected.is_empty(), "{notes:?}");
}

/// T35
#[test]
fn a_virtual_host_with_a_matcher_is_said() {
    let text = bootstrap(&[listener("a", &routes("*", "reviews"))]);
    let matcher = "{name: m, domains: [reviews.example], matcher: {}}, {name: h, domains";
    let text = text.replace("{name: h, domains", matcher);
    let merged = merge(&flag(), config(&text), &Choice::default());
    let said = merged.map(|(_, notes)| format!("{notes:?}")).unwrap_or_else(|errors| errors.join("\n"));
    assert!(said.contains("virtual host m of listener a has a `matcher`"), "{said}");
}
