//! What is drawn of a flag, from the flag service and from the resource.

mod page;
mod screen;
mod several;
mod start;
mod starts;
mod waits;

use std::collections::BTreeMap;

use clap::{CommandFactory, Parser};
use flag::answers::Answers;
use machine::fleet::ledger::{Fleet, Laggard, Quiet};
use machine::fleet::traffic::{Flow, Overlap, Traffic};
use rstest::rstest;
use serde_json::json;

use super::args::{Cli, Command, called};
use super::model::{Blocker, Model};
use super::{PORT, image, render_istio, show};
use cluster::domain::Domain;
use cluster::istio::plugin::Image;
use cluster::resource::VersionFlag;
use machine::checks::{CheckAnswer, Verdict};
use machine::history::Happening;
use machine::observation::VersionState;
use machine::plan::upcoming;
use machine::reason::Reason;
use machine::spec::{Provider, Spec};
use machine::status::{Blocked, FenceStatus, Override, Phase, Status, Switch};
use machine::time::UnixMs;
use service::FlagView;

const NOW: UnixMs = UnixMs(1_800_000_100_000);
const FLIPPED: UnixMs = UnixMs(NOW.0 - 5_200);

/// So many milliseconds ago.
fn ago(ms: u64) -> UnixMs {
    UnixMs(NOW.0 - ms)
}

/// A switch that two proxies hold up.
fn settling() -> Status {
    let mut status = Status::new("u-1", "shop/reviews", ago(90_000));
    status.enter(FLIPPED, Phase::Switching);
    status.active_version = "v2".to_owned();
    status.previous_version = Some("v1".to_owned());
    status.target_version = Some("v2".to_owned());
    status.switch = Some(Switch {
        from: "v1".to_owned(),
        to: "v2".to_owned(),
        started_at: ago(60_000),
        flipped_at: Some(FLIPPED),
        ..Switch::default()
    });
    status.blocked = Some(Blocked {
        reason: Reason::Laggards,
        message: "2 of 4 proxies have not acked".to_owned(),
        since: ago(1_000),
    });
    status.note(FLIPPED, Happening::Flipped, "from v1 to v2".to_owned());
    status
}

fn laggards() -> Vec<Laggard> {
    ["cart.shop", "job.shop"].map(|proxy| Laggard { proxy: proxy.to_owned(), why: "no report".to_owned() }).into()
}

/// What the flag service has of it, with nothing known of the requests.
fn seen(status: Status) -> FlagView {
    let runs = VersionState { running: true, ready: true, ..VersionState::default() };
    let fleet = Fleet { acked: 2, laggards: laggards(), ..Fleet::unknown(4) };
    FlagView {
        spec_version: "v2".to_owned(),
        versions: BTreeMap::from([("v1".to_owned(), runs.clone()), ("v2".to_owned(), runs)]),
        next: upcoming(&spec(), &status),
        waiting: status.blocked.as_ref().map(|blocked| blocked.message.clone()).unwrap_or_default(),
        traffic: Traffic { expected: 4, ..Traffic::default() },
        ..FlagView::of("shop/reviews".to_owned(), status.into(), fleet, NOW)
    }
}

fn view(status: Status) -> Model {
    Model::of_view(&seen(status), "reviews.yaml")
}

fn spec() -> Spec {
    serde_json::from_value(json!({ "version": "v2", "services": [{ "name": "reviews" }] })).expect("a spec")
}

fn resource(machine: Option<&Status>) -> Model {
    with(machine, None)
}

