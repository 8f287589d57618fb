//! One request: choose the version, count it until its stream ends, and correct the count by the
//! cluster that really served. Hostcalls.

use std::rc::Rc;

use flag::config::{Role, Workload};
use flag::count::Counter;
use flag::limits;
use flag::table::Flag;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};

use crate::vm::Vm;

/// What a plugin's requests need of its configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) role: Role,
    pub(crate) header: String,
    pub(crate) workload: Option<Workload>,
}

/// A request that is counted.
#[derive(Debug)]
pub(crate) struct Sent {
    flag: Rc<Flag>,
    counter: Rc<Counter>,
}

/// What is to happen to a request.
enum Step {
    Pass,
    Hold,
    Send(Sent),
}

pub(crate) struct Request {
    vm: Rc<Vm>,
    settings: Rc<Settings>,
    id: u32,
    sent: Option<Sent>,
    held: bool,
}

impl Request {
    pub(crate) fn new(vm: Rc<Vm>, settings: Rc<Settings>, id: u32) -> Request {
        Request { vm, settings, id, sent: None, held: false }
    }

    /// Takes over what was decided when the request was released.
    fn settle_hold(&mut self) {
        if self.held {
            let mut released = self.vm.released.borrow_mut();
            if let Some(place) = released.iter().position(|(id, _)| *id == self.id) {
                self.sent = Some(released.swap_remove(place).1);
            }
        }
    }
}

fn header(name: &str) -> Option<String> {
    let bytes = hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok()??;
    String::from_utf8(bytes).ok()
}

/// Decides for the request in context, and sends it on its way.
fn begin(vm: &Vm, settings: &Settings, may_hold: bool) -> Step {
    if settings.role == Role::Inbound {
        let arrived = settings.workload.as_ref().and_then(|workload| {
            let flag = Rc::clone(vm.table.borrow().of_workload(workload)?);
            let counter = flag.observed.arrived.of(&workload.version);
            Some(Sent { flag, counter })
        });
        return arrived.map_or(Step::Pass, |sent| count(vm, sent));
    }
    let table = vm.table.borrow();
    let Some(flag) = header(":authority").and_then(|authority| table.find(&authority).map(Rc::clone)) else {
        if settings.role == Role::Edge && header(&settings.header).is_some() {
            let _ = hostcalls::remove_map_value(MapType::HttpRequestHeaders, &settings.header);
        }
        return Step::Pass;
    };
    if may_hold && vm.waits_until_ms.get().is_some() && vm.held.borrow().len() < limits::HELD {
        return Step::Hold;
    }
    if vm.prove_routes.get() {
        *flag.observed.route.borrow_mut() = property(&["xds", "route_name"]);
    }
    let counter = Rc::clone(flag.choose(settings.workload.as_ref(), header));
    // Sets the one and removes all other values, and makes Envoy look for the route again.
    let set = hostcalls::set_map_value(MapType::HttpRequestHeaders, &settings.header, Some(counter.version()));
    if set.is_err() {
        return Step::Pass;
    }
    count(vm, Sent { flag, counter })
}

fn count(vm: &Vm, sent: Sent) -> Step {
    sent.counter.start();
    vm.open.set(vm.open.get().saturating_add(1));
    Step::Send(sent)
}

/// A property of Envoy's that is text.
pub(crate) fn property(path: &[&str]) -> Option<String> {
    String::from_utf8(hostcalls::get_property(path.to_vec()).ok()??).ok()
}

/// Lets the requests go that waited for the first answer. Each is decided now. Ends in the context
/// of the plugin, whose calls would otherwise be cut off with the last of these requests.
pub(crate) fn release(vm: &Vm, plugin: u32) {
    let held = vm.held.take();
    if held.is_empty() {
        return;
    }
    for (id, settings) in held {
        if hostcalls::set_effective_context(id).is_err() {
            continue;
        }
        if let Step::Send(sent) = begin(vm, &settings, false) {
            vm.released.borrow_mut().push((id, sent));
        }
        if hostcalls::resume_http_request().is_err() {
            log::warn!("a held request could not be resumed");
        }
    }
    if hostcalls::set_effective_context(plugin).is_err() {
        log::warn!("the plugin's context is gone");
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match begin(&self.vm, &self.settings, true) {
            Step::Pass => {}
            Step::Send(sent) => self.sent = Some(sent),
            Step::Hold => {
                self.held = true;
                self.vm.held.borrow_mut().push((self.id, Rc::clone(&self.settings)));
                self.vm.metrics.held.add(1);
                return Action::Pause;
            }
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.settle_hold();
        let Some(sent) = self.sent.as_mut().filter(|sent| sent.flag.may_misroute()) else {
            return Action::Continue;
        };
        if self.settings.role == Role::Inbound {
            return Action::Continue;
        }
        // No cluster: the proxy itself answered, and no version served.
        let Some(cluster) = property(&["xds", "cluster_name"]) else { return Action::Continue };
        let served = sent.flag.served_by(&cluster).map(Rc::clone);
        if let Some(served) = served.filter(|served| !Rc::ptr_eq(served, &sent.counter)) {
            served.start();
            sent.counter.finish();
            sent.counter = served;
            let unroutable = &sent.flag.observed.unroutable;
            unroutable.set(unroutable.get().saturating_add(1));
            self.vm.metrics.unroutable.add(1);
        }
        Action::Continue
    }
}

impl Drop for Request {
    /// The stream has ended, however it did.
    fn drop(&mut self) {
        self.settle_hold();
        if self.held {
            self.vm.held.borrow_mut().retain(|(id, _)| *id != self.id);
        }
        if let Some(sent) = &self.sent {
            sent.counter.finish();
            let open = self.vm.open.get().saturating_sub(1);
            self.vm.open.set(open);
            if open == 0 {
                self.vm.retire();
            }
        }
    }
}
