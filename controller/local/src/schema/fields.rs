//! The fields of the file one by one, as its schema has them, for people who look one up. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// One field of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Where it stands, such as `spec.settle.quietPeriod`; `[]` is each of a list, `NAME` each name of a map.
    pub path: String,
    /// What it takes, in Markdown.
    pub takes: String,
    /// What it is where it is left out, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// It cannot be left out.
    pub needed: bool,
    /// What it is, in a sentence.
    pub about: String,
}

/// All fields, each once: what is above another one comes before it.
pub fn fields() -> Vec<Field> {
    let mut found = BTreeMap::new();
    below("", &super::schema().to_value(), &mut found);
    let mut all: Vec<(usize, Field)> = found.into_values().collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, field)| field).collect()
}

/// By path: the place in the schema, and the field.
type Found = BTreeMap<String, (usize, Field)>;

fn below(path: &str, field: &Value, found: &mut Found) {
    properties(path, field, found);
    for one in choices(field) {
        below(path, one, found);
    }
    for (key, part) in [("items", "[]"), ("additionalProperties", ".NAME")] {
        if let Some(one) = field.get(key).filter(|one| one.is_object()) {
            below(&format!("{path}{part}"), one, found);
        }
    }
}

fn properties(path: &str, field: &Value, found: &mut Found) {
    let needed: Vec<&str> = list(field, "required").filter_map(Value::as_str).collect();
    for (name, one) in field.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // The way to choose something by a field of its own is explained where it is chosen.
        let about = text(one, "description").or(text(field, "description")).unwrap_or_default();
        let row = Field {
            takes: takes(one),
            default: one.get("default").filter(|value| !value.is_null() && !value.is_object()).map(Value::to_string),
            needed: needed.contains(&name.as_str()),
            about: about.split_whitespace().collect::<Vec<_>>().join(" "),
            path: path.clone(),
        };
        let place = found.len();
        found.entry(path.clone()).or_insert((place, row));
        below(&path, one, found);
    }
}

/// What a field takes.
fn takes(field: &Value) -> String {
    if let Some(word) = text(field, "const") {
        return format!("`{word}`");
    }
    let words: Vec<String> = list(field, "enum").filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    let all: Vec<String> = choices(field).map(takes).filter(|word| word != "null").collect();
    if !all.is_empty() {
        return all.join(", ");
    }
    let name =
        text(field, "type").or_else(|| list(field, "type").filter_map(Value::as_str).find(|name| *name != "null"));
    match (name, field.get("items"), field.get("additionalProperties").filter(|one| one.is_object())) {
        (Some("array"), Some(items), _) => format!("list of {}", takes(items)),
        (Some("object"), _, Some(values)) => format!("map to {}", takes(values)),
        (Some("string"), ..) => "text".to_owned(),
        (Some("integer" | "number"), ..) => "number".to_owned(),
        (Some("boolean"), ..) => "`true`, `false`".to_owned(),
        (name, ..) => name.unwrap_or("any").to_owned(),
    }
}

fn choices(field: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].into_iter().flat_map(|key| list(field, key))
}

fn list<'a>(field: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    field.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(field: &'a Value, key: &str) -> Option<&'a str> {
    field.get(key).and_then(Value::as_str)
}
