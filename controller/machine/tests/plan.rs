//! Single steps of the state machine.

#![allow(clippy::unwrap_used, clippy::panic)]

use machine::fleet::ledger::Quiet;
use machine::observation::{Action, Headroom, Observation, Request, RouteProblem, Workload};
use machine::plan::{Effect, step};
use machine::spec::Spec;
use machine::status::{Phase, Status, Switch};
use rstest::rstest;

const NOW: u64 = 1_000_000;

fn spec(extra: &str) -> Spec {
    let yaml = format!("{{version: v2, services: [{{name: reviews}}] {extra}}}");
    serde_saphyr::from_str(&yaml).unwrap()
}

fn ready(since: u64) -> Workload {
    Workload { declared: true, running: true, ready: true, ready_since: Some(since), exited: None, exists: false }
}

/// Both run, all acked, v1 quiet for a minute.
fn fine() -> Observation {
    let mut seen = Observation::unknown();
    seen.versions = [("v1".to_owned(), ready(0)), ("v2".to_owned(), ready(0))].into();
    (seen.fleet.expected, seen.fleet.acked) = (1, 1);
    seen.fleet.old = Quiet::Since(NOW - 60_000);
    seen
}

/// From v1 to v2, in this phase.
fn switching(phase: Phase) -> Status {
    let mut status = Status::new("uid", "reviews", 0);
    let flipped = !phase.before_flip();
    status.phase = phase;
    status.active_version = if flipped { "v2" } else { "v1" }.to_owned();
    status.target_version = Some("v2".to_owned());
    let at = flipped.then_some(NOW - 60_000);
    let (from, to) = ("v1".to_owned(), "v2".to_owned());
    let headroom_at = Some(NOW - 90_000);
    let switch = Switch { from, to, ours: true, headroom_at, flipped_at: at, acked_at: at, ..Switch::default() };
    status.switch = Some(Switch { retain_until: Some(NOW), ..switch });
    // The first pass writes the record; what follows is about what comes after.
    let first = step(NOW - 1, &Spec { suspend: true, ..spec("") }, &status, &fine()).status;
    let all = ["v1".to_owned(), "v2".to_owned()].into();
    let record =
        machine::plan::record_of("uid", "reviews", NOW - 1, &status.active_version, &all, None, &spec("")).seal();
    Status { record: Some(record.unwrap()), blocked: None, ..first }
}

#[rstest]
#[case::acked(Phase::Switching, fine(), "", Phase::Settling)]
#[case::quiet(Phase::Settling, fine(), "", Phase::Retaining)]
#[case::retained(Phase::Retaining, fine(), "", Phase::Removing)]
#[case::kept(Phase::Retaining, fine(), ", cleanup: {policy: Retain}", Phase::Stable)]
#[case::baking(Phase::Settling, fine(), ", settle: {bake: 2m}", Phase::Settling)]
#[case::unknown(Phase::Settling, Observation { fleet: machine::fleet::ledger::Fleet { old: Quiet::Unknown, ..fine().fleet }, ..fine() }, "", Phase::Settling)]
#[case::unknown_past_deadline(Phase::Settling, Observation { fleet: machine::fleet::ledger::Fleet { old: Quiet::Unknown, ..fine().fleet }, ..fine() }, ", settle: {timeout: 1s, onTimeout: Proceed}", Phase::Settling)]
#[case::busy(Phase::Settling, Observation { fleet: machine::fleet::ledger::Fleet { old: Quiet::Busy { open: 1 }, ..fine().fleet }, ..fine() }, "", Phase::Settling)]
#[case::busy_but_proceed(Phase::Settling, Observation { fleet: machine::fleet::ledger::Fleet { old: Quiet::Busy { open: 1 }, ..fine().fleet }, ..fine() }, ", settle: {timeout: 1s, onTimeout: Proceed}", Phase::Retaining)]
#[case::busy_then_back(Phase::Settling, Observation { fleet: machine::fleet::ledger::Fleet { old: Quiet::Busy { open: 1 }, ..fine().fleet }, ..fine() }, ", settle: {timeout: 1s, onTimeout: Rollback}", Phase::Switching)]
#[case::no_ack(Phase::Switching, Observation { fleet: machine::fleet::ledger::Fleet { acked: 0, ..fine().fleet }, ..fine() }, ", switch: {ackTimeout: 1s}", Phase::Switching)]
#[case::no_ack_but_proceed(Phase::Switching, Observation { fleet: machine::fleet::ledger::Fleet { acked: 0, ..fine().fleet }, ..fine() }, ", switch: {ackTimeout: 1s, laggards: Proceed}", Phase::Settling)]
#[case::unproved_again(Phase::Removing, Observation { fleet: machine::fleet::ledger::Fleet { acked: 0, ..fine().fleet }, ..fine() }, "", Phase::Settling)]
#[case::min_ready(Phase::Coexisting, fine(), "", Phase::AwaitingPromotion)]
fn next_phase(#[case] from: Phase, #[case] seen: Observation, #[case] extra: &str, #[case] to: Phase) {
    let plan = step(NOW, &spec(extra), &switching(from), &seen);
    assert_eq!(plan.status.phase, to, "{:#?}", plan.status);
}

