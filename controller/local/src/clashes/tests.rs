use std::path::Path;

use rstest::rstest;

use crate::sources::Reading;
use crate::yaml::documents;

/// Two flags that share everything that may be shared.
const FLAGS: &str = r"
apiVersion: versionflag.io/v1alpha1
kind: VersionFlag
metadata: {name: reviews}
spec: {version: v1, services: [{name: reviews}], routing: {header: x-version}}
local:
  listen: 127.0.0.1:7070
  proxies: [{id: edge, token: secret}]
  filterConfig: {path: filter.json, routes: routes.json, clusters: clusters.json, wasm: f.wasm, role: edge}
  versions: {v1: {command: [a], address: '127.0.0.1:9001'}}
---
apiVersion: versionflag.io/v1alpha1
kind: VersionFlag
metadata: {name: ratings}
spec: {version: v1, services: [{name: ratings}], routing: {header: x-version}}
local:
  listen: 127.0.0.1:7070
  proxies: [{id: edge, token: secret}]
  filterConfig: {path: filter.json, routes: routes.json, clusters: clusters.json, wasm: f.wasm, role: edge}
  versions: {v1: {command: [a], address: '127.0.0.1:9011'}}
";

fn refused(text: &str) -> Vec<String> {
    let mut reading = Reading::default();
    reading.add(documents(text).unwrap(), Path::new("/x/shop.yaml"));
    assert_eq!(reading.unread.iter().map(|one| one.error.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    reading.clashes().into_iter().map(|(_, error)| error.to_string()).collect()
}

/// T15, T24: each is said of the later flag, with its place.
#[rstest]
#[case::nothing("", "", &[])]
#[case::name("name: ratings}\nspec", "name: reviews}\nspec", &["line 14, column 12: metadata.name \"reviews\" is that of another flag"])]
#[case::state("  listen: 127", "  stateFile: one.json\n  listen: 127", &["local.stateFile is /x/one.json for reviews (/x/shop.yaml) too"])]
#[case::host("[{name: ratings}]", "[{name: ratings, hosts: [reviews]}]", &["line 15, column 48: spec.services.hosts \"reviews\" is a host of reviews"])]
#[case::host_by_another_spelling("[{name: ratings}]", "[{name: ratings, hosts: ['Reviews.:80']}]", &["line 15, column 48: spec.services.hosts \"Reviews.:80\" is a host of reviews"])]
#[case::files_by_another_spelling("filter.json, routes: routes.json", "../x/./filter.json, routes: ./routes.json", &[])]
#[case::listen("7070\n  proxies", "7071\n  proxies", &["line 17, column 3: local.listen is 127.0.0.1:7071, and 127.0.0.1:7070 for reviews"])]
#[case::header("x-version", "x-other-version", &["line 15, column 60: spec.routing.header is x-other-version, and x-version for reviews"])]
#[case::wasm("f.wasm", "g.wasm", &["local.filterConfig.wasm is another one for reviews"])]
#[case::cluster("role: edge", "role: edge, cluster: other", &["local.filterConfig.cluster is another one"])]
#[case::role("role: edge", "role: caller", &["local.filterConfig.role is another one"])]
#[case::routes("routes.json", "r.json", &["local.filterConfig.routes is another one"])]
#[case::clusters("clusters.json", "c.json", &["local.filterConfig.clusters is another one"])]
#[case::token("token: secret", "token: other", &["local.proxies.id \"edge\" has another token in reviews"])]
#[case::address("9011", "9001", &["local.versions.v1.address 127.0.0.1:9001 is that of version v1 of reviews"])]
#[case::kinds("path: filter.json, routes: routes.json", "path: other.json, routes: filter.json", &["local.filterConfig.routes is /x/filter.json, which is local.filterConfig.path of reviews"])]
#[case::service("[{name: ratings}]", "[{name: reviews, hosts: [ratings]}]", &["spec.services.name \"reviews\" is a service of reviews"])]
#[case::cluster_names("[{name: ratings}]", "[{name: ratings, clusters: {v1: [reviews-v1]}}]", &["spec.services.clusters \"reviews-v1\" is a cluster of reviews"])]
fn what_two_flags_may_not_share_is_said(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    let at = FLAGS.find("---").unwrap();
    let (first, second) = FLAGS.split_at(at);
    // A state file is the same only where both say so.
    let first = if from.starts_with("  listen") { first.replace(from, to) } else { first.to_owned() };
    let said = refused(&(first + &second.replace(from, to)));
    assert_eq!(said.len(), expected.len(), "{said:?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said}");
    }
}

/// T15: what needs the same filter only where it is the same file.
#[test]
fn flags_of_two_envoys_share_little() {
    let at = FLAGS.find("---").unwrap();
    let (first, second) = FLAGS.split_at(at);
    let other = [
        ("filter.json", "f2.json"),
        ("routes.json", "r2.json"),
        ("clusters.json", "c2.json"),
        ("x-version", "x-version-2"),
        ("f.wasm", "g.wasm"),
        ("[{name: ratings}]", "[{name: reviews, hosts: [ratings]}]"),
    ];
    let second = other.iter().fold(second.to_owned(), |text, (from, to)| text.replace(from, to));
    assert_eq!(refused(&(first.to_owned() + &second)), Vec::<String>::new());
}
