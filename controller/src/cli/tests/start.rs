//! What is printed before there is a flag: `init`, `preview` and `lint`.

use std::sync::Arc;

use clap::Parser;
use rstest::rstest;
use serde_json::{Value, json};

use super::super::args::{Cli, Command, Init};
use super::super::{init, lint, preview};
use cluster::resource::VersionFlag;
use cluster::workloads::Objects;

/// Service reviews, whose Deployments of v1 and v2 have this label.
fn objects(label: &str) -> Objects {
    let mut objects = Objects::default();
    let service = json!({
        "metadata": { "name": "reviews", "namespace": "shop" },
        "spec": { "selector": { "app": "reviews" }, "ports": [{ "name": "http", "port": 80 }] },
    });
    objects.services.push(Arc::new(serde_json::from_value(service).expect("a Service")));
    for version in ["v1", "v2"] {
        let labels = json!({ "app": "reviews", label: version });
        let deployment = json!({
            "metadata": { "name": format!("reviews-{version}"), "namespace": "shop" },
            "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels } } },
        });
        objects.deployments.push(Arc::new(serde_json::from_value(deployment).expect("a Deployment")));
    }
    objects
}

fn asked(arguments: &str) -> Init {
    let cli = Cli::try_parse_from(format!("versionflag init {arguments}").split(' ')).expect("arguments");
    let Command::Init(options) = cli.command else { panic!("another command") };
    options
}

#[rstest]
#[case::mesh("version", "reviews --version v1", true, json!({}))]
#[case::as_documented("version", "reviews --version v1 -o yaml", true, json!({}))]
#[case::plain("version", "reviews --version v1", false, json!({ "routing": { "provider": "External" } }))]
#[case::mine("version", "reviews --version v1 --user-provided", true, json!({ "routing": { "management": "UserProvided" } }))]
#[case::other_label("app.kubernetes.io/version", "reviews --version v1", true, json!({ "versionLabel": "app.kubernetes.io/version" }))]
fn a_flag_is_as_short_as_it_can_be(
    #[case] label: &str,
    #[case] arguments: &str,
    #[case] in_mesh: bool,
    #[case] more: Value,
) {
    let options = asked(arguments);
    let flag = init::flag("shop", &options, in_mesh, &objects(label)).expect("a flag");
    let mut expected = json!({ "version": "v1", "services": [{ "name": "reviews" }] });
    expected.as_object_mut().expect("a spec").extend(more.as_object().cloned().expect("fields"));
    assert_eq!(flag["spec"], expected);
    let flag: VersionFlag = serde_json::from_value(flag).expect("a VersionFlag");
    assert_eq!(flag.spec.validate(), Vec::<String>::new());
    // Its routes are such as the check asks for.
    let routes = init::routes(&options.names.cluster_domain, "shop", &flag.spec, "reviews");
    let kinds: Vec<_> = routes.iter().map(|route| route["kind"].clone()).collect();
    assert_eq!(kinds, ["DestinationRule", "VirtualService"]);
    // With the names of the cluster.
    let elsewhere = asked(&format!("{arguments} --cluster-domain corp.example")).names.cluster_domain;
    let routes = init::routes(&elsewhere, "shop", &flag.spec, "reviews");
    let host = "reviews.shop.svc.corp.example";
    assert_eq!((&routes[0]["spec"]["host"], &routes[1]["spec"]["hosts"][0]), (&json!(host), &json!(host)));
}

#[rstest]
#[case::no_such_version(
    "version",
    "reviews --version v9",
    "Service reviews selects no workload of version v9; there are v1, v2"
)]
#[case::no_label("colour", "reviews --version v1", "its pod template has no label version")]
#[case::no_service("version", "ratings --version v1", "there is no Service ratings in namespace shop")]
fn a_flag_that_could_not_begin_is_refused(#[case] label: &str, #[case] arguments: &str, #[case] why: &str) {
    let refused = init::flag("shop", &asked(arguments), true, &objects(label)).expect_err("refused");
    assert!(refused.contains(why), "{refused}");
}

