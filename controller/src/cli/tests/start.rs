//! What is printed before there is a flag: `init`, `preview` and `lint`.

use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use rstest::rstest;
use serde_json::{Value, json};

use super::super::args::{Cli, Command, Init};
use super::super::{init, lint, preview, render_istio};
use super::{seen, settling};
use cluster::resource::VersionFlag;
use cluster::workloads::Objects;
use flag::level::LEVEL;
use local::file::{File, VersionCommand};
use local::wasm::WasmError;
use local::yaml::Place;
use machine::status::{Phase, Status};

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

/// A local controller has previews as well, and its file what they need.
#[test]
fn a_preview_of_a_file_needs_no_cluster() {
    let file = LOCAL.replace("version: v1, services: [{name: reviews}]", "version: v2, services: [{name: reviews, hosts: [reviews.example]}], preview: {header: x-preview, value: secret}");
    let file = File::parse(&file.replace("versions: {v1", "versions: {v2"), Path::new("reviews.yaml")).expect("a file");
    let mut view = seen(Status { target_version: Some("v2".to_owned()), ..settling() });
    let status = Arc::make_mut(&mut view.status);
    (status.active_version, status.phase) = ("v1".to_owned(), Phase::AwaitingPromotion);
    let shown = preview::shown_of_file(&file, &view, "v2").expect("a preview");
    assert_eq!(shown.curl, ["curl -H 'x-preview: secret' -H 'host: reviews.example' http://ENVOY:PORT/"]);
    assert!(preview::shown_of_file(&file, &view, "v1").unwrap_err().contains("v1 is active"));
}

const FLAG: &str = "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews}, \
     spec: {version: v1, services: [{name: reviews}]}}";

const LOCAL: &str = "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews}, \
     spec: {version: v1, services: [{name: reviews}]}, \
     local: {proxies: [{id: edge}], versions: {v1: {command: [server], address: '127.0.0.1:1'}}}}";

/// What is wrong with a file beside a filter of today.
fn found(text: &str) -> Result<Vec<lint::Wrong>, String> {
    let looks = lint::Looks { filter: &|_| Ok(LEVEL), missing: &|_| vec![] };
    lint::lint(&[(Path::new("flag.yaml"), text)], &looks)
}

/// T10: the file of the filter is looked at, and what is said of it has the place where it is named.
#[rstest]
#[case::as_it_should_be(Ok(LEVEL), None)]
#[case::of_before(
    Ok(1),
    Some("! flag.yaml:2:35: VersionFlag reviews: local.filterConfig.wasm: /etc/f.wasm is older than")
)]
#[case::missing(
    Err(WasmError::Missing("f.wasm".into())),
    Some("✗ flag.yaml:2:35: VersionFlag reviews: local.filterConfig.wasm: f.wasm does not exist: `make filter` builds")
)]
fn the_file_of_the_filter_is_linted(#[case] is: Result<u32, WasmError>, #[case] expected: Option<&str>) {
    let file = LOCAL.replace("local: {", "local: {\nfilterConfig: {path: filter.json, wasm: /etc/f.wasm}, ");
    let looked = |path: &Path| {
        assert_eq!(path, Path::new("/etc/f.wasm"));
        is.clone()
    };
    let looks = lint::Looks { filter: &looked, missing: &|_| vec![] };
    let wrong = lint::lint(&[(Path::new("flag.yaml"), &file)], &looks).expect("a document");
    assert_eq!(wrong.iter().any(|one| one.error), is.is_err());
    let text = lint::text(&wrong);
    assert!(text.starts_with(expected.unwrap_or("✓ nothing would be refused")), "{text}");
}

/// Who checks a file for another machine is told, not refused.
#[test]
fn a_program_that_is_not_there_is_warned_of() {
    let missing = |how: &VersionCommand| vec![format!("command: there is no program {} in PATH", how.command.join(""))];
    let looks = lint::Looks { filter: &|_| Ok(LEVEL), missing: &missing };
    let file = LOCAL.replace("v1: {", "\nv1: {");
    let text = lint::text(&lint::lint(&[(Path::new("flag.yaml"), &file)], &looks).expect("a document"));
    let warned =
        "! flag.yaml:2:6: VersionFlag reviews: local.versions.v1.command: there is no program server in PATH\n";
    assert_eq!(text, format!("{warned}✓ nothing would be refused\n"));
}

#[rstest]
#[case::valid(FLAG, &[])]
#[case::misspelled(&FLAG.replace("version: v1", "version: v1, swich: {}"), &["✗ flag.yaml:1:105: VersionFlag reviews: spec.swich is not a field (did you mean switch?): there are version,"])]
#[case::no_label(&FLAG.replace("version: v1", "version: v1/2"), &["✗ flag.yaml:1:92: VersionFlag reviews: spec.version"])]
#[case::another_api(&FLAG.replace("v1alpha1", "v1"), &["✗ flag.yaml:1:2: VersionFlag reviews: apiVersion is not"])]
#[case::not_built(&FLAG.replace("version: v1", "version: v1, routing: {provider: External, management: UserProvided}"), &["✗ flag.yaml:1:135: VersionFlag reviews: spec.routing.management UserProvided is not supported"])]
#[case::local(LOCAL, &[])]
#[case::local_misspelled(&LOCAL.replace("proxies", "proxys"), &["✗ flag.yaml:1:135: VersionFlag reviews: local.proxies is missing", "✗ flag.yaml:1:143: VersionFlag reviews: local.proxys is not a field"])]
#[case::local_refused(&LOCAL.replace("version: v1", "version: v1, cleanup: {policy: Delete}"), &["✗ flag.yaml:1:115: VersionFlag reviews: spec.cleanup.policy"])]
#[case::counted(&format!("{FLAG}\n---\n{{kind: Deployment, metadata: {{name: a}}, spec: {{replicas: 2, template: {{metadata: {{labels: {{version: v1}}}}}}}}}}"), &["! flag.yaml:3:48: Deployment a: spec.replicas is set"])]
#[case::of_others(&format!("{FLAG}\n---\n{{kind: Deployment, metadata: {{name: a}}, spec: {{replicas: 2, template: {{metadata: {{labels: {{app: a}}}}}}}}}}"), &[])]
fn what_is_wrong_with_a_file_is_found(#[case] file: &str, #[case] expected: &[&str]) {
    let wrong = found(file).expect("documents");
    let text = lint::text(&wrong);
    assert_eq!(wrong.len(), expected.len(), "{text}");
    for (line, expected) in text.lines().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(text.ends_with("✓ nothing would be refused\n"), !wrong.iter().any(|one| one.error), "{text}");
}

