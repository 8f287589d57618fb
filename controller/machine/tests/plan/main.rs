//! The plan: its phases, its effects in their order, its routes, and what it says while it waits.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod checks;
mod effects;
mod evidence;
mod fence;
mod fixtures;
mod golden;
mod house;
mod orders;
mod outside;
mod phases;
mod properties;
mod publication;
mod reasons;
mod routes;
mod seen;
mod spec;
mod stories;
#[path = "../../../../docs/table.rs"]
mod table;
mod tables;
mod transitions;
mod verdicts;
