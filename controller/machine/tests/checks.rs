//! Checks: what is valid, what an answer means, and what it does to a switch.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use flag::answers::Answers;
use http::StatusCode;
use machine::checks::{Answer, Questions, Verdict, verdict};
use machine::fleet::ledger::Quiet;
use machine::observation::{Observation, Workload};
use machine::plan::{Plan, record_of, step};
use machine::spec::{Builtin, Percent, Prometheus, Spec};
use machine::status::{Phase, Status, Switch};
use rstest::rstest;

const NOW: u64 = 1_000_000;

fn spec(checks: &str, extra: &str) -> Spec {
    let yaml = format!("{{version: v2, services: [{{name: reviews}}], checks: {checks} {extra}}}");
    serde_saphyr::from_str(&yaml).unwrap()
}

#[rstest]
#[case("[{name: a, builtin: {maxErrorRate: 1%}}]", "")]
#[case("[{name: a, prometheus: {address: 'http://prom:9090', query: up, min: '1'}}]", "")]
#[case("[{name: a, webhook: {url: 'https://smoke.example/run'}}]", "")]
#[case("[{name: a}]", "exactly one of builtin, prometheus and webhook")]
#[case("[{name: a, builtin: {maxErrorRate: 1%}, webhook: {url: 'http://a'}}]", "exactly one of builtin")]
#[case("[{name: a, builtin: {}}]", "set maxErrorRate, maxLatency or both")]
#[case("[{name: a, builtin: {maxLatency: 1s, minRequests: 0}}]", "minRequests is 0")]
#[case("[{name: a, webhook: {url: 'ftp://a'}}]", "\"ftp://a\" is not a URL: write it as http://HOST")]
#[case("[{name: a, webhook: {url: '/path'}}]", "is not a URL")]
#[case("[{name: a, prometheus: {address: 'http://prom', query: up}}]", "set min, max or both")]
#[case("[{name: a, prometheus: {address: 'http://prom', query: up, max: many}}]", "\"many\" is not a number")]
#[case("[{name: a, prometheus: {address: 'http://prom', query: '', max: '1'}}]", "the query is empty")]
#[case("[{name: a, webhook: {url: 'http://a'}, interval: 10ms}]", "interval 10ms is too short")]
#[case("[{name: a, webhook: {url: 'http://a'}}, {name: a, webhook: {url: 'http://b'}}]", "another check has this name")]
#[case("[{name: '', webhook: {url: 'http://a'}}]", "a check needs a name")]
fn a_spec_is_validated(#[case] checks: &str, #[case] wrong: &str) {
    let found = spec(checks, "").validate().join("; ");
    assert!(found.contains(wrong) && found.is_empty() == wrong.is_empty(), "{found:?}");
}

#[rstest]
#[case("1%", Some(10_000), "1%")]
#[case("0.25%", Some(2_500), "0.25%")]
#[case("100%", Some(1_000_000), "100%")]
#[case("0.0001%", Some(1), "0.0001%")]
#[case("100.1%", None, "")]
#[case("1", None, "")]
#[case("-1%", None, "")]
#[case("1.%", None, "")]
#[case("1.00000%", None, "")]
fn a_share_is_read_and_written(#[case] text: &str, #[case] millionths: Option<u32>, #[case] shown: &str) {
    let read = text.parse::<Percent>();
    assert_eq!(read.clone().ok().map(|share| share.0), millionths, "{read:?}");
    assert_eq!(read.map(|share| share.to_string()).unwrap_or_default(), shown);
}

fn answers(count: u64, failed: u64) -> Answers {
    Answers { failed, by_ms: vec![0, count] }
}

#[rstest]
#[case(None, "maxErrorRate: 1%", Verdict::Inconclusive, "0 answers were measured, at least 100 are needed")]
#[case(Some(answers(99, 99)), "maxErrorRate: 1%", Verdict::Inconclusive, "99 answers")]
#[case(Some(answers(100, 1)), "maxErrorRate: 1%", Verdict::Passed, "1% of 100 answers failed, at most 1% may")]
#[case(Some(answers(100, 2)), "maxErrorRate: 1%", Verdict::Failed, "2% of 100 answers failed")]
#[case(Some(answers(1_000_000, 1)), "maxErrorRate: 0%", Verdict::Failed, "0.0001% of")]
#[case(Some(answers(100, 100)), "maxLatency: 5ms", Verdict::Passed, "99% of 100 answers took less than 2 ms")]
#[case(Some(answers(100, 0)), "maxLatency: 1ms", Verdict::Failed, "at most 1ms is allowed")]
#[case(Some(answers(100, 0)), "maxLatency: 5ms, maxErrorRate: 0%", Verdict::Passed, "; ")]
fn what_was_measured(
    #[case] measured: Option<Answers>,
    #[case] bounds: &str,
    #[case] verdict: Verdict,
    #[case] words: &str,
) {
    let check: Builtin = serde_saphyr::from_str(&format!("{{{bounds}}}")).unwrap();
    let (found, message) = verdict::builtin(&check, measured.as_ref());
    assert_eq!(found, verdict, "{message}");
    assert!(message.contains(words), "{message}");
}

