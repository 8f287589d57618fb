//! Several flags of one controller, as commands take them. T15.

use std::path::{Path, PathBuf};

use rstest::rstest;

use crate::cli::{lint, render};
use local::file::File;
use machine::envoy::ROUTES;

fn text(name: &str, port: u16, more: &str) -> String {
    format!(
        "{{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {{name: {name}}}, spec: {{version: v1, \
         services: [{{name: {name}}}]}}, local: {{proxies: [{{id: edge}}], {more} versions: {{v1: {{command: [a], \
         address: '127.0.0.1:{port}'}}}}}}}}\n"
    )
}

fn files(all: &[String]) -> Vec<File> {
    all.iter().map(|text| File::parse(text, Path::new("/x/flag.yaml")).unwrap()).collect()
}

const STATIC: &str = "filterConfig: {path: filter.json, wasm: f.wasm, role: edge},";
const MANAGED: &str =
    "filterConfig: {path: filter.json, routes: routes.json, clusters: clusters.json, wasm: f.wasm, role: edge},";

/// Envoy would not start with routes to clusters that come later.
const MANAGED_CLUSTERS: &str = "filterConfig: {path: filter.json, clusters: clusters.json, wasm: f.wasm, role: edge},";

/// T15: the hosts and clusters of all flags, and one filter.
#[rstest]
#[case::files_of_the_operator(STATIC, 1, 1)]
#[case::files_of_the_controller(MANAGED, 0, 0)]
#[case::routes_of_the_operator(MANAGED_CLUSTERS, 1, 0)]
fn one_envoy_has_all_flags(#[case] filter: &str, #[case] hosts: usize, #[case] clusters: usize) {
    let flags = files(&[text("reviews", 1, filter), text("ratings", 2, filter)]);
    let envoy = render::envoy(&flags, None).unwrap();
    let count = |what: &str| envoy.matches(what).count();
    for name in ["reviews", "ratings"] {
        assert_eq!(count(&format!("            - name: \"{name}\"\n")), hosts, "{envoy}");
        assert_eq!(count(&format!("  - name: \"{name}-v1\"\n")), clusters, "{envoy}");
    }
    assert_eq!(count(&format!("route_config_name: {ROUTES}")), usize::from(hosts == 0), "{envoy}");
    assert_eq!((count("- name: versionflag\n"), count("cds_config:")), (1, usize::from(clusters == 0)), "{envoy}");
    assert_eq!(count("validate_clusters: false"), usize::from(hosts == 1 && clusters == 0), "{envoy}");
    assert!(envoy.starts_with("# Envoy for the flags reviews, ratings,"), "{envoy}");
}

/// T15: an Envoy has one filter, and the flags that do not list it have nothing there.
#[test]
fn an_envoy_has_the_flags_that_list_it() {
    let other = text("ratings", 2, STATIC).replace("id: edge", "id: other");
    let envoy = render::envoy(&files(&[text("reviews", 1, STATIC), other]), Some("other")).unwrap();
    assert!(envoy.contains("\"ratings\"") && !envoy.contains("\"reviews\""), "{envoy}");
    let other = text("ratings", 2, &STATIC.replace("filter.json", "other.json"));
    let refused = render::envoy(&files(&[text("reviews", 1, STATIC), other]), None).unwrap_err();
    assert!(refused.contains("an Envoy has one filter for all flags"), "{refused}");
}

/// T15: each document is judged, and all of them together, with the file that has it.
#[test]
fn all_files_are_linted_together() {
    let both = format!("{}---\n{}", text("b", 2, ""), text("c", 1, "").replace("version: v1, s", "version: v9, s"));
    let written = [("a.yaml", text("a", 1, "")), ("b.yaml", both), ("d.yaml", text("d", 1, ""))];
    let paths: Vec<(PathBuf, &String)> = written.iter().map(|(name, text)| (PathBuf::from(name), text)).collect();
    let files: Vec<(&Path, &str)> = paths.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    let said = lint::text(
        &lint::lint(&files, &lint::Looks { filter: &|_| Ok(flag::level::LEVEL), missing: &|_| vec![] }).unwrap(),
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("✗ b.yaml:3:") && lines[0].contains("VersionFlag c: spec.version \"v9\""), "{said}");
    assert!(
        lines[1].starts_with("✗ d.yaml:1:") && lines[1].contains("VersionFlag d: local.versions.v1.address"),
        "{said}"
    );
}
