//! What to do next, from what is asked for, remembered and seen. Pure.
//!
//! One pass either changes the status or acts on it, never both: who drives it writes the status
//! first and acts in a later pass. So every intent is on disk before its act, every act can be
//! repeated, and a restart between any two of them ends at the same place.
//!
//! A plan leaves no choice to who executes it: its effects come in order, and all of them are meant.
//!
//! | module | decides |
//! | --- | --- |
//! | `phases` | which phase comes next: the table of phases |
//! | `before_flip`, `after_flip` | what each phase waits for |
//! | `fence` | when requests are held, let go, or given back: mode Fenced |
//! | `transitions` | what a switch becomes when it begins, is flipped, taken back or given up |
//! | `settled` | whether the old version may be removed: the proof |
//! | `requests` | whether a request by hand is granted |
//! | `orders` | whether a version is started anew or stopped because somebody asks for it |
//! | `verdicts` | what the verdicts of checks do to a switch |
//! | `refresh` | when a new record, with a new epoch, is needed |
//! | `effects`, `routes` | what a status asks for, and which routes may be written now |
//! | `upcoming` | what is done after what is waited for |

mod after_flip;
mod before_flip;
mod effects;
mod fence;
mod orders;
mod phases;
mod refresh;
mod requests;
mod routes;
mod settled;
mod transitions;
mod upcoming;
mod verdicts;
mod wait;

use std::collections::BTreeSet;

use flag::record::{Gate, Record};
use strum::VariantNames;

use self::wait::{Wait, blocked};
use crate::duration::Millis;
use crate::observation::{Observation, Occurrence};
use crate::publication::Publication;
use crate::reason::{Problem, Reason, SENTENCE, shortened};
use crate::spec::Spec;
use crate::status::{Blocked, Phase, Status};
use crate::time::UnixMs;

pub use routes::{RouteOrder, ServiceRoutes, WARM_UP};
pub use upcoming::{Upcoming, upcoming};

/// What a pass is about, and cannot change while it is decided.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// When it is.
    pub now: UnixMs,
    /// What is asked for.
    pub spec: &'a Spec,
    /// What is seen.
    pub seen: &'a Observation,
}

impl<'a> Pass<'a> {
    /// What is wrong outside, where nothing may be flipped, scaled or removed meanwhile but to go back.
    fn holding(self) -> Option<&'a Problem> {
        self.seen.problem.as_ref().filter(|problem| problem.reason.holds())
    }
}

/// Something to do, in the order in which it is done. Each may be done again without harm.
#[derive(Debug, Clone, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum Effect {
    /// Mark what belongs to a version that is gone back to, so that a stop of it which was decided before fails.
    Protect {
        /// The version.
        version: String,
        /// The epoch of the record that goes back to it.
        epoch: u64,
    },
    /// Have a version running.
    Start {
        /// The version.
        version: String,
        /// As strong as this version; without one, as it is declared.
        like: Option<String>,
    },
    /// Have the proxies know the clusters of these versions, and of no others.
    Cluster {
        /// The versions.
        versions: BTreeSet<String>,
    },
    /// Give a record to the flag service.
    Publish(Box<Publication>),
    /// Have the routes lead to versions, and requests without a version to the active one.
    Route(Box<RouteOrder>),
    /// Write the record to the configuration of the proxies.
    Configure(Box<Record>),
    /// Have a version stopped.
    Stop {
        /// The version.
        version: String,
    },
    /// Have a version, which is stopped, deleted.
    Delete {
        /// The version.
        version: String,
    },
}

/// What comes out of one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The status to remember.
    pub status: Status,
    /// What to do, in this order; empty when the status changed.
    pub effects: Vec<Effect>,
    /// When to look again at the latest, if nothing happens before.
    pub requeue: Option<Millis>,
    /// What is waited for, in one sentence.
    pub waiting: String,
    /// What keeps the flag from moving on, as the status says it, or what has to be put right first.
    pub problem: Option<Problem>,
}

/// One pass.
pub fn plan(pass: Pass<'_>, status: &Status) -> Plan {
    let mut plan = match &pass.seen.problem {
        // There is nothing to go on with.
        _ if pass.seen.spec_unknown => idle(status),
        Some(_) if status.record.is_none() => idle(status),
        _ => step(pass, status),
    };
    if let Some(problem) = &pass.seen.problem {
        plan.waiting.clone_from(&problem.message);
        plan.problem = Some(problem.clone());
    }
    plan
}

fn idle(status: &Status) -> Plan {
    Plan { status: status.clone(), effects: vec![], requeue: None, waiting: String::new(), problem: None }
}

fn step(pass: Pass<'_>, status: &Status) -> Plan {
    let mut next = status.clone();
    take_in(&pass.seen.occurred, &mut next);
    let mut wait = phases::advance(pass, &mut next);
    // What was held is let go, whatever else may not move.
    let holds = next.record.as_ref().is_some_and(|record| record.gate == Gate::Hold);
    if (holds || !suspended(pass.spec, &next))
        && let Err(error) = refresh::refresh(pass, &mut next)
    {
        next = status.clone();
        wait = blocked(error.reason(), error.to_string());
    }
    next.date_entries();
    if let Some(error) = &pass.seen.spec_error {
        let message = format!("the last edit is not valid, the spec before it stays in force: {error}");
        wait = Wait { wake: wait.wake, ..blocked(Reason::InvalidSpec, message) };
    }
    let (problem, waiting) = (wait.problem, wait.waiting);
    next.blocked = match &problem {
        Some(Problem { reason, message, .. }) => {
            let since = status.blocked.as_ref().filter(|old| old.reason == *reason).map_or(pass.now, |old| old.since);
            Some(Blocked { reason: *reason, message: shortened(message.clone(), SENTENCE), since })
        }
        // Or it would take one more write, before a flip is published.
        None if next == *status || next.phase != status.phase => None,
        None => next.blocked,
    };
    if next != *status {
        return Plan { status: next, effects: vec![], requeue: Some(Millis(0)), waiting, problem };
    }
    let (effects, more_routes) = effects::effects(pass, status);
    let wake = wait.wake.into_iter().chain(more_routes).min();
    let requeue = wake.map(|wake| wake.since(pass.now));
    Plan { status: next, effects, requeue, waiting, problem }
}

/// Notes what happened outside, once.
fn take_in(occurred: &[Occurrence], status: &mut Status) {
    for one in occurred {
        if !status.history.iter().any(|entry| one.is(entry)) {
            status.note(one.at, one.event, one.message.clone());
        }
    }
}

/// What a status asks for that is on disk, while no other one can be written: who serves is kept running, and whatever
/// rests on what was decided since is not done.
pub fn stand_still(pass: Pass<'_>, stored: &Status) -> Vec<Effect> {
    if pass.seen.spec_unknown { vec![] } else { effects::effects(pass, stored).0 }
}

/// Whether nothing may move. A way back is held by nothing, until requests have moved.
fn suspended(spec: &Spec, status: &Status) -> bool {
    let moves = status.phase.before_flip() || matches!(status.phase, Phase::Committing | Phase::Switching);
    (spec.suspend || status.suspended) && !(moves && goes_back(status))
}

/// Whether the switch under way is a rollback.
fn goes_back(status: &Status) -> bool {
    status.switch.as_ref().is_some_and(|switch| switch.rollback)
}

/// The version that is wanted: the spec's, unless another one is held against it.
pub fn wanted<'a>(spec: &'a Spec, status: &'a Status) -> &'a str {
    match &status.r#override {
        Some(held) if held.for_spec_version == spec.version => &held.version,
        _ => &spec.version,
    }
}