#[rstest]
#[case(Headroom::Short { message: "no room".to_owned() }, "", Some("HeadroomShort"))]
#[case(Headroom::Unknown, "", Some("HeadroomUnknown"))]
#[case(Headroom::Short { message: "no room".to_owned() }, ", coexistence: {headroom: Warn}", None)]
#[case(Headroom::Fits, "", None)]
fn headroom_comes_before_the_start(#[case] headroom: Headroom, #[case] extra: &str, #[case] blocked: Option<&str>) {
    let mut status = switching(Phase::Coexisting);
    status.switch.as_mut().unwrap().headroom_at = None;
    let mut seen = Observation { headroom, ..fine() };
    seen.versions.insert("v2".to_owned(), Workload { declared: true, ..Workload::default() });
    let mut plan = step(NOW, &spec(extra), &status, &seen);
    assert_eq!(plan.status.blocked.as_ref().map(|blocked| blocked.reason.as_str()), blocked);
    plan = step(NOW, &spec(extra), &plan.status, &seen);
    let starts = plan.effects.contains(&Effect::Start { version: "v2".to_owned() });
    assert_eq!(starts, blocked.is_none());
}

#[rstest]
#[case::nothing_is_started(Phase::Coexisting, Phase::Coexisting)]
#[case::nothing_is_switched(Phase::ProvingRoutes, Phase::ProvingRoutes)]
#[case::nothing_is_settled(Phase::Settling, Phase::Settling)]
#[case::nothing_is_removed(Phase::Removing, Phase::Settling)]
// What was flipped is acked all the same.
#[case::acks_come(Phase::Switching, Phase::Settling)]
fn routes_that_do_not_fit_hold_everything_up(#[case] from: Phase, #[case] to: Phase) {
    let mut status = switching(from);
    if from == Phase::Coexisting {
        status.switch.as_mut().unwrap().headroom_at = None;
    }
    let (message, snippet) = ("a sentence".to_owned(), "yaml".to_owned());
    let seen = Observation { routes: Some(RouteProblem { reason: "RouteConflict", message, snippet }), ..fine() };
    let next = step(NOW, &spec(", settle: {timeout: 1s, onTimeout: Proceed}"), &status, &seen).status;
    assert_eq!(next.phase, to);
    let next = step(NOW, &spec(""), &next, &seen);
    assert_eq!(next.status.phase, to);
    let blocked = next.status.blocked.unwrap();
    assert_eq!((blocked.reason.as_str(), blocked.message.as_str()), ("RouteConflict", "a sentence"));
    if from == Phase::Coexisting {
        assert!(!next.effects.contains(&Effect::Start { version: "v2".to_owned() }));
    }
}

