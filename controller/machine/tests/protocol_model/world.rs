//! The world around the decisions: an API server, workloads, proxies, reports, requests, and what goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use flag::table::Channel;
use machine::spec::Spec;
use machine::status::Phase;
use stateright::{Model, Property};

use crate::api::{Api, Flag, Write};
use crate::controller::Controller;
use crate::laws::Law;
use crate::model_parts::Published;
use crate::mutation::Mutation;
use crate::number;
use crate::proxy::{Proxy, Sent, Vm};

/// By how much time passes at once, in milliseconds.
pub(crate) const TICK_MS: u64 = 500;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// By the one clock of all, in milliseconds.
    pub(crate) now: u64,
    pub(crate) api: Api,
    /// The flag's resource before it was written last.
    pub(crate) before: Flag,
    /// All that was ever published.
    pub(crate) published: Vec<Published>,
    /// The records that were written, by epoch.
    pub(crate) written: BTreeMap<u64, String>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) controllers: Vec<Controller>,
    /// Writes of controllers that are gone, which may still come.
    pub(crate) flights: Vec<Write>,
    /// Requests that are open: the instance that sent each, and the version.
    pub(crate) streams: Vec<((usize, usize), usize)>,
    /// When a request of each version was open last.
    pub(crate) used_at: [u64; 3],
    /// A report that is late, and may come more than once.
    pub(crate) late: Option<Arc<Sent>>,
    /// How often it came.
    pub(crate) came: u8,
    pub(crate) begun: u8,
    pub(crate) faults: u8,
    pub(crate) ticks: u8,
    pub(crate) edits: u8,
    pub(crate) requests: u8,
    pub(crate) stopped: bool,
    /// The law that was broken first.
    pub(crate) wrong: Option<Law>,
}

/// A kind of object that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    Flag,
    Workload(usize),
    Proxies,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A controller looks, and decides what it writes.
    Look(usize),
    /// Its next write comes to the API server.
    Write(usize),
    Tick,
    /// A controller sees an object as it is.
    Echo(usize, Object),
    /// An instance takes over what a controller has published.
    Hear(usize, usize, usize),
    /// A proxy takes over the configuration.
    Read(usize),
    /// All instances answer, and the report arrives at a controller.
    Report(usize, usize),
    /// It arrives without the word of this instance.
    Incomplete(usize, usize, usize),
    /// It is late, perhaps for ever.
    Delay(usize),
    Deliver(usize),
    /// A request begins, and ends.
    Begin(usize, usize),
    End(usize),
    /// What a version is to have gets ready; what is too much ends.
    Grow(usize),
    Shrink(usize),
    /// A version is not ready any more.
    Fall(usize),
    /// Somebody else scales a version.
    Scale(usize, u8),
    /// An instance more; a proxy more.
    Join(usize),
    Appear,
    Restart(usize),
    CutOff(usize),
    Heal(usize),
    /// The spec asks for a version; somebody asks for something, or once more for what he asked for before.
    Edit(usize),
    Ask(&'static str),
    Again,
    /// Another controller leads, and begins with an older resource, or not.
    Elect(bool),
    /// A controller ends and begins anew. A write of it may still be on its way.
    Crash(usize),
    Land(usize),
}

/// What is different from one world to the other.
#[derive(Clone)]
pub(crate) struct Protocol {
    /// A spec for each version.
    pub(crate) specs: [Arc<Spec>; 3],
    pub(crate) start: State,
    /// How much of each there is at most.
    pub(crate) begun: u8,
    pub(crate) faults: u8,
    pub(crate) ticks: u8,
    pub(crate) edits: u8,
    pub(crate) requests: u8,
    /// A controller that was followed by another one goes on, as where its lease ran out and it does not know.
    pub(crate) both: bool,
    /// What is written is seen at once.
    pub(crate) echoes: bool,
    /// Time passes only when nothing else is to do but by chance.
    pub(crate) prompt: bool,
    /// One of so many states is run to its end; 0: none.
    pub(crate) sample: u64,
    pub(crate) mutation: Option<Mutation>,
}

impl State {
    pub(crate) fn breaks_if(&mut self, broken: bool, law: Law) {
        self.wrong = self.wrong.or(broken.then_some(law));
    }

    pub(crate) fn phase(&self) -> Phase {
        self.api.flag.status.status.phase
    }

    /// The number of a publication.
    pub(crate) fn publication(&mut self, one: Published) -> u8 {
        let known = self.published.iter().position(|known| *known == one);
        let number = known.unwrap_or(self.published.len());
        if known.is_none() {
            self.published.push(one);
        }
        number as u8
    }

