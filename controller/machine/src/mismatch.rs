//! What is wrong with a value that does not have the form that is asked for, in words: serde names its own types. Pure.

/// One sentence about the value at `path`, such as `spec.version`, from what serde says of it; `.` is the whole.
pub fn sentence(path: &str, text: &str) -> String {
    let path = if path == "." { "" } else { path };
    // What is read from a text ends with a place in it.
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    let (what, expected) = text.split_once(", expected ").unwrap_or((text, ""));
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let name = what.split('`').nth(1).unwrap_or_default();
    if let Some(value) = what.strip_prefix("invalid type: ").or(what.strip_prefix("invalid value: ")) {
        return format!("{} {}", subject(path), of_another_form(value, expected));
    }
    if what.starts_with("unknown field ") {
        // The path names it already, where one is known.
        let field = if path.is_empty() { name } else { path };
        let meant = nearest(name, &names).map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
        let there = if names.is_empty() { String::new() } else { format!(": there are {}", names.join(", ")) };
        return format!("{field} is not a field{meant}{there}");
    }
    if what.starts_with("missing field ") {
        return format!("{}{name} is missing", if path.is_empty() { String::new() } else { format!("{path}.") });
    }
    if what.starts_with("duplicate field ") {
        return format!("{}{name} is there twice", if path.is_empty() { String::new() } else { format!("{path}.") });
    }
    if what.starts_with("unknown variant ") {
        let meant = nearest(name, &names).map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
        return format!("{} is {name:?}, which is not understood{meant}: write {}", subject(path), names.join(" or "));
    }
    if what.starts_with("invalid length ") {
        return format!("{} is not understood: a mapping is asked for", subject(path));
    }
    let text = match text {
        "invalid socket address syntax" => "is not an address with a port: write it as 127.0.0.1:9001",
        text => return if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") },
    };
    format!("{} {text}", subject(path))
}

/// The name that was meant, if it is that of one of these with a slip or two.
pub fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let slips = |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let near = names.iter().map(|&other| (slips(other), other)).min_by_key(|(slips, _)| *slips);
    near.filter(|(slips, other)| *slips <= 2 && slips * 2 < other.chars().count()).map(|(_, other)| other)
}

fn subject(path: &str) -> &str {
    if path.is_empty() { "it" } else { path }
}

/// What a value is, and what it has to be.
fn of_another_form(value: &str, expected: &str) -> String {
    let (kind, shown) = match value.split_once(" `") {
        Some((kind, shown)) => (kind, shown.trim_end_matches('`')),
        None => (value.split(' ').next().unwrap_or_default(), ""),
    };
    let is = match kind {
        "integer" | "floating point" => format!("the number {shown}"),
        "boolean" => shown.to_owned(),
        "null" | "unit" | "unit value" | "Option" => "empty".to_owned(),
        "string" => format!("the text {}", value.trim_start_matches("string ")),
        "map" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        _ => value.to_owned(),
    };
    let is_plain = matches!(kind, "integer" | "floating point" | "boolean");
    let has_to_be = match expected {
        "a string" | "a borrowed string" if is_plain => return format!("is read as {is}: put it in quotes"),
        "a string" | "a borrowed string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, at least 0 and not too large",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "" => return format!("is {is}, which is not understood"),
        form if form.starts_with("struct ") || form.ends_with("Meta") => "a mapping",
        form if form.starts_with("enum ") || form == "variant identifier" => "one of its words",
        form => form,
    };
    format!("is {is}, and has to be {has_to_be}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::sentence;
    use crate::spec::Spec;

    /// T13: no sentence has the name of a type.
    #[rstest]
    #[case(json!({ "version": 1 }), "it is read as the number 1: put it in quotes")]
    #[case(json!({ "version": true }), "it is read as true: put it in quotes")]
    #[case(json!({ "version": null }), "it is empty, and has to be text")]
    #[case(json!({ "version": {} }), "it is a mapping, and has to be text")]
    #[case(json!({ "version": "v1", "services": {} }), "it is a mapping, and has to be a list")]
    #[case(json!({ "version": "v1", "services": ["a"] }), "it is the text \"a\", and has to be a mapping")]
    #[case(json!({ "version": "v1" }), "services is missing")]
    #[case(json!({ "version": "v1", "services": [], "suspend": "yes" }), "it is the text \"yes\", and has to be true or false")]
    #[case(json!({ "version": "v1", "services": [], "cleanup": { "policy": "Keep" } }), "it is \"Keep\", which is not understood: write ScaleToZero or Delete or Retain")]
    #[case(json!({ "version": "v1", "services": [], "settle": { "quietPeriod": 5 } }), "it is read as the number 5: put it in quotes")]
    #[case(json!({ "version": "v1", "services": [], "settle": { "quietPeriod": "5" } }), "duration \"5\" has no unit: write it as 500ms, 10s, 5m, 1h or 1d")]
    fn what_serde_says_is_put_in_words(#[case] spec: Value, #[case] expected: &str) {
        assert_eq!(said::<Spec>(spec), expected);
    }

    /// T23
    #[test]
    fn a_sentence_begins_with_the_path() {
        assert_eq!(sentence("spec.version", "missing field `name`"), "spec.version.name is missing");
        assert_eq!(
            sentence("spec.swich", "unknown field `swich`, expected `version` or `switch`"),
            "spec.swich is not a field (did you mean switch?): there are version, switch"
        );
        for (name, meant) in [("Version", true), ("vresion", true), ("varsions", true), ("other", false), ("ve", false)]
        {
            let said = sentence("spec", &format!("unknown field `{name}`, expected `version` or `switch`"));
            assert_eq!(said.contains("did you mean version?"), meant, "{said}");
        }
        assert_eq!(sentence("a.b", "something else"), "a.b: something else");
        assert_eq!(
            sentence("a.b", "invalid socket address syntax"),
            "a.b is not an address with a port: write it as 127.0.0.1:9001"
        );
        assert_eq!(
            said::<u16>(json!(-1)),
            "it is the number -1, and has to be a whole number, at least 0 and not too large"
        );
    }

    fn said<T: DeserializeOwned>(value: Value) -> String {
        match serde_json::from_value::<T>(value) {
            Ok(_) => "nothing is wrong".to_owned(),
            Err(error) => sentence(".", &error.to_string()),
        }
    }
}
