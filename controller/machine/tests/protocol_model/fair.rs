//! What becomes of a state when nothing goes wrong any more.

use std::sync::Arc;

use flag::table::Channel;
use machine::plan::wanted;
use machine::reason::Reason;
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

use crate::api::{Api, Flag, Why, Workload, Write};
use crate::controller::Controller;
use crate::model_parts::{Kept, hash};
use crate::proxy::{Proxy, Vm};
use crate::world::{Action, Protocol, State};
use crate::{UID, VERSIONS, number};

/// More than any switch takes.
const ROUNDS: usize = 150;
/// Rounds in which what has come to its end has to stay there, each after a long time.
const STAYS: usize = 3;
const LONG_MS: u64 = 60_000;

impl State {
    /// Everybody does all that can be done. In how long the controller asks to look again.
    fn round(&mut self, world: &Protocol, leader: usize) {
        for at in (0..self.streams.len()).rev() {
            self.end(world, at);
        }
        for workload in &mut self.api.workloads {
            if workload.pods < workload.replicas || workload.serving < workload.pods {
                self.now += 1;
                workload.grow(self.now);
            }
            workload.shrink();
        }
        loop {
            self.see_all(leader);
            let controller = &self.controllers[leader];
            match (controller.pending.is_empty(), controller.rests) {
                (false, _) => self.with_controller(leader, |one, state| one.write(state, world)),
                (true, false) => self.with_controller(leader, |one, state| one.look(state, world)),
                (true, true) => break,
            }
        }
        for proxy in 0..self.proxies.len() {
            self.proxies[proxy].cut_off = false;
            if self.proxies[proxy].file != self.api.file.1 {
                self.read(world, proxy);
            }
            let Some(number) = self.controllers[leader].published else { continue };
            for vm in 0..self.proxies[proxy].vms.len() {
                if self.proxies[proxy].vms[vm].heard != Some(number) {
                    self.take(world, (proxy, vm), Channel::Service, number);
                }
            }
            if self.has_news(proxy, leader) {
                let sent = self.report(world, proxy, None);
                let now = self.now;
                self.controllers[leader].hear(now, &sent);
            }
        }
    }

    /// All is as it is wanted, or it is said what has to be done by somebody.
    fn is_over(&self, world: &Protocol, leader: usize) -> bool {
        // What only blocks is written later.
        let (status, workloads) = (&self.controllers[leader].memory.status, &self.api.workloads);
        let blocked = status.blocked.as_ref().map(|blocked| blocked.reason);
        let active = number(&status.active_version);
        let gone = status.phase == Phase::Stable && workloads[active].replicas == 0;
        if blocked == Some(Reason::Suspended) || (gone && blocked == Some(Reason::ActiveNotReady)) {
            return true;
        }
        let spec = &world.specs[self.api.flag.wants];
        let tidy = status.leftovers.is_empty() && status.ending.is_empty();
        let wanted = status.active_version == wanted(spec, status) && workloads[active].ready();
        status.phase == Phase::Stable && wanted && tidy
    }

    /// Where it stands, in a line.
    pub(crate) fn sketch(&self) -> String {
        let (status, workloads) = (&self.api.flag.status.status, self.api.workloads);
        let pods = workloads.map(|one| format!("{}/{}", one.serving, one.replicas)).join(" ");
        let known = self.controllers.iter().map(|one| {
            let status = &one.memory.status;
            format!(
                "{:?} {} {:?}",
                status.phase,
                status.epoch(),
                one.pending.iter().map(Write::name).collect::<Vec<_>>()
            )
        });
        let known: Vec<String> = known.collect();
        format!("{} {:?} {} [{pods}] {known:?}", self.now, status.phase, status.epoch())
    }

    fn tell(&self) {
        let (status, api) = (&self.api.flag.status.status, &self.api);
        let blocked = status.blocked.as_ref().map(|blocked| &blocked.message);
        let stands = (status.phase, &status.active_version, &status.switch, &status.leftovers, blocked);
        println!("it does not end: {stands:?}, {:?}, {:?}, {:?}", api.flag.wants, api.workloads, self.proxies);
    }

    /// Where it stands, but for the clock.
    fn stands(&self, leader: usize) -> (Kept, Api, Vec<Proxy>) {
        let mut proxies = self.proxies.clone();
        proxies.iter_mut().for_each(|proxy| proxy.round = 0);
        (self.controllers[leader].memory.clone(), self.api.clone(), proxies)
    }
}

