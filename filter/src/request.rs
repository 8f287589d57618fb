//! One request: choose the version, count it until its stream ends, and correct the count by the
//! cluster that really served. Envoy would call at the response for every request, although only a
//! misrouted one needs it. So the cluster is read when somebody asks for the counts, if there is a
//! response by then, and at the end of the stream. Hostcalls.

use std::rc::Rc;

use flag::answers::Outcome;
use flag::config::Role;
use flag::count::Counter;
use flag::fence::Passage;
use flag::record::Gate;
use flag::stray;
use flag::table::{Flag, Table};
use proxy_wasm::types::{Action, MapType};

use crate::arrival::arrive;
use crate::hostcalls;
use crate::plugin::{Settings, is_inbound};
use crate::vm::{Vm, now_ms};
use crate::waiting::{self, Slot};

/// A request that is counted, until its stream ends.
#[derive(Debug)]
pub(crate) struct Sent {
    counter: Rc<Counter>,
    /// While another version may serve it than the chosen one.
    unproven: Option<Unproven>,
    /// While its answer is measured.
    measured: Option<Measured>,
    /// It waited first.
    pub(crate) released: bool,
    /// When it was seen first by whoever looks for streams that are open for long.
    seen_ms: Option<u64>,
}

impl Sent {
    pub(crate) fn new(counter: Rc<Counter>) -> Sent {
        Sent { counter, unproven: None, measured: None, released: false, seen_ms: None }
    }
}

/// A request whose stream has not ended.
#[derive(Debug)]
pub(crate) enum Stream {
    Sent(Sent),
    Waits(Slot),
}

/// What is measured of an answer.
#[derive(Debug)]
struct Measured {
    began_ms: u64,
    outcome: Outcome,
}

impl Measured {
    /// Of the request in context.
    fn begin() -> Measured {
        Measured { began_ms: now_ms(), outcome: Outcome::of_request(header("content-type").as_deref()) }
    }
}

/// What will be needed when it is known who serves a request. At the end of a stream its headers are gone.
#[derive(Debug)]
struct Unproven {
    flag: Rc<Flag>,
    /// See [`flag::stray::place`].
    place: String,
    /// The first round that met it, if one did.
    met: Option<u64>,
    /// How often it was looked at in vain, and how many times more it is passed over.
    tries: u8,
    rests: u8,
}

/// Requests that are looked at for one report, at most: whatever is not is unknown, and has its turn later.
const LOOKS: u32 = 1_024;
/// The longest rest of one that was looked at in vain is two to the power of this.
const RESTS: u8 = 5;

impl Sent {
    /// Counts it for the version that serves it, if that is another one than was chosen.
    fn correct(&mut self, vm: &Vm, Unproven { flag, place, .. }: Unproven, served: Rc<Counter>) {
        served.start();
        self.counter.finish();
        vm.strays.borrow_mut().note(&flag.record.uid, place, served.version());
        self.counter = served;
        let unroutable = &flag.observed.unroutable;
        unroutable.set(unroutable.get().saturating_add(1));
        vm.metrics.unroutable.add(1);
    }

    /// The version that serves the request in context. `None` where there is no cluster: the proxy itself
    /// answered, and no version served.
    fn served(flag: &Flag) -> Option<Rc<Counter>> {
        Some(Rc::clone(flag.served_by(&property("xds\0cluster_name")?)?))
    }

    /// Counts it for the version that serves it; `sent`: it is known to have left.
    fn settle(&mut self, vm: &Vm, unproven: Unproven, sent: bool) {
        let Some(served) = Sent::served(&unproven.flag) else { return };
        let chosen = Rc::ptr_eq(&served, &self.counter);
        if chosen && vm.strays.borrow().is_empty() || !sent && !is_sent() {
            return;
        }
        if chosen {
            vm.strays.borrow_mut().clear(&unproven.place);
        } else {
            self.correct(vm, unproven, served);
        }
    }
}

