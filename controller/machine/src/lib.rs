//! The pure core of the controller: what to do next, from what is asked for, remembered and seen.
//!
//! No clock, randomness or I/O: time comes in as an argument, in milliseconds. Cargo keeps it so: no
//! dependency of this crate can do I/O, and `make lint` checks that.
//!
//! | module | decides |
//! | --- | --- |
//! | [`spec`] | what an operator may ask for, and what of it is not valid |
//! | [`duration`], [`quantity`] | lengths of time and amounts, as people write them |
//! | [`mismatch`] | what to say of a value of another form |
//! | [`status`] | everything that is remembered |
//! | [`observation`] | what is seen of the world in one pass |
//! | [`action`], [`order`] | what people ask for by hand: of a flag, and of one version |
//! | [`checks`] | what checks ask, and what the answers mean |
//! | [`plan`] | what to do: the next status, or the effects of this one |
//! | [`pace`] | how often proxies report |
//! | [`reach`] | which version the proxies have to reach |
//! | [`fleet`] | what the proxies together say |
//! | [`envoy`] | what Envoy reads from files |
//! | [`simulate`] | nothing: it plays a script, for people who want to know what all this does |

pub mod action;
pub mod checks;
pub mod duration;
pub mod envoy;
pub mod fleet;
pub mod history;
pub mod mismatch;
pub mod observation;
pub mod order;
pub mod pace;
pub mod plan;
pub mod publication;
pub mod quantity;
pub mod reach;
pub mod reason;
pub mod reconcile;
pub mod record;
mod schema;
pub mod simulate;
pub mod spec;
pub mod status;
pub mod time;
mod validate;

#[cfg(test)]
mod fixtures;
