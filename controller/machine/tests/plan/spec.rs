//! What an operator may ask for, and what of it is refused.

use rstest::rstest;

use crate::fixtures::spec;

#[rstest]
#[case("switch: {mode: Fenced}, preview: {header: x-me, value: a}", "spec.preview sends requests to both versions")]
#[case("switch: {fence: {maxHold: 99ms}}", "spec.switch.fence.maxHold is 99ms: it may be 100ms to 60s")]
#[case("switch: {fence: {maxHold: 61s}}", "spec.switch.fence.maxHold is 1m1s: it may be 100ms to 60s")]
#[case("switch: {fence: {attempts: 0}}", "spec.switch.fence.attempts is 0: it may be 1 to 100")]
#[case("routing: {header: X-Version}", "spec.routing.header \"X-Version\" has to begin with x-")]
// C13, F25: proxies overwrite it.
#[case("routing: {header: authorization}", "has to begin with x- and to contain the word version")]
#[case("routing: {header: x-remote-user}", "has to begin with x- and to contain the word version")]
#[case("routing: {header: content-length}", "has to begin with x- and to contain the word version")]
#[case("routing: {header: host}", "has to begin with x- and to contain the word version")]
#[case("preview: {header: x-versionflag, value: a}", "is the routing header, which no client may choose")]
#[case(
    "routing: {gateways: [{name: a}]}",
    "is for provider GatewayAPI and management Managed: set both, or take it out"
)]
#[case(
    "routing: {provider: GatewayAPI, management: UserProvided, gateways: [{name: a}]}",
    "is for provider GatewayAPI"
)]
#[case("routing: {provider: GatewayAPI, gateways: [{name: ''}]}", "spec.routing.gateways[0] (): a Gateway has a name")]
#[case(
    "routing: {provider: GatewayAPI, gateways: [{name: a}, {name: b, service: c}]}",
    "[1] (b): service \"c\" is not in spec.services"
)]
#[case("routing: {provider: GatewayAPI, gateways: [{name: a, port: 0}]}", "[0] (a): port has to be from 1 to 65535")]
#[case(
    "routing: {provider: GatewayAPI, gateways: [{name: a, hostnames: [Shop.example]}]}",
    "\"Shop.example\" is not a hostname"
)]
#[case("routing: {provider: GatewayAPI, gateways: [{name: a, hostnames: ['*']}]}", "\"*\" is not a hostname")]
#[case("routing: {provider: GatewayAPI, gateways: [{name: a, path: reviews}]}", "\"reviews\" is not a path")]
#[case("routing: {provider: GatewayAPI, gateways: [{name: a, path: '/a//b'}]}", "\"/a//b\" is not a path")]
#[case("routing: {provider: GatewayAPI, gateways: [{name: a, path: '/a?b'}]}", "\"/a?b\" is not a path")]
#[case("preview: {header: X-Me, value: a}", "not a lower-case HTTP header name")]
// F10.
#[case("coexistence: {ready: 0%}", "spec.coexistence.ready 0% would let a version without pods be ready")]
// F14.
#[case("settle: {healthChecks: {paths: [metrics]}}", "spec.settle.healthChecks.paths \"metrics\" has to begin with /")]
#[case("settle: {healthChecks: {userAgents: ['']}}", "an empty one would mean every request")]
#[case("coexistence: {probe: {path: ready}}", "spec.coexistence.probe.path \"ready\" has to begin with /")]
#[case("coexistence: {probe: {path: '/a b'}}", "spec.coexistence.probe: path \"/a b\" is not a valid name")]
#[case("coexistence: {probe: {expect: 2xx}}", "spec.coexistence.probe.expect \"2xx\" has to be a status")]
#[case("coexistence: {probe: {expect: 399-200}}", "has to be a status or a range of them")]
#[case("coexistence: {probe: {expect: '600'}}", "has to be a status or a range of them")]
#[case("coexistence: {probe: {timeout: 1m}}", "spec.coexistence.probe.timeout is 1m: it may be 1ms to 10s")]
fn what_is_not_supported_is_refused(#[case] extra: &str, #[case] why: &str) {
    let wrong = spec(extra).validate();
    assert!(wrong.iter().any(|one| one.contains(why)), "{wrong:?}");
}

