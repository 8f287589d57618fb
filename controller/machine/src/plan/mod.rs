//! The state machine: what to do next, from what is asked for, remembered and seen. Pure.
//!
//! One pass either changes the status or acts on it, never both: who drives it writes the status
//! first and acts in a later pass. So every intent is on disk before its act, every act can be
//! repeated, and a restart between any two of them ends at the same place.

mod advance;
mod checks;
mod effects;
mod record;
mod removal;
mod request;
mod settle;
mod upcoming;

use flag::record::Record;

use crate::observation::Observation;
use crate::spec::Spec;
use crate::status::{Blocked, Status};

pub use record::record_of;
pub use upcoming::{Upcoming, upcoming};

/// Something to do. Each may be done again without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Have the version running.
    Start {
        /// Which.
        version: String,
    },
    /// Have the version stopped.
    Stop {
        /// Which.
        version: String,
    },
    /// Have the version, which is stopped, deleted.
    Delete {
        /// Which.
        version: String,
    },
    /// Give the record to the flag service.
    Publish(Box<Record>),
    /// Have the routes lead to the record's versions, and requests without a version to the active one.
    Route(Box<Record>),
    /// Write the record to the configuration of the proxies.
    Configure(Box<Record>),
}

/// What comes out of one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The status to remember.
    pub status: Status,
    /// What to do; empty when the status changed.
    pub effects: Vec<Effect>,
    /// In how many milliseconds to look again at the latest, if nothing happens before.
    pub requeue_ms: Option<u64>,
    /// What is waited for, in one sentence.
    pub waiting: String,
}

/// Why a pass ended where it did.
#[derive(Debug, Clone, Default)]
struct Wait {
    blocked: Option<(&'static str, String)>,
    waiting: String,
    wake_ms: Option<u64>,
}

impl Wait {
    fn moved() -> Wait {
        Wait { wake_ms: Some(0), ..Wait::default() }
    }

    fn on(waiting: impl Into<String>) -> Wait {
        Wait { waiting: waiting.into(), ..Wait::default() }
    }

    fn until(waiting: impl Into<String>, wake_ms: u64) -> Wait {
        Wait { waiting: waiting.into(), wake_ms: Some(wake_ms), ..Wait::default() }
    }

    fn blocked(reason: &'static str, message: impl Into<String>) -> Wait {
        let message = message.into();
        Wait { waiting: message.clone(), blocked: Some((reason, message)), ..Wait::default() }
    }
}

/// One pass.
pub fn step(now_ms: u64, spec: &Spec, status: &Status, seen: &Observation) -> Plan {
    let mut next = status.clone();
    let mut wait = advance::advance(now_ms, spec, &mut next, seen);
    if !suspended(spec, &next)
        && let Err(error) = record::refresh(now_ms, spec, &mut next, seen)
    {
        next = status.clone();
        wait = Wait::blocked(error.reason(), error.to_string());
    }
    next.date();
    if let Some(error) = &seen.spec_error {
        let message = format!("the last edit is not valid, the spec before it stays in force: {error}");
        wait.blocked = Some(("InvalidSpec", message.clone()));
        wait.waiting = message;
    }
    let moved = next != *status;
    if !moved || wait.blocked.is_some() {
        next.blocked = wait.blocked.map(|(reason, message)| Blocked {
            since: status.blocked.as_ref().filter(|old| old.reason == reason).map_or(now_ms, |old| old.since),
            reason: reason.to_owned(),
            message,
        });
    } else if next.phase != status.phase {
        // Or it would take one more write, before a flip is published.
        next.blocked = None;
    }
    let effects = if next == *status { effects::effects(now_ms, spec, status, seen) } else { vec![] };
    let requeue_ms = if next == *status { wait.wake_ms.map(|wake| wake.saturating_sub(now_ms)) } else { Some(0) };
    Plan { status: next, effects, requeue_ms, waiting: wait.waiting }
}

/// Whether nothing may move.
fn suspended(spec: &Spec, status: &Status) -> bool {
    spec.suspend || status.suspended
}

/// The version that is wanted: the spec's, unless another one is held against it.
pub fn wanted<'a>(spec: &'a Spec, status: &'a Status) -> &'a str {
    match &status.r#override {
        Some(held) if held.for_spec_version == spec.version => &held.version,
        _ => &spec.version,
    }
}
