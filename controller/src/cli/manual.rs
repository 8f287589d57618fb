//! What is made from the command line itself: words for shells, pages for `man`. I/O: writes files.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::args::Cli;

/// A script for a shell.
pub(super) fn completion(shell: clap_complete::Shell) -> String {
    let (mut command, mut script) = (Cli::command(), vec![]);
    clap_complete::generate(shell, &mut command, "versionflag", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page of the manual for each command into a folder, which is made where it is missing.
pub(super) fn write(folder: &Path) -> anyhow::Result<()> {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.with_context(|| format!("the manual cannot be written to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Shell::Bash, "complete -F _versionflag")]
    #[case(Shell::Zsh, "#compdef versionflag")]
    #[case(Shell::Fish, "complete -c versionflag")]
    fn a_shell_is_told_all_commands(#[case] shell: Shell, #[case] registers: &str) {
        let script = completion(shell);
        assert!(script.contains(registers), "{script}");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(script.contains(command.get_name()), "{}", command.get_name());
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("man1");
        write(&below).unwrap();
        let page = std::fs::read_to_string(below.join("versionflag-wait.1")).unwrap();
        assert!(page.contains(".TH versionflag-wait") && page.contains("rolled\\-back"), "{page}");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(below.join(format!("versionflag-{}.1", command.get_name())).exists(), "{}", command.get_name());
        }
        let error = write(&below.join("versionflag-wait.1/below")).unwrap_err();
        assert!(format!("{error:#}").starts_with("the manual cannot be written to "), "{error:#}");
    }
}