fn with(machine: Option<&Status>, live: Option<&FlagView>) -> Model {
    let blocked = machine.and_then(|machine| machine.blocked.as_ref());
    let laggards: Vec<_> = laggards().iter().map(|one| json!({ "proxy": one.proxy, "why": one.why })).collect();
    let status = machine.map(|machine| {
        json!({
            "activeVersion": machine.active_version, "phase": machine.phase,
            "blockedBy": blocked.map(|blocked| &blocked.message),
            "versions": [
                { "name": "v1", "role": "Old", "ready": true, "replicas": 2 },
                { "name": "v2", "role": "Active", "ready": false, "replicas": 2 },
                { "name": "v3", "role": "Other", "ready": false, "replicas": 0 },
            ],
            "proxies": { "expected": 4, "acked": 2, "summary": "2/4", "laggards": laggards },
            "conditions": [
                { "type": "Ready", "status": "False", "message": "v2 does not serve everywhere yet",
                  "reason": blocked.map_or("Switching", |blocked| blocked.reason.name()),
                  "lastTransitionTime": "2027-01-15T08:00:00Z" },
                { "type": "Switched", "status": "False", "message": "2 of 4 proxies acked",
                  "reason": "Laggards", "lastTransitionTime": "2027-01-15T08:00:00Z" },
            ],
            "machine": machine,
        })
    });
    let flag = json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": { "name": "reviews", "namespace": "shop", "creationTimestamp": "2027-01-15T08:00:00Z" },
        "spec": { "version": "v2", "services": [{ "name": "reviews" }] },
        "status": status,
    });
    let flag: VersionFlag = serde_json::from_value(flag).expect("a VersionFlag");
    Model::of_resource(&flag, live, "reviews -n shop".to_owned(), NOW)
}

#[test]
fn both_sources_give_one_tree() {
    let head = "reviews  v1→v2  Switching  epoch 0  5.2s  BLOCKED: Laggards\n";
    let rest = "├─ proxies 2/4 acked\n\
                │  ├─ cart.shop  no report\n\
                │  └─ job.shop  no report\n\
                ├─ flipped 5.2s ago, not all acked\n\
                ├─ waits for: 2 of 4 proxies have not acked\n\
                └─ next: v1 is stopped     undo: ";
    let served = "├─ v1 ○ old  ready\n├─ v2 ● active  ready\n";
    let found = "├─ v1 ○ old  ready  2 replicas\n├─ v2 ● active  not ready  2 replicas\n";
    let drawn = show::status(&view(settling()), "versionflag");
    assert_eq!(drawn, format!("{head}{served}{rest}versionflag rollback reviews.yaml\n"));
    assert_eq!(
        show::status(&resource(Some(&settling())), "kubectl versionflag"),
        format!("{head}{found}{rest}kubectl versionflag rollback reviews -n shop\n")
    );
}

/// What a mesh of four proxies has to say, two of which are not heard of.
fn busy() -> (Status, FlagView) {
    let mut status = settling();
    status.enter(ago(3_000), Phase::Settling);
    if let Some(switch) = &mut status.switch {
        switch.acked_at = Some(ago(5_000));
    }
    let mut view = seen(status.clone());
    let flow = |open: u64, per_second: f64, rated: usize| Flow { started: 9_000, open, per_second, rated };
    view.traffic = Traffic {
        expected: 4,
        known: 2,
        versions: BTreeMap::from([("v1".to_owned(), flow(1, 0.0, 0)), ("v2".to_owned(), flow(7, 412.4, 2))]),
    };
    view.fleet.overlap = Some(Overlap { from: "v1".to_owned(), to: "v2".to_owned(), ms: 900 });
    view.fleet.answers = BTreeMap::from([("v2".to_owned(), Answers { failed: 8, by_ms: vec![0, 8_214] })]);
    let answer = |verdict, message: &str| CheckAnswer { verdict, message: message.to_owned(), since: NOW };
    view.checks = BTreeMap::from([
        ("errors".to_owned(), answer(Verdict::Passed, "0.0974% of 8214 answers failed, at most 1% may")),
        ("soak".to_owned(), answer(Verdict::Inconclusive, "the query gives no data")),
    ]);
    (status, view)
}

