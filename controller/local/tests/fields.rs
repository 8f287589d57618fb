//! The schema of the file: the page that is made from it, and that it takes what the controller takes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use local::file::File;
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

/// One line of a table.
struct Row {
    path: String,
    kind: String,
    default: String,
    about: String,
}

/// What a field takes.
fn kind(field: &Value) -> String {
    let words = |all: &Value| all.as_array().into_iter().flatten().map(kind).collect::<Vec<_>>();
    if let Some(word) = field["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(all) = field["enum"].as_array() {
        return all.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    let choices = ["oneOf", "anyOf"].iter().flat_map(|one| words(&field[*one])).filter(|word| word != "null");
    let choices: Vec<String> = choices.collect();
    if !choices.is_empty() {
        return choices.join(", ");
    }
    let name = match &field["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap(),
        _ => "any",
    };
    match name {
        "array" => format!("list of {}", kind(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map to {}", kind(&field["additionalProperties"]))
        }
        "string" => "text".to_owned(),
        "integer" | "number" => "number".to_owned(),
        "boolean" => "`true`, `false`".to_owned(),
        name => name.to_owned(),
    }
}

/// All fields below one, each once.
fn rows(path: &str, field: &Value, all: &mut Vec<Row>) {
    let needed: Vec<&str> = field["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, one) in field["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let shown = |value: &Value| match value {
            Value::Null | Value::Object(_) => String::new(),
            value => format!("`{value}`"),
        };
        let default = if needed.contains(&name.as_str()) { "needed".to_owned() } else { shown(&one["default"]) };
        // The way to choose something by a field of its own is explained where it is chosen.
        let about = one["description"].as_str().or(field["description"].as_str()).unwrap_or_default();
        let about = about.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        all.push(Row { path: path.clone(), kind: kind(one), default, about });
        below(&path, one, all);
    }
}

fn below(path: &str, field: &Value, all: &mut Vec<Row>) {
    rows(path, field, all);
    for one in ["oneOf", "anyOf"].iter().flat_map(|one| field[*one].as_array()).flatten() {
        below(path, one, all);
    }
    if field["items"].is_object() {
        below(&format!("{path}[]"), &field["items"], all);
    }
    if field["additionalProperties"].is_object() {
        below(&format!("{path}.NAME"), &field["additionalProperties"], all);
    }
}

/// In which table a field stands: one for each part of the spec that has parts itself, and one for what has none.
fn table<'a>(row: &'a Row, all: &[Row]) -> &'a str {
    let parents: Vec<usize> = row.path.match_indices('.').map(|(at, _)| at).collect();
    let part = parents.get(1).map_or(row.path.as_str(), |at| &row.path[..*at]).trim_end_matches("[]");
    let has_parts = |one: &Row| one.path.strip_prefix(part).is_some_and(|rest| rest.starts_with(['.', '[']));
    match part.split_once('.') {
        Some(_) if all.iter().any(has_parts) => part,
        Some((first, _)) => first,
        None => "",
    }
}

fn page() -> String {
    let (mut all, mut text) = (vec![], BEGIN.to_owned());
    rows("", &schema().to_value(), &mut all);
    let mut tables: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &all {
        tables.entry(table(row, &all)).or_default().push(row);
    }
    for (part, rows) in tables {
        let title = if part.is_empty() { "The document".to_owned() } else { format!("`{part}`") };
        write!(text, "\n## {title}\n\n| field | takes | default | what it is |\n| --- | --- | --- | --- |\n").unwrap();
        for Row { path, kind, default, about } in rows {
            writeln!(text, "| `{path}` | {kind} | {default} | {about} |").unwrap();
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
    let mut all = vec![];
    rows("", &schema().to_value(), &mut all);
    assert!(all.len() > 100, "{}", all.len());
    for row in &all {
        assert!(row.about.ends_with(['.', ':', ')']), "{}: {:?}", row.path, row.about);
        assert!(!row.kind.contains("any"), "{}: {}", row.path, row.kind);
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