/// Stored objects have these by the defaults of an older definition, and nobody edits them.
#[test]
fn fields_from_before_the_fence_are_read_and_left_out() {
    let before = spec("switch: {mode: Immediate, maxHold: 1s, onHoldTimeout: Open, laggards: Wait, ackTimeout: 5m}");
    assert_eq!(before, spec(""));
    let written = serde_json::to_string(&before).unwrap();
    assert!(!written.contains("onHoldTimeout") && written.contains("\"maxHold\":\"2s\""), "{written}");
}

#[test]
fn a_fence_needs_its_mode_only() {
    let fence = spec("switch: {mode: Fenced}");
    assert_eq!(fence.validate(), Vec::<String>::new());
    assert_eq!((fence.switch.fence.max_hold.0, fence.switch.fence.attempts), (2_000, 5));
    let all = "switch: {mode: Fenced, fence: {maxHold: 500ms, onExpiry: Reject, inbound: Required, attempts: 1}}";
    assert_eq!(spec(all).validate(), Vec::<String>::new());
}

/// T5, F16.
#[rstest]
#[case("'*.example'", false)]
#[case("'*'", false)]
#[case("'http://reviews.example/'", false)]
#[case("reviews.example:8080", true)]
#[case("'[::1]:80'", true)]
fn a_host_that_no_filter_can_match_is_refused(#[case] host: &str, #[case] valid: bool) {
    let yaml = format!("{{version: v1, services: [{{name: reviews, hosts: [{host}]}}]}}");
    let spec: machine::spec::Spec = serde_saphyr::from_str(&yaml).unwrap();
    let wrong = spec.validate();
    assert_eq!(wrong.is_empty(), valid, "{wrong:?}");
    assert!(valid || wrong[0].contains("filters match neither patterns nor URLs"), "{wrong:?}");
}

#[test]
fn a_gateway_needs_a_name_only_and_a_service_where_there_are_several() {
    let gateway = |fields: &str| format!("routing: {{provider: GatewayAPI, gateways: [{{name: a{fields}}}]}}");
    let all =
        ", namespace: edge, sectionName: https, hostnames: ['*.shop.example', shop.example], port: 80, path: /a-b/c";
    for fields in ["", all] {
        assert_eq!(spec(&gateway(fields)).validate(), Vec::<String>::new(), "{fields}");
    }
    let mut several = spec(&gateway(""));
    let mut other = several.services[0].clone();
    other.name = "other".to_owned();
    several.services.push(other);
    assert_eq!(several.validate(), ["spec.routing.gateways[0] (a): name one of spec.services in service"]);
    several.routing.gateways[0].service = Some("other".to_owned());
    assert_eq!(several.validate(), Vec::<String>::new());
}

#[rstest]
#[case::same("name: a", "name: a", false)]
#[case::one_hostname("name: a, hostnames: [b.example, c.example]", "name: a, hostnames: [c.example]", false)]
#[case::all_listeners("name: a, sectionName: http", "name: a", false)]
#[case::names("name: a", "name: b", true)]
#[case::namespaces("name: a", "name: a, namespace: edge", true)]
#[case::listeners("name: a, sectionName: http", "name: a, sectionName: https", true)]
#[case::paths("name: a, path: /b", "name: a, path: /b/c", true)]
#[case::hostnames("name: a, hostnames: [b.example]", "name: a, hostnames: [c.example]", true)]
// The one with a hostname is the more exact.
#[case::a_hostname_and_all("name: a, hostnames: [b.example]", "name: a", true)]
fn two_routes_of_gateways_are_not_for_the_same_requests(#[case] one: &str, #[case] other: &str, #[case] valid: bool) {
    let wrong = spec(&format!("routing: {{provider: GatewayAPI, gateways: [{{{one}}}, {{{other}}}]}}")).validate();
    let same = "spec.routing.gateways[1] (a): [0] is for the same requests: give one another path or other hostnames";
    assert_eq!(wrong, if valid { vec![] } else { vec![same] });
}
