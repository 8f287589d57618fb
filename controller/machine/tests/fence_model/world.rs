//! The world around the decisions: snapshots, reports, requests, and what goes wrong.

use std::sync::Arc;

use flag::fence::Passage;
use machine::spec::Spec;
use machine::status::Phase;
use stateright::{Model, Property};

use crate::controller::{Controller, Looked};
use crate::model_parts::{Kept, Published};
use crate::proxy::{Event, Proxy, Sent, Vm};

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// It was sent and has not arrived.
    Underway,
    /// It is open at the workload, and came by this instance of the proxy there, where there is one.
    Open(Option<usize>),
    /// Its end is on the way to who sent it.
    Ended,
}

/// A request that was sent; by whom, if a filter sent it and is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Stream {
    pub(crate) from: Option<(usize, usize)>,
    pub(crate) marked: bool,
    pub(crate) version: usize,
    pub(crate) place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) published: Vec<Published>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) controllers: Vec<Controller>,
    /// The status, and how often it was written.
    pub(crate) disk: (Kept, u8),
    pub(crate) streams: Vec<Stream>,
    /// Requests that callers began, and how many of them have ended.
    pub(crate) begun: u8,
    pub(crate) ended: u8,
    /// A report that is late, and may come more than once.
    pub(crate) late: Option<Arc<Sent>>,
    /// How often it came.
    pub(crate) came: u8,
    /// How many reports of the same proxy came since.
    pub(crate) late_by: u8,
    pub(crate) faults: u8,
    pub(crate) jumps: u8,
    pub(crate) expired: bool,
    pub(crate) joined: bool,
    /// What was decided without its proof.
    pub(crate) wrong: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A controller looks, and writes what it decides; or publishes what is written.
    Look(usize),
    /// It looks, and stops before it writes what it decides.
    Decide(usize),
    Write(usize),
    /// Its clock goes on, by a part of the longest hold.
    Jump(usize),
    /// Another one is elected, and the first does not know.
    Elect,
    /// An instance takes over what a controller has published.
    Hear(usize, usize, usize),
    /// An instance takes over what was published before.
    HearOlder(usize, usize, u8),
    /// The hold of an instance runs out.
    Expire(usize, usize),
    /// An instance more serves.
    Join(usize),
    Restart(usize),
    Begin(usize, usize),
    /// A request passes by the mark of a stream that is open.
    Pass(usize, usize),
    /// A request comes to a version without any filter.
    Stranger(usize),
    /// What waits in an instance need not any longer.
    Release(usize, usize),
    Arrive(usize, usize),
    Serve(usize),
    End(usize),
    /// An instance answers the round of its proxy.
    Answer(usize, usize),
    /// All that have not answered do, and the report arrives at a controller.
    Report(usize, usize),
    /// The report arrives without those that have not answered.
    Incomplete(usize, usize),
    /// The report is late, perhaps for ever.
    Delay(usize),
    Deliver(usize),
}

/// What is different from one world to the other.
pub(crate) struct Protocol {
    pub(crate) spec: Spec,
    pub(crate) start: State,
    /// Requests that are begun at most.
    pub(crate) requests: u8,
    pub(crate) faults: u8,
    /// How often a clock jumps, and for how many milliseconds.
    pub(crate) jumps: u8,
    pub(crate) jump_ms: u64,
    /// Instances of one proxy answer a round one by one.
    pub(crate) one_by_one: bool,
    pub(crate) strangers: bool,
    pub(crate) passes: bool,
    /// The only fault is that snapshots come to an instance in another order than they were published in.
    pub(crate) only_older: bool,
    /// How many reports of each proxy a controller remembers at most.
    pub(crate) memory: usize,
    /// One of so many states is run to its end.
    pub(crate) sample: u64,
}

impl State {
    pub(crate) fn vm(&mut self, (proxy, vm): (usize, usize)) -> &mut Vm {
        &mut self.proxies[proxy].vms[vm]
    }

    pub(crate) fn phase(&self) -> Phase {
        self.disk.0.status.phase
    }

    /// An instance takes a snapshot over. What a newer one of another hold came after has no consequence any more.
    pub(crate) fn hear(&mut self, at: (usize, usize), number: u8) {
        let of = |number: u8| &self.published[usize::from(number)].0;
        let since = |number: u8| of(number).fence.as_ref().map_or(0, |fence| fence.since);
        let newest = |event: &Event| match event {
            Event::Snapshot(old) => {
                of(*old).record.epoch < of(number).record.epoch && (since(number) == 0 || since(*old) < since(number))
            }
            Event::Expiry | Event::Pass => true,
        };
        let starts_anew = self.proxies[at.0].vms[at.1].log.iter().all(newest);
        let log = &mut self.vm(at).log;
        if starts_anew {
            log.clear();
        }
        log.push(Event::Snapshot(number));
    }

