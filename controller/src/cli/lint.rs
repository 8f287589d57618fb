//! `versionflag lint`: what is wrong with a file before it reaches a cluster, or a local controller. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use cluster::resource::VersionFlag;
use cluster::status::unsupported;
use local::file::{FileError, VersionCommand};
use local::sources::Reading;
use local::wasm::{WasmError, outdated};
use local::yaml::{self, Document, Place};

/// Which level the filter's file understands, or why it cannot be loaded.
pub(super) type LookAtFilter<'a> = dyn Fn(&Path) -> Result<u32, WasmError> + 'a;

/// What is found of the things that a file names.
pub(super) struct Looks<'a> {
    pub(super) filter: &'a LookAtFilter<'a>,
    /// What a version names that is not there.
    pub(super) missing: &'a dyn Fn(&VersionCommand) -> Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// The file.
    pub(super) file: PathBuf,
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
    file: PathBuf,
    document: Document,
    value: Value,
    object: String,
}

impl Linted {
    fn new(file: &Path, document: Document) -> Linted {
        let value = document.value();
        let text = |path: &str| value.pointer(path).and_then(Value::as_str);
        let (kind, name) = (text("/kind").unwrap_or_default(), text("/metadata/name").unwrap_or("without a name"));
        Linted { file: file.to_owned(), object: format!("{kind} {name}"), value, document }
    }

    fn is(&self, kinds: &[&str]) -> bool {
        self.value.get("kind").and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind))
    }

    fn error(&self, wrong: yaml::Wrong) -> Wrong {
        let (file, object) = (self.file.clone(), self.object.clone());
        Wrong { file, object, place: wrong.place, message: wrong.message, error: true }
    }
}

/// Everything that is wrong with the documents of files, by themselves and together; or why one has nothing to look at.
pub(super) fn lint(files: &[(&Path, &str)], looks: &Looks<'_>) -> Result<Vec<Wrong>, String> {
    let (mut wrong, mut local) = (vec![], Reading::default());
    for (path, text) in files {
        let refused = |why: String| format!("{}: {why}", path.display());
        let documents = yaml::documents(text).map_err(|error| refused(error.to_string()))?;
        if documents.iter().any(|one| one.value().get("local").is_some()) {
            local.add(documents, path);
        } else {
            let documents = documents.into_iter().map(|document| Linted::new(path, document)).collect::<Vec<_>>();
            wrong.extend(lint_documents(&documents).ok_or_else(|| refused("it has no VersionFlag".to_owned()))?);
        }
    }
    wrong.extend(lint_local(local, looks));
    Ok(wrong)
}

/// Everything that is wrong with the documents of a file for a cluster; `None`: none of them is a VersionFlag.
fn lint_documents(documents: &[Linted]) -> Option<Vec<Wrong>> {
    let mut those = documents.iter().filter(|one| one.is(&["VersionFlag"])).peekable();
    those.peek()?;
    let (mut wrong, mut flags) = (vec![], vec![]);
    for one in those {
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
    Some(wrong)
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

/// The flags of a local controller, as that one reads them.
fn lint_local(local: Reading, looks: &Looks<'_>) -> Vec<Wrong> {
    let object = |name: Option<&str>| format!("VersionFlag {}", name.unwrap_or("without a name"));
    let clashes = local.clashes().into_iter().map(|(flag, error)| (object(Some(flag)), error, true));
    let mut all: Vec<(String, FileError, bool)> = clashes.collect();
    // Flags of one Envoy have the same filter.
    let mut looked: BTreeMap<&Path, (Option<String>, bool)> = BTreeMap::new();
    for one in &local.flags {
        let name = object(Some(&one.file.metadata.name));
        for (version, how) in &one.file.local.versions {
            // It may be there by the time it is started, or where it is.
            let missing = (looks.missing)(how).into_iter().map(|why| format!("local.versions.{version}.{why}"));
            all.extend(missing.map(|why| (name.clone(), one.refused(why), false)));
        }
        let Some(config) = &one.file.local.filter_config else { continue };
        let look = || match (looks.filter)(&config.wasm) {
            Err(error) => (Some(error.to_string()), true),
            Ok(level) => (outdated(&config.wasm, level), false),
        };
        let (about, refused) = looked.entry(&config.wasm).or_insert_with(look).clone();
        let about = about.map(|why| one.refused(format!("local.filterConfig.wasm: {why}")));
        all.extend(about.map(|error| (name, error, refused)));
    }
    all.extend(local.unread.into_iter().map(|one| (object(one.flag.as_deref()), one.error, true)));
    let mut wrong: Vec<Wrong> =
        all.into_iter().flat_map(|(object, error, refused)| said(&object, error, refused)).collect();
    wrong.sort_by(|one, other| (&one.file, one.place).cmp(&(&other.file, other.place)));
    wrong
}

/// All that an error has to say of one flag.
fn said(object: &str, error: FileError, refused: bool) -> Vec<Wrong> {
    let (file, wrong) = match error {
        FileError::Wrong { path, wrong } => (path, wrong),
        other => (PathBuf::new(), vec![yaml::Wrong { place: None, message: other.to_string() }]),
    };
    let one = |one: yaml::Wrong| Wrong {
        file: file.clone(),
        object: object.to_owned(),
        place: one.place,
        message: one.message,
        error: refused,
    };
    wrong.into_iter().map(one).collect()
}

/// What people read. Editors open a file where a line says `FILE:LINE:COLUMN`.
pub(super) fn text(wrong: &[Wrong]) -> String {
    let line = |one: &Wrong| {
        let mark = if one.error { "✗" } else { "!" };
        let file = one.file.display();
        let place = one.place.map(|place| format!("{file}:{}:{}: ", place.line, place.column)).unwrap_or_default();
        format!("{mark} {place}{}: {}\n", one.object, one.message)
    };
    let lines: String = wrong.iter().map(line).collect();
    if wrong.iter().any(|one| one.error) { lines } else { format!("{lines}✓ nothing would be refused\n") }
}
