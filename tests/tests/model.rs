//! A model check of the protocol: v1 is never called removable while anybody may still send to it.
//!
//! What decides is the real thing: `merge::judge` in each VM instance, `instance::combine` in each
//! proxy, the `Ledger` in the controller. The world around it is a model: snapshots come to any
//! instance in any order or never, instances answer a round when they like or not at all, reports
//! are lost, late or repeated, and proxies and the controller restart and forget. With few
//! faults every order of all that is looked at, with more of them some.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flag::count::Totals;
use flag::instance::{FlagState, Instance, combine};
use flag::merge::{MergeOutcome, judge};
use flag::named::Named;
use flag::record::{Gate, Record};
use flag::report::Report;
use machine::fleet::ledger::{FleetQuestion, Ledger, Quiet};
use stateright::{Checker, Model, Property, UniformChooser};

/// Epochs: v1 before the flip, v2 after it.
const OLD: u8 = 1;
const NEW: u8 = 2;
/// Rounds of one boot: one from before the ack, and the three that prove quiet.
const ROUNDS: u8 = 4;

/// One VM instance: which record routes its requests, which one its configuration has, and its
/// requests to v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Vm {
    epoch: u8,
    config: u8,
    started: u8,
    finished: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Proxy {
    boot: u8,
    /// The round under way, or the last one.
    round: u8,
    /// Each instance's answer to the round under way.
    answers: Option<Vec<Option<Vm>>>,
    vms: Vec<Vm>,
}

/// A report: what the instances answered, if they did.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sent {
    proxy: usize,
    boot: u8,
    round: u8,
    answers: Vec<Option<Vm>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    flipped: bool,
    /// The epoch in the file that proxies start with.
    file: u8,
    proxies: Vec<Proxy>,
    /// A report that is late, and may come more than once.
    late: Option<Sent>,
    /// What the controller's ledger took in since the controller started.
    accepted: Vec<Sent>,
    removable: bool,
    proxy_restarted: bool,
    controller_restarted: bool,
    faults: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    Flip,
    /// The controller writes the file.
    Configure,
    /// A proxy reads it.
    Reload(usize),
    /// A snapshot with the epoch comes to an instance.
    Learn(usize, usize, u8),
    /// A request begins by the instance's flag, and ends.
    Begin(usize, usize),
    End(usize, usize),
    Round(usize),
    Answer(usize, usize),
    /// The round is over, answered or not: the report arrives, or is late, perhaps for ever.
    Report(usize, Fate),
    /// The late report comes.
    Deliver,
    RestartProxy(usize),
    RestartController,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fate {
    Arrives,
    Late,
}

struct Protocol {
    proxies: usize,
    vms: usize,
    /// Lost, late and incomplete reports, and restarts, together at most.
    faults: u8,
    records: [Record; 2],
}

fn record(epoch: u8) -> Record {
    let record = Record {
        uid: "uid".to_owned(),
        name: "reviews".to_owned(),
        namespace: String::new(),
        version_label: String::new(),
        epoch: epoch.into(),
        active: if epoch == OLD { "v1" } else { "v2" }.to_owned(),
        gate: Gate::Open,
        members: vec![flag::record::Member {
            service: "reviews".to_owned(),
            hosts: BTreeSet::from(["reviews".to_owned()]),
            selector: BTreeSet::new(),
            clusters: BTreeMap::new(),
        }],
        versions: BTreeSet::from(["v1".to_owned(), "v2".to_owned()]),
        preview: None,
        hash: String::new(),
    };
    record.seal().unwrap()
}

impl Protocol {
    fn new(proxies: usize, vms: usize, faults: u8) -> Protocol {
        Protocol { proxies, vms, faults, records: [record(OLD), record(NEW)] }
    }

    fn record(&self, epoch: u8) -> &Record {
        &self.records[usize::from(epoch - OLD)]
    }

    fn learn(&self, vm: &mut Vm, epoch: u8) {
        if judge(Some(self.record(vm.epoch)), self.record(epoch)) == MergeOutcome::Adopt {
            vm.epoch = epoch;
        }
    }