#[test]
fn a_rollback_does_not_wait_for_routes() {
    let (message, snippet) = (String::new(), String::new());
    let mut seen = Observation { routes: Some(RouteProblem { reason: "RouteConflict", message, snippet }), ..fine() };
    seen.request = Some(Request { id: "1".to_owned(), action: Action::Rollback });
    let next = step(NOW, &spec(""), &switching(Phase::Settling), &seen).status;
    assert_eq!((next.phase, next.active_version.as_str()), (Phase::Switching, "v1"));
}

#[test]
fn a_record_says_where_its_services_are() {
    let mut seen = fine();
    seen.place.namespace = "shop".to_owned();
    seen.place.selectors.insert("reviews".to_owned(), ["app=reviews".to_owned()].into());
    let next = step(NOW, &spec(", promotion: {mode: Manual}"), &switching(Phase::AwaitingPromotion), &seen).status;
    let record = next.record.unwrap();
    assert_eq!((record.namespace.as_str(), record.version_label.as_str()), ("shop", "version"));
    assert!(record.members[0].selector.contains("app=reviews") && record.check().is_ok());
    // Other content, so another epoch.
    assert!(record.epoch > NOW - 1, "{record:?}");
}

#[test]
fn a_version_that_dies_after_the_flip_is_left_again_if_asked_for() {
    let mut seen = fine();
    let exited = Some("exit status: 1".to_owned());
    seen.versions.insert("v2".to_owned(), Workload { declared: true, exited, ..Workload::default() });
    let waits = step(NOW, &spec(""), &switching(Phase::Settling), &seen).status;
    assert_eq!((waits.phase, waits.blocked.unwrap().reason.as_str()), (Phase::Settling, "TargetExited"));
    let back = step(NOW, &spec(", onTargetFailure: Rollback"), &switching(Phase::Settling), &seen).status;
    assert_eq!((back.phase, back.active_version.as_str()), (Phase::Switching, "v1"));
    assert!(back.r#override.is_some());
}

#[rstest]
#[case::nobody_is_known(&[], None)]
#[case::one(&[("v1-a.shop", "plain.shop (10.0.0.7)", 40), ("v1-b.shop", "plain.shop (10.0.0.7)", 2)], Some("requests (42 a second) still reach v1 at v1-a.shop, v1-b.shop from plain.shop (10.0.0.7) that"))]
#[case::one_of_many(&[("v1-a.shop", "", 0)], Some("requests still reach v1 at v1-a.shop that"))]
#[case::many(&[("v1-a.shop", "1", 0), ("v1-a.shop", "2", 0), ("v1-a.shop", "3", 0), ("v1-a.shop", "4", 0)], Some("v1-a.shop from 1, 2, 3 and 1 more that"))]
fn who_goes_past_the_flag_is_named(#[case] known: &[(&str, &str, u64)], #[case] named: Option<&str>) {
    let stranger = |(at, from, per_second): &(&str, &str, u64)| machine::fleet::unmanaged::Stranger {
        at: (*at).to_owned(),
        from: (*from).to_owned(),
        per_second: *per_second,
    };
    let strangers: Vec<_> = known.iter().map(stranger).collect();
    let fleet = |old| machine::fleet::ledger::Fleet { old, strangers: strangers.clone(), ..fine().fleet };
    let busy = Observation { fleet: fleet(Quiet::Busy { open: 0 }), ..fine() };
    let status = step(NOW, &spec(""), &switching(Phase::Settling), &busy).status;
    let blocked = status.blocked.map(|blocked| (blocked.reason, blocked.message));
    assert_eq!((status.phase, blocked.is_some()), (Phase::Settling, named.is_some()));
    if let (Some((reason, message)), Some(named)) = (blocked, named) {
        assert!(reason == "CallersWithoutFilter" && message.contains(named), "{message}");
    }
    // They hold up nothing once they stay away.
    let quiet = Observation { fleet: fleet(fine().fleet.old), ..fine() };
    assert_eq!(step(NOW, &spec(""), &switching(Phase::Settling), &quiet).status.phase, Phase::Retaining);
}

#[rstest]
#[case::just_now(NOW - 100, None)]
#[case::for_long(NOW - 5_000, Some("ConfigLaggards"))]
fn who_has_an_old_configuration_is_named_after_a_while(#[case] since: u64, #[case] reason: Option<&str>) {
    let late = machine::fleet::ledger::Laggard { proxy: "web.shop".to_owned(), why: "an old epoch".to_owned() };
    let fleet = machine::fleet::ledger::Fleet { config_laggards: vec![late], ..fine().fleet };
    let status = Status { phase_since: since, ..switching(Phase::Settling) };
    let plan = step(NOW, &spec(""), &status, &Observation { fleet, ..fine() });
    assert_eq!(plan.status.phase, Phase::Settling);
    assert_eq!(plan.status.blocked.map(|blocked| blocked.reason).as_deref(), reason);
    assert!(plan.waiting.contains("web.shop"), "{}", plan.waiting);
    assert_eq!(plan.requeue_ms.filter(|_| reason.is_none()), reason.is_none().then_some(4_900));
}

#[rstest]
#[case::routes_are_proved(Phase::ProvingRoutes, &["late", "both", "route"])]
#[case::only_acks_are_missing(Phase::Switching, &["late", "both"])]
#[case::all_is_proved(Phase::Settling, &["late", "both", "config", "route"])]
fn who_holds_a_phase_up_is_named_once(#[case] phase: Phase, #[case] names: &[&str]) {
    let all = |names: &[&str]| {
        let one = |name: &&str| machine::fleet::ledger::Laggard { proxy: (*name).to_owned(), why: "late".to_owned() };
        names.iter().map(one).collect::<Vec<_>>()
    };
    let fleet = machine::fleet::ledger::Fleet {
        laggards: all(&["late", "both"]),
        config_laggards: all(&["both", "config"]),
        route_laggards: all(&["config", "route"][if phase == Phase::ProvingRoutes { 1 } else { 0 }..]),
        ..fine().fleet
    };
    let found = phase.laggards(&fleet);
    assert_eq!(found.iter().map(|one| one.proxy.as_str()).collect::<Vec<_>>(), names);
}

#[test]
fn going_on_without_proof_is_remembered() {
    let seen = Observation { fleet: machine::fleet::ledger::Fleet { old: Quiet::Unknown, ..fine().fleet }, ..fine() };
    let both = ", settle: {timeout: 1s, onTimeout: Proceed}, switch: {laggards: Proceed}";
    let status = step(NOW, &spec(both), &switching(Phase::Settling), &seen).status;
    assert_eq!(status.phase, Phase::Retaining);
    let event = status.history.iter().find(|event| event.event == "WithoutProof").unwrap();
    assert!(event.message.contains("it is not known whether v1 is still used"), "{event:?}");
}

#[rstest]
#[case::as_written(NOW - 1, true, NOW - 1)]
#[case::a_proxy_is_ahead(NOW + 5, true, NOW + 6)]
#[case::but_nothing_to_lead_it_to(NOW + 5, false, NOW - 1)]
#[case::a_proxy_says_nonsense(u64::MAX, true, NOW - 1)]
fn a_record_that_was_restored_is_written_above_what_proxies_have(
    #[case] highest: u64,
    #[case] active_ready: bool,
    #[case] epoch: u64,
) {
    let mut seen = fine();
    seen.fleet.highest_epoch = highest;
    seen.versions.entry("v1".to_owned()).or_default().ready = active_ready;
    let manual = ", promotion: {mode: Manual}";
    let before = switching(Phase::AwaitingPromotion);
    let after = step(NOW, &spec(manual), &before, &seen).status;
    assert_eq!((after.epoch(), after.active_version.as_str()), (epoch, "v1"), "{after:#?}");
    assert_eq!(after.blocked.map(|blocked| blocked.reason).as_deref(), Some("AwaitingPromotion"));
}

#[test]
fn an_event_has_the_epoch_that_it_led_to() {
    let status = step(NOW, &spec(""), &switching(Phase::ProvingRoutes), &fine()).status;
    assert_eq!(status.phase, Phase::Switching);
    let flipped = status.history.iter().find(|event| event.event == "Flipped").unwrap();
    assert_eq!((flipped.epoch, flipped.epoch > NOW - 1), (status.epoch(), true));
}

#[test]
fn the_old_version_is_stopped_only_after_the_proxies_dropped_it() {
    let status = step(NOW, &spec(""), &switching(Phase::Retaining), &fine()).status;
    assert_eq!((status.phase, status.record.as_ref().unwrap().versions.contains("v1")), (Phase::Removing, false));
    let behind = Observation { fleet: machine::fleet::ledger::Fleet { acked: 0, ..fine().fleet }, ..fine() };
    let stop = Effect::Stop { version: "v1".to_owned() };
    assert!(!step(NOW, &spec(""), &status, &behind).effects.contains(&stop));
    assert!(step(NOW, &spec(""), &status, &fine()).effects.contains(&stop));
}

#[rstest]
#[case("switch: {mode: Fenced}", "Fenced is not supported yet")]
#[case("routing: {header: X-Flag}", "not a lower-case HTTP header name")]
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
fn what_is_not_supported_is_refused(#[case] extra: &str, #[case] why: &str) {
    let wrong = spec(&format!(", {extra}")).validate();
    assert!(wrong.iter().any(|one| one.contains(why)), "{wrong:?}");
}

#[test]
fn a_gateway_needs_a_name_only_and_a_service_where_there_are_several() {
    let gateway = |fields: &str| format!(", routing: {{provider: GatewayAPI, gateways: [{{name: a{fields}}}]}}");
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
    let wrong = spec(&format!(", routing: {{provider: GatewayAPI, gateways: [{{{one}}}, {{{other}}}]}}")).validate();
    let same = "spec.routing.gateways[1] (a): [0] is for the same requests: give one another path or other hostnames";
    assert_eq!(wrong, if valid { vec![] } else { vec![same] });
}

#[test]
fn routes_that_are_about_to_be_written_are_waited_for_and_block_nothing() {
    let problem = |reason| RouteProblem { reason, message: "a sentence".to_owned(), snippet: String::new() };
    let seen = |reason| Observation { routes: Some(problem(reason)), ..fine() };
    let proving = step(NOW, &spec(""), &switching(Phase::ProvingRoutes), &seen(RouteProblem::WARMING));
    assert_eq!((proving.status.phase, proving.status.blocked), (Phase::ProvingRoutes, None));
    assert_eq!(proving.waiting, "a sentence");
    // A new version may start beside one that has its routes, and not before.
    let mut status = switching(Phase::Coexisting);
    status.switch.as_mut().unwrap().headroom_at = None;
    let starts = |reason| step(NOW, &spec(""), &status, &seen(reason)).status.switch.unwrap().headroom_at.is_some();
    assert!(starts(RouteProblem::WARMING));
    assert!(!starts(RouteProblem::PENDING));
}

#[test]
fn what_blocked_a_phase_is_not_said_of_the_next() {
    let mut status = switching(Phase::AwaitingPromotion);
    status.switch.as_mut().unwrap().promoted_at = None;
    let manual = spec(", promotion: {mode: Manual}");
    let waits = step(NOW, &manual, &status, &fine()).status;
    assert_eq!(waits.blocked.as_ref().unwrap().reason, "AwaitingPromotion");
    let request = Some(Request { id: "1".to_owned(), action: Action::Promote });
    let mut next = waits;
    for _ in 0..3 {
        next = step(NOW, &manual, &next, &Observation { request: request.clone(), ..fine() }).status;
    }
    assert_eq!((next.phase, next.blocked), (Phase::Switching, None));
}
