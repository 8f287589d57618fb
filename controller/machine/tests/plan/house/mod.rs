//! A small world for the real loop: workloads, two proxies, routes, and a controller that may die at any write or
//! act and then remembers only what is on disk. `guard` has what must never happen.

mod fence;
mod guard;
mod mesh;
mod proxies;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use flag::probe::Probe;
use futures_util::FutureExt;
use machine::action::{Action, Request};
use machine::checks::{CheckAnswer, CheckAnswers, Questions, Verdict};
use machine::fleet::ledger::Quiet;
use machine::observation::{Headroom, Keeper, Observation, ServiceFacts, Strength, VersionState};
use machine::plan::Effect;
use machine::publication::Publication;
use machine::reach;
use machine::reason::{Problem, Reason};
use machine::reconcile::reconcile;
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

use self::mesh::Mesh;
use self::proxies::Proxies;
pub(crate) use self::world::Write;
use crate::fixtures::blocked;

pub(crate) const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];
/// From the start of a version until it is ready.
const STARTS_IN_MS: u64 = 300;
/// From the stop of a version until nothing of it runs.
const STOPS_IN_MS: u64 = 20_000;
/// How many pods a version has that nobody made stronger.
const PODS: u32 = 2;
/// From the death of a version until the platform has started it again.
const RESTARTS_IN_MS: u64 = 700;

/// What is different from one house to the other.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub(crate) spec: Spec,
    pub(crate) keeper: Keeper,
}

/// The controller dies at its n-th write or act from now, before or after it is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fuse {
    pub(crate) acts: usize,
    pub(crate) after: bool,
}

/// The controller died.
#[derive(Debug)]
pub(crate) struct Died;

/// One look.
#[derive(Debug)]
pub(crate) struct Look {
    now: u64,
    spec: Spec,
    seen: Observation,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) now: u64,
    pub(crate) spec: Spec,
    keeper: Keeper,
    /// The status as this process remembers it, and as the next one would find it.
    pub(crate) memory: Status,
    pub(crate) disk: Status,
    /// Since when each version that is to run has run; later than now: it is being started again.
    pub(crate) running: BTreeMap<String, u64>,
    /// Until when what of each version still runs that was stopped.
    ending: BTreeMap<String, u64>,
    /// How many pods each version is asked to have, where somebody said so.
    pods: BTreeMap<String, u32>,
    /// The versions of which an autoscaler says how many pods they have: one.
    pub(crate) scaled: BTreeSet<String>,
    /// Since when each version has been ready without a break, whoever has seen it.
    steady: BTreeMap<String, u64>,
    /// The versions that ended by themselves, and were not ready again since.
    died: BTreeSet<String>,
    pub(crate) deleted: BTreeSet<String>,
    pub(crate) room: Headroom,
    pub(crate) mesh: Option<Mesh>,
    pub(crate) proxies: Proxies,
    /// This process has written the routes, and the configuration of proxies.
    wrote: (bool, bool),
    /// What the flag service of this process has.
    published: Option<Publication>,
    /// The check's verdict, and since when.
    verdict: (Verdict, u64),
    pub(crate) request: Option<Request>,
    requests: u32,
    pub(crate) problem: Option<Problem>,
    pub(crate) spec_unknown: bool,
    pub(crate) spec_error: bool,
    pub(crate) fuse: Option<Fuse>,
    /// What becomes of the next write.
    pub(crate) write: Write,
    /// What the next effects do calls for another look.
    pub(crate) again: bool,
    /// Since when each version has been ready, as far as this process has seen it.
    ready_since: BTreeMap<String, u64>,
    protected: BTreeMap<String, u64>,
    pub(crate) stops: Vec<String>,
    /// The effects that the status on disk asks for, by the look of this turn.
    asked: Vec<Effect>,
    /// The phases that were gone through.
    pub(crate) trail: Vec<Phase>,
    /// How many controllers there were.
    controllers: u64,
    /// Another flag holds requests of the same callers.
    pub(crate) other_fence: Option<String>,
}

impl House {
    pub(crate) fn new(plot: Plot) -> House {
        let now = 1_000_000;
        let status = Status::new("uid", "reviews", UnixMs(now));
        let mut house = House {
            now,
            mesh: plot.spec.routing.in_mesh().then(|| Mesh::new(&plot.spec)),
            spec: plot.spec,
            keeper: plot.keeper,
            memory: status.clone(),
            disk: status,
            running: BTreeMap::new(),
            ending: BTreeMap::new(),
            pods: BTreeMap::new(),
            scaled: BTreeSet::new(),
            steady: BTreeMap::new(),
            died: BTreeSet::new(),
            deleted: BTreeSet::new(),
            room: Headroom::Fits,
            proxies: Proxies::default(),
            wrote: (false, false),
            published: None,
            verdict: (Verdict::Passed, 0),
            request: None,
            requests: 0,
            problem: None,
            spec_unknown: false,
            spec_error: false,
            fuse: None,
            write: Write::Goes,
            again: false,
            ready_since: BTreeMap::new(),
            protected: BTreeMap::new(),
            stops: vec![],
            asked: vec![],
            trail: vec![],
            controllers: 1,
            other_fence: None,
        };
        house.by_hand();
        house
    }