#[test]
fn what_is_known_in_part_is_shown_as_a_bound_and_what_is_unknown_as_such() {
    let (status, view) = busy();
    let tree = show::status(&with(Some(&status), Some(&view)), "versionflag");
    let expected = "\
reviews  v1→v2  Settling  epoch 0  3.0s  BLOCKED: Laggards
├─ v1 ○ old  ready  2 replicas  ? rps  in flight ≥1
├─ v2 ● active  not ready  2 replicas  ≥412 rps  in flight ≥7  0.0973% 5xx of 8214
├─ proxies 2/4 acked
│  ├─ cart.shop  no report
│  └─ job.shop  no report
├─ check errors ✔ 0.0974% of 8214 answers failed, at most 1% may
├─ check soak ? the query gives no data
├─ flipped 5.2s ago, all acked after 200 ms, overlap 0.9s
├─ waits for: 2 of 4 proxies have not acked
└─ next: v1 is stopped     undo: versionflag rollback reviews -n shop
";
    assert_eq!(tree, expected);
    // The service is the same one, but of another flag of that name.
    let other = FlagView { status: Status::new("u-2", "shop/reviews", NOW).into(), ..view.clone() };
    assert_eq!(
        show::status(&with(Some(&status), Some(&other)), "versionflag"),
        show::status(&resource(Some(&status)), "versionflag")
    );
    let mut all = view;
    all.traffic.known = 4;
    let flows = all.traffic.versions.values_mut();
    flows.for_each(|flow| *flow = Flow { rated: 4, per_second: flow.per_second / 1_000.0, ..*flow });
    let tree = show::status(&with(Some(&status), Some(&all)), "versionflag");
    assert!(tree.contains("v1 ○ old  ready  2 replicas  0 rps  in flight 1\n"), "{tree}");
    assert!(tree.contains("0.4 rps  in flight 7  "), "{tree}");
}

#[test]
fn why_names_the_blocker_its_age_and_what_helps() {
    let expected = "reviews is blocked in Switching by Laggards for 1.0s: 2 of 4 proxies have not acked\n  \
                    what ends it: Each named proxy acks, or is gone or no longer listed; after `switch.ackTimeout` `switch.laggards` decides.\n  \
                    cart.shop: no report\n  job.shop: no report\n  undo: versionflag rollback reviews -n shop\n";
    assert_eq!(show::why(&resource(Some(&settling())), "versionflag"), expected);
    let mut free = settling();
    free.blocked = None;
    let text = show::why(&resource(Some(&free)), "versionflag");
    assert!(text.starts_with("reviews is Switching, waits for: 2 of 4 proxies acked\n"), "{text}");
}

#[test]
fn a_flag_that_nobody_looked_at_says_so() {
    let model = resource(None);
    let waits = "the controller to look at it: check that it runs";
    assert_eq!(show::status(&model, "versionflag"), format!("reviews  v2\n└─ waits for: {waits}\n"));
    assert_eq!(show::why(&model, "versionflag"), format!("reviews waits for {waits}\n"));
    assert_eq!(show::history(&model), "");
}

#[test]
fn the_history_has_the_time_to_the_millisecond() {
    let line = "2027-01-15T08:01:34.800Z  epoch 0  Flipped: from v1 to v2\n";
    assert_eq!(show::history(&resource(Some(&settling()))), line);
    assert_eq!(show::history(&view(settling())), line);
}

#[test]
fn flags_make_a_table() {
    let table = show::table(&[resource(Some(&settling())), resource(None), view(settling())]);
    let expected = "\
NAMESPACE   NAME      TARGET   ACTIVE   PHASE       PROXIES   READY     BLOCKED-BY   AGE
shop        reviews   v2       v2       Switching   2/4       False     Laggards     100s
shop        reviews   v2       -        -           0/0       Unknown   -            100s
shop        reviews   v2       v2       Switching   2/4       False     Laggards     -
";
    assert_eq!(table, expected);
}