    /// The switch was given up for good.
    pub(crate) fn is_given_up(&self, attempts: u32) -> bool {
        let fence = self.disk.0.status.switch.as_ref().and_then(|switch| switch.fence.as_ref());
        self.phase() == Phase::ProvingRoutes && fence.is_some_and(|fence| fence.attempts >= attempts)
    }

    /// A request of an outside caller is sent, waits, or is refused. False: it waits.
    pub(crate) fn send(&mut self, at: (usize, usize), marked: bool) -> bool {
        let (passage, version) = self.proxies[at.0].vms[at.1].view(&self.published).passage(marked);
        match passage {
            Passage::Wait => return false,
            Passage::Refuse => self.ended += 1,
            Passage::Go | Passage::Old => {
                self.vm(at).sent[version].started += 1;
                self.streams.push(Stream { from: Some(at), marked: true, version, place: Place::Underway });
            }
        }
        true
    }

    pub(crate) fn release(&mut self, at: (usize, usize)) {
        while self.vm(at).waiting > 0 && self.send(at, false) {
            self.vm(at).waiting -= 1;
        }
    }

    pub(crate) fn beside(&self, version: usize) -> Option<usize> {
        self.proxies.iter().position(|proxy| proxy.beside == Some(version))
    }

    /// A stream arrives, where there is a proxy at one of its instances.
    pub(crate) fn arrive(&mut self, stream: usize, vm: usize) {
        let Stream { version, marked, .. } = self.streams[stream];
        let Some(proxy) = self.beside(version) else {
            self.streams[stream].place = Place::Open(None);
            return;
        };
        let admitted = self.proxies[proxy].vms[vm].view(&self.published).admits(version, marked);
        if admitted {
            self.vm((proxy, vm)).arrived[version].started += 1;
        }
        self.streams[stream].place = if admitted { Place::Open(Some(vm)) } else { Place::Ended };
    }

    pub(crate) fn serve(&mut self, stream: usize) {
        let Stream { version, place, .. } = self.streams[stream];
        if let (Some(proxy), Place::Open(Some(vm))) = (self.beside(version), place) {
            self.vm((proxy, vm)).arrived[version].finished += 1;
        }
        self.streams[stream].place = Place::Ended;
    }

    pub(crate) fn end(&mut self, stream: usize) {
        let Stream { from, version, .. } = self.streams.remove(stream);
        if let Some(at) = from {
            self.vm(at).sent[version].finished += 1;
            self.ended += 1;
        }
    }

    /// The report of the round under way: those that have not answered do so now, or are silent.
    pub(crate) fn report(&mut self, number: usize, all: bool) -> Arc<Sent> {
        let proxy = &mut self.proxies[number];
        let mut answers = proxy.answers.take().unwrap_or_else(|| vec![None; proxy.vms.len()]);
        if all {
            answers = answers.into_iter().zip(&proxy.vms).map(|(said, vm)| said.or_else(|| Some(vm.clone()))).collect();
        }
        proxy.round += 1;
        self.late_by += u8::from(self.late.as_ref().is_some_and(|late| late.proxy == number));
        Sent::new(number, proxy, answers, &self.published)
    }

    /// Whether a controller would learn something by a report.
    pub(crate) fn has_news(&self, number: usize, controller: usize, twice: bool) -> bool {
        let proxy = &self.proxies[number];
        let same = |sent: Option<&&Sent>| {
            sent.is_some_and(|sent| sent.boot == proxy.boot && sent.answers.iter().flatten().eq(&proxy.vms))
        };
        let heard = self.controllers[controller].of(number);
        !same(heard.first()) || (twice && !same(heard.get(1)))
    }

    pub(crate) fn step(&mut self, number: usize, spec: &Spec) -> Looked {
        let mut controller = self.controllers[number].clone();
        let looked = controller.look(self, spec);
        self.controllers[number] = controller;
        looked
    }

    pub(crate) fn write(&mut self, number: usize, next: Kept) {
        let mut controller = self.controllers[number].clone();
        controller.write(self, next);
        self.controllers[number] = controller;
    }

