//! The contract between the filter and the controller, and every decision that both share.
//!
//! Pure: no clock, randomness, I/O, Kubernetes or proxy-wasm. Time comes in as an argument, in
//! milliseconds. Both sides parse the golden files in `flag/golden/`.
//!
//! | module | decides |
//! | --- | --- |
//! | [`record`] | what a valid flag is, and its content hash |
//! | [`snapshot`] | what a proxy is sent: all its flags, and what it is asked to do |
//! | [`merge`] | which of two records of one flag is in effect |
//! | [`epoch`] | the next epoch |
//! | [`config`] | what a filter is told at start |
//! | [`fence`] | what waits and what is refused, so that two versions never handle requests at once |
//! | [`host`] | which flag a host belongs to, spelling ignored |
//! | [`table`] | the flags in effect, compiled for look-up, and the decision for a request |
//! | [`count`] | requests in flight by version |
//! | [`instance`] | one VM instance's part of a report, and the sum of all parts |
//! | [`route`] | what the name of a route says about a proxy's routes |
//! | [`report`] | what a proxy reports, and which reports are believed |
//! | [`level`] | how what crosses the wire grows, and what builds of different age read of it |
//! | [`probe`] | whether every worker of a proxy reaches a version |
//! | [`stray`] | which requests went to a version past the flag |
//! | [`named`] | values by name |
//! | [`proxy`] | how a proxy is called, and whether it is a gateway |
//! | [`digest`] | what tells contents and long names apart: SHA-256 as hex digits |
//! | [`json`] | how JSON of the other side is read |
//! | [`lease`] | which VM instance of a proxy talks to the flag service |
//! | [`answers`] | how a version answers: failures and latencies |
//! | [`backoff`] | when to try the flag service again |

pub mod answers;
pub mod backoff;
pub mod config;
pub mod count;
pub mod digest;
pub mod epoch;
pub mod fence;
pub mod health;
pub mod host;
pub mod instance;
pub mod json;
pub mod lease;
pub mod level;
pub mod limits;
pub mod merge;
pub mod named;
pub mod probe;
pub mod proxy;
pub mod record;
pub mod report;
pub mod route;
pub mod snapshot;
pub mod stray;
pub mod table;

/// Version of everything in this crate that crosses the wire. There has been one so far: see [`level`] for how it grows.
pub const PROTOCOL: u32 = 1;

/// Text of unknown origin, short enough for a message.
pub fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Text of unknown origin, for a message, where nothing of it can be taken for another one. `Debug` has
/// tables of Unicode for that, which the filter has no room for.
pub fn quoted(text: &str) -> String {
    let shown = |letter| if matches!(letter, ' ' | '!' | '#'..='~') { letter } else { '?' };
    format!("\"{}\"", text.chars().map(shown).collect::<String>())
}

#[cfg(test)]
mod tests;
