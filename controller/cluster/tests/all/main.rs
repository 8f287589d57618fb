//! The pure half of the Kubernetes adapter.

#![allow(clippy::unwrap_used, clippy::panic)]

mod api_requests;
mod attach;
mod domain;
mod gateway;
mod headroom;
mod hosts;
mod identity;
mod index;
mod istio;
mod leader;
mod lease;
mod objects;
mod proxies;
mod prune;
mod reading;
mod resource;
mod service_facts;
mod status;
mod steadiness;
#[path = "../../../../docs/table.rs"]
mod table;
mod workloads;
