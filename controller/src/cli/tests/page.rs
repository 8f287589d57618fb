//! docs/reference/cli.md says which commands there are.

use std::collections::BTreeSet;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, Parser};

use crate::cli::args::Cli;

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
