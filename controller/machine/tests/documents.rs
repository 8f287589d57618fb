//! What the documents name is there: files, headings, and the modules of the map of the code.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn markdown(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown(&path, pages);
        } else if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
}

/// The text of a page without what stands in fences.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Where a page leads: what stands in `](HERE)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// The anchors of a page, as they are made of its headings.
fn anchors(page: &Path) -> BTreeSet<String> {
    let kept = |one: char| one.is_alphanumeric() || " -_".contains(one);
    let anchor = |heading: &str| heading.to_lowercase().chars().filter(|one| kept(*one)).collect::<String>();
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim()).replace(' ', "-")).collect()
}

fn leads_somewhere(page: &Path, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
    target.exists() && (anchor.is_empty() || anchors(&target).contains(anchor))
}

#[test]
fn every_link_of_a_page_leads_to_a_file_and_a_heading() {
    let mut pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)).to_vec();
    markdown(&root().join("docs"), &mut pages);
    markdown(&root().join("manifests"), &mut pages);
    let (mut followed, mut lost) = (0, vec![]);
    for page in &pages {
        let text = prose(page);
        for link in links(&text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            followed += 1;
            if !leads_somewhere(page, link) {
                lost.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(followed > 60, "{followed} links in {} pages", pages.len());
}

/// The places where a path of the map may be: `machine/plan` is `controller/machine/src/plan`.
fn places(named: &str) -> Vec<PathBuf> {
    let (head, rest) = named.split_once('/').unwrap();
    let folder = match head {
        "machine" | "cluster" | "service" | "local" => format!("controller/{head}/src"),
        "flag" | "filter" => format!("{head}/src"),
        "cli" => "controller/src/cli".to_owned(),
        "istio" | "gateway_api" | "reconciler" => format!("controller/cluster/src/{head}"),
        _ => ".".to_owned(),
    };
    let short = root().join(folder).join(rest);
    vec![root().join(named), short.with_extension("rs"), short]
}

#[test]
fn every_path_in_the_map_of_the_code_is_there() {
    let text = prose(&root().join("ARCHITECTURE.md"));
    let path = |one: &&str| one.contains('/') && one.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let named: BTreeSet<&str> = text.split('`').skip(1).step_by(2).filter(path).collect();
    let lost = named.iter().filter(|named| !places(named).iter().any(|place| place.exists()));
    assert_eq!(lost.collect::<Vec<_>>(), Vec::<&&str>::new());
    assert!(named.len() > 40, "{named:?}");
}

fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let built = path.file_name().is_some_and(|name| name == "target");
        if path.is_dir() && !built {
            sources(&path, texts);
        } else if path.extension().is_some_and(|end| end == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Every case of `tests/CASES.md` has its tests, each beside a comment with the id.
#[test]
fn every_case_has_its_tests() {
    let mut texts = vec![];
    ["flag", "filter", "controller", "tests"].iter().for_each(|folder| sources(&root().join(folder), &mut texts));
    let page = fs::read_to_string(root().join("tests/CASES.md")).unwrap();
    let rows =
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id") && !line.starts_with("| -"));
    let mut lost = vec![];
    for row in rows.clone() {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let (id, tests) = (cells[0], cells[3]);
        let word = |text: &String| text.split(|one: char| !one.is_ascii_alphanumeric()).any(|word| word == id);
        for test in tests.split('`').skip(1).step_by(2) {
            if !texts.iter().any(|text| text.contains(&format!("fn {test}(")) && word(text)) {
                lost.push(format!("{id}: {test}"));
            }
        }
    }
    assert_eq!(lost, Vec::<String>::new());
    assert!(rows.count() > 20);
}
