//! The end-to-end harness: real Envoys, real backends and real load, on loopback only.
//!
//! A test reads like a story:
//!
//! ```no_run
//! use harness::{Backend, Envoy, Load, LoadPlan, config, story};
//!
//! story("requests-are-answered", async |dir| {
//!     let v1 = Backend::start(dir, "v1").await?;
//!     let routes = config::routes([config::route_to("v1")]);
//!     let bootstrap = config::bootstrap(
//!         [config::listener("ingress", [], routes)],
//!         [config::cluster("v1", v1.addr(), config::Upstream::H2)],
//!     );
//!     let envoy = Envoy::start(dir, "envoy", bootstrap).await?;
//!     let load = Load::start(envoy.listener("ingress"), LoadPlan::default());
//!     let results = load.run_for(std::time::Duration::from_secs(2)).await?;
//!     results.assert_no_failures();
//!     assert!(results.all_served_by("v1"));
//!     Ok(())
//! });
//! ```
//!
//! | module | its job |
//! | --- | --- |
//! | [`story`](mod@story) | one test: its directory, its runtime, its end |
//! | [`dir`] | a temporary directory that is kept when the test fails |
//! | [`page`] | the commands of a page, as they are written there |
//! | [`points`] | where the controller dies or stops by itself |
//! | [`process`] | a child process that never outlives its test |
//! | `lock` | locks whose holder may have panicked |
//! | [`wait`] | waiting for a condition, with a limit |
//! | [`clock`] | the one clock that all measurements share |
//! | [`client`] | single requests, byte for byte as written |
//! | [`config`] | pieces of Envoy configuration |
//! | [`envoy`] | a real Envoy |
//! | [`backend`] | one version of a service |
//! | [`checks`] | what checks ask: a webhook, a real Prometheus |
//! | [`fake`] | a flag service that answers as the test says |
//! | [`fences`] | fenced flips under load |
//! | [`flips`] | many flips under load |
//! | [`overlap`] | for how long requests were open on two versions |
//! | [`releases`] | release after release through one Envoy, and its memory |
//! | [`scale`] | thousands of simulated proxies |
//! | [`soak`] | many switches, with damage by chance |
//! | [`local`] | the whole system on this machine |
//! | [`load`] | open-loop load in which every request is recorded |
//! | [`talk`] | streams that stay open: gRPC, WebSockets, downloads |
//! | [`tree`] | what `versionflag status` draws, read again |
//! | [`netns`] | a network of a test's own, with the feature `kube` |
//! | [`kube`] | a real Kubernetes control plane, with the feature `kube` |
//! | [`mesh`] | a real Istio mesh on top of it, with the feature `kube` |
//! | [`bench`] | what a filter costs per request |

pub mod backend;
pub mod bench;
pub mod checks;
pub mod client;
pub mod clock;
pub mod config;
pub mod dir;
pub mod envoy;
pub mod fake;
pub mod fences;
pub mod flips;
#[cfg(feature = "kube")]
pub mod kube;
pub mod load;
pub mod local;
mod lock;
#[cfg(feature = "kube")]
pub mod mesh;
#[cfg(feature = "kube")]
pub mod netns;
pub mod overlap;
pub mod page;
pub mod points;
pub mod process;
pub mod releases;
pub mod scale;
pub mod soak;
pub mod story;
pub mod talk;
pub mod tree;
pub mod wait;

/// The repository.
pub fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Writes what was measured to this file below `target/`, for people and other programs. Where that is.
pub fn write_results(name: &str, results: &impl serde::Serialize) -> anyhow::Result<std::path::PathBuf> {
    let file = root().join("target").join(name);
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&file, serde_json::to_vec_pretty(results)?)?;
    Ok(file)
}

pub use backend::{Backend, BackendOptions};
pub use client::Call;
pub use dir::TestDir;
pub use envoy::{Envoy, EnvoyOptions};
pub use load::{Kind, Load, LoadPlan, Results};
pub use nix::sys::signal::Signal;
pub use process::Process;
pub use story::story;
pub use talk::Talk;
pub use wait::wait_for;