    pub(crate) fn with_controller(&mut self, at: usize, change: impl FnOnce(&mut Controller, &mut State)) {
        let mut controller = self.controllers[at].clone();
        change(&mut controller, self);
        self.controllers[at] = controller;
    }

    /// A record comes to an instance.
    pub(crate) fn take(&mut self, world: &Protocol, (proxy, vm): (usize, usize), channel: Channel, number: u8) {
        let mut one = self.proxies[proxy].vms[vm].clone();
        let before = one.epoch(&self.published);
        one.take(channel, number, &self.published, world.mutation == Some(Mutation::TakesAny));
        self.breaks_if(one.epoch(&self.published) < before, Law::EpochGrows);
        self.proxies[proxy].vms[vm] = one;
    }

    pub(crate) fn read(&mut self, world: &Protocol, proxy: usize) {
        let Some(number) = self.api.file.1 else { return };
        self.proxies[proxy].file = Some(number);
        (0..self.proxies[proxy].vms.len()).for_each(|vm| self.take(world, (proxy, vm), Channel::Config, number));
    }

    /// The report of a round, without the word of one instance or with that of all.
    pub(crate) fn report(&mut self, world: &Protocol, at: usize, silent: Option<usize>) -> Arc<Sent> {
        self.now += u64::from(!world.prompt);
        self.proxies[at].round += 1;
        let (published, workloads) = (&self.published, &self.api.workloads);
        let proxy = &self.proxies[at];
        let reaches = |vm: &Vm| {
            let version = vm.probe(published).map(|probe| number(&probe.version));
            version.is_some_and(|version| workloads[version].serving > 0) && !proxy.cut_off
        };
        let word = |(id, vm): (usize, &Vm)| (Some(id) != silent).then(|| (vm.clone(), reaches(vm)));
        let words = proxy.vms.iter().enumerate().map(word).collect();
        let only_answers = world.mutation == Some(Mutation::AcksWithoutOne);
        let sent = Sent::new(at, proxy, words, published, only_answers);
        let said = sent.report.flags.get(crate::UID).filter(|_| sent.report.complete).map_or(0, |state| state.epoch);
        let behind = proxy.vms.iter().any(|vm| vm.epoch(published) < said);
        self.breaks_if(behind, Law::AckOfAll);
        sent
    }

    pub(crate) fn begin(&mut self, (proxy, vm): (usize, usize)) {
        let Some(version) = self.proxies[proxy].vms[vm].chooses(&self.published) else { return };
        self.proxies[proxy].vms[vm].sent[version].started += 1;
        self.streams.push(((proxy, vm), version));
        self.streams.sort_unstable();
        self.used_at[version] = self.now;
        self.begun += 1;
    }

    pub(crate) fn end(&mut self, world: &Protocol, stream: usize) {
        let ((proxy, vm), version) = self.streams.remove(stream);
        let twice = u8::from(world.mutation == Some(Mutation::CountsTwice));
        self.proxies[proxy].vms[vm].sent[version].finished += 1 + twice;
        self.used_at[version] = self.now;
    }

    /// A proxy starts anew, from the file that it has. Its requests end with it.
    fn restart(&mut self, world: &Protocol, proxy: usize) {
        let open = self.streams.iter().filter(|(at, _)| at.0 == proxy);
        open.for_each(|(_, version)| self.used_at[*version] = self.now);
        self.streams.retain(|(at, _)| at.0 != proxy);
        let one = &mut self.proxies[proxy];
        (one.boot, one.round) = (one.boot + 1, 0);
        one.vms.iter_mut().for_each(|vm| *vm = Vm::default());
        if let Some(file) = one.file {
            (0..one.vms.len()).for_each(|vm| self.take(world, (proxy, vm), Channel::Config, file));
        }
    }

    fn join(&mut self, world: &Protocol, proxy: usize) {
        let (vm, file) = (self.proxies[proxy].vms.len(), self.proxies[proxy].file);
        self.proxies[proxy].vms.push(Vm::default());
        file.into_iter().for_each(|file| self.take(world, (proxy, vm), Channel::Config, file));
    }

    fn appear(&mut self, world: &Protocol) {
        let proxy = Proxy { boot: 1, round: 0, vms: vec![], file: self.api.file.1, cut_off: false };
        self.proxies.push(proxy);
        self.join(world, self.proxies.len() - 1);
    }

    pub(crate) fn echo(&mut self, at: usize, object: Object) {
        let controller = &mut self.controllers[at];
        controller.rests = false;
        match object {
            Object::Flag => controller.view.flag = self.api.flag.clone(),
            Object::Workload(of) => controller.view.workloads[of] = self.api.workloads[of],
            Object::Proxies => controller.view.proxies = self.proxies.len(),
        }
    }

