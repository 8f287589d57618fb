//! What the verdicts of checks do to a switch. Pure.

use super::Pass;
use super::transitions::{give_up, hold, roll_back};
use super::wait::Wait;
use crate::checks::Verdict;
use crate::duration::Millis;
use crate::history::Happening;
use crate::reason::{Problem, Reason};
use crate::spec::{Check, OnFail, Spec, When};
use crate::status::{Status, Switch};
use crate::time::UnixMs;

/// How long nobody minds that there is no answer yet.
const ANSWERED_WITHIN: Millis = Millis(30_000);

/// What is done about a check that failed; `None`: none did.
pub(super) fn failed(pass: Pass<'_>, status: &mut Status, switch: &Switch) -> Option<Wait> {
    let (spec, seen) = (pass.spec, pass.seen);
    let when = When::at(status.phase)?;
    let fails = |check: &&Check| seen.checks.get(&check.name).is_some_and(|answer| answer.verdict == Verdict::Failed);
    let mut failing = asked(spec, switch, when).filter(fails).peekable();
    // One that asks for the rollback comes first.
    let worst = failing.clone().find(|check| check.on_fail == OnFail::Rollback);
    let check = worst.or_else(|| failing.peek().copied())?;
    let message = seen.checks.get(&check.name).map(|answer| answer.message.as_str()).unwrap_or_default();
    let why = format!("check {} failed for {}: {message}", check.name, switch.to);
    match (check.on_fail, when) {
        (OnFail::Pause, _) => {
            return Some(Wait::blocked(Problem::new(Reason::CheckFailed, why).about([check.name.as_str()])));
        }
        (OnFail::Rollback, When::AfterFlip) => roll_back(pass, status, &why),
        (OnFail::Rollback, When::BeforeFlip) => {
            status.note(pass.now, Happening::CheckFailed, why.clone());
            hold(pass, status, &switch.from, &why);
            give_up(pass.now, status);
        }
    }
    Some(Wait::moved())
}

/// What keeps every check from having passed without a break since `from`, for `period`.
pub(super) fn missing(pass: Pass<'_>, status: &Status, switch: &Switch, from: UnixMs, period: Millis) -> Option<Wait> {
    let when = When::at(status.phase)?;
    let mut until = UnixMs(0);
    for check in asked(pass.spec, switch, when) {
        let answer = pass.seen.checks.get(&check.name);
        match answer.filter(|answer| answer.verdict == Verdict::Passed) {
            Some(passed) => until = until.max(passed.since.max(from).plus(period)),
            None => {
                let why = answer.map_or("it was not asked yet", |answer| answer.message.as_str());
                let message = format!("check {} has not passed: {why}", check.name);
                let problem = Problem::new(Reason::ChecksInconclusive, message).about([check.name.as_str()]);
                return Some(Wait::named_from(pass.now, status.phase_since.plus(ANSWERED_WITHIN), problem));
            }
        }
    }
    (pass.now < until).then(|| Wait::until(format!("{} has to pass its checks for as long", switch.to), until))
}

/// The checks of a switch at this moment. What only goes back is not held up by any.
fn asked<'a>(spec: &'a Spec, switch: &Switch, when: When) -> impl Iterator<Item = &'a Check> + Clone {
    let applies = switch.may_roll_back();
    spec.checks.iter().filter(move |check| applies && check.when == when)
}
