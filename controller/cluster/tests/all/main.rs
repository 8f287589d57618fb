//! The pure half of the Kubernetes adapter.

#![allow(clippy::unwrap_used, clippy::panic)]

mod alias;
mod api_requests;
mod attach;
mod consent;
mod domain;
mod gateway;
#[path = "../../../machine/tests/plan/golden.rs"]
mod golden;
mod headroom;
mod health;
mod heard;
mod hosts;
mod identity;
mod index;
mod istio;
mod leader;
mod lease;
mod manifests;
mod objects;
mod proxies;
mod prune;
mod reading;
mod resource;
mod sentences;
mod service_facts;
mod status;
mod steadiness;
#[path = "../../../../docs/table.rs"]
mod table;
mod versions;
mod workloads;
