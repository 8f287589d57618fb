//! Why a pass ended where it did. Pure.

use crate::reason::{Problem, Reason};
use crate::time::UnixMs;

/// What is waited for, and whether it blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Wait {
    /// What keeps the flag from moving on; `None`: it moves, or only has to wait.
    pub(super) problem: Option<Problem>,
    /// What is waited for, in one sentence.
    pub(super) waiting: String,
    /// When time alone may help.
    pub(super) wake: Option<UnixMs>,
}

impl Wait {
    /// The status changed: nothing is waited for.
    pub(super) fn moved() -> Wait {
        Wait { wake: Some(UnixMs(0)), ..Wait::default() }
    }

    /// On something that does not block.
    pub(super) fn on(waiting: impl Into<String>) -> Wait {
        Wait { waiting: waiting.into(), ..Wait::default() }
    }

    /// On the clock.
    pub(super) fn until(waiting: impl Into<String>, wake: UnixMs) -> Wait {
        Wait { wake: Some(wake), ..Wait::on(waiting) }
    }

    /// On somebody.
    pub(super) fn blocked(problem: Problem) -> Wait {
        Wait { problem: Some(problem.clone()), ..Wait::on(problem.message) }
    }

    /// On what passes by itself, or on somebody.
    pub(super) fn problem(problem: &Problem) -> Wait {
        if problem.reason.passes() { Wait::on(&problem.message) } else { Wait::blocked(problem.clone()) }
    }

    /// On what is nobody's fault before `named`, and blocks from then on.
    pub(super) fn named_from(now: UnixMs, named: UnixMs, problem: Problem) -> Wait {
        if now < named { Wait::until(problem.message, named) } else { Wait::blocked(problem) }
    }
}

/// What blocks, in a word and a sentence.
pub(super) fn blocked(reason: Reason, message: impl Into<String>) -> Wait {
    Wait::blocked(Problem::new(reason, message))
}