    /// Whether a controller has not seen an object as it is.
    pub(crate) fn is_stale(&self, at: usize, object: Object) -> bool {
        let view = &self.controllers[at].view;
        match object {
            Object::Flag => view.flag.version != self.api.flag.version,
            Object::Workload(of) => view.workloads[of] != self.api.workloads[of],
            Object::Proxies => view.proxies != self.proxies.len(),
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Flag)) {
        self.before = self.api.flag.clone();
        change(&mut self.api.flag);
        self.api.flag.version += 1;
    }

    /// Time passes. A request that is open was open until now.
    pub(crate) fn pass_time(&mut self, ms: u64) {
        self.now += ms;
        self.streams.iter().for_each(|(_, version)| self.used_at[*version] = self.now);
        for controller in &mut self.controllers {
            controller.rests &= controller.wakes.is_none_or(|at| at > self.now);
        }
    }

    /// The next write of a controller that is gone may still be on its way, and be sent twice.
    fn leave_writes(&mut self, at: usize) {
        let first = self.controllers[at].pending.first().cloned();
        let first = first.filter(|write| !matches!(write, Write::Publish(_)));
        self.flights.extend(first.iter().cloned().chain(first.clone()));
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start.clone()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_none() {
            self.acts(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.faults += u8::from(action.is_fault());
        let now = state.now;
        match action {
            Action::Look(at) => state.with_controller(at, |one, state| one.look(state, self)),
            Action::Write(at) => state.with_controller(at, |one, state| one.write(state, self)),
            Action::Tick => {
                state.ticks += 1;
                state.pass_time(TICK_MS);
            }
            Action::Echo(at, object) => state.echo(at, object),
            Action::Hear(proxy, vm, at) => {
                let number = state.controllers[at].published?;
                state.take(self, (proxy, vm), Channel::Service, number);
            }
            Action::Read(proxy) => state.read(self, proxy),
            Action::Report(proxy, at) => {
                let sent = state.report(self, proxy, None);
                state.controllers[at].hear(state.now, &sent);
            }
            Action::Incomplete(proxy, vm, at) => {
                let sent = state.report(self, proxy, Some(vm));
                state.controllers[at].hear(state.now, &sent);
            }
            Action::Delay(proxy) => state.late = Some(state.report(self, proxy, None)),
            Action::Deliver(at) => {
                let late = state.late.clone()?;
                (state.came, state.now) = (state.came + 1, now + u64::from(!self.prompt));
                state.controllers[at].hear(state.now, &late);
            }
            Action::Begin(proxy, vm) => state.begin((proxy, vm)),
            Action::End(stream) => state.end(self, stream),
            Action::Grow(of) => {
                state.now += 1;
                state.api.workloads[of].grow(now + 1);
            }
            Action::Shrink(of) => state.api.workloads[of].shrink(),
            Action::Fall(of) => state.api.workloads[of].falls(),
            Action::Scale(of, replicas) => {
                state.api.workloads[of].scale(replicas);
                state.api.workloads[of].theirs &= replicas > 0;
                state.api.workloads[of].stopped_at = None;
            }
            Action::Join(proxy) => state.join(self, proxy),
            Action::Appear => state.appear(self),
            Action::Restart(proxy) => state.restart(self, proxy),
            Action::CutOff(proxy) => state.proxies[proxy].cut_off = true,
            Action::Heal(proxy) => state.proxies[proxy].cut_off = false,
            Action::Edit(of) => {
                state.edits += 1;
                state.api.named[of] = true;
                state.edit(|flag| flag.wants = of);
            }
            Action::Ask(what) => {
                state.requests += 1;
                let id = state.requests;
                state.edit(|flag| flag.request = Some((id, what)));
            }
            Action::Again => {
                let (id, what) = state.before.request.or(state.api.flag.request)?;
                state.edit(|flag| flag.request = Some((id, what)));
            }
            Action::Elect(stale) => {
                if !self.both {
                    state.leave_writes(0);
                }
                state.now += 1;
                let flag = if stale { state.before.clone() } else { state.api.flag.clone() };
                let controller = Controller::new(flag, &state);
                if !self.both {
                    state.controllers.clear();
                }
                state.controllers.push(controller);
            }
            Action::Crash(at) => {
                state.leave_writes(at);
                state.now += 1;
                state.controllers[at] = Controller::new(state.api.flag.clone(), &state);
            }
            Action::Land(flight) => {
                let write = state.flights.remove(flight);
                let _ = state.land(self, &write);
            }
        }
        if self.echoes {
            (0..state.controllers.len()).for_each(|at| state.see_all(at));
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        crate::laws::all()
    }
}