impl Protocol {
    /// Whether all goes on to its end from here, where nothing goes wrong any more, and stays there. Of some states.
    pub(crate) fn ends(&self, state: &State) -> bool {
        if self.sample == 0 || state.wrong.is_some() || !hash(state).is_multiple_of(self.sample) {
            return true;
        }
        let (mut state, leader) = (state.clone(), state.controllers.len() - 1);
        let mut over = 0;
        for _ in 0..ROUNDS {
            let before = state.stands(leader);
            state.round(self, leader);
            if state.wrong.is_some() {
                println!("in the end: {:?}", state.wrong);
                return false;
            }
            if before != state.stands(leader) {
                continue;
            }
            if state.is_over(self, leader) {
                over += 1;
                if over > STAYS {
                    return true;
                }
                state.pass_time(LONG_MS);
            } else if over > 0 {
                break;
            } else {
                let wakes = state.controllers[leader].wakes.map_or(100, |at| at.saturating_sub(state.now));
                state.pass_time(wakes.clamp(1, 1_000));
            }
        }
        state.tell();
        false
    }
}

/// A spec that asks for a version.
fn spec(version: &str, more: &str) -> Arc<Spec> {
    let yaml = format!(
        "{{version: {version}, services: [{{name: reviews}}], routing: {{provider: External}}, coexistence: {{minReady: 1s, probe: {{path: /ready}}}}, \
         settle: {{quietPeriod: 1s, timeout: 60s}}, cleanup: {{retainFor: 1s}}, {more}}}"
    );
    Arc::new(serde_saphyr::from_str(&yaml).unwrap())
}

impl Protocol {
    /// v1 serves, and v2 is asked for. v3 runs, and nobody has asked for it.
    pub(crate) fn new(more: &str, proxies: usize, vms: usize) -> Protocol {
        let status = Kept::new(Status::new(UID, "reviews", UnixMs(1)));
        let flag = Flag { version: 0, wants: 0, request: None, status };
        let runs = |replicas| Workload { replicas, pods: replicas, serving: replicas, ..Workload::default() };
        let workloads = [runs(2), runs(0), Workload { theirs: true, ..runs(2) }];
        let proxy = Proxy { boot: 1, round: 0, vms: vec![Vm::default(); vms], file: None, cut_off: false };
        let start = State {
            now: 1,
            api: Api { flag: flag.clone(), workloads, file: (0, None), named: [true, false, false] },
            before: flag,
            published: vec![],
            written: [].into(),
            proxies: vec![proxy; proxies],
            controllers: vec![],
            flights: vec![],
            streams: vec![],
            used_at: [0; 3],
            late: None,
            came: 0,
            begun: 0,
            faults: 0,
            ticks: 0,
            edits: 0,
            requests: 0,
            stopped: false,
            wrong: None,
        };
        let specs = VERSIONS.map(|version| spec(version, more));
        let mut world = Protocol {
            specs,
            start,
            begun: 2,
            faults: 0,
            ticks: 20,
            edits: 0,
            requests: 0,
            both: false,
            echoes: false,
            prompt: false,
            sample: 1,
            mutation: None,
        };
        world.start.controllers = vec![Controller::new(world.start.api.flag.clone(), &world.start)];
        for _ in 0..10 {
            let mut start = world.start.clone();
            start.round(&world, 0);
            world.start = start;
        }
        assert!(world.start.is_over(&world, 0) && world.start.wrong.is_none());
        world.start = world.next(&world.start, Action::Edit(1));
        world.start.edits = 0;
        world
    }

    fn next(&self, state: &State, action: Action) -> State {
        use stateright::Model;
        self.next_state(state, action).unwrap()
    }

    /// The same world when the first switch is about to end: the controller has ended, and its stop is on the way.
    pub(crate) fn with_a_stop_on_the_way(mut self) -> Protocol {
        for _ in 0..ROUNDS {
            let before = self.start.stands(0);
            let mut start = self.start.clone();
            start.round(&self, 0);
            if start.stopped {
                break;
            }
            if before == start.stands(0) {
                start.pass_time(100);
            }
            self.start = start;
        }
        let mut start = self.start.clone();
        while !matches!(start.controllers[0].pending.first(), Some(Write::Scale { why: Why::Stop, .. })) {
            let write = !start.controllers[0].pending.is_empty();
            start = self.next(&start, if write { Action::Write(0) } else { Action::Look(0) });
        }
        let start = self.next(&start, Action::Crash(0));
        Protocol { start: State { faults: 0, ..start }, ..self }
    }
}