#[rstest]
#[case::waits(Phase::AwaitingPromotion, false, false, Some("promote"))]
#[case::before_flip(Phase::Coexisting, false, false, Some("abort"))]
#[case::flipped(Phase::Settling, false, false, Some("rollback"))]
#[case::rolled_back(Phase::Settling, true, false, Some("retry"))]
#[case::held(Phase::Stable, true, false, Some("retry"))]
#[case::stable(Phase::Stable, false, false, None)]
#[case::suspended(Phase::Settling, false, true, Some("resume"))]
fn the_advice_fits_the_phase(
    #[case] phase: Phase,
    #[case] held: bool,
    #[case] suspended: bool,
    #[case] expected: Option<&str>,
) {
    let mut status = Status { phase, suspended, ..settling() };
    status.r#override = held.then(|| Override {
        version: "v1".to_owned(),
        for_spec_version: "v2".to_owned(),
        reason: "by request".to_owned(),
        at: NOW,
    });
    assert_eq!(resource(Some(&status)).advice(), expected);
    assert_eq!(view(status).advice(), expected);
}

#[rstest]
#[case::path("/usr/local/bin/versionflag", "versionflag")]
#[case::plugin("/usr/local/bin/kubectl-versionflag", "kubectl versionflag")]
#[case::bare("kubectl-versionflag", "kubectl versionflag")]
fn the_name_is_how_people_call_it(#[case] path: &str, #[case] expected: &str) {
    assert_eq!(called(Some(path.as_ref())), expected);
    let help = Cli::command().bin_name(expected).render_help().to_string();
    assert!(help.contains(&format!("Usage: {expected} <COMMAND>")), "{help}");
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

const FLAG: &str = "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews, namespace: shop}, \
     spec: {version: v1, services: [{name: reviews}], \
     callers: {gateways: [{namespace: edge, matchLabels: {istio: ingress}}]}}}\n";
const SERVICE: &str = "---\n{apiVersion: v1, kind: Service, metadata: {name: reviews}, \
     spec: {selector: {app: reviews}, ports: [{port: 80, name: http}, {port: 81, name: grpc}]}}\n";

/// With a route of a gateway.
fn attached(fields: &str) -> String {
    let routing = format!("routing: {{provider: GatewayAPI, gateways: [{{name: public, namespace: edge{fields}}}]}}");
    format!(
        "{}{SERVICE}",
        FLAG.replace("callers: {gateways: [{namespace: edge, matchLabels: {istio: ingress}}]}", &routing)
    )
}

/// What is rendered, and `KIND NAMESPACE/NAME` of each document.
fn rendered(file: &str, provider: Provider, domain: &Domain) -> (Vec<serde_json::Value>, Vec<String>) {
    let (url, cluster) =
        (Some("oci://registry.example/filter@sha256:00".to_owned()), "outbound|7070||versionflag".to_owned());
    let image = Image { url, cluster, ..Image::default() };
    let input = render_istio::read(file).unwrap();
    let text = render_istio::render(input, provider, &["v2".to_owned()], &image, domain).unwrap();
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
    let name = |one: &serde_json::Value| {
        format!("{} {}/{}", one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]).replace('"', "")
    };
    let named = documents.iter().map(name).collect();
    (documents, named)
}