const VECTOR: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

fn vector(samples: &str) -> String {
    VECTOR.replace("[]", &format!("[{samples}]"))
}

#[rstest]
#[case(200, vector(r#"{"metric":{},"value":[1.5,"0.5"]}"#), Verdict::Passed, "gives 0.5")]
#[case(200, vector(r#"{"metric":{},"value":[1.5,"0.05"]}"#), Verdict::Failed, "at least 0.1 is needed")]
#[case(200, vector(r#"{"metric":{},"value":[1.5,"1.5"]}"#), Verdict::Failed, "at most 1 is allowed")]
#[case(200, vector(r#"{"metric":{},"value":[1.5,"NaN"]}"#), Verdict::Inconclusive, "no number")]
#[case(200, vector(""), Verdict::Inconclusive, "no data")]
#[case(200, vector(r#"{"value":[1,"1"]},{"value":[1,"1"]}"#), Verdict::Inconclusive, "2 series, one is needed")]
#[case(200, r#"{"data":{"resultType":"scalar","result":[1,"1"]}}"#.to_owned(), Verdict::Passed, "gives 1")]
#[case(200, "<html>".to_owned(), Verdict::Inconclusive, "not that of a Prometheus")]
#[case(400, "{}".to_owned(), Verdict::Inconclusive, "400 Bad Request: is the query right?")]
fn what_prometheus_answers(#[case] status: u16, #[case] body: String, #[case] verdict: Verdict, #[case] words: &str) {
    let check: Prometheus = serde_saphyr::from_str("{address: 'http://p', query: q, min: '0.1', max: '1'}").unwrap();
    let (found, message) = verdict::prometheus(&check, StatusCode::from_u16(status).unwrap(), body.as_bytes());
    assert_eq!(found, verdict, "{message}");
    assert!(message.contains(words), "{message}");
}

#[rstest]
#[case(200, Verdict::Passed)]
#[case(204, Verdict::Passed)]
#[case(302, Verdict::Failed)]
#[case(404, Verdict::Failed)]
#[case(500, Verdict::Failed)]
#[case(503, Verdict::Inconclusive)]
#[case(429, Verdict::Inconclusive)]
fn what_a_webhook_answers(#[case] status: u16, #[case] verdict: Verdict) {
    assert_eq!(verdict::webhook(StatusCode::from_u16(status).unwrap()).0, verdict);
}

/// Everything is fine but for what the check says.
fn seen(verdict: Option<Verdict>, since: u64) -> Observation {
    let ready =
        Workload { declared: true, running: true, ready: true, ready_since: Some(0), exited: None, exists: false };
    let mut seen = Observation::unknown();
    seen.versions = [("v1".to_owned(), ready.clone()), ("v2".to_owned(), ready)].into();
    (seen.fleet.expected, seen.fleet.acked) = (1, 1);
    seen.fleet.old = Quiet::Since(NOW - 60_000);
    let answer = verdict.map(|verdict| Answer { verdict, message: "because".to_owned(), since });
    seen.checks = answer.map(|answer| BTreeMap::from([("a".to_owned(), answer)])).unwrap_or_default();
    seen
}

fn at(phase: Phase, spec: &Spec, rollback: bool) -> Status {
    let flipped = !phase.before_flip();
    let mut status = Status::new("uid", "reviews", NOW - 60_000);
    status.phase = phase;
    status.active_version = if flipped { "v2" } else { "v1" }.to_owned();
    status.target_version = Some("v2".to_owned());
    let at = Some(NOW - 60_000);
    let (flipped_at, acked_at) = (at.filter(|_| flipped), at.filter(|_| flipped));
    let (from, to) = ("v1".to_owned(), "v2".to_owned());
    status.switch = Some(Switch {
        from,
        to,
        rollback,
        headroom_at: at,
        ready_at: at,
        flipped_at,
        acked_at,
        retain_until: Some(NOW),
        ..Switch::default()
    });
    let versions = ["v1".to_owned(), "v2".to_owned()].into();
    let active = status.active_version.clone();
    status.record = Some(record_of("uid", "reviews", NOW - 60_000, &active, &versions, None, spec).seal().unwrap());
    status
}

const LONG: u64 = NOW - 60_000;

