//! Files, directories and URLs by which commands name the flags of this machine. Pure.

use std::path::PathBuf;

use clap::Args;

/// The flags of this machine.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Sources {
    /// Files with VersionFlags and their `local` sections, or folders of them: every .yaml and .yml there
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// The same
    #[arg(short, long, value_name = "FILE|DIR")]
    file: Vec<PathBuf>,
}

impl Sources {
    /// All of them.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.paths.iter().chain(&self.file).cloned().collect()
    }
}

/// One flag of this machine.
#[derive(Debug, Args)]
pub(super) struct LocalAt {
    /// The NAME of a flag of -f; or the FILE or DIR that a local controller runs with, or the URL of its flag service
    #[arg(value_name = "NAME|FILE|DIR|URL", required_unless_present = "file")]
    at: Option<String>,
    /// A file or folder that a local controller runs with, or its URL; may be repeated
    #[arg(short, long, value_name = "FILE|DIR|URL")]
    file: Vec<String>,
}

impl LocalAt {
    pub(super) fn flags(&self) -> LocalFlags {
        match (&self.at, self.file.as_slice()) {
            (Some(at), []) => LocalFlags::all_of(at),
            (flag, sources) => LocalFlags { sources: sources.to_vec(), flag: flag.clone() },
        }
    }
}

/// A controller of this machine, and which of its flags a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalFlags {
    /// The files and directories that it runs with, or the URL of its flag service.
    pub(super) sources: Vec<String>,
    /// The name of the flag; all of them without.
    pub(super) flag: Option<String>,
}

impl LocalFlags {
    /// All flags of one file, directory or URL.
    pub(super) fn all_of(source: &str) -> LocalFlags {
        LocalFlags { sources: vec![source.to_owned()], flag: None }
    }

    /// The URL, if that is what was given.
    pub(super) fn url(&self) -> Option<&str> {
        self.sources.iter().map(String::as_str).find(|source| source.contains("://"))
    }

    /// The files and directories.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.sources.iter().filter(|source| !source.contains("://")).map(PathBuf::from).collect()
    }

    /// What follows the name of a command that is about one of its flags, of which it has so many.
    pub(super) fn about(&self, flag: &str, flags: usize) -> String {
        match self.sources.as_slice() {
            [only] if flags == 1 && self.flag.is_none() => only.clone(),
            several => format!("{flag} -f {}", several.join(" -f ")),
        }
    }

    /// That a command is about one of these flags, and which is not said.
    pub(super) fn ambiguous(&self, names: &str) -> anyhow::Error {
        let sources = self.sources.join(" -f ");
        anyhow::anyhow!("{} has {names}: name one of them, as in NAME -f {sources}", self.named())
    }

    /// All that was given.
    pub(super) fn named(&self) -> String {
        self.sources.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one(&["reviews.yaml"], None, 1, "reviews.yaml")]
    #[case::one_of_several(&["flags/"], None, 2, "reviews -f flags/")]
    #[case::named(&["reviews.yaml"], Some("reviews"), 1, "reviews -f reviews.yaml")]
    #[case::files(&["a.yaml", "b.yaml"], Some("reviews"), 1, "reviews -f a.yaml -f b.yaml")]
    fn a_command_to_copy_names_its_flag(
        #[case] sources: &[&str],
        #[case] flag: Option<&str>,
        #[case] flags: usize,
        #[case] expected: &str,
    ) {
        let sources = sources.iter().map(|one| (*one).to_owned()).collect();
        let local = LocalFlags { sources, flag: flag.map(str::to_owned) };
        assert_eq!(local.about("reviews", flags), expected);
    }
}
