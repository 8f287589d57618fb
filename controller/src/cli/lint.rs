//! `versionflag lint`: what is wrong with a file before it reaches a cluster, or a local controller. Pure.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use cluster::resource::VersionFlag;
use cluster::status::unsupported;
use local::file::{File, FileError};
use local::wasm::{WasmError, outdated};
use local::yaml::{self, Document, Place};

/// Which level the filter's file understands, or why it cannot be loaded.
pub(super) type LookAtFilter<'a> = dyn Fn(&Path) -> Result<u32, WasmError> + 'a;

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// `KIND NAME`.
    pub(super) object: String,
    /// Where in the file, as far as that is known.
    #[serde(flatten)]
    pub(super) place: Option<Place>,
    /// What it is.
    pub(super) message: String,
    /// The API server or the controller would refuse it.
    pub(super) error: bool,
}

/// One document, and what it is.
struct Linted {
    document: Document,
    value: Value,
    object: String,
}

impl Linted {
    fn new(document: Document) -> Linted {
        let value = document.value();
        let text = |path: &str| value.pointer(path).and_then(Value::as_str);
        let (kind, name) = (text("/kind").unwrap_or_default(), text("/metadata/name").unwrap_or("without a name"));
        Linted { object: format!("{kind} {name}"), value, document }
    }

    fn is(&self, kinds: &[&str]) -> bool {
        self.value.get("kind").and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind))
    }

    fn error(&self, wrong: yaml::Wrong) -> Wrong {
        Wrong { object: self.object.clone(), place: wrong.place, message: wrong.message, error: true }
    }
}

/// Everything that is wrong with the documents of a file.
pub(super) fn lint(text: &str, path: &Path, filter: &LookAtFilter<'_>) -> Result<Vec<Wrong>, String> {
    let documents = yaml::documents(text).map_err(|error| error.to_string())?;
    let documents: Vec<Linted> = documents.into_iter().map(Linted::new).collect();
    let mut those = documents.iter().filter(|one| one.is(&["VersionFlag"]));
    if let Some(one) = those.clone().chain(&documents).find(|one| one.value.get("local").is_some()) {
        let found = lint_local(&one.document, text, path, filter).into_iter();
        return Ok(found.map(|(wrong, error)| Wrong { error, ..one.error(wrong) }).collect());
    }
    if those.next().is_none() {
        return Err("it has no VersionFlag".to_owned());
    }
    let (mut wrong, mut flags) = (vec![], vec![]);
    for one in documents.iter().filter(|one| one.is(&["VersionFlag"])) {
        let (flag, found) = lint_flag(&one.document, &one.value);
        wrong.extend(found.into_iter().map(|wrong| one.error(wrong)));
        flags.extend(flag);
    }
    let workloads = documents.iter().filter(|one| one.is(&["Deployment", "StatefulSet"]));
    let labels = |value: &Value| value.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
    let counted = workloads.filter(|one| {
        one.value.pointer("/spec/replicas").is_some()
            && flags.iter().any(|flag| labels(&one.value).get(&flag.spec.version_label).is_some())
    });
    wrong.extend(counted.map(|one| {
        let message =
            "spec.replicas is set, and whoever applies this again undoes what the controller scales: leave it out";
        Wrong { error: false, ..one.error(one.document.wrong(message.to_owned())) }
    }));
    Ok(wrong)
}

/// A VersionFlag of a cluster, as far as it can be read.
fn lint_flag(document: &Document, value: &Value) -> (Option<VersionFlag>, Vec<yaml::Wrong>) {
    let mut wrong = vec![];
    if value.get("apiVersion").and_then(Value::as_str) != Some("versionflag.io/v1alpha1") {
        wrong.push(document.wrong("apiVersion is not versionflag.io/v1alpha1".to_owned()));
    }
    if value.pointer("/metadata/name").is_none() && value.pointer("/metadata/generateName").is_none() {
        wrong.push(document.wrong("metadata.name is missing".to_owned()));
    }
    match document.read::<VersionFlag>() {
        Ok(flag) => {
            let sentences =
                flag.spec.validate().into_iter().chain(unsupported(&flag.spec).map(|problem| problem.message));
            wrong.extend(sentences.map(|sentence| document.wrong(sentence)));
            (Some(flag), wrong)
        }
        Err(other) => {
            wrong.extend(other);
            (None, wrong)
        }
    }
}

/// The file of a local controller, as that one reads it; and whether each would be refused.
fn lint_local(document: &Document, text: &str, path: &Path, filter: &LookAtFilter<'_>) -> Vec<(yaml::Wrong, bool)> {
    let wrong = match File::parse(text, path) {
        Ok(file) => {
            let wasm = file.local.filter_config.map(|config| config.wasm);
            let about = |why: &dyn std::fmt::Display| document.wrong(format!("local.filterConfig.wasm: {why}"));
            return match wasm.as_deref().map(|wasm| (wasm, filter(wasm))) {
                Some((_, Err(error))) => vec![(about(&error), true)],
                Some((wasm, Ok(level))) => outdated(wasm, level).iter().map(|why| (about(why), false)).collect(),
                None => vec![],
            };
        }
        Err(FileError::Wrong { wrong, .. }) => wrong,
        Err(other) => vec![yaml::Wrong { place: None, message: other.to_string() }],
    };
    wrong.into_iter().map(|one| (one, true)).collect()
}

/// What people read. Editors open a file where a line says `FILE:LINE:COLUMN`.
pub(super) fn text(file: &str, wrong: &[Wrong]) -> String {
    let line = |one: &Wrong| {
        let mark = if one.error { "✗" } else { "!" };
        let place = one.place.map(|place| format!("{file}:{}:{}: ", place.line, place.column)).unwrap_or_default();
        format!("{mark} {place}{}: {}\n", one.object, one.message)
    };
    let lines: String = wrong.iter().map(line).collect();
    if wrong.iter().any(|one| one.error) { lines } else { format!("{lines}✓ nothing would be refused\n") }
}
