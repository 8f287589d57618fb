//! The controllers: what each remembers, and what the real plan makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag::fence::Held;
use flag::record::Gate;
use machine::fleet::ledger::Ledger;
use machine::observation::{Headroom, Observation, VersionState};
use machine::plan::{Effect, Pass, Plan, plan};
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

use crate::model_parts::{Kept, Published};
use crate::proxy::{Sent, VERSIONS, Vm};
use crate::world::State;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Controller {
    pub(crate) memory: Kept,
    /// The status on disk, as far as it knows, and the version of it.
    pub(crate) known: (Kept, u8),
    /// The reports that came since it leads.
    pub(crate) heard: Vec<Arc<Sent>>,
    pub(crate) leads: u8,
    /// Its clock, in quarters of the longest hold.
    pub(crate) clock: u64,
    /// What its flag service sends.
    pub(crate) published: Option<u8>,
    /// It has looked, and nothing came since.
    pub(crate) rests: bool,
    /// What it has decided and not written yet.
    pub(crate) decided: Option<Kept>,
}

/// What came of a look.
#[derive(Debug)]
pub(crate) enum Looked {
    /// It was published, and how long it asks to be left alone.
    Published(Option<u64>),
    /// It is to be written.
    Decided(Kept),
}

impl Controller {
    pub(crate) fn new(stored: (Kept, u8), leads: u8, clock: u64) -> Controller {
        let memory = stored.0.clone();
        Controller { memory, known: stored, heard: vec![], leads, clock, published: None, rests: false, decided: None }
    }

    pub(crate) fn now(&self) -> u64 {
        1 + self.clock
    }

    /// Its ledger, made anew from all that came, one a millisecond.
    fn ledger(&self) -> (Ledger, u64) {
        let (mut ledger, mut now_ms) = (Ledger::new(1_000_000), 1);
        for sent in &self.heard {
            // It refuses those that it must not believe.
            let _ = ledger.accept(now_ms, sent.report.clone());
            now_ms += 1;
        }
        (ledger, now_ms)
    }

    pub(crate) fn take(&mut self, sent: Arc<Sent>) {
        self.heard.push(sent);
        self.rests = false;
    }

    /// Forgets reports of which a proxy has sent so many since.
    pub(crate) fn forget(&mut self, memory: usize) {
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        let mut kept: Vec<_> = std::mem::take(&mut self.heard).into_iter().rev().collect();
        kept.retain(|sent| {
            let count = left.entry(sent.proxy).or_default();
            *count += 1;
            *count <= memory
        });
        kept.reverse();
        self.heard = kept;
    }

    /// The reports of a proxy in their order, the last first.
    pub(crate) fn of(&self, proxy: usize) -> Vec<&Sent> {
        let mut all: Vec<&Sent> = self.heard.iter().map(AsRef::as_ref).filter(|sent| sent.proxy == proxy).collect();
        all.sort_by_key(|sent| std::cmp::Reverse((sent.boot, sent.round)));
        all.dedup_by_key(|sent| (sent.boot, sent.round));
        all
    }

    fn observation(&self, state: &State, spec: &Spec, status: &Status) -> Observation {
        let mut seen = Observation::unknown();
        for version in VERSIONS {
            let ready = VersionState {
                declared: true,
                running: true,
                ready: true,
                ready_since: Some(UnixMs(0)),
                exists: true,
                ..VersionState::default()
            };
            seen.versions.insert(version.to_owned(), ready);
            if state.proxies.iter().any(|proxy| proxy.beside.is_some()) {
                seen.uncovered.insert(version.to_owned(), BTreeSet::new());
            }
        }
        seen.headroom = Headroom::Fits;
        seen.leads_since = UnixMs(self.leads.into());
        seen.given_out = self.published.map(|number| state.published[usize::from(number)].0.record.gate);
        if let Some(record) = &status.record {
            let mut asked = status.asked(spec);
            let beside = |proxy: &usize| state.proxies[*proxy].beside.is_some_and(|one| VERSIONS[one] == asked.old);
            let all = 0..state.proxies.len();
            asked.members = all.clone().filter(beside).map(|proxy| proxy.to_string()).collect();
            let (ledger, now_ms) = self.ledger();
            let expected = all.map(|proxy| proxy.to_string()).collect();
            seen.fleet = ledger.view(now_ms, record, &expected, &asked);
        }
        seen
    }

    /// One look, as `reconcile` does it: up to what has to be written, or to the effects.
    pub(crate) fn look(&mut self, state: &mut State, spec: &Spec) -> Looked {
        for _ in 0..20 {
            let seen = self.observation(state, spec, &self.memory.status);
            let pass = Pass { now: UnixMs(self.now()), spec, seen: &seen };
            let Plan { status, effects, requeue, .. } = plan(pass, &self.memory.status);
            let next = Kept::new(status);
            let moved = next != self.memory;
            if moved {
                self.check_words(state, &next);
            }
            if moved && next.status.epoch() == self.memory.status.epoch() {
                self.memory = next;
                continue;
            }
            if !self.known.0.status.same_but_wording(&next.status) {
                return Looked::Decided(next);
            }
            if moved {
                self.memory = next;
                continue;
            }
            for effect in effects {
                if let Effect::Publish(publication) = effect {
                    self.publish(state, Published::new(*publication));
                }
            }
            self.rests = true;
            return Looked::Published(requeue.map(|wait| wait.0));
        }
        panic!("it does not come to rest: {:#?}", self.memory);
    }

    /// Writes what was decided, unless somebody else has written meanwhile.
    pub(crate) fn write(&mut self, state: &mut State, next: Kept) {
        if self.known.1 == state.disk.1 {
            state.disk = (next.clone(), state.disk.1 + 1);
            self.memory = next;
        } else {
            self.memory = state.disk.0.clone();
        }
        self.known = state.disk.clone();
    }

    fn publish(&mut self, state: &mut State, publication: Published) {
        let place = state.published.iter().position(|one| *one == publication).unwrap_or(state.published.len());
        if place == state.published.len() {
            state.published.push(publication);
        }
        self.published = Some(place as u8);
    }

    /// What a step forward of the fence rests on: the last word of every instance of every proxy. This looks at what was
    /// heard by itself.
    fn check_words(&self, state: &mut State, next: &Kept) {
        let (before, after) = (&self.memory.status, &next.status);
        let forward = matches!((before.phase, after.phase), (Phase::Holding, Phase::Committing))
            || matches!((before.phase, after.phase), (Phase::Committing, Phase::Switching));
        if !forward {
            return;
        }
        let old = usize::from(before.switch.as_ref().is_some_and(|switch| switch.from == VERSIONS[1]));
        for proxy in 0..state.proxies.len() {
            let answers = self.of(proxy).first().map_or(&[][..], |sent| &sent.answers);
            let fine = |vm: &Option<Vm>| {
                vm.as_ref().is_some_and(|vm| {
                    let view = vm.view(&state.published);
                    let idle = [vm.sent[old], vm.arrived[old]].iter().all(|count| count.started == count.finished);
                    idle && view.epoch() == before.epoch() && view.held() == Some(Held::Holding)
                })
            };
            if answers.is_empty() || !answers.iter().all(fine) {
                state.wrong = Some("a step forward without the word of everybody");
            }
        }
        let held = before.record.as_ref().is_some_and(|record| record.gate == Gate::Hold);
        if !held {
            state.wrong = Some("a step forward without a hold");
        }
    }
}