/// What is to happen to a request.
pub(crate) enum Step {
    Go,
    /// At the gate of this flag, or for the first answer.
    Hold(Option<Rc<Flag>>),
    /// For this reason.
    Refuse(Option<Rc<Flag>>, &'static str),
}

pub(crate) fn header(name: &str) -> Option<String> {
    String::from_utf8(hostcalls::header(MapType::HttpRequestHeaders, name)?).ok()
}

/// Whether Envoy has chosen who gets the request in context. Before that, its cluster may still be that of the
/// route from before the filter ran.
fn is_sent() -> bool {
    hostcalls::property("upstream\0address").is_some()
}

/// The status of the response to the request in context; `None`: there was none.
fn status() -> Option<i64> {
    /// What Envoy notes where the client has left without an answer.
    const CLIENT_LEFT: i64 = 499;
    let code = hostcalls::property("response\0code");
    let code = code.and_then(|bytes| Some(i64::from_le_bytes(bytes.as_slice().try_into().ok()?)));
    code.filter(|code| *code != CLIENT_LEFT)
}

/// Decides for the request in context, and sends it on its way.
pub(crate) fn begin(vm: &Vm, context: u32, settings: &Settings, arrives: bool) -> Step {
    if settings.role == Role::Inbound || settings.role == Role::Auto && is_inbound() {
        return arrive(vm, context, settings);
    }
    let table = vm.table.borrow();
    let edge = settings.role == Role::Edge;
    let mut host = String::new();
    let find = |authority: &[u8]| {
        let authority = str::from_utf8(authority).ok()?;
        table.find(authority).inspect(|flag| {
            if flag.may_misroute() {
                authority.clone_into(&mut host)
            }
        })
    };
    let named = hostcalls::with_header(MapType::HttpRequestHeaders, ":authority", find).flatten();
    // Behind a gateway many services share a host: what tells them apart is where its routes lead.
    let asks = named.is_none() && (edge || table.has_clusters());
    let cluster = if asks { property("xds\0cluster_name") } else { None };
    let by_cluster = || table.of_cluster(cluster.as_deref().filter(|_| edge)?);
    let Some(flag) = named.or_else(by_cluster) else {
        if edge {
            take_away(&settings.header);
            settings.other_headers.iter().for_each(|other| take_away(other));
        }
        if let Some(cluster) = cluster.filter(|_| table.has_clusters()) {
            pass_by(vm, context, &table, &cluster);
        }
        return Step::Go;
    };
    if arrives && vm.waits_until_ms.get().is_some() {
        return Step::Hold(None);
    }
    let mut old = None;
    if flag.record.gate == Gate::Hold {
        match pass(flag, settings) {
            Passage::Go => {}
            Passage::Wait => return Step::Hold(Some(Rc::clone(flag))),
            Passage::Refuse => return Step::Refuse(Some(Rc::clone(flag)), "expired"),
            Passage::Old => old = flag.old(),
        }
    }
    if flag.observed.proves_routes.get() {
        *flag.observed.route.borrow_mut() = property("xds\0route_name");
    }
    let counter = old.unwrap_or_else(|| flag.choose(settings.workload.as_ref(), header));
    // Sets the one and removes all other values, and makes Envoy look for the route again.
    let set = hostcalls::set_header(MapType::HttpRequestHeaders, &settings.header, counter.version());
    for other in &settings.other_headers {
        let _ = hostcalls::set_header(MapType::HttpRequestHeaders, other, counter.version());
    }
    if set.is_ok() {
        if named.is_none() && flag.may_misroute() {
            host = header(":authority").unwrap_or_default();
        }
        let unproven = flag.may_misroute().then(|| Unproven {
            flag: Rc::clone(flag),
            place: place(&host),
            met: None,
            tries: 0,
            rests: 0,
        });
        let measured = flag.observed.measured.get().then(Measured::begin);
        count(vm, context, Sent { unproven, measured, ..Sent::new(Rc::clone(counter)) });
    }
    Step::Go
}

/// What becomes of the request in context at a gate.
#[cold]
fn pass(flag: &Flag, settings: &Settings) -> Passage {
    let mark = || if settings.role == Role::Edge { None } else { header(&settings.header) };
    flag.passage(settings.workload.as_ref(), now_ms(), mark)
}

/// Counts what goes to a version although its host has no flag.
#[inline(never)]
fn pass_by(vm: &Vm, context: u32, table: &Table, cluster: &str) {
    let place = || place(&header(":authority").unwrap_or_default());
    match table.of_version(cluster) {
        Some((flag, counter)) => {
            vm.strays.borrow_mut().note(&flag.record.uid, place(), counter.version());
            count(vm, context, Sent::new(Rc::clone(counter)));
        }
        None if vm.strays.borrow().is_empty() => {}
        None => vm.strays.borrow_mut().clear(&place()),
    }
}

/// The place that the request in context is sent to.
fn place(host: &str) -> String {
    let of = |name| header(name).unwrap_or_default();
    stray::place(&of(":method"), host, &of(":path"))
}

/// Removes what a client sent, if it did.
#[inline(never)]
fn take_away(name: &str) {
    if hostcalls::with_header(MapType::HttpRequestHeaders, name, |_| ()).is_some() {
        let _ = hostcalls::remove_header(MapType::HttpRequestHeaders, name);
    }
}

pub(crate) fn count(vm: &Vm, context: u32, sent: Sent) {
    sent.counter.start();
    vm.open.borrow_mut().insert(context, Stream::Sent(sent));
}

/// A property of Envoy's that is text.
pub(crate) fn property(path: &str) -> Option<String> {
    String::from_utf8(hostcalls::property(path)?).ok()
}

/// Corrects the count of open requests whose version is known since the last time, and counts those that were open in an
/// earlier round and of which it still is not. Ends in the context of the plugin.
pub(crate) fn correct_open(vm: &Vm, plugin: u32, round: u64) {
    let mut looks = LOOKS;
    for (_, flag) in vm.table.borrow().flags() {
        flag.observed.unplaced.set(0);
    }
    let (fenced, now_ms) = (vm.fenced.borrow(), vm.seen_ms.get());
    for one in fenced.iter() {
        one.flag.observed.gate.oldest_since_ms.set(None);
    }
    for (id, stream) in vm.open.borrow_mut().iter_mut() {
        let Stream::Sent(sent) = stream else { continue };
        if let Some(one) = fenced.iter().find(|one| one.drains(&sent.counter)) {
            let oldest = &one.flag.observed.gate.oldest_since_ms;
            let seen = *sent.seen_ms.get_or_insert(now_ms);
            oldest.set(Some(oldest.get().map_or(seen, |oldest| oldest.min(seen))));
        }
        let Some(unproven) = &mut sent.unproven else { continue };
        if looks > 0 && unproven.rests == 0 {
            looks -= 1;
            if hostcalls::set_effective_context(*id).is_ok() && is_sent() {
                if let Some(unproven) = sent.unproven.take() {
                    sent.settle(vm, unproven, true);
                }
                continue;
            }
            unproven.rests = (1 << unproven.tries) - 1;
            unproven.tries = RESTS.min(unproven.tries + 1);
        } else {
            unproven.rests = unproven.rests.saturating_sub(1);
        }
        if *unproven.met.get_or_insert(round) < round {
            let unplaced = &unproven.flag.observed.unplaced;
            unplaced.set(unplaced.get() + 1);
        }
    }
    if looks < LOOKS {
        hostcalls::go_back_to(plugin);
    }
}

/// A request came: its headers are in context.
pub(crate) fn on_request_headers(vm: &Vm, context: u32, ends: bool) -> Action {
    if !vm.serves.replace(true) {
        vm.join(context);
    }
    let decide = |settings: &Rc<Settings>| match begin(vm, context, settings, true) {
        Step::Go => Action::Continue,
        step => stop(vm, context, settings, step, ends),
    };
    vm.with_settings(decide).unwrap_or(Action::Continue)
}

/// Has a request wait, or refuses it.
#[cold]
fn stop(vm: &Vm, context: u32, settings: &Rc<Settings>, step: Step, ends: bool) -> Action {
    match step {
        Step::Go => return Action::Continue,
        Step::Refuse(flag, why) => waiting::refuse(vm, flag.as_deref(), why),
        Step::Hold(gate) => match waiting::hold(vm, context, settings, gate.clone(), ends) {
            Ok(()) => vm.metrics.held.add(1),
            Err(why) if gate.is_some() => waiting::refuse(vm, gate.as_deref(), why),
            // Nothing says that it may not go.
            Err(_) => match begin(vm, context, settings, false) {
                Step::Go | Step::Hold(None) => return Action::Continue,
                step => return stop(vm, context, settings, step, ends),
            },
        },
    }
    Action::Pause
}

/// The trailers of a response came, and are in context.
pub(crate) fn on_response_trailers(vm: &Vm, context: u32) {
    if let Some(Stream::Sent(Sent { measured: Some(measured), .. })) = vm.open.borrow_mut().get_mut(&context) {
        let status = hostcalls::header(MapType::HttpResponseTrailers, "grpc-status");
        let status = status.and_then(|bytes| String::from_utf8(bytes).ok());
        measured.outcome = measured.outcome.said(status.as_deref());
    }
}

/// The stream has ended, however it did. False where nothing was known of it.
pub(crate) fn on_end(vm: &Vm, context: u32) -> bool {
    let Some(stream) = vm.open.borrow_mut().remove(&context) else { return false };
    let mut sent = match stream {
        Stream::Sent(sent) => sent,
        Stream::Waits(slot) => {
            vm.waiting.forget(&slot);
            return true;
        }
    };
    if sent.unproven.is_some() || sent.measured.is_some() {
        look_back(vm, &mut sent);
    }
    sent.counter.finish();
    if sent.released {
        vm.waiting.ended();
    }
    if sent.counter.is_idle() {
        vm.drained(&sent.counter);
    }
    vm.retire();
    true
}

/// What is still to be learned of a request whose stream has ended.
#[inline(never)]
fn look_back(vm: &Vm, sent: &mut Sent) {
    if let Some(unproven) = sent.unproven.take() {
        sent.settle(vm, unproven, false);
    }
    if let Some(Measured { began_ms, outcome }) = sent.measured
        && let Some(status) = status()
    {
        let details = property("response\0code_details").unwrap_or_default();
        sent.counter.answered(now_ms().saturating_sub(began_ms), outcome.failed(status, &details));
    }
}