#[rstest]
#[case::passed_before(
    Phase::AwaitingPromotion,
    "BeforeFlip",
    "Rollback",
    Some(Verdict::Passed),
    NOW,
    Phase::ProvingRoutes,
    ""
)]
#[case::open_before(
    Phase::AwaitingPromotion,
    "BeforeFlip",
    "Rollback",
    None,
    NOW,
    Phase::AwaitingPromotion,
    "ChecksInconclusive"
)]
#[case::inconclusive_before(
    Phase::AwaitingPromotion,
    "BeforeFlip",
    "Rollback",
    Some(Verdict::Inconclusive),
    LONG,
    Phase::AwaitingPromotion,
    "ChecksInconclusive"
)]
#[case::paused_before(
    Phase::AwaitingPromotion,
    "BeforeFlip",
    "Pause",
    Some(Verdict::Failed),
    LONG,
    Phase::AwaitingPromotion,
    "CheckFailed"
)]
#[case::given_up_before(
    Phase::AwaitingPromotion,
    "BeforeFlip",
    "Rollback",
    Some(Verdict::Failed),
    LONG,
    Phase::Stable,
    ""
)]
#[case::not_asked_before(Phase::AwaitingPromotion, "AfterFlip", "Rollback", None, NOW, Phase::ProvingRoutes, "")]
#[case::passed(Phase::Settling, "AfterFlip", "Rollback", Some(Verdict::Passed), LONG, Phase::Retaining, "")]
#[case::passed_just_now(Phase::Settling, "AfterFlip", "Rollback", Some(Verdict::Passed), NOW, Phase::Settling, "")]
#[case::inconclusive(
    Phase::Settling,
    "AfterFlip",
    "Rollback",
    Some(Verdict::Inconclusive),
    LONG,
    Phase::Settling,
    "ChecksInconclusive"
)]
#[case::rolled_back(Phase::Settling, "AfterFlip", "Rollback", Some(Verdict::Failed), NOW, Phase::Switching, "")]
#[case::rolled_back_early(Phase::Switching, "AfterFlip", "Rollback", Some(Verdict::Failed), NOW, Phase::Switching, "")]
#[case::rolled_back_late(Phase::Retaining, "AfterFlip", "Rollback", Some(Verdict::Failed), NOW, Phase::Switching, "")]
#[case::paused(Phase::Settling, "AfterFlip", "Pause", Some(Verdict::Failed), LONG, Phase::Settling, "CheckFailed")]
#[case::paused_late(
    Phase::Retaining,
    "AfterFlip",
    "Pause",
    Some(Verdict::Failed),
    LONG,
    Phase::Retaining,
    "CheckFailed"
)]
#[case::forgotten_late(Phase::Retaining, "AfterFlip", "Rollback", None, NOW, Phase::Retaining, "ChecksInconclusive")]
#[case::removed(Phase::Retaining, "AfterFlip", "Rollback", Some(Verdict::Passed), LONG, Phase::Removing, "")]
fn what_a_check_does(
    #[case] phase: Phase,
    #[case] when: &str,
    #[case] on_fail: &str,
    #[case] verdict: Option<Verdict>,
    #[case] since: u64,
    #[case] next: Phase,
    #[case] blocked: &str,
) {
    let checks = format!("[{{name: a, when: {when}, onFail: {on_fail}, webhook: {{url: 'http://a'}}}}]");
    let spec = spec(&checks, "");
    let before = at(phase, &spec, false);
    let Plan { status, .. } = step(NOW, &spec, &before, &seen(verdict, since));
    assert_eq!(status.phase, next, "{status:#?}");
    assert_eq!(status.blocked.as_ref().map_or("", |blocked| blocked.reason.as_str()), blocked);
    if verdict == Some(Verdict::Failed) && on_fail == "Rollback" {
        let held = status.r#override.unwrap();
        assert_eq!((status.active_version.as_str(), held.version.as_str()), ("v1", "v1"));
        assert!(held.reason.contains("check a failed for v2: because"), "{}", held.reason);
    }
}

/// Who goes back must not be held up by what failed on the way forward.
#[rstest]
fn a_rollback_asks_nothing(
    #[values(Phase::AwaitingPromotion, Phase::Settling)] phase: Phase,
    #[values(None, Some(Verdict::Failed), Some(Verdict::Inconclusive))] verdict: Option<Verdict>,
    #[values("BeforeFlip", "AfterFlip")] when: &str,
) {
    let spec = spec(&format!("[{{name: a, when: {when}, webhook: {{url: 'http://a'}}}}]"), "");
    let before = at(phase, &spec, true);
    assert_eq!(Questions::of(&spec, &before), None);
    let after = step(NOW, &spec, &before, &seen(verdict, LONG)).status;
    assert_ne!(after.phase, before.phase, "{after:#?}");
    assert_eq!(after.r#override, None);
}

/// A deadline that asks for a rollback gets it; one that asks to proceed is no verdict.
#[rstest]
#[case("Rollback", Phase::Switching)]
#[case("Proceed", Phase::Settling)]
#[case("Wait", Phase::Settling)]
fn without_an_answer_in_time(#[case] on_timeout: &str, #[case] next: Phase) {
    let extra = format!(", settle: {{timeout: 1s, onTimeout: {on_timeout}}}, switch: {{laggards: Proceed}}");
    let spec = spec("[{name: a, webhook: {url: 'http://a'}}]", &extra);
    let before = at(Phase::Settling, &spec, false);
    assert_eq!(step(NOW, &spec, &before, &seen(None, 0)).status.phase, next);
}
