//! All processes of a version: what was started, and everything that came of it. I/O: /proc, signals.
//!
//! A version is started in a session of its own, with marks in its environment, and children inherit both. Whose
//! parent ended becomes a child of the controller (`PR_SET_CHILD_SUBREAPER`). So a process belongs to a version by its
//! session, by the mark, by its parent, or because it was known to before: it would have to lose all four to get away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::process::Process;

/// In the environment of a version: which start it is of.
pub(crate) const MARK: &str = "VERSIONFLAG_ID";
/// In the environment of a version: the state file of the controller that started it.
pub(crate) const STATE_MARK: &str = "VERSIONFLAG_STATE";
/// In the environment of a version: its name.
pub(crate) const VERSION_MARK: &str = "VERSIONFLAG_VERSION";

/// Processes by pid, each with its start time in clock ticks: a pid is used again, both together are not.
pub(crate) type Members = BTreeMap<i32, u64>;

/// One process, as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: i32,
    session: i32,
    pub(crate) ticks: u64,
    ended: bool,
}

impl Stat {
    /// Reads one process.
    pub(crate) fn read(pid: i32) -> Option<Stat> {
        // All of them are read every second: this is one call each, as the kernel writes the whole line at once.
        let mut line = [0; 1_024];
        let read = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
        Stat::parse(&String::from_utf8_lossy(line.get(..read)?))
    }

    fn parse(text: &str) -> Option<Stat> {
        // The command's name may have spaces and parentheses itself: fields count from the last one.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
        Some(Stat {
            parent: number(1)?,
            session: number(3)?,
            ticks: fields.get(19)?.parse().ok()?,
            ended: matches!(fields.first(), Some(&"Z" | &"X")),
        })
    }
}

/// Start time of a process that runs and is no zombie.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    Stat::read(pid).filter(|stat| !stat.ended).map(|stat| stat.ticks)
}

/// The state file in the environment of a process that runs; empty: it has none, or it cannot be read.
pub(crate) fn state_mark(pid: i32) -> String {
    Marks::read(pid).state
}

/// What a process was started as, by its environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Marks {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) version: String,
}

impl Marks {
    fn read(pid: i32) -> Marks {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut marks = Marks::default();
        for variable in environment.split(|byte| *byte == 0) {
            let Some((name, value)) = std::str::from_utf8(variable).ok().and_then(|text| text.split_once('=')) else {
                continue;
            };
            match name {
                MARK => value.clone_into(&mut marks.id),
                STATE_MARK => value.clone_into(&mut marks.state),
                VERSION_MARK => value.clone_into(&mut marks.version),
                _ => {}
            }
        }
        marks
    }
}

/// All processes of this machine, as they were in one look. What was read of an environment is kept: it does not change.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    all: BTreeMap<i32, Stat>,
    marks: BTreeMap<(i32, u64), Marks>,
    /// Children of this process that have ended, and since when that was seen, in milliseconds.
    ended: BTreeMap<(i32, u64), u64>,
}

/// Whoever waits for a child has done so by then.
const WAITED_MS: u64 = 10_000;

impl Processes {
    /// Looks again.
    pub(crate) fn look(&mut self) {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        self.all = pids.filter_map(|pid| Some((pid, Stat::read(pid)?))).collect();
        let (all, mut known) = (&self.all, std::mem::take(&mut self.marks));
        self.marks = all
            .iter()
            .filter(|(_, stat)| !stat.ended)
            .map(|(pid, stat)| {
                let key = (*pid, stat.ticks);
                (key, known.remove(&key).unwrap_or_else(|| Marks::read(*pid)))
            })
            .collect();
    }

    fn runs(&self, pid: i32, ticks: u64) -> bool {
        self.all.get(&pid).is_some_and(|stat| stat.ticks == ticks && !stat.ended)
    }

    /// The processes of a version that run: those that are known still, and those that came of them. `session`: its
    /// session is known to be its own still.
    pub(crate) fn members(&self, process: &Process, known: &Members, session: bool) -> Members {
        let session = process.pid.filter(|_| session && !process.adopted);
        let own = |pid: i32, stat: &Stat| {
            process.is(pid, stat.ticks)
                || known.get(&pid) == Some(&stat.ticks)
                || session == Some(stat.session)
                || (!process.adopted && self.marks.get(&(pid, stat.ticks)).is_some_and(|marks| marks.id == process.id))
        };
        let myself = std::process::id().cast_signed();
        let others = || self.all.iter().filter(|(pid, stat)| **pid > 1 && **pid != myself && !stat.ended);
        let mut members: Members =
            others().filter(|(pid, stat)| own(**pid, stat)).map(|(pid, stat)| (*pid, stat.ticks)).collect();
        loop {
            let children =
                others().filter(|(pid, stat)| !members.contains_key(pid) && members.contains_key(&stat.parent));
            let children: Members = children.map(|(pid, stat)| (*pid, stat.ticks)).collect();
            if children.is_empty() {
                return members;
            }
            members.extend(children);
        }
    }

