//! docs/reference/cli.md says which commands there are.

use std::collections::BTreeSet;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, Parser};

use crate::cli::args::{Cli, called};

#[path = "../../../../docs/table.rs"]
mod table;

const PAGE: &str = include_str!("../../../../docs/reference/cli.md");

/// The command lines of the table, without the name of the program and the brackets of what may be left out.
fn documented() -> Vec<String> {
    let cells = table::rows(PAGE, "commands").into_iter().flat_map(|row| {
        let lines = row[0].split(", ").map(|line| line.trim_start_matches("versionflag ").replace(['[', ']'], ""));
        lines.collect::<Vec<_>>()
    });
    cells.collect()
}

/// `render envoy` of `render envoy -f FILE`, `completion` of `completion bash`; a command that is not there as it is.
fn named(line: &str) -> String {
    let is_it =
        |name: &String| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    commands().into_iter().map(|(name, _)| name).find(is_it).unwrap_or_else(|| line.to_owned())
}

/// Every command that is not hidden and has none below it.
fn leaves(command: &Command, above: &str, found: &mut Vec<(String, Command)>) {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let name = format!("{above} {}", below.get_name()).trim().to_owned();
        if below.has_subcommands() {
            leaves(below, &name, found);
        } else {
            found.push((name, below.clone()));
        }
    }
}

fn commands() -> Vec<(String, Command)> {
    let mut found = vec![];
    leaves(&Cli::command(), "", &mut found);
    found
}

#[test]
fn every_command_has_a_row() {
    let documented: BTreeSet<String> = documented().iter().map(|line| named(line)).collect();
    assert_eq!(documented, commands().into_iter().map(|(name, _)| name).collect());
}

#[test]
fn every_command_line_of_a_row_is_understood() {
    for line in documented() {
        let parsed = Cli::try_parse_from(format!("versionflag {line}").split(' '));
        // What runs in a pod is told the rest by variables.
        let lacks = |error: &clap::Error| error.kind() == ErrorKind::MissingRequiredArgument;
        let lacks = parsed.as_ref().is_err_and(lacks) && named(&line) == "controller";
        assert!(parsed.is_ok() || lacks, "{line}: {parsed:?}");
    }
}

#[test]
fn the_commands_without_json_are_the_ones_that_the_page_excepts() {
    let (_, after) = PAGE.split_once("All commands take `-o json`,\nexcept ").unwrap();
    let (sentence, _) = after.split_once('.').unwrap();
    let excepted: BTreeSet<&str> = sentence.split('`').skip(1).step_by(2).collect();
    let json = |command: &Command| {
        let output = command.get_arguments().find(|argument| argument.get_id() == "output");
        output.is_some_and(|output| output.get_possible_values().iter().any(|value| value.get_name() == "json"))
    };
    let commands = commands();
    let without =
        commands.iter().filter(|(_, command)| !json(command)).map(|(name, _)| name.split(' ').next().unwrap());
    assert_eq!(excepted, without.collect());
}

/// What krew reads: https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest.
#[test]
fn the_plugin_of_krew_names_this_program_and_its_commands() {
    let plugin: serde_json::Value =
        serde_saphyr::from_str(include_str!("../../../../manifests/krew/versionflag.yaml")).unwrap();
    let text = |path: &str| plugin.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_default();
    assert_eq!(text("/apiVersion"), "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(text("/kind"), "Plugin");
    // krew links it under this name, by which the program knows that kubectl runs it.
    assert_eq!(called(Some(format!("kubectl-{}", text("/metadata/name")).as_ref())), "kubectl versionflag");
    assert_eq!(text("/spec/version"), concat!("v", env!("CARGO_PKG_VERSION")));
    let short = text("/spec/shortDescription");
    assert!((1..=50).contains(&short.len()) && !short.ends_with('.'), "{short}");

    let said = text("/spec/description").lines().filter_map(|line| line.trim().strip_prefix("kubectl "));
    let said: Vec<_> = said.filter_map(|line| line.split_once("   ")).map(|(command, _)| command).collect();
    assert!(said.len() >= 7, "{said:?}");
    for command in said {
        assert!(Cli::try_parse_from(command.split(' ')).is_ok(), "{command}");
    }

    let platforms = plugin.pointer("/spec/platforms").and_then(serde_json::Value::as_array).unwrap();
    for platform in platforms {
        let field = |path: &str| platform.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_default();
        assert_eq!(field("/bin"), "versionflag");
        let is_hash = |hash: &str| hash.len() == 64 && hash.chars().all(|one| matches!(one, '0'..='9' | 'a'..='f'));
        assert!(is_hash(field("/sha256")), "{platform}");
        let labels = (field("/selector/matchLabels/os"), field("/selector/matchLabels/arch"));
        let archive = format!("/{}/versionflag-{}-{}.tar.gz", text("/spec/version"), labels.0, labels.1);
        assert!(field("/uri").starts_with("https://") && field("/uri").ends_with(&archive), "{platform}");
    }
}
