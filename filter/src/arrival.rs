//! A request that arrives at the workload beside the proxy: whether it may, and what is noted of it. Hostcalls.

use std::rc::Rc;

use flag::table::Flag;
use proxy_wasm::types::MapType;

use crate::hostcalls;
use crate::plugin::Settings;
use crate::request::{Sent, Step, count, header, property};
use crate::vm::Vm;

/// Counts what arrives at the workload beside the proxy.
#[inline(never)]
pub(crate) fn arrive(vm: &Vm, context: u32, settings: &Settings) -> Step {
    let table = vm.table.borrow();
    let configured = settings.workload.as_ref().and_then(|own| Some((table.of_workload(own)?, own)));
    if let Some((flag, workload)) = configured.or_else(|| table.beside(|| header(":authority"))) {
        let late = flag.observed.proves_routes.get() && workload.version != flag.record.active;
        if late || flag.observed.gate.is_set() {
            match meet(flag, &workload.version, settings, late) {
                Met::Counts => {}
                Met::Check => return Step::Go,
                Met::Closed => return Step::Refuse(Some(Rc::clone(flag)), "closed"),
            }
        }
        count(vm, context, Sent::new(flag.observed.arrived.of(&workload.version)));
    }
    Step::Go
}

/// What arrives at a workload.
enum Met {
    Counts,
    /// It is a health check, and no traffic.
    Check,
    /// The gate does not let it in.
    Closed,
}

/// Whether a request may arrive at a version; `late`: nobody ought to go there any more. Who sent it then is noted, unless
/// a filter did, which says so in the header.
#[inline(never)]
fn meet(flag: &Flag, version: &str, settings: &Settings, late: bool) -> Met {
    let mut headers = [&settings.header].into_iter().chain(&settings.other_headers);
    let marked = headers.any(|name| {
        hostcalls::with_header(MapType::HttpRequestHeaders, name, |value| value == version.as_bytes()) == Some(true)
    });
    if !marked && flag.observed.is_check(header) {
        return Met::Check;
    }
    if !flag.observed.gate.admits(version, marked) {
        return Met::Closed;
    }
    if late && !marked {
        let address = property("source\0address").unwrap_or_default();
        // Without its port.
        flag.observed.stranger(address.rsplit_once(':').map_or("", |(address, _)| address));
    }
    Met::Counts
}