    fn restart(&mut self, number: usize) {
        let (has_inbound, proxy) = (self.beside(0).is_some(), &mut self.proxies[number]);
        (proxy.boot, proxy.round, proxy.answers) = (proxy.boot + 1, 0, None);
        self.ended += proxy.vms.iter().map(|vm| vm.waiting).sum::<u8>();
        proxy.vms = vec![Vm::default(); proxy.vms.len()];
        // What has arrived, or will, goes on at the workload for a while.
        for stream in self.streams.iter_mut().filter(|stream| stream.from.is_some_and(|from| from.0 == number)) {
            stream.from = None;
            self.ended += 1;
        }
        self.streams.retain(|stream| stream.from.is_some() || (has_inbound && stream.place != Place::Ended));
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start.clone()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() || state.phase() == Phase::Settling {
            return;
        }
        let faults_left = state.faults < self.faults && !self.only_older;
        let given_up = state.is_given_up(self.spec.switch.fence.attempts);
        for (number, controller) in state.controllers.iter().enumerate() {
            if controller.decided.is_some() {
                actions.push(Action::Write(number));
            } else if !controller.rests {
                actions.push(Action::Look(number));
                if faults_left {
                    actions.push(Action::Decide(number));
                }
            }
            let waits = state.phase().holds() || state.aborted();
            if state.jumps < self.jumps && waits && !given_up {
                actions.push(Action::Jump(number));
            }
            if state.late.is_some() && state.came < 2 {
                actions.push(Action::Deliver(number));
            }
        }
        if faults_left && state.controllers.len() == 1 {
            actions.push(Action::Elect);
        }
        self.proxies_act(state, actions);
        self.requests_act(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Look(number) => {
                if let Looked::Decided(next) = state.step(number, &self.spec) {
                    state.write(number, next);
                }
            }
            Action::Decide(number) => {
                if let Looked::Decided(next) = state.step(number, &self.spec) {
                    state.controllers[number].decided = Some(next);
                }
                state.faults += 1;
            }
            Action::Write(number) => {
                let next = state.controllers[number].decided.take()?;
                state.write(number, next);
            }
            Action::Jump(number) => {
                state.controllers[number].clock += self.jump_ms;
                state.controllers[number].rests = false;
                state.jumps += 1;
            }
            Action::Elect => {
                let (disk, clock) = (state.disk.clone(), state.controllers[0].clock);
                state.controllers.push(Controller::new(disk, 2, clock));
                state.faults += 1;
            }
            Action::Hear(proxy, vm, controller) => {
                let number = state.controllers[controller].published?;
                state.hear((proxy, vm), number);
            }
            Action::HearOlder(proxy, vm, number) => {
                state.vm((proxy, vm)).log.push(Event::Snapshot(number));
                state.faults += 1;
            }
            Action::Expire(proxy, vm) => {
                state.vm((proxy, vm)).log.push(Event::Expiry);
                state.expired = true;
            }
            Action::Join(proxy) => {
                let vms = &mut state.proxies[proxy].vms;
                // It begins with what the others were sent last.
                let known = vms.iter().flat_map(|vm| &vm.log).filter(|one| matches!(one, Event::Snapshot(_)));
                let log = known.max().into_iter().copied().collect();
                vms.push(Vm { log, ..Vm::default() });
                state.proxies[proxy].answers.iter_mut().for_each(|answers| answers.push(None));
                state.joined = true;
                state.faults += 1;
            }
            Action::Restart(proxy) => {
                state.restart(proxy);
                state.faults += 1;
            }
            Action::Begin(proxy, vm) => {
                state.begun += 1;
                if !state.send((proxy, vm), false) {
                    state.vm((proxy, vm)).waiting += 1;
                }
            }
            Action::Pass(proxy, vm) => {
                state.begun += 1;
                state.send((proxy, vm), true);
                state.vm((proxy, vm)).log.push(Event::Pass);
            }
            Action::Stranger(version) => {
                state.begun += 1;
                state.ended += 1;
                state.streams.push(Stream { from: None, marked: false, version, place: Place::Underway });
            }
            Action::Release(proxy, vm) => state.release((proxy, vm)),
            Action::Arrive(stream, vm) => state.arrive(stream, vm),
            Action::Serve(stream) => state.serve(stream),
            Action::End(stream) => state.end(stream),
            Action::Answer(proxy, vm) => {
                let proxy = &mut state.proxies[proxy];
                let count = proxy.vms.len();
                proxy.answers.get_or_insert_with(|| vec![None; count])[vm] = Some(proxy.vms[vm].clone());
            }
            Action::Report(proxy, controller) => {
                let sent = state.report(proxy, true);
                state.controllers[controller].take(sent);
            }
            Action::Incomplete(proxy, controller) => {
                let sent = state.report(proxy, false);
                state.controllers[controller].take(sent);
                state.faults += 1;
            }
            Action::Delay(proxy) => {
                state.late = Some(state.report(proxy, true));
                state.faults += 1;
            }
            Action::Deliver(controller) => {
                let late = state.late.clone()?;
                state.came += 1;
                state.controllers[controller].take(late);
            }
        }
        state.streams.sort_unstable();
        state.controllers.iter_mut().for_each(|one| one.forget(self.memory));
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        crate::laws::all()
    }
}
