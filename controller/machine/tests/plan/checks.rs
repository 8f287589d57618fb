//! What a check does to a switch.

use machine::checks::{Questions, Verdict};
use machine::reason::Reason;
use machine::status::Phase;
use rstest::rstest;

use crate::fixtures::*;

/// The check `a` has this verdict since then, or nobody has asked it.
fn answered(verdict: Option<Verdict>, since: u64) -> Seen {
    verdict.map_or_else(seen, |verdict| seen().checked(verdict, since))
}

const INCONCLUSIVE: Option<Reason> = Some(Reason::ChecksInconclusive);
const FAILED: Option<Reason> = Some(Reason::CheckFailed);
const NO_ANSWER: Option<Verdict> = None;

const BEFORE: &str = "when: BeforeFlip, onFail: Rollback";
const AFTER: &str = "when: AfterFlip, onFail: Rollback";
const BEFORE_PAUSE: &str = "when: BeforeFlip, onFail: Pause";
const AFTER_PAUSE: &str = "when: AfterFlip, onFail: Pause";

use Phase::{AwaitingPromotion, ProvingRoutes, Removing, Retaining, Settling, Stable, Switching};
use Verdict::{Failed, Inconclusive, Passed};

#[rstest]
#[case::passed_before(AwaitingPromotion, BEFORE, Some(Passed), NOW, ProvingRoutes, None)]
#[case::open_before(AwaitingPromotion, BEFORE, NO_ANSWER, NOW, AwaitingPromotion, INCONCLUSIVE)]
#[case::inconclusive_before(AwaitingPromotion, BEFORE, Some(Inconclusive), LONG_AGO, AwaitingPromotion, INCONCLUSIVE)]
#[case::paused_before(AwaitingPromotion, BEFORE_PAUSE, Some(Failed), LONG_AGO, AwaitingPromotion, FAILED)]
#[case::given_up_before(AwaitingPromotion, BEFORE, Some(Failed), LONG_AGO, Stable, None)]
#[case::not_asked_before(AwaitingPromotion, AFTER, NO_ANSWER, NOW, ProvingRoutes, None)]
#[case::passed(Settling, AFTER, Some(Passed), LONG_AGO, Retaining, None)]
#[case::passed_just_now(Settling, AFTER, Some(Passed), NOW, Settling, None)]
#[case::inconclusive(Settling, AFTER, Some(Inconclusive), LONG_AGO, Settling, INCONCLUSIVE)]
#[case::rolled_back(Settling, AFTER, Some(Failed), NOW, Switching, None)]
#[case::rolled_back_early(Switching, AFTER, Some(Failed), NOW, Switching, None)]
#[case::rolled_back_late(Retaining, AFTER, Some(Failed), NOW, Switching, None)]
#[case::paused(Settling, AFTER_PAUSE, Some(Failed), LONG_AGO, Settling, FAILED)]
#[case::paused_late(Retaining, AFTER_PAUSE, Some(Failed), LONG_AGO, Retaining, FAILED)]
#[case::forgotten_late(Retaining, AFTER, NO_ANSWER, NOW, Retaining, INCONCLUSIVE)]
#[case::removed(Retaining, AFTER, Some(Passed), LONG_AGO, Removing, None)]
fn what_a_check_does(
    #[case] phase: Phase,
    #[case] check: &str,
    #[case] verdict: Option<Verdict>,
    #[case] since: u64,
    #[case] to: Phase,
    #[case] reason: Option<Reason>,
) {
    let checks = format!("checks: [{{name: a, {check}, webhook: {{url: 'http://a'}}}}]");
    let status = next(&checks, &switching(phase), &answered(verdict, since));
    assert_eq!(status.phase, to, "{status:#?}");
    assert_eq!(blocked(&status), reason);
    if verdict == Some(Failed) && check.contains("Rollback") {
        let held = status.r#override.unwrap();
        assert_eq!((status.active_version.as_str(), held.version.as_str()), ("v1", "v1"));
        assert!(held.reason.contains("check a failed for v2: because"), "{}", held.reason);
    }
}

/// Who goes back must not be held up by what failed on the way forward.
#[rstest]
fn a_rollback_asks_nothing(
    #[values(AwaitingPromotion, Settling)] phase: Phase,
    #[values(None, Some(Failed), Some(Inconclusive))] verdict: Option<Verdict>,
    #[values("BeforeFlip", "AfterFlip")] when: &str,
) {
    let spec = spec(&format!("checks: [{{name: a, when: {when}, webhook: {{url: 'http://a'}}}}]"));
    let before = with_switch(switching(phase), |switch| switch.rollback = true);
    assert_eq!(Questions::of(&spec, &before), None);
    let after = pass(&spec, &before, &answered(verdict, LONG_AGO)).status;
    assert_ne!(after.phase, before.phase, "{after:#?}");
    assert_eq!(after.r#override, None);
}

/// A deadline that asks for a rollback gets it; one that asks to proceed is no verdict.
#[rstest]
#[case("Rollback", Switching)]
#[case("Proceed", Settling)]
#[case("Wait", Settling)]
fn without_an_answer_in_time(#[case] on_timeout: &str, #[case] to: Phase) {
    let more = format!(
        "checks: [{{name: a, webhook: {{url: 'http://a'}}}}], settle: {{timeout: 1s, onTimeout: {on_timeout}}}, \
         switch: {{laggards: Proceed}}"
    );
    assert_eq!(next(&more, &switching(Settling), &answered(None, 0)).phase, to);
}
