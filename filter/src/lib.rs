//! The proxy-wasm filter: routes requests by the shared version flag.
//!
//! Thin: hostcalls at the edge, decisions in `flag`. What it costs per request:
//!
//! | request | calls into the VM | hostcalls |
//! | --- | --- | --- |
//! | host without a flag | 2 (request headers, delete) | 1: read `:authority` |
//! | the same at an edge | 2 | 3: also read the cluster of the route, and look for a client's routing header |
//! | host with a flag | 2 | 2: read `:authority`, set the header |
//! | the same while a switch is under way | 2 | 3: also read the cluster that served |
//! | inbound | 2 | none |
//!
//! The role `auto` costs one more hostcall, and plugins with different settings in one VM one or two:
//! see [`plugin`]. A hostcall that reads something makes Envoy call `malloc` in the VM too. While a switch is under
//! way an open request costs one more at each report, until its response has begun, and then another.
//! Shared data, the clock and metrics are never touched per request.
//!
//! | module | job |
//! | --- | --- |
//! | [`abi`] | what Envoy calls |
//! | [`hostcalls`] | what Envoy is asked for |
//! | [`root`] | the plugin: its configuration, ticks, queue and answers |
//! | [`plugin`] | whose request it is |
//! | [`request`] | one request: choose, count, correct |
//! | [`vm`] | state of this VM instance, shared by all its plugins |
//! | [`store`] | what all VM instances of the proxy share |
//! | [`poller`] | the one instance that talks to the flag service |
//! | [`metrics`] | Envoy metrics |

mod abi;
mod hostcalls;
mod metrics;
mod plugin;
mod poller;
mod request;
mod root;
mod store;
mod vm;

/// What Envoy calls first. The SDK's macro writes the function.
#[allow(missing_docs)]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
    }}
}
