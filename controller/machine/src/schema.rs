//! Rules for texts that a Kubernetes API server checks. Pure.

use serde_json::{Value, json};

/// A CEL rule for anything else, with what is said of it.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!([{ "rule": rule, "message": message }])
}

/// A CEL rule for a text. The message begins with the text, which the API server does not show otherwise.
pub(crate) fn text_rule(rule: &str, message: &str) -> Value {
    let shown = format!("'\"' + self + {}", Value::from(format!("\" {message}")));
    json!([{ "rule": rule, "message": message, "messageExpression": shown }])
}