fn previewed(spec: &str, status: &str) -> Result<preview::PreviewText, String> {
    let flag = format!(
        "{{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {{name: reviews, namespace: shop}}, \
         spec: {{version: v2, services: [{{name: reviews}}] {spec}}}, status: {{{status}}}}}"
    );
    preview::shown(&serde_saphyr::from_str(&flag).expect("a VersionFlag"), "v2")
}

const PREVIEW: &str = ", preview: {header: x-preview, value: \"it's me\"}";
const WAITS: &str = "phase: AwaitingPromotion, activeVersion: v1, targetVersion: v2";

#[test]
fn a_preview_is_a_header_and_a_command() {
    let shown = previewed(PREVIEW, WAITS).expect("a preview");
    assert_eq!((shown.header.as_str(), shown.value.as_str()), ("x-preview", "it's me"));
    assert_eq!(shown.curl, [r"curl -H 'x-preview: it'\''s me' http://reviews.shop/"]);
}

#[rstest]
#[case::not_asked_for("", WAITS, "reviews has no preview: `kubectl patch vf reviews -n shop")]
#[case::active(PREVIEW, "phase: Stable, activeVersion: v2", "v2 is active")]
#[case::another(
    PREVIEW,
    "phase: AwaitingPromotion, activeVersion: v1, targetVersion: v3",
    "v2 is not what reviews switches to"
)]
#[case::too_early(PREVIEW, "phase: Coexisting, activeVersion: v1, targetVersion: v2", "and reviews is Coexisting")]
#[case::nothing_yet(PREVIEW, "", "v2 is not what reviews switches to")]
fn what_cannot_be_previewed_is_said(#[case] spec: &str, #[case] status: &str, #[case] why: &str) {
    let refused = previewed(spec, status).expect_err("refused");
    assert!(refused.contains(why), "{refused}");
}

const FLAG: &str = "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews}, \
     spec: {version: v1, services: [{name: reviews}]}}";

const LOCAL: &str = "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews}, \
     spec: {version: v1, services: [{name: reviews}]}, \
     local: {proxies: [{id: edge}], versions: {v1: {command: [server], address: '127.0.0.1:1'}}}}";

#[rstest]
#[case::valid(FLAG, &[])]
#[case::misspelled(&FLAG.replace("version: v1", "version: v1, swich: {}"), &["✗ VersionFlag reviews: unknown field `swich`"])]
#[case::no_label(&FLAG.replace("version: v1", "version: v1/2"), &["✗ VersionFlag reviews: spec.version"])]
#[case::another_api(&FLAG.replace("v1alpha1", "v1"), &["✗ VersionFlag reviews: apiVersion is not"])]
#[case::not_built(&FLAG.replace("version: v1", "version: v1, routing: {provider: External, management: UserProvided}"), &["✗ VersionFlag reviews: spec.routing.management UserProvided is not supported"])]
#[case::local(LOCAL, &[])]
#[case::local_misspelled(&LOCAL.replace("proxies", "proxys"), &["✗ VersionFlag reviews: "])]
#[case::local_refused(&LOCAL.replace("version: v1", "version: v1, cleanup: {policy: Delete}"), &["✗ VersionFlag reviews: spec.cleanup.policy"])]
#[case::counted(&format!("{FLAG}\n---\n{{kind: Deployment, metadata: {{name: a}}, spec: {{replicas: 2, template: {{metadata: {{labels: {{version: v1}}}}}}}}}}"), &["! Deployment a: spec.replicas is set"])]
#[case::of_others(&format!("{FLAG}\n---\n{{kind: Deployment, metadata: {{name: a}}, spec: {{replicas: 2, template: {{metadata: {{labels: {{app: a}}}}}}}}}}"), &[])]
fn what_is_wrong_with_a_file_is_found(#[case] file: &str, #[case] expected: &[&str]) {
    let wrong = lint::lint(file).expect("documents");
    let text = lint::text(&wrong);
    assert_eq!(wrong.len(), expected.len(), "{text}");
    for (line, expected) in text.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(text.ends_with("✓ nothing would be refused\n"), !wrong.iter().any(|one| one.error), "{text}");
}

#[test]
fn a_file_without_a_flag_is_not_one_to_lint() {
    assert_eq!(lint::lint("{kind: Service}"), Err("it has no VersionFlag".to_owned()));
    assert!(lint::lint("{").is_err());
}
