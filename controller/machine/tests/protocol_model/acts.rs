//! What can happen next, and how often where chance decides.

use machine::status::Phase;
use stateright::Chooser;

use crate::model_parts::Dice;
use crate::proxy::Vm;
use crate::world::{Action, Object, Protocol, State};

/// Everything that is watched.
const OBJECTS: [Object; 5] =
    [Object::Flag, Object::Workload(0), Object::Workload(1), Object::Workload(2), Object::Proxies];
/// A proxy reports again after so long, whatever it has to say.
const HEARTBEAT_MS: u64 = 1_000;
/// Proxies, and instances of each, that there are at most.
const MOST: usize = 3;

impl Action {
    /// What has to be rare for anything to come of a switch.
    pub(crate) fn is_fault(&self) -> bool {
        use Action::*;
        matches!(self, Incomplete(..) | Delay(_) | Fall(_) | Scale(..) | Join(_) | Appear | Restart(_) | CutOff(_))
            || matches!(self, Elect(_) | Crash(_) | Again)
    }

    fn weight(&self, calm: bool) -> u64 {
        use Action::*;
        let often = if calm { 2_000 } else { 60 };
        match self {
            Look(_) | Write(_) | Echo(..) | Hear(..) | Report(..) | Grow(_) | Heal(_) => often,
            End(_) | Read(_) | Tick => often / 2,
            // Pods take long to end.
            Shrink(_) => often / 20,
            Begin(..) => 10,
            Deliver(_) | Land(_) => 4,
            Edit(_) | Ask(_) => 3,
            Incomplete(..) | Delay(_) | Fall(_) | Scale(..) | Join(_) | Appear | Restart(_) | CutOff(_) => 1,
            Elect(_) | Crash(_) | Again => 3,
        }
    }
}

impl State {
    pub(crate) fn see_all(&mut self, at: usize) {
        for object in OBJECTS {
            if self.is_stale(at, object) {
                self.echo(at, object);
            }
        }
    }

    /// Whether a report would tell a controller something.
    pub(crate) fn has_news(&self, proxy: usize, at: usize) -> bool {
        let one = &self.proxies[proxy];
        if one.cut_off {
            return false;
        }
        let Some(heard) = self.controllers[at].heard.get(&proxy) else { return true };
        let said = heard.sent.vms.iter().flatten().map(|(vm, _)| vm);
        let same = said.eq(&one.vms) && heard.sent.report.boot == format!("{:x}", one.boot);
        let late = self.now.saturating_sub(heard.at) > HEARTBEAT_MS;
        let waits = |(vm, reaches): &(Vm, bool)| !reaches && vm.probe(&self.published).is_some();
        !same || late || heard.times < 3 || heard.sent.vms.iter().flatten().any(waits)
    }
}

impl Protocol {
    pub(crate) fn acts(&self, state: &State, actions: &mut Vec<Action>) {
        let faults = state.faults < self.faults;
        for (at, one) in state.controllers.iter().enumerate() {
            if !one.pending.is_empty() {
                actions.push(Action::Write(at));
            } else if !one.rests {
                actions.push(Action::Look(at));
            }
            actions.extend(OBJECTS.into_iter().filter(|one| state.is_stale(at, *one)).map(|one| Action::Echo(at, one)));
            if state.late.is_some() && state.came < 2 {
                actions.push(Action::Deliver(at));
            }
            if faults {
                actions.push(Action::Crash(at));
            }
        }
        if faults {
            if !self.both || state.controllers.len() < 2 {
                actions.extend([Action::Elect(false), Action::Elect(true)]);
            }
            if state.api.flag.request.is_some() {
                actions.push(Action::Again);
            }
        }
        if state.ticks < self.ticks && !self.prompt {
            actions.push(Action::Tick);
        }
        actions.extend((0..state.flights.len()).map(Action::Land));
        self.people_act(state, actions);
        self.workloads_act(state, faults, actions);
        self.proxies_act(state, faults, actions);
        let waits = |action: &Action| matches!(action, Action::Begin(..) | Action::End(_)) || action.is_fault();
        if state.ticks < self.ticks && self.prompt && actions.iter().all(waits) {
            actions.push(Action::Tick);
        }
    }

    fn people_act(&self, state: &State, actions: &mut Vec<Action>) {
        if state.edits < self.edits {
            let other = |of: &usize| *of != state.api.flag.wants;
            actions.extend((0..3).filter(other).map(Action::Edit));
        }
        if state.requests < self.requests {
            actions.extend(["rollback", "abort", "retry", "suspend", "resume"].map(Action::Ask));
        }
    }

    fn workloads_act(&self, state: &State, faults: bool, actions: &mut Vec<Action>) {
        for (of, one) in state.api.workloads.iter().enumerate() {
            if one.pods < one.replicas || one.serving < one.pods {
                actions.push(Action::Grow(of));
            }
            if one.pods > one.replicas {
                actions.push(Action::Shrink(of));
            }
            if faults && one.serving > 0 {
                actions.push(Action::Fall(of));
            }
            if faults {
                actions.extend((0..3).filter(|many| *many != one.replicas).map(|many| Action::Scale(of, many)));
            }
        }
    }

    fn proxies_act(&self, state: &State, faults: bool, actions: &mut Vec<Action>) {
        for (proxy, one) in state.proxies.iter().enumerate() {
            for (at, controller) in state.controllers.iter().enumerate() {
                if state.has_news(proxy, at) {
                    actions.push(Action::Report(proxy, at));
                    if faults {
                        actions.extend((0..one.vms.len()).map(|vm| Action::Incomplete(proxy, vm, at)));
                    }
                }
                let news = |vm: &usize| controller.published.is_some() && one.vms[*vm].heard != controller.published;
                let vms = (0..one.vms.len()).filter(|vm| !one.cut_off && news(vm));
                actions.extend(vms.map(|vm| Action::Hear(proxy, vm, at)));
            }
            if !one.cut_off && one.file != state.api.file.1 {
                actions.push(Action::Read(proxy));
            }
            if state.begun < self.begun {
                actions.extend((0..one.vms.len()).map(|vm| Action::Begin(proxy, vm)));
            }
            if one.cut_off {
                actions.push(Action::Heal(proxy));
            }
            if faults {
                actions.extend([Action::CutOff(proxy), Action::Restart(proxy)]);
                if state.late.is_none() {
                    actions.push(Action::Delay(proxy));
                }
                if one.vms.len() < MOST {
                    actions.push(Action::Join(proxy));
                }
            }
        }
        if faults && state.proxies.len() < MOST && state.api.file.1.is_some() {
            actions.push(Action::Appear);
        }
        actions.extend((0..state.streams.len()).map(Action::End));
    }
}

/// Chooses by weight.
#[derive(Debug, Clone)]
pub(crate) struct Chance;

/// The chance of one run.
#[derive(Debug)]
pub(crate) struct Run {
    dice: Dice,
    /// Less goes wrong in some runs.
    calm: bool,
}

impl Chooser<Protocol> for Chance {
    type State = Run;

    fn new_state(&self, seed: u64) -> Run {
        Run { dice: Dice(seed), calm: !seed.is_multiple_of(3) }
    }

    fn choose_initial_state(&self, run: &mut Run, states: &[State]) -> usize {
        run.dice.roll(states.len() as u64)
    }

    fn choose_action(&self, run: &mut Run, state: &State, actions: &[Action]) -> usize {
        // Whatever can go wrong does so in the middle of a switch.
        let calm = run.calm && state.phase() != Phase::Removing;
        run.dice.choose(actions.iter().map(|action| action.weight(calm)))
    }
}
