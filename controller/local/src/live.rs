//! What is known of a version beside the state file, and what the state machine sees of it. I/O: names of processes, and
//! where they listen.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Child;

use super::file::{ListenerOf, VersionCommand};
use super::group::{Members, describe};
use super::probe::Probe;
use super::process::Process;
use super::restarts::Restarts;
use super::sockets::{Owner, elsewhere};
use super::supervisor::LOOK_MS;
use machine::observation::VersionState;
use machine::time::UnixMs;

/// What is known of a version beside the state file.
#[derive(Debug, Default)]
pub(crate) struct LiveProcess {
    pub(crate) child: Option<Child>,
    pub(crate) probe: Option<Probe>,
    pub(crate) members: Members,
    /// Its session was seen with the process that has its name.
    pub(crate) session: bool,
    /// Whose the listener was, and when that was looked at.
    pub(crate) owner: Option<(u64, Owner)>,
    /// What the version consisted of then.
    pub(crate) owners: Members,
    /// Since when the listener has been its own, where it was another one before.
    pub(crate) owned_since: Option<u64>,
    /// Where it takes connections instead of at its address, and when that was looked at.
    pub(crate) elsewhere: (u64, BTreeSet<SocketAddr>),
    pub(crate) exited: Option<String>,
    /// Why it is not started, and when that was found.
    pub(crate) barred: Option<(u64, String)>,
    /// What is wrong with its log.
    pub(crate) log_error: Option<String>,
    /// Why it was not rotated when that was tried last.
    pub(crate) rotate_error: Option<String>,
    pub(crate) restarts: Restarts,
    pub(crate) started_ms: u64,
}

impl LiveProcess {
    /// Since when it has been ready, by its answers and by who gives them.
    fn ready_since(&self, listener: ListenerOf) -> Option<u64> {
        let since = self.probe.as_ref()?.readiness().since?;
        match &self.owner {
            _ if listener == ListenerOf::Any => Some(since),
            Some((checked, Owner::Own | Owner::Unknown(_))) if *checked >= since => {
                Some(since.max(self.owned_since.unwrap_or_default()))
            }
            _ => None,
        }
    }

    /// Looks from time to time where one that `lacks` the right answer listens instead.
    pub(crate) fn look_elsewhere(&mut self, now_ms: u64, address: SocketAddr, lacks: bool) {
        if lacks && now_ms.saturating_sub(self.elsewhere.0) >= LOOK_MS {
            self.elsewhere = (now_ms, elsewhere(address, &self.members));
        }
    }

    /// What the state machine sees.
    pub(crate) fn state(
        &self,
        now_ms: u64,
        (flag, version): (&str, &str),
        process: Option<&Process>,
        how: Option<&VersionCommand>,
    ) -> VersionState {
        let listener = how.map(|how| how.ready.listener).unwrap_or_default();
        let ready_since = self.ready_since(listener).filter(|_| process.is_some_and(Process::serves));
        let stopped = process.is_some_and(|process| process.stopping_since.is_some());
        let named = self.members.keys().map(|pid| describe(*pid));
        VersionState {
            declared: how.is_some(),
            running: process.is_some(),
            ready: ready_since.is_some(),
            started: process.and_then(|process| process.started_at).map(UnixMs),
            ready_since: ready_since.map(UnixMs),
            lacks: process.and_then(|process| self.lacks(process, listener)).filter(|_| ready_since.is_none()),
            exited: self.exited.clone().filter(|_| ready_since.is_none()),
            barred: self.barred.as_ref().map(|(_, why)| why.clone()).filter(|_| process.is_none()),
            next_start: self.restarts.next(now_ms).map(UnixMs).filter(|_| how.is_some() && !stopped),
            stopped,
            ending: if stopped { named.collect() } else { vec![] },
            notes: process.map(|process| self.notes(process, listener, (flag, version), how)).unwrap_or_default(),
            ..VersionState::default()
        }
    }

    /// What it lacks to be ready.
    fn lacks(&self, process: &Process, listener: ListenerOf) -> Option<String> {
        if process.remains_since.is_some() {
            return Some(format!("what it left behind has to end first: {}", named(&self.members)));
        }
        match &self.owner {
            Some((_, Owner::Other(who))) if listener == ListenerOf::Own => {
                Some(format!("{who} listens on its address, and is no process of it"))
            }
            _ => {
                let lacks = self.probe.as_ref()?.readiness().lacks?;
                let named: Vec<String> = self.elsewhere.1.iter().take(3).map(SocketAddr::to_string).collect();
                if named.is_empty() {
                    return Some(lacks);
                }
                Some(format!("{lacks}; it listens on {}, which is not its address", named.join(" and ")))
            }
        }
    }

    /// What people should know of it while it runs.
    fn notes(
        &self,
        process: &Process,
        listener: ListenerOf,
        (flag, version): (&str, &str),
        how: Option<&VersionCommand>,
    ) -> Vec<String> {
        let mut notes: Vec<String> = self.log_error.iter().cloned().collect();
        notes.extend(how.and_then(|how| process.started_as.as_ref()?.outdated(flag, version, how)));
        if let Some((_, Owner::Unknown(why))) = &self.owner
            && listener == ListenerOf::Own
        {
            notes.push(why.clone());
        }
        notes
    }
}

/// Processes in words.
pub(crate) fn named(members: &Members) -> String {
    members.keys().take(3).map(|pid| describe(*pid)).collect::<Vec<_>>().join(", ")
}
