//! Checks: what is valid, and what an answer means.

use flag::answers::Answers;
use http::StatusCode;
use machine::checks::{Verdict, verdict};
use machine::spec::{Builtin, Percent, Prometheus};
use rstest::rstest;

use crate::fixtures::spec;

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
    let found = spec(&format!("checks: {checks}")).validate().join("; ");
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
