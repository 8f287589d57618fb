//! The words of a script, and what is said of those that are not understood. Pure.

use serde_json::{Map, Value};

use crate::duration::Millis;

/// A part of a script that was read, or why it is not understood.
pub(super) type Read<T> = Result<T, String>;

/// The text of a word that has to be one.
pub(super) fn text<'a>(at: &str, value: &'a Value) -> Read<&'a str> {
    value.as_str().ok_or_else(|| format!("{at} is {}: write a text", inline(value)))
}

/// The mapping of a word that has to have one, with none but these keys.
pub(super) fn mapping<'a>(at: &str, value: &'a Value, allowed: &[&str]) -> Read<&'a Map<String, Value>> {
    let expected = || format!("write a mapping of {}", allowed.join(", "));
    let map = value.as_object().ok_or_else(|| format!("{at} is {}: {}", inline(value), expected()))?;
    match map.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(format!("{at} has the word {key:?}, which is none: {}", expected())),
        None => Ok(map),
    }
}

/// A length of time.
pub(super) fn duration(at: &str, value: &Value) -> Read<Millis> {
    let read = value.as_str().map(str::parse::<Millis>);
    match read {
        Some(Ok(duration)) => Ok(duration),
        Some(Err(error)) => Err(format!("{at}: {error}")),
        None => Err(format!("{at} is {}: write a length of time, such as 10s", inline(value))),
    }
}

/// A list of names.
pub(super) fn names(at: &str, value: &Value) -> Read<Vec<String>> {
    let list = value.as_array().ok_or_else(|| format!("{at} is {}: write a list of names", inline(value)))?;
    list.iter().map(|name| text(at, name).map(str::to_owned)).collect()
}

/// What is said of a value that is none of those that a word may have.
pub(super) fn none_of(at: &str, value: &Value, allowed: &str) -> String {
    format!("{at} is {}: write {allowed}", inline(value))
}

/// A value in one line, as people write YAML.
pub(super) fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(all) => format!("[{}]", all.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(all) => {
            let pairs = all.iter().map(|(key, value)| format!("{key}: {}", inline(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains(": ") && !text.contains(['{', '}', '[', ']', ',', '#', '\'']);
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}
