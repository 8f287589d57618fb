//! A tree as text: YAML in blocks or in one line, and JSON. Pure.

use serde_json::{Number, Value};

use super::node::{Kind, Node};

/// What is longer than this, in bytes, gets lines of its own.
const ONE_LINE: usize = 76;
/// What YAML 1.1 does not read as text.
const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan"];

/// A whole YAML text.
pub(super) fn yaml(node: &Node) -> String {
    let mut text = block(node).join("\n");
    text.push('\n');
    text
}

/// The lines of a value in block style, without indentation.
pub(super) fn block(node: &Node) -> Vec<String> {
    match &node.kind {
        Kind::Map(all) if !all.is_empty() => all.iter().flat_map(|(key, value)| entry(key, value)).collect(),
        Kind::List(all) if !all.is_empty() => all.iter().flat_map(item).collect(),
        _ => vec![flow(node)],
    }
}

/// The lines of one key and its value.
pub(super) fn entry(key: &str, value: &Node) -> Vec<String> {
    let (key, one_line) = (text(key), flow(value));
    let is_list = matches!(value.kind, Kind::List(_));
    if is_small(value, &one_line) {
        return vec![format!("{key}: {one_line}")];
    }
    let indent = if is_list { "" } else { "  " };
    let below = block(value).into_iter().map(|line| format!("{indent}{line}"));
    [format!("{key}:")].into_iter().chain(below).collect()
}

/// The lines of one item of a list.
pub(super) fn item(value: &Node) -> Vec<String> {
    let lines = block(value).into_iter().enumerate();
    lines.map(|(index, line)| format!("{}{line}", if index == 0 { "- " } else { "  " })).collect()
}

fn is_small(value: &Node, one_line: &str) -> bool {
    let flat = |node: &Node| matches!(node.kind, Kind::Scalar(_));
    match &value.kind {
        Kind::Scalar(_) => true,
        Kind::List(all) => all.is_empty() || one_line.len() <= ONE_LINE && all.iter().all(flat),
        Kind::Map(all) => all.is_empty() || one_line.len() <= ONE_LINE,
    }
}

/// The value in one line.
pub(super) fn flow(node: &Node) -> String {
    if let Some(plain) = &node.plain {
        return plain.clone();
    }
    match &node.kind {
        Kind::Scalar(Value::String(one)) => text(one),
        Kind::Scalar(value) => value.to_string(),
        Kind::List(all) => format!("[{}]", all.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Kind::Map(all) if all.is_empty() => "{}".to_owned(),
        Kind::Map(all) => {
            let entries: Vec<String> = all.iter().map(|(key, one)| format!("{}: {}", text(key), flow(one))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// Text without quotes where every reader of YAML takes it for text.
fn text(text: &str) -> String {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
    let first = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if letters && first && !word { text.to_owned() } else { Value::from(text).to_string() }
}

/// A whole JSON text, each level deeper by so many spaces.
pub(super) fn json(node: &Node, indent: usize) -> String {
    let mut text = json_lines(node, indent).join("\n");
    text.push('\n');
    text
}

fn json_lines(node: &Node, indent: usize) -> Vec<String> {
    let (open, close, parts) = match &node.kind {
        Kind::Scalar(value) => {
            // One that was read from YAML need not be JSON.
            let plain = node.plain.as_ref().filter(|plain| serde_json::from_str::<Number>(plain).is_ok());
            return vec![plain.cloned().unwrap_or_else(|| value.to_string())];
        }
        Kind::List(all) if all.is_empty() => return vec!["[]".to_owned()],
        Kind::Map(all) if all.is_empty() => return vec!["{}".to_owned()],
        Kind::List(all) => ("[", "]", all.iter().map(|one| (String::new(), one)).collect::<Vec<_>>()),
        Kind::Map(all) => {
            let key = |key: &str| format!("{}: ", Value::from(key));
            ("{", "}", all.iter().map(|(name, one)| (key(name), one)).collect())
        }
    };
    let (mut lines, last, margin) = (vec![open.to_owned()], parts.len(), " ".repeat(indent));
    for (index, (key, part)) in parts.into_iter().enumerate() {
        let mut below = json_lines(part, indent);
        if let Some(first) = below.first_mut() {
            first.insert_str(0, &key);
        }
        if let Some(end) = below.last_mut().filter(|_| index + 1 < last) {
            end.push(',');
        }
        lines.extend(below.into_iter().map(|line| format!("{margin}{line}")));
    }
    lines.push(close.to_owned());
    lines
}
