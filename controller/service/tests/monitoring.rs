//! The alerts and the dashboard of `manifests/monitoring` ask for metrics that there are, and every alert has a page.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;

use machine::reason::{Group, Reason};
use serde_json::Value;

#[path = "../../../docs/table.rs"]
mod table;

const PAGE: &str = include_str!("../../../docs/reference/http-api.md");
const ALERTS: &str = include_str!("../../../manifests/helm/versionflag/alerts.yaml");
const DASHBOARD: &str = include_str!("../../../manifests/monitoring/grafana-dashboard.json");
const README: &str = include_str!("../../../manifests/monitoring/README.md");

fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(ALERTS).unwrap();
    file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// What the panels and the variables of the dashboard ask for.
fn questions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                        found.push(text.to_owned())
                    }
                    _ => questions(value, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| questions(value, found)),
        _ => {}
    }
}

/// The metrics that an expression names, by the names of the table: a histogram has three.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
    let ours = words.filter(|word| word.starts_with("versionflag_"));
    let of_histogram = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word).to_owned()
    };
    ours.map(of_histogram).collect()
}

#[test]
fn every_metric_that_is_asked_for_has_a_row() {
    let documented: BTreeSet<String> = table::rows(PAGE, "metrics").into_iter().map(|row| row[0].clone()).collect();
    let mut asked: Vec<String> = alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()).collect();
    let count = asked.len();
    questions(&serde_json::from_str(DASHBOARD).unwrap(), &mut asked);
    assert!(count >= 7 && asked.len() > count + 20, "{count} of {}", asked.len());
    let named: BTreeSet<String> = asked.iter().flat_map(|expression| metrics(expression)).collect();
    let unknown: Vec<&String> = named.difference(&documented).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
    // A metric that nobody can see on the dashboard is of no use.
    let unseen: Vec<&String> = documented.difference(&named).collect();
    assert!(unseen.is_empty(), "on no panel: {unseen:?}");
}

#[test]
fn every_alert_is_described_and_has_a_page_and_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
        for text in ["summary", "description"] {
            assert!(alert["annotations"][text].as_str().unwrap().len() > 20, "{name}: {text}");
        }
        let page = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(page, format!("docs/runbooks/{name}.md"));
        let text = std::fs::read_to_string(root.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.starts_with(&format!("# {name}\n")), "{page}");
        for part in ["**What it means.**", "## Look first", "## What to do", "## What not to do"] {
            assert!(text.contains(part), "{page} lacks {part}");
        }
        assert!(README.contains(&format!("| [{name}](../../{page}) |")), "{name} has no row in the README");
        pages.insert(format!("{name}.md"));
    }
    let there = std::fs::read_dir(root.join("docs/runbooks")).unwrap();
    let there: BTreeSet<String> = there.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, pages);
}

/// The reasons that an alert names.
fn reasons(alert: &str) -> BTreeSet<Reason> {
    let all = alerts();
    let found = all.iter().find(|one| one["alert"] == alert).expect("the alert");
    let expression = found["expr"].as_str().unwrap();
    let (_, after) = expression.split_once("{reason").unwrap();
    let words = after.split('"').nth(1).unwrap();
    let reason = |word: &str| word.parse().unwrap_or_else(|_| panic!("{alert} names {word}, which is no reason"));
    words.split('|').map(reason).collect()
}

#[test]
fn alerts_name_the_reasons_that_they_are_about() {
    let persons = Reason::ALL.iter().copied().filter(|reason| reason.awaits_person()).collect();
    assert_eq!(reasons("FlipStuck"), persons);
    let of_routes = |reason: &Reason| reason.group() == Group::Routes && !reason.passes();
    let routes: BTreeSet<Reason> = Reason::ALL.iter().copied().filter(of_routes).collect();
    let drift = reasons("RouteDrift");
    // That is about the file of another flag.
    let missing: Vec<&Reason> = routes.difference(&drift).collect();
    assert_eq!(missing, [&Reason::OtherFlagUnread]);
    let more: Vec<&Reason> = drift.difference(&routes).collect();
    assert_eq!(more, [&Reason::RoutesNotProven, &Reason::RouteLaggards, &Reason::PastTheFlag]);
}
