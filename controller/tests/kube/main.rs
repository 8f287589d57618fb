//! The pure half of the Kubernetes adapter.

#![allow(clippy::unwrap_used, clippy::panic)]

mod headroom;
mod leader;
mod lease;
mod objects;
mod proxies;
mod resource;
mod status;
mod workloads;
