//! Whether a version may be started, or runs already. I/O: /proc, pid files.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::file::{Adopt, VersionCommand};
use super::group::{Members, Processes, describe, start_ticks};
use super::process::Process;
use super::sockets::{Taken, named, taken};

/// What comes of the wish to have a version running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nobody is in the way: it is started.
    Start,
    /// It runs already, as this process with this start time.
    Adopt(i32, u64),
    /// It is not started: why, and what to do.
    Refuse(String),
}

/// Looks at who listens on the address of a version, and at who may be adopted. `state`: the controller's own state
/// file.
pub(crate) fn claim(version: &str, how: &VersionCommand, processes: &Processes, state: &str) -> Claim {
    let (address, taken) = (how.address, taken(how.address, processes));
    match (&how.adopt, taken) {
        (Some(Adopt::PidFile(path)), taken) => by_pid_file(version, how, path, taken, processes, state),
        (_, Taken::Free) => Claim::Start,
        (None, Taken::By(pids)) => Claim::Refuse(format!(
            "{} listens on {address}: end it, or give {version} another address, or let it be adopted (`adopt: Listener`)",
            named(&pids)
        )),
        (Some(Adopt::Listener), Taken::By(pids)) if pids.is_empty() => Claim::Refuse(format!(
            "somebody listens on {address}, and it cannot be read who, so that it cannot be adopted: run the controller as \
             the same user, or as root"
        )),
        (Some(Adopt::Listener), Taken::By(pids)) => match processes.roots(&pids).as_slice() {
            [(pid, ticks)] => adopt(*pid, *ticks, processes, state),
            _ => Claim::Refuse(format!(
                "{} all listen on {address}, so that none of them is adopted: name the one that they came of by \
                 `adopt: {{pidFile: FILE}}`",
                named(&pids)
            )),
        },
    }
}

fn by_pid_file(
    version: &str,
    how: &VersionCommand,
    path: &Path,
    taken: Taken,
    processes: &Processes,
    state: &str,
) -> Claim {
    let pid = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let (address, path) = (how.address, path.display());
    let runs = pid.filter(|pid| *pid > 0).and_then(|pid| Some((pid, start_ticks(pid)?)));
    match (runs, taken) {
        (None, Taken::Free) => Claim::Start,
        (None, Taken::By(pids)) => Claim::Refuse(format!(
            "{} listens on {address}, and {path} names no process that runs: put its pid there, or end it",
            named(&pids)
        )),
        (Some((pid, _)), Taken::Free) => Claim::Refuse(format!(
            "{} of {path} does not listen on {address}: wait until it does, or end it, or remove the file",
            describe(pid)
        )),
        (Some((pid, ticks)), Taken::By(pids)) => {
            let root = Process { pid: Some(pid), start_ticks: Some(ticks), adopted: true, ..Process::default() };
            let members = processes.members(&root, &Members::new(), false);
            if !pids.is_empty() && pids.iter().all(|pid| members.contains_key(pid)) {
                return adopt(pid, ticks, processes, state);
            }
            Claim::Refuse(format!(
                "{} listens on {address}, which is not {} of {path} or a child of it: put the right pid there, or give \
                 {version} another address",
                named(&pids),
                describe(pid)
            ))
        }
    }
}

/// Only what this controller may end, and what is nobody else's, is adopted.
fn adopt(pid: i32, ticks: u64, processes: &Processes, state: &str) -> Claim {
    let who = describe(pid);
    let above: BTreeSet<i32> = processes.ancestors();
    if pid <= 1 || above.contains(&pid) {
        return Claim::Refuse(format!(
            "{who} is not adopted, because stopping it would stop this controller, or the machine: where it listens for a \
             service, have the service listen itself"
        ));
    }
    if let Some(other) = processes.state_of(pid).filter(|other| !other.is_empty() && *other != state) {
        return Claim::Refuse(format!(
            "{who} is not adopted: the controller with the state file {other} has started it"
        ));
    }
    if let Err(error) = kill(Pid::from_raw(pid), None) {
        return Claim::Refuse(format!(
            "{who} is not adopted, because this controller could not stop it ({error}): run it as the same user, or as root"
        ));
    }
    Claim::Adopt(pid, ticks)
}