/// Every command that names Services takes the domain, and refuses what is none.
#[rstest]
#[case::controller("controller --identity one")]
#[case::doctor("doctor")]
#[case::init("init reviews --version v1")]
#[case::istio("render istio --file flag.yaml")]
#[case::gateway_api("render gateway-api --file flag.yaml")]
fn the_domain_of_the_cluster_is_an_option(#[case] command: &str) {
    let with =
        |domain: &str| Cli::try_parse_from(format!("versionflag {command} --cluster-domain={domain}").split(' '));
    let cli = with("corp.example").unwrap();
    assert!(format!("{:?}", cli.command).contains(r#"cluster_domain: Domain("corp.example")"#));
    let refused = with("svc.corp.example").unwrap_err().to_string();
    let why = "'--cluster-domain <DOMAIN>': svc. belongs to the names of Services, not to the domain: did you mean \
               corp.example?";
    assert!(refused.contains(why), "{refused}");
}

/// The plugin that the controller itself would write leads to the flag service by the same names.
#[rstest]
#[case("", "outbound|7070||versionflag.home.svc.cluster.local")]
#[case(" --cluster-domain corp.example", "outbound|7070||versionflag.home.svc.corp.example")]
fn the_flag_service_has_its_name_in_the_cluster(#[case] option: &str, #[case] cluster: &str) {
    let cli = Cli::try_parse_from(format!("versionflag controller --identity one{option}").split(' ')).unwrap();
    let Command::Controller(options) = cli.command else { panic!("another command") };
    assert_eq!(image(options.plugin, "home", PORT, &options.names.cluster_domain).cluster, cluster);
}

#[rstest]
#[case(FLAG, Provider::Istio)]
#[case(&format!("{FLAG}{SERVICE}"), Provider::GatewayAPI)]
fn what_would_be_written_has_the_names_of_the_cluster(#[case] file: &str, #[case] provider: Provider) {
    let (documents, _) = rendered(file, provider, &"corp.example".parse().unwrap());
    let text = serde_json::Value::from(documents).to_string();
    assert!(text.contains("reviews.shop.svc.corp.example") && !text.contains("cluster.local"), "{text}");
}

#[test]
fn what_would_be_written_for_istio_is_printed() {
    let (documents, named) = rendered(FLAG, Provider::Istio, &Domain::default());
    assert!(named[3].starts_with("WasmPlugin edge/versionflag-gateway-"), "{named:?}");
    assert_eq!(named[4], "WasmPlugin shop/versionflag");
    assert_eq!(
        named[..3],
        [
            "DestinationRule shop/versionflag-reviews",
            "VirtualService shop/versionflag-reviews",
            "VirtualService shop/versionflag-reviews-delegate",
        ]
    );
    assert_eq!(named.len(), 5, "{named:?}");
    assert_eq!(documents[1]["spec"]["http"].as_array().map(Vec::len), Some(3));
    let config = documents[4]["spec"]["pluginConfig"].to_string();
    assert_eq!(flag::config::Config::parse(config.as_bytes()).unwrap().flags[0].name, "shop/reviews");
}

#[test]
fn what_would_be_written_for_the_gateway_api_is_printed() {
    let (documents, named) = rendered(&format!("{FLAG}{SERVICE}"), Provider::GatewayAPI, &Domain::default());
    assert_eq!(
        named[..4],
        [
            "Service shop/reviews-v1",
            "Service shop/reviews-v2",
            "HTTPRoute shop/versionflag-reviews-80",
            "HTTPRoute shop/versionflag-reviews-81",
        ]
    );
    assert_eq!(named.len(), 6, "{named:?}");
    let config = documents[5]["spec"]["pluginConfig"].to_string();
    let clusters = &flag::config::Config::parse(config.as_bytes()).unwrap().flags[0].members[0].clusters;
    assert!(clusters["v2"].contains("outbound|81||reviews-v2.shop.svc.cluster.local"), "{clusters:?}");
    let (documents, named) =
        rendered(&attached(", port: 81, hostnames: [shop.example]"), Provider::GatewayAPI, &Domain::default());
    assert!(named[4].starts_with("HTTPRoute shop/versionflag-reviews-81-gateway-"), "{named:?}");
    assert_eq!(documents[4]["spec"]["hostnames"], json!(["shop.example"]));
    assert!(named[5].starts_with("WasmPlugin edge/versionflag-gateway-"), "{named:?}");
    assert_eq!(named.len(), 7, "{named:?}");
    let image = Image::default();
    for (provider, why) in [
        (Provider::GatewayAPI, "Service reviews has several ports, 80, 81: name one of them in port"),
        (Provider::Istio, "spec.routing.gateways is for provider GatewayAPI"),
    ] {
        let input = render_istio::read(&attached("")).unwrap();
        let refused = render_istio::render(input, provider, &[], &image, &Domain::default()).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    let missing =
        render_istio::render(render_istio::read(FLAG).unwrap(), Provider::GatewayAPI, &[], &image, &Domain::default());
    assert!(missing.unwrap_err().starts_with("Service reviews is not in the file"));
    for (text, count) in [(SERVICE, 0), (&*format!("{FLAG}---\n{FLAG}"), 2)] {
        assert_eq!(render_istio::read(text).unwrap_err(), format!("it has {count} VersionFlags, not one"));
    }
}
