//! Versions as groups of processes: started in sessions of their own, adopted, found again after a restart of the
//! controller, stopped by signal. A version is gone when nothing of it runs. I/O: processes, /proc, log files.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;

use super::adoption::{Claim, claim};
use super::file::{Stop, VersionCommand};
use super::group::{Members, Processes, describe, start_ticks};
use super::live::{LiveProcess, named};
use super::logs::Logs;
use super::probe::{Probe, Readiness};
use super::process::{Process, StartedAs, spawn};
use super::sockets::{Owner, owner};
use super::store::{Store, StoreError};
use machine::history::Happening;
use machine::observation::{Occurrence, VersionState};
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::Hub;
use service::failpoint;

/// Between two looks at all processes, at who listens, at logs, and at an address that is taken.
pub(crate) const LOOK_MS: u64 = 1_000;
/// Between two looks at all processes while nothing moves, and what runs is old: an end calls for a look of its own.
const REST_MS: u64 = 5_000;
/// What has run for so long has made all that it consists of.
const OLD_MS: u64 = 60_000;
/// Between two looks at who listens, where it was the version, that consists of the same processes, and no switch rests
/// on it: the kernel goes through all its connections for one. Who asks to (SO_REUSEPORT) may come to listen there, too.
const OWNER_MS: u64 = 60_000;
/// What happened and was not written yet; more is only logged.
const OCCURRENCES: usize = 5;

/// How versions are declared, by version.
pub(crate) type Versions = BTreeMap<String, VersionCommand>;

/// Whether nothing moves until somebody asks for something, or time has passed.
pub(crate) fn rests(status: &Status) -> bool {
    matches!(status.phase, Phase::Adopting | Phase::Stable | Phase::Retaining)
}

/// All processes of one flag.
#[derive(Debug)]
pub struct Supervisor {
    logs: Logs,
    hub: Arc<Hub>,
    live: BTreeMap<String, LiveProcess>,
    processes: Processes,
    looked_ms: u64,
    occurred: Vec<Occurrence>,
}

