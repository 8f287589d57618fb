//! The proxies: what comes to a VM instance, and what the real code makes of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use flag::count::Totals;
use flag::fence::{Fenced, Held, Passage};
use flag::instance::{Findings, FlagState, Instance, InstanceFindings, combine, combine_findings};
use flag::named::Named;
use flag::record::Gate;
use flag::report::Report;
use flag::table::{Channel, Flag, Table};

use crate::UID;
use crate::model_parts::{Published, hash};

pub(crate) const VERSIONS: [&str; 2] = ["v1", "v2"];
/// Longer than a hold.
const LONG_MS: u64 = 10_000;

/// What comes to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A snapshot with the publication of this number.
    Snapshot(u8),
    /// Its hold runs out.
    Expiry,
    /// A request passes the hold because of its mark.
    Pass,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Count {
    pub(crate) started: u8,
    pub(crate) finished: u8,
}

impl Count {
    fn totals(self) -> Totals {
        Totals { started: self.started.into(), finished: self.finished.into() }
    }
}

/// One VM instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Vm {
    pub(crate) log: Vec<Event>,
    pub(crate) waiting: u8,
    /// Requests by version: sent there, or arrived there.
    pub(crate) sent: [Count; 2],
    pub(crate) arrived: [Count; 2],
}

/// An instance as the real code has it, and when it is.
struct Live {
    table: Table,
    now: u64,
}

/// What the real code makes of all that came to an instance.
#[derive(Debug, Default)]
pub(crate) struct View {
    state: Option<FlagState>,
    fenced: Option<Fenced>,
    pub(crate) gate: Gate,
    /// Without the mark and with it.
    passages: [Option<(Passage, usize)>; 2],
    /// By version, without its mark and with it.
    admits: [[bool; 2]; 2],
}

thread_local! {
    /// Most states differ by little.
    static VIEWS: RefCell<HashMap<u64, Rc<View>>> = RefCell::default();
}

impl Vm {
    pub(crate) fn view(&self, published: &[Published]) -> Rc<View> {
        let of = |event: &Event| match event {
            Event::Snapshot(number) => (0, published[usize::from(*number)].1),
            Event::Expiry => (1, 0),
            Event::Pass => (2, 0),
        };
        let key = hash(&self.log.iter().map(of).collect::<Vec<_>>());
        if let Some(view) = VIEWS.with_borrow(|views| views.get(&key).cloned()) {
            return view;
        }
        let view = Rc::new(Live::new(&self.log, published).view());
        VIEWS.with_borrow_mut(|views| views.insert(key, Rc::clone(&view)));
        view
    }
}

impl Live {
    /// Puts all that came into effect again, as the filter does.
    fn new(log: &[Event], published: &[Published]) -> Live {
        let (mut live, mut since) = (Live { table: Table::default(), now: 0 }, 0);
        for event in log {
            match event {
                Event::Snapshot(number) => {
                    let one = &published[usize::from(*number)].0;
                    live.table.apply(Channel::Service, std::slice::from_ref(&one.record), &|_| None);
                    // No hold ends by this clock: it does so by the event.
                    let begins = one.fence.as_ref().is_some_and(|fence| fence.since > since);
                    since = one.fence.as_ref().map_or(since, |fence| fence.since.max(since));
                    live.now += if begins { LONG_MS } else { 0 };
                    live.table.ask_fences(one.fence.as_slice(), std::slice::from_ref(&one.record), live.now);
                }
                Event::Expiry => live.flag().into_iter().for_each(|flag| flag.observed.gate.expire()),
                Event::Pass => _ = live.flag().map(|flag| live.passage(&flag, true)),
            }
        }
        live
    }

    fn flag(&self) -> Option<Rc<Flag>> {
        self.table.get(UID).cloned()
    }

    /// When it is: long after what is not held came, so that it has been looked at for long enough.
    fn now(&self, flag: &Flag) -> u64 {
        self.now + if flag.record.gate == Gate::Hold { 1 } else { 2 * LONG_MS }
    }

    /// What becomes of a request of an outside caller, and the version that it goes to.
    fn passage(&self, flag: &Flag, marked: bool) -> (Passage, usize) {
        let gate = &flag.observed.gate;
        let passage = flag.passage(None, self.now(flag), || marked.then(|| gate.old()).flatten());
        let version = if passage == Passage::Old { gate.old() } else { Some(flag.record.active.clone()) };
        (passage, version.map_or(0, |version| usize::from(version == VERSIONS[1])))
    }

