//! The schema of the file: the page that is made from it, and that it takes what the controller takes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use local::file::File;
use local::schema::fields::{Field, fields};
use local::schema::schema;
use rstest::rstest;
use serde_json::Value;

#[path = "../../machine/tests/plan/golden.rs"]
mod golden;

const BEGIN: &str = "# The fields of the file

What `versionflag local` reads, field by field; `versionflag schema` prints the same as JSON Schema, for editors. The
fields of `spec` are those of a VersionFlag in Kubernetes, where `local` is not. `[]` is each of a list, `NAME` each name
of a map. Without a default a field may be left out, unless it says that it is needed. Made from the code: do not edit.

What the fields are for is in [On one machine](local.md) and [In Kubernetes](kubernetes.md).
";

/// In which table a field stands: one for each part of the spec that has parts itself, and one for what has none.
fn table<'a>(row: &'a Field, all: &[Field]) -> &'a str {
    let parents: Vec<usize> = row.path.match_indices('.').map(|(at, _)| at).collect();
    let part = parents.get(1).map_or(row.path.as_str(), |at| &row.path[..*at]).trim_end_matches("[]");
    let has_parts = |one: &Field| one.path.strip_prefix(part).is_some_and(|rest| rest.starts_with(['.', '[']));
    match part.split_once('.') {
        Some(_) if all.iter().any(has_parts) => part,
        Some((first, _)) => first,
        None => "",
    }
}

fn page() -> String {
    let (all, mut text) = (fields(), BEGIN.to_owned());
    let mut tables: BTreeMap<&str, Vec<&Field>> = BTreeMap::new();
    for row in &all {
        tables.entry(table(row, &all)).or_default().push(row);
    }
    for (part, rows) in tables {
        let title = if part.is_empty() { "The document".to_owned() } else { format!("`{part}`") };
        write!(text, "\n## {title}\n\n| field | takes | default | what it is |\n| --- | --- | --- | --- |\n").unwrap();
        for Field { path, takes, default, needed, about } in rows {
            let default = default.as_ref().map(|value| format!("`{value}`")).filter(|_| !needed);
            let default = default.unwrap_or_else(|| if *needed { "needed" } else { "" }.to_owned());
            writeln!(text, "| `{path}` | {takes} | {default} | {} |", about.replace('|', "\\|")).unwrap();
        }
    }
    text
}

#[test]
fn the_page_of_fields_is_current() {
    golden::compare("docs/reference/fields.md", &page());
}

/// Who looks a field up finds what it is.
#[test]
fn every_field_is_explained() {
    let all = fields();
    assert!(all.len() > 100, "{}", all.len());
    for row in &all {
        assert!(row.about.ends_with(['.', ':', ')']), "{}: {:?}", row.path, row.about);
        assert!(!row.takes.contains("any"), "{}: {}", row.path, row.takes);
    }
}

const FILE: &str = r#"{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews},
  spec: {version: v1, services: [{name: reviews, hosts: [reviews.example]}]},
  local: {proxies: [{id: edge}], versions: {v1: {command: [server], address: '127.0.0.1:9001'}} #local
  }
}"#;

fn takes(text: &str) -> (bool, bool) {
    let value: Value = serde_saphyr::from_str(text).unwrap();
    let read = File::parse(text, Path::new("/etc/reviews.yaml"));
    (jsonschema::validator_for(&schema().to_value()).unwrap().is_valid(&value), read.is_ok())
}

/// Who edits by the schema is told the same as who starts the controller.
#[rstest]
#[case::as_it_is("", "", true)]
#[case::a_role("#local", ", filterConfig: {path: f, wasm: w, role: edge}", true)]
#[case::no_such_role("#local", ", filterConfig: {path: f, wasm: w, role: Edge}", false)]
#[case::adopted("9001'}}", "9001', adopt: {pidFile: /run/a.pid}}}", true)]
#[case::adopted_by_its_listener("9001'}}", "9001', adopt: Listener}}", true)]
#[case::no_way_to_adopt("9001'}}", "9001', adopt: Port}}", false)]
#[case::misspelled("#local", ", stateFiles: a", false)]
#[case::a_number_for_a_text("version: v1", "version: 1", false)]
#[case::a_length_of_time("spec: {", "spec: {settle: {quietPeriod: 1m30s}, ", true)]
#[case::a_command_that_is_no_list("[server]", "server", false)]
#[case::without_what_is_needed("proxies: [{id: edge}], ", "", false)]
#[case::a_size("#local", ", logs: {maxSize: 1Mi, keep: 2, directory: logs}", true)]
#[case::fewer_than_none("#local", ", logs: {keep: -1}", false)]
fn the_schema_takes_what_the_controller_takes(#[case] old: &str, #[case] new: &str, #[case] both: bool) {
    let text = FILE.replacen(old, new, usize::from(!old.is_empty()));
    assert_eq!(takes(&text), (both, both), "{text}");
}

/// What a text means, and what has to be together, only the controller knows.
#[rstest]
#[case::no_length_of_time("spec: {", "spec: {settle: {quietPeriod: soon}, ")]
#[case::a_version_that_is_not_there("version: v1", "version: v3")]
fn the_schema_does_not_know_all(#[case] old: &str, #[case] new: &str) {
    let text = FILE.replacen(old, new, 1);
    assert_eq!(takes(&text), (true, false), "{text}");
}

/// What is shipped is an example.
#[rstest]
#[case("manifests/envoy/reviews.yaml")]
#[case("manifests/systemd/reviews.yaml")]
#[case("controller/tests/envoys/reviews.yaml")]
fn shipped_files_are_valid_by_the_schema(#[case] path: &str) {
    let text = std::fs::read_to_string(Path::new("../..").join(path)).unwrap();
    assert!(takes(&text).0, "{path}");
}
