//! Requests that wait: for the first answer of the flag service, or at the gate of a flag. Each has a slot among the open
//! requests, and each flag a queue in the order in which they came: the end of one costs the same whoever else waits.
//! Hostcalls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use flag::fence::grpc_timeout_ms;
use flag::limits;
use flag::table::Flag;

use crate::hostcalls;
use crate::plugin::Settings;
use crate::request::{Step, Stream, begin, header, property};
use crate::vm::{Vm, now_ms};

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Slot {
    settings: Rc<Settings>,
    /// At whose gate; `None`: it waits for the first answer.
    gate: Option<Rc<Flag>>,
    /// When its client stops waiting; `u64::MAX`: that is not known.
    until_ms: u64,
    /// Of its body, as far as Envoy may have to keep them.
    bytes: u64,
}

impl Slot {
    /// Whose queue it is in.
    fn queue(&self) -> &str {
        self.gate.as_ref().map_or("", |flag| &flag.record.uid)
    }
}

/// Those that wait at one gate, or for the first answer.
#[derive(Debug)]
struct Queue {
    flag: String,
    requests: Vec<u32>,
    /// Those before this one have gone.
    next: usize,
}

/// What all that wait have in common.
#[derive(Debug)]
pub(crate) struct Waiting {
    queues: RefCell<Vec<Queue>>,
    count: Cell<u64>,
    bytes: Cell<u64>,
    /// No client stops waiting before this.
    next_end_ms: Cell<u64>,
    /// Released requests that are open, since this time, and how many may be.
    released: Cell<u32>,
    at_a_time: Cell<u32>,
    released_since_ms: Cell<u64>,
}

impl Waiting {
    pub(crate) fn new() -> Waiting {
        Waiting {
            queues: RefCell::default(),
            count: Cell::default(),
            bytes: Cell::default(),
            next_end_ms: Cell::new(u64::MAX),
            released: Cell::default(),
            at_a_time: Cell::new(limits::RELEASED_FIRST),
            released_since_ms: Cell::default(),
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// A slot is taken, or given back.
    fn count(&self, slot: &Slot, taken: bool) {
        let moved = |count: u64, by: u64| if taken { count + by } else { count.saturating_sub(by) };
        self.count.set(moved(self.count.get(), 1));
        self.bytes.set(moved(self.bytes.get(), slot.bytes));
        if let Some(flag) = &slot.gate {
            let waiting = &flag.observed.gate.waiting;
            waiting.set(moved(waiting.get(), 1));
        }
    }

    /// One that waited goes, or has ended.
    pub(crate) fn forget(&self, slot: &Slot) {
        self.count(slot, false);
    }

    /// The stream of a released request has ended.
    pub(crate) fn ended(&self) {
        self.released.set(self.released.get().saturating_sub(1));
        self.grow(1);
    }

    /// So many more may be open at a time.
    fn grow(&self, more: u32) {
        self.at_a_time.set(limits::RELEASED.min(self.at_a_time.get() + more));
    }

    fn has_room(&self, slot: &Slot) -> bool {
        let of_flag = slot.gate.as_ref().map_or(self.count.get(), |flag| flag.observed.gate.waiting.get());
        self.count.get() < limits::HELD
            && of_flag < limits::HELD_OF_FLAG
            && self.bytes.get().saturating_add(slot.bytes) <= limits::HELD_BODIES
    }

    fn push(&self, request: u32, flag: &str) {
        let mut queues = self.queues.borrow_mut();
        match queues.iter_mut().find(|queue| queue.flag == flag) {
            Some(queue) => queue.requests.push(request),
            None => queues.push(Queue { flag: flag.to_owned(), requests: vec![request], next: 0 }),
        }
    }

    /// The next one of the queue in this place, which may have gone.
    fn next(&self, place: usize) -> Option<u32> {
        let mut queues = self.queues.borrow_mut();
        let queue = queues.get_mut(place)?;
        let next = queue.requests.get(queue.next).copied();
        queue.next += 1;
        next
    }

    fn is_for_first_answer(&self, place: usize) -> bool {
        self.queues.borrow().get(place).is_some_and(|queue| queue.flag.is_empty())
    }

    /// The one that was given out last stays where it was.
    fn stay(&self, place: usize) {
        if let Some(queue) = self.queues.borrow_mut().get_mut(place) {
            queue.next = queue.next.saturating_sub(1);
        }
    }
}

/// How many bytes of the body of the request in context Envoy may have to keep; `None`: that is too many, or not known.
fn body(ends: bool) -> Option<u64> {
    if ends {
        return Some(0);
    }
    if let Some(length) = header("content-length") {
        return length.parse().ok().filter(|length| *length <= limits::HELD_BODY);
    }
    // These send little before they have an answer, without saying how much.
    let patient = header("content-type").is_some_and(|kind| kind.starts_with("application/grpc"))
        || header("upgrade").is_some()
        || header(":protocol").is_some();
    patient.then_some(limits::HELD_BODY / 4)
}

/// When the client of the request in context stops waiting.
fn end_ms() -> u64 {
    let envoy = header("x-envoy-expected-rq-timeout-ms").and_then(|ms| ms.parse().ok());
    let grpc = header("grpc-timeout").and_then(|timeout| grpc_timeout_ms(&timeout));
    let soonest = envoy.unwrap_or(u64::MAX).min(grpc.unwrap_or(u64::MAX));
    if soonest == u64::MAX { soonest } else { now_ms().saturating_add(soonest) }
}

/// Has the request in context wait. The error says why it cannot.
#[cold]
pub(crate) fn hold(
    vm: &Vm,
    request: u32,
    settings: &Rc<Settings>,
    gate: Option<Rc<Flag>>,
    ends: bool,
) -> Result<(), &'static str> {
    // For the first answer whatever comes waits: where it would go otherwise may be gone.
    let bytes = body(ends).or(gate.is_none().then_some(limits::HELD_BODY)).ok_or("body")?;
    wait(vm, request, Slot { settings: Rc::clone(settings), gate, until_ms: end_ms(), bytes })
}

fn wait(vm: &Vm, request: u32, slot: Slot) -> Result<(), &'static str> {
    let waiting = &vm.waiting;
    if !waiting.has_room(&slot) {
        return Err("full");
    }
    if let Some(flag) = slot.gate.as_ref().filter(|flag| flag.observed.proves_routes.get()) {
        flag.observed.waits(property("xds\0route_name"));
    }
    waiting.count(&slot, true);
    waiting.next_end_ms.set(waiting.next_end_ms.get().min(slot.until_ms));
    waiting.push(request, slot.queue());
    vm.open.borrow_mut().insert(request, Stream::Waits(slot));
    Ok(())
}