    fn view(&self) -> View {
        let Some(flag) = self.flag() else { return View { admits: [[true; 2]; 2], ..View::default() } };
        let (state, fenced) = (flag.state(self.now(&flag)), flag.fenced(self.now(&flag)));
        let admits = VERSIONS.map(|version| [false, true].map(|marked| flag.observed.gate.admits(version, marked)));
        let passages = [false, true].map(|marked| Some(self.passage(&flag, marked)));
        View { state: Some(state), fenced, gate: flag.record.gate, passages, admits }
    }
}

impl View {
    pub(crate) fn knows(&self) -> bool {
        self.state.is_some()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.epoch)
    }

    /// What becomes of a request, and where it goes. Without a flag it waits for the first answer.
    pub(crate) fn passage(&self, marked: bool) -> (Passage, usize) {
        self.passages[usize::from(marked)].unwrap_or((Passage::Wait, 0))
    }

    pub(crate) fn admits(&self, version: usize, marked: bool) -> bool {
        self.admits[version][usize::from(marked)]
    }

    pub(crate) fn held(&self) -> Option<Held> {
        self.fenced.as_ref().map(|fenced| fenced.held)
    }
}

/// One proxy.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    /// The version that it stands beside; `None`: it is a caller outside of the group.
    pub(crate) beside: Option<usize>,
    pub(crate) boot: u8,
    pub(crate) round: u8,
    pub(crate) vms: Vec<Vm>,
    /// Each instance's answer to the round under way.
    pub(crate) answers: Option<Vec<Option<Vm>>>,
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Proxy) -> bool {
        (self.boot, &self.vms, &self.answers) == (other.boot, &other.vms, &other.answers)
    }
}

impl Eq for Proxy {}

impl Hash for Proxy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.boot, &self.vms, &self.answers).hash(state);
    }
}

impl Proxy {
    pub(crate) fn new(beside: Option<usize>, vms: usize) -> Proxy {
        Proxy { beside, boot: 0, round: 0, vms: vec![Vm::default(); vms], answers: None }
    }
}

/// A report: what the instances answered, if they did.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) proxy: usize,
    pub(crate) boot: u8,
    pub(crate) round: u8,
    pub(crate) answers: Vec<Option<Vm>>,
    pub(crate) report: Report,
    hash: u64,
}

impl PartialEq for Sent {
    fn eq(&self, other: &Sent) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Sent {}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl Sent {
    pub(crate) fn new(number: usize, proxy: &Proxy, answers: Vec<Option<Vm>>, published: &[Published]) -> Arc<Sent> {
        let report = report(number, proxy, &answers, published);
        // Which round it was is of no consequence but for the order.
        let hash = hash(&(number, proxy.boot, &answers));
        Arc::new(Sent { proxy: number, boot: proxy.boot, round: proxy.round, answers, report, hash })
    }
}

fn report(number: usize, proxy: &Proxy, answers: &[Option<Vm>], published: &[Published]) -> Report {
    let (ids, round): (Vec<u32>, u64) = ((0..answers.len() as u32).collect(), proxy.round.into());
    let (mut states, mut findings) = (vec![], vec![]);
    for (id, vm) in answers.iter().enumerate() {
        let Some(vm) = vm else { continue };
        let (id, view) = (id as u32, vm.view(published));
        let named = |counts: [Count; 2]| {
            let all = VERSIONS.into_iter().zip(counts).filter(|(_, count)| count.started > 0);
            Named::from_iter(all.map(|(version, count)| (version.to_owned(), count.totals())))
        };
        let (mut flags, mut found) = (Named::new(), vec![]);
        if let Some(state) = view.state.clone() {
            let state = FlagState { sent: named(vm.sent), arrived: named(vm.arrived), ..state };
            flags.insert(UID.to_owned(), state);
            let fenced = view.fenced.clone().map(|fenced| Fenced { waiting: vm.waiting.into(), ..fenced });
            found.push(Findings { flag: UID.to_owned(), fenced, ..Findings::default() });
        }
        states.push(Instance { id, round, flags });
        findings.push(InstanceFindings { id, round, flags: found });
    }
    let combined = combine(&ids, round, &states);
    Report {
        protocol: flag::PROTOCOL,
        proxy: number.to_string(),
        boot: proxy.boot.to_string(),
        seq: round,
        revision: String::new(),
        complete: combined.is_some(),
        flags: combined.unwrap_or_default(),
        findings: combine_findings(&ids, round, &findings),
        instances: ids,
    }
}
