//! `versionflag explain`: what a field of the file, or a word of a status, means. I/O: prints it.

use std::fmt::Write;

use clap::Args;
use local::schema::fields::{Field, fields};
use machine::mismatch::nearest;
use machine::reason::Reason;
use serde_json::{Value, json};

use super::args::Output;
use super::terminal::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The field, or the end of its path; or the reason
    word: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What a word stands for.
#[derive(Debug)]
enum Explained {
    /// A word that says why a flag does not move on.
    Reason(Reason),
    /// Fields, each with those below it.
    Fields(Vec<(Field, Vec<Field>)>),
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let found = explain(&args.word).map_err(anyhow::Error::msg)?;
    match args.output {
        Output::Json => print_json(&found.json()),
        Output::Text => print(&found.text()),
    }
}

/// Looks a word up: a reason, a field by its path, or the fields whose path ends in it. The error says what was meant.
fn explain(word: &str) -> Result<Explained, String> {
    let same = |reason: &&Reason| reason.name().eq_ignore_ascii_case(word);
    if let Some(reason) = Reason::ALL.iter().find(same) {
        return Ok(Explained::Reason(*reason));
    }
    let all = fields();
    let path = plain(word);
    let exact: Vec<&Field> = all.iter().filter(|field| plain(&field.path) == path).collect();
    let ends = |field: &&Field| plain(&field.path).strip_suffix(&path).is_some_and(|above| above.ends_with('.'));
    let meant = if exact.is_empty() { all.iter().filter(ends).collect() } else { exact };
    if meant.is_empty() || path.is_empty() {
        return Err(unknown(word, &all));
    }
    Ok(Explained::Fields(meant.into_iter().map(|field| (field.clone(), directly_below(field, &all))).collect()))
}

/// A path as people write it: in lower case, and without what stands for each of a list.
fn plain(path: &str) -> String {
    path.trim_matches('.').replace("[]", "").to_lowercase()
}

fn unknown(word: &str, all: &[Field]) -> String {
    let last = all.iter().map(|field| field.path.rsplit('.').next().unwrap_or_default().trim_end_matches("[]"));
    let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).chain(last).collect();
    let asked = word.rsplit('.').next().unwrap_or(word);
    let meant = nearest(asked, &names).map(|name| format!(": is {name} meant?"));
    let meant = meant.unwrap_or_else(|| ": `versionflag explain spec` has the fields of the spec".to_owned());
    format!("there is no reason and no field {word:?}{meant}")
}

fn directly_below(field: &Field, all: &[Field]) -> Vec<Field> {
    let is_below = |one: &&Field| {
        let rest = one.path.strip_prefix(field.path.as_str()).map(|rest| rest.trim_start_matches("[]"));
        let rest = rest.map(|rest| rest.strip_prefix(".NAME").unwrap_or(rest)).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|name| !name.is_empty() && !name.contains('.'))
    };
    all.iter().filter(is_below).cloned().collect()
}

impl Explained {
    /// The same for people.
    fn text(&self) -> String {
        match self {
            Explained::Reason(reason) => {
                let mut text = format!("{reason}\n  {}\n", reason.meaning());
                if !reason.end().is_empty() {
                    let _ = writeln!(text, "  what ends it: {}", reason.end());
                }
                text
            }
            Explained::Fields(found) => found.iter().map(described).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The same for programs.
    fn json(&self) -> Value {
        match self {
            Explained::Reason(reason) => {
                json!({ "reason": reason.name(), "meaning": reason.meaning(), "end": reason.end() })
            }
            Explained::Fields(found) => {
                let one = |(field, below): &(Field, Vec<Field>)| json!({ "field": field, "fields": below });
                json!({ "fields": found.iter().map(one).collect::<Vec<_>>() })
            }
        }
    }
}

fn described((field, below): &(Field, Vec<Field>)) -> String {
    let mut text = format!("{}\n  {}\n  takes: {}\n", field.path, field.about, field.takes.replace('`', ""));
    if field.needed {
        text.push_str("  cannot be left out\n");
    } else if let Some(default) = &field.default {
        let _ = writeln!(text, "  where it is left out: {default}");
    }
    let name = |one: &Field| {
        one.path.get(field.path.len()..).unwrap_or_default().trim_start_matches(['[', ']', '.']).to_owned()
    };
    let width = below.iter().map(|one| name(one).len()).max().unwrap_or_default();
    for one in below {
        let _ = writeln!(text, "    {:width$}  {}", name(one), one.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_reason("Laggards", "Laggards\n  At least one proxy that has to ack")]
    #[case::in_any_case("laggards", "Laggards\n")]
    #[case::a_path("spec.settle.quietPeriod", "spec.settle.quietPeriod\n")]
    #[case::the_end_of_one("settle.quietperiod", "spec.settle.quietPeriod\n")]
    #[case::of_each_of_a_list("local.proxies.id", "local.proxies[].id\n")]
    #[case::what_is_below("spec.settle", "\n    quietPeriod")]
    #[case::of_each_name("local.versions", "\n    NAME.command")]
    #[case::its_default("local.listen", "  where it is left out: \"127.0.0.1:7070\"\n")]
    #[case::needed("spec.version", "  cannot be left out\n")]
    fn a_word_is_explained(#[case] word: &str, #[case] says: &str) {
        let text = explain(word).unwrap().text();
        assert!(text.contains(says), "{text}");
    }

    /// A name that several fields have: all of them.
    #[test]
    fn all_fields_of_a_name_are_explained() {
        let Explained::Fields(found) = explain("timeout").unwrap() else { panic!("no fields") };
        assert!(found.len() > 1 && found.iter().all(|(field, _)| field.path.ends_with(".timeout")), "{found:?}");
    }

    #[rstest]
    #[case("quietperod", "is quietPeriod meant?")]
    #[case("Lagards", "is Laggards meant?")]
    #[case("spec.settle.quietPeriods", "is quietPeriod meant?")]
    #[case("qqqqqq", "`versionflag explain spec`")]
    #[case("", "no field \"\"")]
    #[case(".", "no field \".\"")]
    fn what_is_not_there_is_said(#[case] word: &str, #[case] says: &str) {
        let error = explain(word).unwrap_err();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn programs_are_told_the_same() {
        assert_eq!(explain("Laggards").unwrap().json()["end"], Reason::Laggards.end());
        let json = explain("spec.settle").unwrap().json();
        assert_eq!(json["fields"][0]["field"]["path"], "spec.settle");
        assert!(json["fields"][0]["fields"].as_array().unwrap().len() > 1, "{json}");
    }
}