/// Answers the request in context in place of a version. Its stream may end meanwhile: no borrow may be held.
#[cold]
pub(crate) fn refuse(vm: &Vm, flag: Option<&Flag>, why: &str) {
    if let Some(flag) = flag {
        flag.observed.gate.refuse();
    }
    vm.metrics.refused.add(1);
    if hostcalls::refuse(why).is_err() {
        log::warn!("a request could not be answered");
    }
}

/// Lets those go that need not wait any longer, the oldest first; each is decided now. Ends in the context of the plugin,
/// whose calls would otherwise be cut off with the last of these requests.
pub(crate) fn release(vm: &Vm, plugin: u32) {
    if vm.waiting.is_empty() {
        vm.waiting.at_a_time.set(limits::RELEASED_FIRST);
        return;
    }
    let now_ms = now_ms();
    end_overdue(vm, now_ms);
    // Whatever goes on for longer makes room too.
    if now_ms.abs_diff(vm.waiting.released_since_ms.get()) >= limits::RELEASED_MS {
        vm.waiting.released_since_ms.set(now_ms);
        vm.waiting.grow(vm.waiting.released.take());
    }
    let queues = vm.waiting.queues.borrow().len();
    for place in 0..queues {
        // Many of one flag keep those of another waiting for a moment only: they go first in turns.
        let place = if now_ms & 256 == 0 { place } else { queues - 1 - place };
        if vm.waits_until_ms.get().is_some() && vm.waiting.is_for_first_answer(place) {
            continue;
        }
        while let Some(request) = vm.waiting.next(place) {
            if !release_one(vm, request, place) {
                vm.waiting.stay(place);
                break;
            }
        }
    }
    vm.waiting.queues.borrow_mut().retain(|queue| queue.next < queue.requests.len());
    hostcalls::go_back_to(plugin);
}

/// False: it waits on, and so do those behind it.
fn release_one(vm: &Vm, request: u32, place: usize) -> bool {
    let is_there = |queue: &str| vm.waiting.queues.borrow().get(place).is_some_and(|one| one.flag == queue);
    let here = matches!(vm.open.borrow().get(&request), Some(Stream::Waits(slot)) if is_there(slot.queue()));
    if !here {
        return true;
    }
    if vm.waiting.released.get() >= vm.waiting.at_a_time.get() {
        return false;
    }
    let Some(Stream::Waits(slot)) = vm.open.borrow_mut().remove(&request) else { return true };
    vm.waiting.forget(&slot);
    if hostcalls::set_effective_context(request).is_err() {
        return true;
    }
    match begin(vm, request, &slot.settings, false) {
        Step::Hold(_) if slot.gate.is_some() => {
            vm.waiting.count(&slot, true);
            vm.open.borrow_mut().insert(request, Stream::Waits(slot));
            return false;
        }
        // From the first answer to a gate.
        Step::Hold(gate) => {
            if let Err(why) = wait(vm, request, Slot { gate, ..slot }) {
                refuse(vm, None, why);
            }
        }
        Step::Refuse(flag, why) => refuse(vm, flag.as_deref(), why),
        Step::Go => {
            if let Some(Stream::Sent(sent)) = vm.open.borrow_mut().get_mut(&request) {
                sent.released = true;
                vm.waiting.released.set(vm.waiting.released.get() + 1);
            }
            if hostcalls::resume_request().is_err() {
                log::warn!("a request could not be answered");
            }
        }
    }
    true
}

/// Answers those whose clients stop waiting.
fn end_overdue(vm: &Vm, now_ms: u64) {
    if now_ms < vm.waiting.next_end_ms.get() {
        return;
    }
    let (mut overdue, mut next) = (Vec::new(), u64::MAX);
    for (id, stream) in vm.open.borrow().iter() {
        match stream {
            Stream::Waits(slot) if slot.until_ms <= now_ms => overdue.push(*id),
            Stream::Waits(slot) => next = next.min(slot.until_ms),
            Stream::Sent(_) => {}
        }
    }
    vm.waiting.next_end_ms.set(next);
    for request in overdue {
        let Some(Stream::Waits(slot)) = vm.open.borrow_mut().remove(&request) else { continue };
        vm.waiting.forget(&slot);
        if hostcalls::set_effective_context(request).is_ok() {
            refuse(vm, slot.gate.as_deref(), "deadline");
        }
    }
}
