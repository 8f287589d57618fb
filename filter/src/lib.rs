//! The proxy-wasm filter: routes requests by the shared version flag.
//!
//! Thin: hostcalls at the edge, decisions in `flag`. What it costs per request:
//!
//! | request | calls into the VM | hostcalls |
//! | --- | --- | --- |
//! | host without a flag | 3 (create, request headers, delete) | 1: read `:authority` |
//! | the same at an edge | 3 | 3: also read the cluster of the route, and look for a client's routing header |
//! | host with a flag | 3 | 2: read `:authority`, set the header |
//! | the same while a switch is under way | 3 | 3: also read the cluster that served |
//! | inbound | 3 | none |
//!
//! A hostcall that reads something makes Envoy call `malloc` in the VM too. While a switch is under
//! way an open request costs one more at each report, until its response has begun, and then another.
//! Shared data, the clock and metrics are never touched per request.
//!
//! | module | job |
//! | --- | --- |
//! | [`abi`] | what Envoy calls |
//! | [`root`] | the plugin: its configuration, ticks, queue and answers |
//! | [`request`] | one request: choose, count, correct |
//! | [`vm`] | state of this VM instance, shared by all its plugins |
//! | [`store`] | what all VM instances of the proxy share |
//! | [`poller`] | the one instance that talks to the flag service |
//! | [`metrics`] | Envoy metrics |

mod abi;
mod metrics;
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