    /// Everything that can be done now. A controller that dies on the way begins anew.
    pub(crate) fn turn(&mut self) {
        let done = reconcile(self).now_or_never().expect("nothing here has to be waited for");
        if done.is_err() {
            self.restart();
        }
    }

    /// Another process: it has only what is on disk.
    fn restart(&mut self) {
        self.memory = self.disk.clone();
        self.controllers += 1;
        self.published = None;
        self.wrote = (false, false);
        self.ready_since.clear();
        self.verdict.1 = self.now;
        self.fuse = None;
        self.write = Write::Goes;
        self.again = false;
        if let Some(mesh) = &mut self.mesh {
            mesh.forget();
        }
    }

    /// Whether the controller lives on, before a write or an act or after it is done.
    fn survives(&mut self, done: bool) -> Result<(), Died> {
        match &mut self.fuse {
            Some(fuse) if fuse.acts == 0 && fuse.after == done => Err(Died),
            Some(fuse) if done => {
                fuse.acts = fuse.acts.saturating_sub(1);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn ask(&mut self, action: Action) {
        self.requests += 1;
        self.request = Some(Request { id: self.requests.to_string(), action, switch: None });
    }

    /// The spec asks for a version. What was deleted is made again.
    pub(crate) fn want(&mut self, version: &str) {
        version.clone_into(&mut self.spec.version);
        self.deleted.remove(version);
        self.by_hand();
    }

    pub(crate) fn check_says(&mut self, verdict: Verdict) {
        if self.verdict.0 != verdict {
            self.verdict = (verdict, self.now);
        }
    }

    /// A version ends by itself. Where the platform keeps it, it starts again.
    pub(crate) fn die(&mut self, version: &str) {
        if !self.running.contains_key(version) {
            return;
        }
        self.died.insert(version.to_owned());
        self.ready_since.remove(version);
        self.steady.remove(version);
        match self.keeper {
            Keeper::Controller => self.running.remove(version),
            Keeper::Platform => self.running.insert(version.to_owned(), self.now + RESTARTS_IN_MS),
        };
    }

    /// Where the platform keeps it, nobody starts what is adopted. A person does, and stops what never was the flag's.
    fn by_hand(&mut self) {
        if self.keeper != Keeper::Platform || self.memory.phase != Phase::Adopting {
            return;
        }
        let active = &self.memory.active_version;
        let adopted = if active.is_empty() { self.spec.version.clone() } else { active.clone() };
        if self.memory.record.is_none() {
            self.running.retain(|version, _| *version == adopted);
        }
        self.running.entry(adopted).or_insert(self.now);
    }

    pub(crate) fn is_ready(&self, version: &str) -> bool {
        self.running.get(version).is_some_and(|since| self.now >= since + STARTS_IN_MS)
    }

    /// A version ends, and is ready again before anybody looks. What its pods count tells of it.
    pub(crate) fn flicker(&mut self, version: &str) {
        if self.is_ready(version) {
            self.ready_since.insert(version.to_owned(), self.now);
            self.steady.insert(version.to_owned(), self.now);
        }
    }

    pub(crate) fn pods(&self, version: &str) -> u32 {
        let asked = self.pods.get(version).copied().unwrap_or(PODS);
        let asked = if self.scaled.contains(version) { 1 } else { asked };
        if self.running.contains_key(version) { asked } else { 0 }
    }

    /// Time passes: what gets ready is seen by somebody who never ends.
    pub(crate) fn pass_time(&mut self, ms: u64) {
        self.now += ms;
        self.proxies.run_out(self.now);
        for version in VERSIONS {
            match self.running.get(version).map(|since| since + STARTS_IN_MS).filter(|at| *at <= self.now) {
                Some(at) => _ = self.steady.entry(version.to_owned()).or_insert(at),
                None => _ = self.steady.remove(version),
            }
        }
        self.ending.retain(|_, until| *until > self.now);
    }

    fn workload(&mut self, version: &str) -> VersionState {
        let (now, ready) = (self.now, self.is_ready(version));
        if ready {
            self.died.remove(version);
            self.ready_since.entry(version.to_owned()).or_insert(now);
        } else {
            self.ready_since.remove(version);
        }
        let exists = !self.deleted.contains(version);
        VersionState {
            declared: exists,
            running: self.running.contains_key(version) || self.ending.contains_key(version),
            ready,
            ready_since: self.ready_since.get(version).copied().map(UnixMs),
            exited: self.died.contains(version).then(|| "exit status: 1".to_owned()),
            exists,
            stopped: !self.running.contains_key(version) && !self.died.contains(version),
            strength: self.strength(version, ready),
            kept_at: self.protected.get(version).copied(),
            ..VersionState::default()
        }
    }

    fn strength(&self, version: &str, ready: bool) -> BTreeMap<String, Strength> {
        let asked = self.pods(version);
        let serving = if ready { asked } else { 0 };
        if asked == 0 { BTreeMap::new() } else { BTreeMap::from([("reviews".to_owned(), Strength { asked, serving })]) }
    }

    /// What the proxies are asked to reach.
    fn probe(&self, services: &BTreeMap<String, ServiceFacts>) -> Option<Probe> {
        reach::probe(&self.spec, &self.memory, services)
    }

    fn answers(&self) -> CheckAnswers {
        let (verdict, since) = self.verdict;
        let asked = Questions::of(&self.spec, &self.memory).is_some();
        let answer = asked.then(|| CheckAnswer { verdict, message: String::new(), since: UnixMs(since) });
        answer.map(|answer| ("a".to_owned(), answer)).into_iter().collect()
    }

    /// A proxy takes over the record that is published.
    pub(crate) fn hear(&mut self, which: usize) {
        self.proxies.hear(which, self.now, self.published.as_ref());
    }

    /// New requests go to the version that is left, if they do not wait; or those that are open end.
    pub(crate) fn serve(&mut self, which: usize, busy: bool) {
        self.proxies.all[which].serve(self.now, busy);
    }

    /// A proxy takes over its configuration and its routes.
    pub(crate) fn read(&mut self, which: usize) {
        self.proxies.read(which, self.mesh.as_ref());
    }

    /// Time passes, and all goes well: proxies take everything over, and the old version is quiet.
    pub(crate) fn go_well(&mut self, ms: u64) {
        self.pass_time(ms);
        self.by_hand();
        self.proxies.take_over(self.now, self.published.as_ref(), self.mesh.as_ref());
        (0..2).for_each(|which| self.serve(which, false));
        if !matches!(self.proxies.old, Quiet::Since(_)) {
            self.proxies.old = Quiet::Since(self.now);
        }
        self.turn();
    }

    /// Everything goes well from here on, until nothing is left to do.
    pub(crate) fn end(&mut self) {
        (self.fuse, self.request, self.problem) = (None, None, None);
        (self.again, self.spec_unknown, self.spec_error) = (false, false, false);
        (self.write, self.other_fence) = (Write::Goes, None);
        self.room = Headroom::Fits;
        self.scaled.clear();
        self.proxies.all.iter_mut().for_each(|proxy| proxy.cut_off = None);
        if let Some(mesh) = &mut self.mesh {
            (mesh.conflict, mesh.lag) = (false, 0);
        }
        self.check_says(Verdict::Passed);
        self.by_hand();
        self.turn();
        if self.memory.suspended {
            self.ask(Action::Resume);
        }
        for _ in 0..300 {
            let before = self.memory.clone();
            // What was asked for again while it was removed is deleted all the same: UnknownVersion asks for its
            // workloads.
            if blocked(&self.memory) == Some(Reason::UnknownVersion) {
                self.deleted.remove(&self.spec.version);
            }
            self.go_well(500);
            let rests = self.memory.phase == Phase::Stable && before == self.memory;
            let tidy = self.memory.leftovers.is_empty() && self.memory.ending.is_empty();
            if rests && self.running.len() == 1 && tidy {
                return;
            }
        }
    }

    /// All goes well until a phase is reached.
    pub(crate) fn until(&mut self, phase: Phase) {
        for _ in 0..1_000 {
            if self.memory.phase == phase {
                return;
            }
            self.go_well(100);
        }
        panic!("{phase:?} was not reached: {:#?}", self.memory);
    }

    /// The phase, the active version, what runs, and whether a version is held.
    pub(crate) fn outcome(&self) -> (Phase, String, BTreeSet<String>, bool) {
        let running = self.running.keys().cloned().collect();
        (self.memory.phase, self.memory.active_version.clone(), running, self.memory.r#override.is_some())
    }
}

/// A problem by its reason; the words do not matter.
pub(crate) fn problem(reason: Reason) -> Problem {
    Problem::new(reason, "a sentence")
}