impl Supervisor {
    /// Finds what the state file remembers, and what this controller has started besides, which a state file that was
    /// moved away or could not be written does not.
    pub(crate) fn adopt(logs: Logs, hub: Arc<Hub>, store: &mut Store) -> Supervisor {
        // Whose parent ended becomes a child of this process, and stays known.
        if let Err(error) = set_child_subreaper(true) {
            tracing::warn!(%error, "processes that leave their parent and their session may be lost sight of");
        }
        if store.state.processes.values().any(|process| process.pid.is_none()) {
            // One that was just forked has its environment only after exec.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let (mut processes, mut live) = (Processes::default(), BTreeMap::<String, LiveProcess>::new());
        processes.look();
        store.state.processes.retain(|version, process| {
            if process.pid.is_none() {
                (process.pid, process.start_ticks) = processes.started_as(&process.id).unzip();
            }
            let session = process.alive();
            let members = processes.members(process, &Members::new(), session);
            let runs = !members.is_empty();
            tracing::info!(version, pid = process.pid, runs, "found in the state file");
            live.insert(version.clone(), LiveProcess { members, session, ..LiveProcess::default() });
            runs
        });
        let state = store.path().to_string_lossy().into_owned();
        for (marks, (pid, ticks)) in processes.started_by(&state) {
            if store.state.processes.contains_key(&marks.version) {
                continue;
            }
            tracing::info!(version = marks.version, pid, "it runs, and is adopted");
            let process = Process { id: marks.id, pid: Some(pid), start_ticks: Some(ticks), ..Process::default() };
            store.state.processes.insert(marks.version, process);
        }
        store.note();
        Supervisor { logs, hub, live, processes, looked_ms: 0, occurred: vec![] }
    }

    /// Has logs go elsewhere from the next start on.
    pub(crate) fn set_logs(&mut self, logs: Logs) {
        self.logs = logs;
    }

    /// Somebody wanted it tried again then: what ended before that is started at once.
    pub(crate) fn forgive(&mut self, at: UnixMs, version: Option<&str>) {
        let meant = |name: &String| version.is_none_or(|version| version == name);
        for (_, live) in self.live.iter_mut().filter(|(name, _)| meant(name)) {
            live.restarts.forgive(at.0);
            live.barred = live.barred.take().map(|(found, why)| (if found <= at.0 { 0 } else { found }, why));
        }
    }

    /// What happened, and is not in this history yet.
    pub(crate) fn occurred(&mut self, written: impl Fn(&Occurrence) -> bool) -> Vec<Occurrence> {
        self.occurred.retain(|one| !written(one));
        self.occurred.clone()
    }

    /// Has something in the history.
    pub(crate) fn note(&mut self, now_ms: u64, event: Happening, message: String) {
        if self.occurred.len() < OCCURRENCES {
            self.occurred.push(Occurrence { at: UnixMs(now_ms), event, message });
        }
    }

    /// Ends when every version that runs was asked once.
    pub(crate) async fn first_answers(&self) {
        let answers: Vec<_> = self.live.values().filter_map(|live| Some(live.probe.as_ref()?.first_answer())).collect();
        for mut answer in answers {
            let _ = answer.wait_for(Readiness::is_known).await;
        }
    }

    /// Notices what ended, asks what runs, ends what is left of what ended, and kills what does not stop.
    pub(crate) fn poll(&mut self, now_ms: u64, store: &mut Store, versions: &Versions) {
        self.look(now_ms, store);
        let all: Vec<String> = store.state.processes.keys().cloned().collect();
        let switches = !rests(&store.state.status);
        let (mut gone, mut changed) = (vec![], false);
        for version in all {
            self.rotate(&version);
            let Some(process) = store.state.processes.get_mut(&version) else { continue };
            let (before, declared) = (process.clone(), versions.get(&version));
            let runs = process.alive() && !self.has_ended(&version);
            let grace = declared.map(|how| how.stop.clone()).unwrap_or_default();
            if !runs {
                self.note_end(now_ms, &version, process);
                // It may have left something since the last look.
                self.processes.look();
                let live = self.live.entry(version.clone()).or_default();
                live.members = self.processes.members(process, &live.members, live.session);
                if live.members.is_empty() {
                    gone.push(version.clone());
                } else if process.serves() {
                    (process.remains_since, changed) = (Some(now_ms), true);
                    tracing::warn!(version, remains = named(&live.members), "what is left of it is ended");
                    self.processes.signal(&live.members, grace.signal());
                }
            }
            let live = self.live.entry(version.clone()).or_default();
            if let Some(since) = process.stopping_since.or(process.remains_since) {
                live.probe = None;
                if now_ms.saturating_sub(since) >= grace.grace.0 {
                    self.processes.signal(&live.members, Signal::SIGKILL);
                }
            } else if let Some(how) = declared {
                self.watch(now_ms, &version, &before, (how, switches));
                let probe = self.live.get(&version).and_then(|live| live.probe.as_ref());
                probe.iter().for_each(|probe| probe.hurry(switches));
            }
        }
        gone.iter().for_each(|version| self.forget(version, store));
        if changed || !gone.is_empty() {
            store.note();
        }
    }

    /// Looks at all processes from time to time, and whenever something ends.
    fn look(&mut self, now_ms: u64, store: &Store) {
        let all = &store.state.processes;
        let changes =
            all.iter().any(|(version, process)| !process.serves() || !process.alive() || self.is_new(version));
        let paced = now_ms.saturating_sub(self.looked_ms) >= self.pace(now_ms, store);
        if all.is_empty() || !(changes || paced) {
            return;
        }
        self.processes.look();
        self.processes.reap_rest(now_ms);
        for (version, process) in all {
            let live = self.live.entry(version.clone()).or_default();
            live.session |= process.alive() && !process.adopted;
            self.processes.reap(process, &live.members, live.session);
            live.members = self.processes.members(process, &live.members, live.session);
        }
        if paced {
            self.looked_ms = now_ms;
        }
    }

    /// Between two looks at all processes. What began a while ago has made what it consists of, and whoever leaves it
    /// is known by its mark, but where it was adopted: that has none.
    fn pace(&self, now_ms: u64, store: &Store) -> u64 {
        let is_old = |live: &LiveProcess| now_ms.saturating_sub(live.started_ms) >= OLD_MS;
        let made = |(version, process): (&String, &Process)| {
            process.serves() && !process.adopted && self.live.get(version).is_some_and(is_old)
        };
        if rests(&store.state.status) && store.state.processes.iter().all(made) { REST_MS } else { LOOK_MS }
    }

    fn rotate(&mut self, version: &str) {
        let error = self.logs.rotate(version).err().map(|error| error.to_string());
        let live = self.live.entry(version.to_owned()).or_default();
        if let Some(error) = error.as_ref().filter(|error| live.rotate_error.as_ref() != Some(*error)) {
            tracing::warn!(version, error, "its log could not be kept");
        }
        live.rotate_error = error;
    }

    fn is_new(&self, version: &str) -> bool {
        self.live.get(version).is_none_or(|live| live.members.is_empty())
    }

    fn has_ended(&mut self, version: &str) -> bool {
        let child = self.live.get_mut(version).and_then(|live| live.child.as_mut());
        child.and_then(|child| child.try_wait().ok().flatten()).is_some()
    }

    /// Takes note that the process of a version ended, once.
    fn note_end(&mut self, now_ms: u64, version: &str, process: &Process) {
        let live = self.live.entry(version.to_owned()).or_default();
        live.probe = None;
        live.owner = None;
        let status = live.child.take().and_then(|mut child| child.try_wait().ok().flatten());
        if !process.serves() {
            return;
        }
        let how = status.map_or_else(|| "it ended".to_owned(), |status| status.to_string());
        tracing::warn!(version, how, "ended by itself");
        let times = live.restarts.ended(now_ms, now_ms.saturating_sub(live.started_ms));
        live.exited = Some(how.clone());
        if let Some(times) = times {
            let often = if times > 1 { format!(", {times} times by now") } else { String::new() };
            self.note(now_ms, Happening::VersionEnded, format!("{version} ended by itself{often}: {how}"));
        }
    }

    fn forget(&mut self, version: &str, store: &mut Store) {
        let process = store.state.processes.remove(version);
        if process.is_some_and(|process| process.stopping_since.is_some()) {
            tracing::info!(version, "stopped");
            self.live.remove(version);
        } else if let Some(live) = self.live.get_mut(version) {
            (live.members, live.session) = (Members::new(), false);
        }
    }

    /// Asks a version that runs whether it is ready, and looks at who it is that answers.
    fn watch(&mut self, now_ms: u64, version: &str, process: &Process, (how, switches): (&VersionCommand, bool)) {
        let live = self.live.entry(version.to_owned()).or_default();
        let address = process.started_as.as_ref().map_or(how.address, |started| started.address);
        match &mut live.probe {
            Some(probe) => probe.follow(how, address, &self.hub),
            None => live.probe = Some(Probe::start(how, address, Arc::clone(&self.hub))),
        }
        let Some(readiness) = live.probe.as_ref().map(Probe::readiness) else { return };
        let Some(since) = readiness.since else {
            return live.look_elsewhere(now_ms, address, readiness.lacks.is_some());
        };
        live.elsewhere = Default::default();
        // All connections of the machine are looked through: what is known is looked at less often.
        let known = matches!(&live.owner, Some((_, Owner::Own))) && live.owners == live.members;
        let settled = known && !switches;
        let pace = if settled { OWNER_MS } else { LOOK_MS };
        let known = live.owner.as_ref();
        if known.is_some_and(|(checked, _)| *checked >= since && now_ms.saturating_sub(*checked) < pace) {
            return;
        }
        // What came of it since the last look may be what listens.
        self.processes.look();
        live.members = self.processes.members(process, &live.members, live.session);
        let found = owner(address, &live.members, &self.processes);
        if live.owner.as_ref().is_some_and(|(_, owner)| matches!(owner, Owner::Other(_))) {
            live.owned_since = Some(now_ms);
        }
        live.owner = Some((now_ms.max(since), found));
        live.owners.clone_from(&live.members);
    }

    /// Has the version running: started, or adopted where it runs already. Nothing to do while it runs, stops, ended
    /// just now, or cannot be started because of somebody else.
    pub(crate) fn start(&mut self, now_ms: u64, store: &mut Store, version: &str, how: &VersionCommand) {
        let live = self.live.entry(version.to_owned()).or_default();
        let looked_just_now = live.barred.as_ref().is_some_and(|(at, _)| now_ms.saturating_sub(*at) < LOOK_MS);
        if store.state.processes.contains_key(version) || live.restarts.next(now_ms).is_some() || looked_just_now {
            return;
        }
        self.processes.look();
        let state = store.path().to_string_lossy().into_owned();
        match claim(version, how, &self.processes, &state) {
            Claim::Start => self.spawn(now_ms, store, version, how),
            Claim::Adopt(pid, ticks) => {
                tracing::info!(version, who = describe(pid), "it runs, and is adopted");
                let (id, pid, start_ticks) = (service::id::unique(), Some(pid), Some(ticks));
                let started_at = Some(now_ms);
                let process = Process { id, pid, start_ticks, started_at, adopted: true, ..Process::default() };
                store.state.processes.insert(version.to_owned(), process);
                store.note();
                *live = LiveProcess { started_ms: now_ms, restarts: live.restarts, ..LiveProcess::default() };
            }
            Claim::Refuse(why) => {
                let known = live.barred.as_ref().is_some_and(|(_, known)| *known == why);
                live.barred = Some((now_ms, why.clone()));
                if !known {
                    tracing::error!(version, why, "is not started");
                    self.note(now_ms, Happening::NotStarted, format!("{version} is not started: {why}"));
                }
            }
        }
    }

    fn spawn(&mut self, now_ms: u64, store: &mut Store, version: &str, how: &VersionCommand) {
        let live = self.live.entry(version.to_owned()).or_default();
        *live = LiveProcess { exited: live.exited.take(), restarts: live.restarts, ..LiveProcess::default() };
        // The intent is on disk before anything runs, so that it is found if this process dies now. Where that is full,
        // the version is found by its environment.
        let id = service::id::unique();
        let (started_at, started_as) = (Some(now_ms), Some(StartedAs::of(how)));
        let intent = Process { id: id.clone(), started_at, started_as, ..Process::default() };
        store.state.processes.insert(version.to_owned(), intent.clone());
        store.note();
        let out = self.logs.open(version).and_then(|out| Ok((Stdio::from(out.try_clone()?), Stdio::from(out))));
        live.log_error = out.as_ref().err().map(|error| {
            let why =
                format!("what it prints is lost: {} cannot be opened: {error}", self.logs.path(version).display());
            tracing::error!(version, why, "no log");
            why
        });
        let out = out.unwrap_or_else(|_| (Stdio::null(), Stdio::null()));
        match spawn(how, out, (&id, store.path(), version)) {
            Ok(child) => {
                failpoint::point("after a version was started");
                let pid = i32::try_from(child.id()).ok();
                tracing::info!(version, pid, "started");
                let process = Process { pid, start_ticks: pid.and_then(start_ticks), ..intent };
                store.state.processes.insert(version.to_owned(), process);
                live.probe = Some(Probe::start(how, how.address, Arc::clone(&self.hub)));
                (live.child, live.started_ms, live.session) = (Some(child), now_ms, true);
            }
            Err(error) => {
                let program = how.command.first().map(String::as_str).unwrap_or_default();
                tracing::warn!(version, %error, program, "could not be started");
                store.state.processes.remove(version);
                let times = live.restarts.ended(now_ms, 0);
                let why = format!("{program} could not be started: {error}");
                live.exited = Some(why.clone());
                if times.is_some() {
                    self.note(now_ms, Happening::NotStarted, format!("{version} is not started: {why}"));
                }
            }
        }
        store.note();
    }

    /// Has the version stopped. Without the decision on disk nothing is told to stop.
    pub(crate) fn stop(&mut self, now_ms: u64, store: &mut Store, version: &str, how: &Stop) -> Result<(), StoreError> {
        let Some(process) = store.state.processes.get_mut(version) else {
            return Ok(());
        };
        if process.stopping_since.is_some() {
            return Ok(());
        }
        process.stopping_since = Some(now_ms);
        let process = process.clone();
        if let Err(error) = store.save() {
            store.state.processes.entry(version.to_owned()).and_modify(|process| process.stopping_since = None);
            return Err(error);
        }
        let live = self.live.entry(version.to_owned()).or_default();
        self.processes.look();
        live.members = self.processes.members(&process, &live.members, live.session);
        tracing::info!(version, pid = process.pid, signal = how.signal, what = named(&live.members), "stopping");
        self.processes.signal(&live.members, how.signal());
        failpoint::point("after a version was told to stop");
        live.probe = None;
        Ok(())
    }

    /// What the state machine sees.
    pub(crate) fn workload(
        &self,
        now_ms: u64,
        store: &Store,
        version: &str,
        how: Option<&VersionCommand>,
    ) -> VersionState {
        let none = LiveProcess::default();
        let (flag, process) = (store.state.status.name.as_str(), store.state.processes.get(version));
        self.live.get(version).unwrap_or(&none).state(now_ms, (flag, version), process, how)
    }
}

#[cfg(test)]
mod tests;
