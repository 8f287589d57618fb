//! One start of a version: what is remembered of it, and how it is done. I/O: processes.

use std::ffi::OsString;
use std::io::Read;
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

/// What a version names that is not there now, as far as files and `PATH` show that: sentences that begin with a field.
pub fn missing(how: &VersionCommand) -> Vec<String> {
    let folder = how.directory.as_deref().filter(|folder| !folder.is_dir());
    let folder = folder.map(|folder| format!("directory: there is no folder {}", folder.display()));
    let ready = how.ready.command.as_deref().unwrap_or_default();
    let programs = [("command", how.command.as_slice()), ("ready.command", ready)];
    let program =
        |(field, command): (&str, &[String])| Some(format!("{field}: {}", missing_program(command.first()?, how)?));
    // From a folder that is not there nothing is found.
    let programs = programs.into_iter().filter(|_| folder.is_none()).filter_map(program).collect::<Vec<_>>();
    folder.into_iter().chain(programs).collect()
}

fn missing_program(program: &str, how: &VersionCommand) -> Option<String> {
    let runs = |file: &Path| file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    let path = how.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let file = match program.contains('/') {
        true => how.directory.as_deref().unwrap_or(Path::new("")).join(program),
        false => match std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| runs(file)) {
            Some(file) => file,
            None => return Some(format!("there is no program {program} in PATH")),
        },
    };
    if !runs(&file) {
        return Some(format!("{} is no program that could be started here", file.display()));
    }
    let interpreter = interpreter(&file).filter(|interpreter| !runs(interpreter))?;
    Some(format!("{} is run by {}, which is not there", file.display(), interpreter.display()))
}

/// The program that runs a script, by its first line.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let mut start = vec![];
    std::fs::File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(str::from_utf8(line).ok()?.split_whitespace().next()?.into())
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
        let found = missing(&how).pop();
        let expected = why.map(|why| format!("command: {why}")).unwrap_or_default();
        assert!(found.as_deref().unwrap_or("").starts_with(&expected), "{found:?}");
        assert_eq!(found.is_some(), why.is_some(), "{found:?}");
        let elsewhere = VersionCommand { env: [("PATH".to_owned(), "/nowhere".to_owned())].into(), ..how };
        assert_eq!(missing(&elsewhere).is_empty(), why.is_none() && program != "sh");
    }

    /// T36: what else a version needs to start, and to get ready.
    #[test]
    fn all_that_is_missing_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("serve");
        std::fs::write(&script, "#!/no/such/shell -e\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut how = crate::testing::version(&["./serve".to_owned()], address, "");
        how.directory = Some(dir.path().to_owned());
        how.ready.command = Some(vec!["no-such-probe".to_owned()]);
        let script = script.parent().unwrap().join("./serve");
        let expected = [
            format!("command: {} is run by /no/such/shell, which is not there", script.display()),
            "ready.command: there is no program no-such-probe in PATH".to_owned(),
        ];
        assert_eq!(missing(&how), expected);
        how.directory = Some("/no/such/folder".into());
        assert_eq!(missing(&how), ["directory: there is no folder /no/such/folder"]);
    }
}
