//! One start of a version: what is remembered of it, and how it is done. I/O: processes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::file::VersionCommand;
use super::group::{MARK, STATE_MARK, VERSION_MARK, start_ticks};

/// What is remembered of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Process {
    /// In its environment as `VERSIONFLAG_ID`: finds it when its pid was not written any more.
    pub id: String,
    /// Absent: about to be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Start time in clock ticks: a pid is used again, both together are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// When it was started here, or adopted, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// The decision to stop it, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_since: Option<u64>,
    /// It ended by itself, and what it left behind is being ended since then, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remains_since: Option<u64>,
    /// Somebody else has started it: its session may be shared with others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// What it was started as, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_as: Option<StartedAs>,
}

/// What a version was started as: the file may say something else by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StartedAs {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What tells its environment from another one, which may have secrets; absent: an earlier controller started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

impl StartedAs {
    /// As the file says now.
    pub(crate) fn of(how: &VersionCommand) -> StartedAs {
        let environment = Some(environment(how));
        StartedAs { command: how.command.clone(), directory: how.directory.clone(), address: how.address, environment }
    }

    /// What the file says otherwise by now, in words.
    pub(crate) fn outdated(&self, flag: &str, version: &str, how: &VersionCommand) -> Option<String> {
        let changed = [
            ("command", self.command != how.command),
            ("directory", self.directory != how.directory),
            ("address", self.address != how.address),
            ("env", self.environment.as_ref().is_some_and(|known| *known != environment(how))),
        ];
        let changed: Vec<&str> = changed.iter().filter(|(_, changed)| *changed).map(|(what, _)| *what).collect();
        let what = changed.join(", ");
        (!what.is_empty()).then(|| {
            format!(
                "{version} goes on as it was started: its {what} in the file changed, which counts from its next start \
                 ({})",
                restart(flag, version)
            )
        })
    }
}

/// The command that starts a version of a flag anew, for people.
pub(crate) fn restart(flag: &str, version: &str) -> String {
    format!("`versionflag restart {flag} -f FILE --version {version}`")
}

fn environment(how: &VersionCommand) -> String {
    let all = how.env.iter().flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
    flag::digest::hex_prefix(&all.collect::<Vec<u8>>(), 8)
}

impl Process {
    /// Whether it is exactly this one.
    pub(crate) fn is(&self, pid: i32, ticks: u64) -> bool {
        self.pid == Some(pid) && self.start_ticks == Some(ticks)
    }

    /// Whether exactly this process still runs. What came of it may do so without it.
    pub(crate) fn alive(&self) -> bool {
        self.pid.is_some_and(|pid| start_ticks(pid).is_some_and(|ticks| self.is(pid, ticks)))
    }

    /// Whether it is meant to serve.
    pub(crate) fn serves(&self) -> bool {
        self.stopping_since.is_none() && self.remains_since.is_none()
    }
}

/// Why the program of a version could not be started now, as far as files and `PATH` show that.
pub fn missing(how: &VersionCommand) -> Option<String> {
    let program = how.command.first()?;
    let runs = |file: &Path| file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        let file = how.directory.as_deref().unwrap_or(Path::new("")).join(program);
        return (!runs(&file)).then(|| format!("{} is no program that could be started here", file.display()));
    }
    let path = how.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| runs(&folder.join(program)));
    (!found).then(|| format!("there is no program {program} in PATH"))
}

/// Starts a version in a session of its own: neither the terminal's signals nor the end of this process reach it.
pub(crate) fn spawn(how: &VersionCommand, out: (Stdio, Stdio), marks: (&str, &Path, &str)) -> std::io::Result<Child> {
    let (program, arguments) = how.command.split_first().map_or(("", &[][..]), |(one, rest)| (one.as_str(), rest));
    let (id, state, version) = marks;
    let mut command = Command::new(program);
    command.args(arguments).envs(&how.env).stdin(Stdio::null()).stdout(out.0).stderr(out.1);
    command.env(MARK, id).env(STATE_MARK, state).env(VERSION_MARK, version);
    if let Some(directory) = &how.directory {
        command.current_dir(directory);
    }
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rstest::rstest;

    use super::*;

    /// Found as the system would: by name in `PATH`, by path from where it runs.
    #[rstest]
    #[case::by_name("sh", None)]
    #[case::by_path("/bin/sh", None)]
    #[case::from_its_folder("./sh", None)]
    #[case::unknown("no-such-server", Some("there is no program no-such-server in PATH"))]
    #[case::not_there("/bin/no-such-server", Some("/bin/no-such-server is no program"))]
    #[case::a_folder("/bin/", Some("/bin/ is no program"))]
    #[case::no_program("/etc/passwd", Some("/etc/passwd is no program"))]
    fn a_program_that_is_not_there_is_found(#[case] program: &str, #[case] why: Option<&str>) {
        let directory = Some(PathBuf::from("/bin"));
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let how = VersionCommand { directory, ..crate::testing::version(&[program.to_owned()], address, "") };
        let missing = missing(&how);
        assert!(missing.as_deref().unwrap_or("").starts_with(why.unwrap_or("")), "{missing:?}");
        assert_eq!(missing.is_some(), why.is_some(), "{missing:?}");
        let elsewhere = VersionCommand { env: [("PATH".to_owned(), "/nowhere".to_owned())].into(), ..how };
        assert_eq!(super::missing(&elsewhere).is_some(), why.is_some() || program == "sh");
    }
}