    /// Takes note of the end of those that became children of this process, and are waited for by nobody else.
    pub(crate) fn reap(&self, process: &Process, known: &Members, session: bool) {
        let session = process.pid.filter(|_| session && !process.adopted);
        let myself = std::process::id().cast_signed();
        let orphans = self.all.iter().filter(|(pid, stat)| {
            let ours = known.get(pid) == Some(&stat.ticks) || session == Some(stat.session);
            stat.ended && stat.parent == myself && ours && process.pid != Some(**pid)
        });
        for (pid, _) in orphans {
            let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
        }
    }

    /// Takes note of the end of those that nobody waits for: what a question of readiness left behind, or a version of a
    /// flag that was let go.
    pub(crate) fn reap_rest(&mut self, now_ms: u64) {
        let (myself, known) = (std::process::id().cast_signed(), std::mem::take(&mut self.ended));
        let ended = self.all.iter().filter(|(_, stat)| stat.ended && stat.parent == myself);
        self.ended = ended
            .map(|(pid, stat)| (*pid, stat.ticks))
            .map(|one| (one, known.get(&one).copied().unwrap_or(now_ms)))
            .filter(|((pid, _), since)| {
                let waits = now_ms.saturating_sub(*since) < WAITED_MS;
                waits || waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG)).is_err()
            })
            .collect();
    }

    /// The oldest process of each start that has this state file in its environment: its children inherit it.
    pub(crate) fn started_by(&self, state: &str) -> BTreeMap<Marks, (i32, u64)> {
        let mut found: BTreeMap<Marks, (i32, u64)> = BTreeMap::new();
        let marked = self.marks.iter().filter(|(_, marks)| marks.state == state && !marks.id.is_empty());
        for ((pid, ticks), marks) in marked {
            let oldest = found.entry(marks.clone()).or_insert((*pid, *ticks));
            if (*ticks, *pid) < (oldest.1, oldest.0) {
                *oldest = (*pid, *ticks);
            }
        }
        found
    }

    /// The state file in the environment of a process; empty: it has none.
    pub(crate) fn state_of(&self, pid: i32) -> Option<&str> {
        let ticks = self.all.get(&pid)?.ticks;
        self.marks.get(&(pid, ticks)).map(|marks| marks.state.as_str())
    }

    /// The oldest process of one start.
    pub(crate) fn started_as(&self, id: &str) -> Option<(i32, u64)> {
        let marked = self.marks.iter().filter(|(_, marks)| marks.id == id);
        marked.map(|(key, _)| *key).min_by_key(|(pid, ticks)| (*ticks, *pid))
    }

    /// The pids of all that run.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.all.iter().filter(|(_, stat)| !stat.ended).map(|(pid, _)| *pid)
    }

    /// Those of these processes whose parent is none of them.
    pub(crate) fn roots(&self, pids: &BTreeSet<i32>) -> Vec<(i32, u64)> {
        let stats = pids.iter().filter_map(|pid| Some((*pid, self.all.get(pid)?)));
        stats.filter(|(_, stat)| !pids.contains(&stat.parent)).map(|(pid, stat)| (pid, stat.ticks)).collect()
    }

    /// This process, and what it came of.
    pub(crate) fn ancestors(&self) -> BTreeSet<i32> {
        let (mut found, mut pid) = (BTreeSet::new(), std::process::id().cast_signed());
        while pid > 0 && found.insert(pid) {
            pid = self.all.get(&pid).map_or(0, |stat| stat.parent);
        }
        found
    }

    /// Sends a signal to all of them that still run.
    pub(crate) fn signal(&self, members: &Members, signal: Signal) {
        for (pid, _) in members.iter().filter(|(pid, ticks)| self.runs(**pid, **ticks)) {
            // What was seen a moment ago may have ended since, and its pid be somebody else's.
            if start_ticks(*pid) == members.get(pid).copied() {
                let _ = kill(Pid::from_raw(*pid), signal);
            }
        }
    }
}

/// A process for people: `process 77 (python3)`.
pub(crate) fn describe(pid: i32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T25: who ends while somebody waits for it is that one's; who is nobody's is waited for here.
    #[test]
    fn an_orphan_that_ended_is_waited_for_once_nobody_else_has() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let mut processes = Processes::default();
        let deadline = std::time::Instant::now() + crate::testing::LIMIT;
        while !processes.all.get(&pid).is_some_and(|stat| stat.ended) {
            assert!(std::time::Instant::now() < deadline);
            processes.look();
        }
        let mut seen = |now_ms| {
            processes.look();
            // Other tests have children of this process, too.
            processes.all.retain(|one, _| *one == pid);
            processes.reap_rest(now_ms);
            processes.ended.keys().any(|(one, _)| *one == pid)
        };
        assert!(seen(1_000) && seen(1_000 + WAITED_MS - 1));
        assert!(!seen(1_000 + WAITED_MS));
        assert_eq!(Stat::read(pid), None);
        drop(child);
    }

    #[test]
    fn a_name_with_parentheses_hides_no_field() {
        let text = "77 (a) R (b) S 12 77 70 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 3133440 412 1\n";
        let stat = Stat { parent: 12, session: 70, ticks: 4711, ended: false };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse(&text.replace(" S ", " Z ")), Some(Stat { ended: true, ..stat }));
        assert_eq!(Stat::parse("77 (a) S 12"), None);
    }
}
