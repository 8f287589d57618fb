//! What checks do to a switch. Pure.

use super::advance::{give_up, roll_back};
use super::{Wait, request};
use crate::checks::Verdict;
use crate::observation::Observation;
use crate::spec::{Check, OnFail, Spec, When};
use crate::status::{Status, Switch};

/// How long nobody minds that there is no answer yet.
const ANSWERS_MS: u64 = 30_000;

/// What is done about a check that failed; `None`: none did.
pub(super) fn failed(
    now_ms: u64,
    spec: &Spec,
    status: &mut Status,
    seen: &Observation,
    switch: &Switch,
) -> Option<Wait> {
    let when = When::at(status.phase)?;
    let fails = |check: &&Check| seen.checks.get(&check.name).is_some_and(|answer| answer.verdict == Verdict::Failed);
    let mut failing = asked(spec, switch, when).filter(fails).peekable();
    // One that asks for the rollback comes first.
    let worst = failing.clone().find(|check| check.on_fail == OnFail::Rollback);
    let check = worst.or_else(|| failing.peek().copied())?;
    let message = seen.checks.get(&check.name).map(|answer| answer.message.as_str()).unwrap_or_default();
    let why = format!("check {} failed for {}: {message}", check.name, switch.to);
    match (check.on_fail, when) {
        (OnFail::Pause, _) => return Some(Wait::blocked("CheckFailed", why)),
        (OnFail::Rollback, When::AfterFlip) => roll_back(now_ms, spec, status, seen, &why),
        (OnFail::Rollback, When::BeforeFlip) => {
            status.note(now_ms, "CheckFailed", why.clone());
            request::hold(now_ms, spec, status, &switch.from, &why);
            give_up(now_ms, status);
        }
    }
    Some(Wait::moved())
}

/// What keeps every check from having passed without a break since `from_ms`, for `long_ms`.
pub(super) fn missing(
    now_ms: u64,
    spec: &Spec,
    status: &Status,
    seen: &Observation,
    switch: &Switch,
    (from_ms, long_ms): (u64, u64),
) -> Option<Wait> {
    let when = When::at(status.phase)?;
    let mut until = 0;
    for check in asked(spec, switch, when) {
        let answer = seen.checks.get(&check.name);
        match answer.filter(|answer| answer.verdict == Verdict::Passed) {
            Some(passed) => until = until.max(passed.since.max(from_ms).saturating_add(long_ms)),
            None => {
                let why = answer.map_or("it was not asked yet", |answer| answer.message.as_str());
                let message = format!("check {} has not passed: {why}", check.name);
                let named = status.phase_since.saturating_add(ANSWERS_MS);
                let blocks = now_ms >= named;
                return Some(if blocks {
                    Wait::blocked("ChecksInconclusive", message)
                } else {
                    Wait::until(message, named)
                });
            }
        }
    }
    (now_ms < until).then(|| Wait::until(format!("{} has to pass its checks for as long", switch.to), until))
}

/// The checks of a switch at this moment. What only goes back is not held up by any.
fn asked<'a>(spec: &'a Spec, switch: &Switch, when: When) -> impl Iterator<Item = &'a Check> + Clone {
    let applies = switch.may_roll_back();
    spec.checks.iter().filter(move |check| applies && check.when == when)
}
