//! What Envoy calls. The SDK's own functions for it box every request and look it up in several
//! maps, which costs more than all that we do, and bring every callback that there is into the
//! binary. The build renames these to the names that Envoy knows, and leaves the SDK's out.

#![allow(unsafe_code, reason = "that no other function has the name of an exported one cannot be checked")]

use proxy_wasm::types::Action;

use crate::vm::Vm;
use crate::{request, root};

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_configure(context: u32, size: usize) -> bool {
    root::create(context);
    root::with(context, |root, vm| root.on_configure(vm, size)).unwrap_or(false)
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_request_headers(context: u32, _count: usize, ends: bool) -> Action {
    // What a VM that ends costs is tested with this. Nothing else ends it.
    #[cfg(feature = "trap")]
    if request::header("x-trap").is_some() {
        std::process::abort();
    }
    Vm::with(|vm| request::on_request_headers(vm, context, ends))
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_response_trailers(context: u32, _count: usize) -> Action {
    Vm::with(|vm| request::on_response_trailers(vm, context));
    Action::Continue
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_tick(context: u32) {
    root::with(context, |root, vm| root.on_tick(vm));
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_queue_ready(context: u32, _queue: u32) {
    root::with(context, |root, vm| root.on_queue_ready(vm));
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_http_call_response(
    context: u32,
    token: u32,
    _headers: usize,
    body: usize,
    _trailers: usize,
) {
    root::with(context, |root, vm| root.on_http_call_response(vm, token, body));
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_delete(context: u32) {
    if !Vm::with(|vm| request::on_end(vm, context)) {
        root::delete(context);
    }
}
