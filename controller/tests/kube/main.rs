//! The pure half of the Kubernetes adapter.

#![allow(clippy::unwrap_used, clippy::panic)]

mod objects;
mod resource;
mod status;
mod workloads;
