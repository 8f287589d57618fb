//! `versionflag lint`: what is wrong with a file before it reaches a cluster. Pure.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use cluster::resource::VersionFlag;
use cluster::status::unsupported;
use local::file::FileError;

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// `KIND NAME`, or the number of the document.
    pub(super) object: String,
    /// What it is.
    pub(super) message: String,
    /// The API server or the controller would refuse it.
    pub(super) error: bool,
}

/// Everything that is wrong with the documents of a file.
pub(super) fn lint(text: &str) -> Result<Vec<Wrong>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    if let [only] = documents.as_slice()
        && only.get("local").is_some()
    {
        return Ok(lint_local(text, only));
    }
    let (mut wrong, mut flags) = (vec![], vec![]);
    for document in documents.iter().filter(|document| is(document, "VersionFlag")) {
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name");
        let object = format!("VersionFlag {name}");
        let error = |message: String| Wrong { object: object.clone(), message, error: true };
        if document.get("apiVersion").and_then(Value::as_str) != Some("versionflag.io/v1alpha1") {
            wrong.push(error("apiVersion is not versionflag.io/v1alpha1".to_owned()));
        }
        match serde_json::from_value::<VersionFlag>(document.clone()) {
            Ok(flag) => {
                wrong.extend(flag.spec.validate().into_iter().map(error));
                wrong.extend(unsupported(&flag.spec).map(|problem| error(problem.message)));
                flags.push(flag);
            }
            Err(problem) => wrong.push(error(problem.to_string())),
        }
    }
    if flags.is_empty() && wrong.is_empty() {
        return Err("it has no VersionFlag".to_owned());
    }
    let workloads = documents.iter().filter(|document| is(document, "Deployment") || is(document, "StatefulSet"));
    let labels = |document: &Value| document.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
    let counted = workloads.filter(|document| {
        document.pointer("/spec/replicas").is_some()
            && flags.iter().any(|flag| labels(document).get(&flag.spec.version_label).is_some())
    });
    wrong.extend(counted.map(|document| {
        Wrong {
            object: format!(
                "{} {}",
                document.get("kind").and_then(Value::as_str).unwrap_or_default(),
                document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
            ),
            message:
                "spec.replicas is set, and whoever applies this again undoes what the controller scales: leave it out"
                    .to_owned(),
            error: false,
        }
    }));
    Ok(wrong)
}

/// The file of a local controller, as that one reads it.
fn lint_local(text: &str, document: &Value) -> Vec<Wrong> {
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name");
    let error = |message: String| Wrong { object: format!("VersionFlag {name}"), message, error: true };
    match local::file::File::parse(text, Path::new("the file")) {
        Ok(_) => vec![],
        Err(FileError::Invalid { wrong, .. }) => wrong.into_iter().map(error).collect(),
        Err(FileError::Yaml { error: why, .. }) => vec![error(why)],
        Err(other) => vec![error(other.to_string())],
    }
}

fn is(document: &Value, kind: &str) -> bool {
    document.get("kind").and_then(Value::as_str) == Some(kind)
}

/// What people read.
pub(super) fn text(wrong: &[Wrong]) -> String {
    let line = |one: &Wrong| format!("{} {}: {}\n", if one.error { "✗" } else { "!" }, one.object, one.message);
    let lines: String = wrong.iter().map(line).collect();
    if wrong.iter().any(|one| one.error) { lines } else { format!("{lines}✓ nothing would be refused\n") }
}
