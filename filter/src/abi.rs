//! What Envoy calls for each request. The SDK's own functions for it box every request and look it
//! up in several maps, which costs more than all that we do; for plugins we go on to them. The
//! build renames these to the names that Envoy knows.

// Functions that Envoy finds by name, and the SDK's of the same kind, which Rust does not export.
#![allow(unsafe_code, reason = "names of exported functions are outside of what the compiler checks")]

use proxy_wasm::types::Action;

use crate::request;
use crate::vm::Vm;

unsafe extern "C" {
    safe fn proxy_on_context_create(context: u32, parent: u32);
    safe fn proxy_on_delete(context: u32);
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_context_create(context: u32, parent: u32) {
    match parent {
        0 => proxy_on_context_create(context, parent),
        plugin => Vm::with(|vm| vm.create(context, plugin)),
    }
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_request_headers(context: u32, _count: usize, _end: bool) -> Action {
    Vm::with(|vm| request::on_request_headers(vm, context))
}

#[unsafe(no_mangle)]
extern "C" fn versionflag_on_delete(context: u32) {
    if Vm::with(|vm| vm.is_root(context)) {
        proxy_on_delete(context);
    } else {
        Vm::with(|vm| request::on_end(vm, context));
    }
}