    fn report(&self, sent: &Sent) -> Report {
        let live: Vec<u32> = (0..self.vms as u32).collect();
        let answered = sent.answers.iter().enumerate().filter_map(|(id, vm)| {
            let vm = (*vm)?;
            let sent_to = Totals { started: vm.started.into(), finished: vm.finished.into() };
            let state = FlagState {
                epoch: vm.epoch.into(),
                hash: self.record(vm.epoch).hash.clone(),
                config_epoch: Some(vm.config.into()),
                sent: Named::from([("v1".to_owned(), sent_to)]),
                ..FlagState::default()
            };
            let flags = Named::from([("uid".to_owned(), state)]);
            Some(Instance { id: id as u32, round: sent.round.into(), flags })
        });
        let answered: Vec<Instance> = answered.collect();
        let combined = combine(&live, sent.round.into(), &answered);
        Report {
            protocol: flag::PROTOCOL,
            proxy: sent.proxy.to_string(),
            boot: sent.boot.to_string(),
            seq: sent.round.into(),
            revision: String::new(),
            instances: live,
            complete: combined.is_some(),
            flags: combined.unwrap_or_default(),
            findings: Default::default(),
        }
    }

    /// Takes a report in. The ledger is made anew from all that it took in, one a millisecond.
    fn accept(&self, state: &mut State, sent: Sent) {
        let mut ledger = Ledger::new(1_000);
        let mut now_ms = 1;
        for sent in &state.accepted {
            ledger.accept(now_ms, self.report(sent)).unwrap();
            now_ms += 1;
        }
        if ledger.accept(now_ms, self.report(&sent)).is_err() {
            return;
        }
        state.accepted.push(sent);
        let expected = (0..self.proxies).map(|proxy| proxy.to_string()).collect();
        let record = self.record(NEW);
        let asked = FleetQuestion {
            old: "v1".to_owned(),
            wanted: "v2".to_owned(),
            config_epoch: record.epoch,
            ..FleetQuestion::default()
        };
        let fleet = ledger.view(now_ms, record, &expected, &asked);
        // As `step::settle` asks, with no quiet period at all.
        let acked = fleet.acked == fleet.expected && fleet.laggards.is_empty();
        state.removable =
            state.flipped && acked && fleet.config_laggards.is_empty() && matches!(fleet.old, Quiet::Since(_));
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let vm = Vm { epoch: OLD, config: OLD, started: 0, finished: 0 };
        let proxy = Proxy { boot: 0, round: 0, answers: None, vms: vec![vm; self.vms] };
        vec![State {
            flipped: false,
            file: OLD,
            proxies: vec![proxy; self.proxies],
            late: None,
            accepted: vec![],
            removable: false,
            proxy_restarted: false,
            controller_restarted: false,
            faults: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.removable {
            return;
        }
        let faults_left = state.faults < self.faults;
        if !state.flipped {
            actions.push(Action::Flip);
        } else if state.file == OLD {
            actions.push(Action::Configure);
        }
        for (number, proxy) in state.proxies.iter().enumerate() {
            if proxy.vms.iter().any(|vm| vm.config < state.file) {
                actions.push(Action::Reload(number));
            }
            match &proxy.answers {
                // Before the flip one is enough.
                None if proxy.round < if state.flipped { ROUNDS } else { 1 } => actions.push(Action::Round(number)),
                None => {}
                Some(answers) => {
                    let silent = answers.iter().enumerate().filter(|(_, answer)| answer.is_none());
                    actions.extend(silent.map(|(vm, _)| Action::Answer(number, vm)));
                    let complete = answers.iter().all(Option::is_some);
                    if complete || faults_left {
                        actions.push(Action::Report(number, Fate::Arrives));
                    }
                    if complete && faults_left {
                        actions.push(Action::Report(number, Fate::Late));
                    }
                }
            }
            for (id, vm) in proxy.vms.iter().enumerate() {
                if state.flipped && vm.epoch == OLD {
                    actions.push(Action::Learn(number, id, NEW));
                } else if state.flipped && vm.config == OLD {
                    // An older one comes after it.
                    actions.push(Action::Learn(number, id, OLD));
                }
                // One of them is enough.
                if id == 0 && vm.epoch == OLD && vm.started == 0 {
                    actions.push(Action::Begin(number, id));
                }
                if vm.finished < vm.started {
                    actions.push(Action::End(number, id));
                }
            }
            if faults_left && !state.proxy_restarted {
                actions.push(Action::RestartProxy(number));
            }
        }
        if state.late.is_some() {
            actions.push(Action::Deliver);
        }
        if faults_left && !state.controller_restarted && !state.accepted.is_empty() {
            actions.push(Action::RestartController);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Flip => state.flipped = true,
            Action::Configure => state.file = NEW,
            Action::Reload(proxy) => {
                for vm in &mut state.proxies[proxy].vms {
                    vm.config = last.file;
                    self.learn(vm, last.file);
                }
            }
            Action::Learn(proxy, vm, epoch) => self.learn(&mut state.proxies[proxy].vms[vm], epoch),
            Action::Begin(proxy, vm) => state.proxies[proxy].vms[vm].started += 1,
            Action::End(proxy, vm) => state.proxies[proxy].vms[vm].finished += 1,
            Action::Round(proxy) => {
                state.proxies[proxy].round += 1;
                state.proxies[proxy].answers = Some(vec![None; self.vms]);
            }
            Action::Answer(proxy, vm) => {
                let proxy = &mut state.proxies[proxy];
                let answer = proxy.vms[vm];
                proxy.answers.as_mut()?[vm] = Some(answer);
            }
            Action::Report(number, fate) => {
                let proxy = &mut state.proxies[number];
                let answers = proxy.answers.take()?;
                let sent = Sent { proxy: number, boot: proxy.boot, round: proxy.round, answers };
                match fate {
                    Fate::Arrives => {
                        state.faults += u8::from(sent.answers.contains(&None));
                        self.accept(&mut state, sent);
                    }
                    // The one before it, if it is still on its way, is lost.
                    Fate::Late => {
                        state.faults += 1;
                        state.late = Some(sent);
                    }
                }
            }
            Action::Deliver => {
                let late = state.late.clone()?;
                self.accept(&mut state, late);
            }
            Action::RestartProxy(proxy) => {
                let vm = Vm { epoch: state.file, config: state.file, started: 0, finished: 0 };
                let boot = state.proxies[proxy].boot + 1;
                state.proxies[proxy] = Proxy { boot, round: 0, answers: None, vms: vec![vm; self.vms] };
                (state.proxy_restarted, state.faults) = (true, last.faults + 1);
            }
            Action::RestartController => {
                state.accepted.clear();
                (state.controller_restarted, state.faults) = (true, last.faults + 1);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        vec![
            Property::always("nobody may send to a version that is removed", |_, state: &State| {
                let vms = || state.proxies.iter().flat_map(|proxy| &proxy.vms);
                !state.removable || (state.file == NEW && vms().all(|vm| vm.epoch == NEW && vm.started == vm.finished))
            }),
            Property::sometimes("v1 is removed after any of the faults", |model: &Protocol, state: &State| {
                state.removable && (state.faults > 0 || model.faults == 0)
            }),
            Property::sometimes("v1 is removed after requests to it", |_, state: &State| {
                state.removable && state.proxies.iter().flat_map(|proxy| &proxy.vms).any(|vm| vm.finished > 0)
            }),
        ]
    }
}

#[test]
fn every_order_without_faults() {
    let checker = Protocol::new(1, 2, 0).checker().spawn_bfs().join();
    checker.assert_properties();
}

#[test]
fn every_order_with_a_fault() {
    let checker = Protocol::new(1, 1, 1).checker().spawn_bfs().join();
    checker.assert_properties();
}

/// Too many orders to look at all of them.
#[test]
fn some_orders_with_three_faults() {
    let model = Protocol::new(2, 2, 3).checker().timeout(Duration::from_secs(15));
    let checker = model.spawn_simulation(1, UniformChooser).join();
    println!("{} states", checker.state_count());
    checker.assert_properties();
}