/// E1, T13: what YAML reads as a number is said with its place, and what to do; the same by all who read it.
#[rstest]
#[case("1.10", "is read as the number 1.1: put it in quotes")]
#[case("1", "is read as the number 1: put it in quotes")]
#[case("true", "is read as true: put it in quotes")]
#[case("on", "is read as true: put it in quotes")]
#[case("", "is empty, and has to be text")]
fn a_version_without_quotes_is_said_as_such(#[case] version: &str, #[case] why: &str) {
    for file in [FLAG, LOCAL] {
        let file = file.replace("spec: {version: v1", &format!("\nspec: {{version: {version}"));
        let wrong = found(&file).expect("a document");
        let [one] = wrong.as_slice() else { panic!("{wrong:?}") };
        assert_eq!((one.error, one.message.as_str()), (true, &*format!("spec.version {why}")));
        assert_eq!(one.place, Some(Place { line: 2, column: 8 }));
    }
    let file = LOCAL.replace("spec: {version: v1", &format!("spec: {{version: {version}"));
    let refused = File::parse(&file, Path::new("reviews.yaml")).unwrap_err().to_string();
    assert!(refused.ends_with(&format!("spec.version {why}")), "{refused}");
    let refused = render_istio::read(&FLAG.replace("version: v1,", &format!("version: {version},"))).unwrap_err();
    assert!(refused.ends_with(&format!("spec.version {why}")), "{refused}");
}

/// T13: all of a file is looked at, that of a local controller too, and each thing is said with its place.
#[test]
fn all_of_a_file_is_looked_at() {
    let file = "apiVersion: versionflag.io/v1alpha1\nkind: VersionFlag\nmetadata:\n  name: reviews\nspec:\n  version: v1\n  \
                services: [{name: reviews, hosts: 3}]\n  settle:\n    quietPeriod: 3\nlocal:\n  proxies: edge\n  versions:\n    \
                v1:\n      command: [server, 80]\n      address: localhost\n      port: 80\n";
    let expected = "\
✗ flag.yaml:7:30: VersionFlag reviews: spec.services[0].hosts is the number 3, and has to be a list
✗ flag.yaml:9:5: VersionFlag reviews: spec.settle.quietPeriod is read as the number 3: put it in quotes
✗ flag.yaml:11:3: VersionFlag reviews: local.proxies is the text \"edge\", and has to be a list
✗ flag.yaml:14:25: VersionFlag reviews: local.versions.v1.command[1] is read as the number 80: put it in quotes
✗ flag.yaml:15:7: VersionFlag reviews: local.versions.v1.address is not an address with a port: write it as 127.0.0.1:9001
✗ flag.yaml:16:7: VersionFlag reviews: local.versions.v1.port is not a field: there are command, directory, env, address, http2, ready, stop, adopt, resources
";
    let said = |file: &str| lint::text(&found(file).expect("a document"));
    assert_eq!(said(file), expected);
    // What is not valid has its place, too.
    let file = LOCAL.replace("metadata:", "\nmetadata:").replace("v1: {c", "\nv2: {c");
    let expected = "✗ flag.yaml:2:35: VersionFlag reviews: spec.version \"v1\" is not in local.versions\n";
    assert!(said(&file).ends_with(expected), "{}", said(&file));
    let two = format!("{LOCAL}\n---\n{FLAG}\n");
    assert!(said(&two).contains("VersionFlag reviews: local is missing"), "{}", said(&two));
}

#[test]
fn a_file_without_a_flag_is_not_one_to_lint() {
    assert_eq!(found("{kind: Service}"), Err("flag.yaml: it has no VersionFlag".to_owned()));
    assert!(found("{").is_err());
}

/// T23: such a flag has no routes in a mesh, whoever asks for them.
#[test]
fn what_reads_files_is_not_rendered_for_a_mesh() {
    let file = FLAG.replace("spec: {version: v1", "spec: {routing: {provider: External}, version: v1");
    let input = render_istio::read(&file).expect("a flag");
    let image = cluster::istio::plugin::Image::default();
    let domain = cluster::domain::Domain::default();
    let refused = render_istio::render(input, machine::spec::Provider::Istio, &[], &image, &domain).unwrap_err();
    assert!(refused.contains("spec.routing.provider is External"), "{refused}");
}

/// T23
#[test]
fn a_misspelled_command_is_told_what_was_meant() {
    let said = Cli::try_parse_from(["versionflag", "statsu", "reviews.yaml"]).unwrap_err().to_string();
    assert!(said.contains("'status'"), "{said}");
}
