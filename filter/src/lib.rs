//! The proxy-wasm filter: routes requests by the shared version flag.
//!
//! Thin: hostcalls at the edge, decisions in `flag`. What a request costs is in docs/reference/filter.md, and the
//! test `vm` counts it.
//!
//! | module | job |
//! | --- | --- |
//! | [`abi`] | what Envoy calls |
//! | [`hostcalls`] | what Envoy is asked for |
//! | [`root`] | the plugin: its configuration, ticks, queue and answers |
//! | [`plugin`] | whose request it is |
//! | [`request`] | one request: choose, count, correct |
//! | [`arrival`] | one that arrives at a workload |
//! | [`waiting`] | those that wait |
//! | [`fence`] | what a fence has told at once |
//! | [`vm`] | state of this VM instance, shared by all its plugins |
//! | [`store`] | what all VM instances of the proxy share |
//! | [`call`] | a call to a cluster that is under way |
//! | [`poller`] | the one instance that talks to the flag service |
//! | [`prober`] | tries whether this instance reaches a version |
//! | [`strays`] | where requests went past the flags |
//! | [`metrics`] | Envoy metrics |

mod abi;
mod arrival;
mod call;
mod fence;
mod hostcalls;
mod metrics;
mod plugin;
mod poller;
mod prober;
mod request;
mod root;
mod store;
mod strays;
mod vm;
mod waiting;

/// What Envoy calls first. The SDK's macro writes the function.
#[allow(missing_docs)]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
    }}
}
