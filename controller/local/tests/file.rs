//! Files that an operator may write, and what is said about those that are not taken.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use local::file::File;
use rstest::rstest;

fn file(spec: &str, local: &str) -> Result<File, String> {
    let text = format!(
        "apiVersion: versionflag.io/v1alpha1\nkind: VersionFlag\nmetadata: {{name: reviews}}\n\
         spec: {{version: v1, services: [{{name: reviews}}] {spec}}}\n\
         local:\n  versions:\n    v1: {{command: [sleep], address: '127.0.0.1:9001'}}\n{local}"
    );
    File::parse(&text, Path::new("/etc/reviews.yaml")).map_err(|error| error.to_string())
}

const EDGE: &str = "  proxies: [{id: edge}]\n";

/// T24, T31 and T36 are among them.
#[rstest]
#[case(", checks: [{name: errors}]", EDGE, "exactly one of builtin, prometheus and webhook")]
#[case(", callers: {namespaces: [a]}", EDGE, "spec.callers is not supported")]
#[case(", coexistence: {replicas: AsDeclared}", EDGE, "a version is one process")]
#[case(", routing: {provider: GatewayAPI}", EDGE, "read files")]
#[case(", routing: {management: UserProvided}", EDGE, "filterConfig.routes")]
#[case(", cleanup: {policy: Delete}", EDGE, "use ScaleToZero")]
#[case("", "  proxies: []\n", "local.proxies is empty")]
#[case(
    "",
    "  proxies: [{id: s, sidecar: {service: reviews, version: v1, filter: s.json, listen: '127.0.0.1:9101'}}]\n",
    "local.filterConfig is missing"
)]
#[case(
    "",
    "  proxies: [{id: s, sidecar: {service: ratings, version: v9, filter: f.json, listen: '127.0.0.1:9101'}}]\n  \
     filterConfig: {path: f.json, wasm: w}\n",
    "\"ratings\" is not in spec.services; line 8, column 49: local.proxies.sidecar.version \"v9\" is not in \
     local.versions; f.json would be written twice"
)]
#[case("", "  proxies: [{id: edge}]\n  filterConfig: {path: f, routes: f, wasm: w}\n", "routes is the same file")]
#[case(
    "",
    "  proxies: [{id: edge}]\n  filterConfig: {path: f, wasm: w, cluster: reviews-v1}\n",
    "\"reviews-v1\" of reviews is the cluster of the flag service: rename one"
)]
#[case("", "  proxies: [{id: edge}]\n  logs: {maxSize: many, keep: 1000}\n", "maxSize \"many\" is not understood")]
#[case("", "  proxies: [{id: edge}]\n  logs: {keep: 1000}\n", "at most 100 files")]
#[case(
    "",
    "  proxies: [{id: edge}]\n  filterConfig: {path: '', wasm: w}\n",
    "local.filterConfig.path is empty: name a file"
)]
#[case("", "  proxies: [{id: edge}]\n  filterConfig: {path: f, wasm: ''}\n", "local.filterConfig.wasm is empty")]
#[case(
    "",
    "  proxies: [{id: edge}]\n  filterConfig: {path: f, wasm: w, routes: ''}\n",
    "local.filterConfig.routes is empty"
)]
#[case(
    "",
    "  proxies: [{id: edge}]\n  filterConfig: {path: f, wasm: w, cluster: ''}\n",
    "local.filterConfig.cluster is empty"
)]
#[case(
    "",
    "    v3: {command: [a], address: '127.0.0.1:0'}\n  proxies: [{id: edge}]\n",
    "local.versions.v3.address 127.0.0.1:0 has no port"
)]
#[case(
    "",
    "  proxies: [{id: s, sidecar: {service: reviews, version: v1, filter: '', listen: '127.0.0.1:0'}}]\n  \
     filterConfig: {path: f.json, wasm: w}\n",
    "sidecar.filter is empty: name a file; line 8, column 74: local.proxies.sidecar.listen 127.0.0.1:0 has no port"
)]
#[case(
    "",
    "  listen: '127.0.0.1:9001'\n  proxies: [{id: edge}]\n",
    "line 7, column 28: local.versions.v1.address: 127.0.0.1:9001 is that of the flag service (local.listen"
)]
#[case("", "  listen: '0.0.0.0:9001'\n  proxies: [{id: edge}]\n", "(local.listen 0.0.0.0:9001)")]
fn what_is_wrong_is_said(#[case] spec: &str, #[case] local: &str, #[case] why: &str) {
    let error = file(spec, local).unwrap_err();
    assert!(error.contains(why), "{error}");
}

#[rstest]
#[case("ready: {path: /a, grpc: b}", "more than one of path, grpc and command")]
#[case("ready: {command: []}", "ready.command is empty")]
#[case("ready: {timeout: 0s}", "ready.timeout is 0s")]
#[case("stop: {signal: SIGSTOP}", "local.versions.v2.stop.signal SIGSTOP only halts it")]
#[case("env: {'': a}", "local.versions.v2.env \"\" has an empty name")]
#[case("env: {'A=B': a}", "local.versions.v2.env \"A=B\" has a = in its name")]
#[case("env: {A: \"a\\0b\"}", "local.versions.v2.env \"A\" has a NUL")]
#[case("env: {VERSIONFLAG_ID: a}", "local.versions.v2.env \"VERSIONFLAG_ID\" is the controller's")]
#[case("adopt: Anything", "is not understood: write Listener or pidFile")]
fn what_is_wrong_with_a_version_is_said(#[case] more: &str, #[case] why: &str) {
    let v2 =
        EDGE.replace("  proxies", &format!("    v2: {{command: [a], address: '127.0.0.1:9002', {more}}}\n  proxies"));
    let error = file("", &v2).unwrap_err();
    assert!(error.contains(why), "{error}");
}

/// T36
#[test]
fn a_cluster_that_is_there_twice_has_a_place() {
    let text = "apiVersion: versionflag.io/v1alpha1\nkind: VersionFlag\nmetadata: {name: reviews}\nspec:\n  version: v1\n  \
                services:\n  - name: reviews\n    clusters: {v1: [a], v2: [a]}\nlocal:\n  versions:\n    v1: {command: [a], \
                address: '127.0.0.1:9001'}\n  proxies: [{id: edge}]\n";
    let error = File::parse(text, Path::new("/etc/reviews.yaml")).unwrap_err().to_string();
    assert!(error.contains("line 8, column 5: spec.services.clusters \"a\" occurs twice"), "{error}");
}

/// T11: a pid file is found beside the file, like all that is relative.
#[test]
fn a_pid_file_is_relative_to_the_file() {
    let v2 = EDGE
        .replace("  proxies", "    v2: {command: [a], address: '127.0.0.1:9002', adopt: {pidFile: a.pid}}\n  proxies");
    let file = file("", &v2).unwrap();
    assert_eq!(file.local.versions["v2"].adopt, Some(local::file::Adopt::PidFile("/etc/a.pid".into())));
}

#[test]
fn paths_are_relative_to_the_file_and_clusters_have_a_default() {
    let file = file("", "  proxies: [{id: edge}]\n  filterConfig: {path: f.json, routes: r.json, wasm: w}\n").unwrap();
    let filter = file.local.filter_config.as_ref().unwrap();
    assert_eq!(
        (filter.path.as_path(), filter.routes.as_deref()),
        (Path::new("/etc/f.json"), Some(Path::new("/etc/r.json")))
    );
    let clusters = file.clusters(&file.spec.services[0]);
    assert_eq!(clusters, [("v1".to_owned(), ["reviews-v1".to_owned()].into())].into());
}
