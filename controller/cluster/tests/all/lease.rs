//! Which replica acts.

use std::time::Duration;

use cluster::lease::{ElectionStep, LeaseView, evaluate, went_back, written_at};
use machine::time::UnixMs;
use rstest::rstest;
use serde_json::json;

#[rstest]
#[case::nobody_ever(None, ElectionStep::Take)]
#[case::given_back(Some(("", 0)), ElectionStep::Take)]
#[case::ours(Some(("me", 3_600)), ElectionStep::Renew)]
#[case::theirs(Some(("other", 0)), ElectionStep::Follow)]
#[case::theirs_still(Some(("other", 14)), ElectionStep::Follow)]
#[case::theirs_no_more(Some(("other", 15)), ElectionStep::Take)]
fn who_is_silent_for_a_term_acts_no_more(#[case] lease: Option<(&str, u64)>, #[case] verdict: ElectionStep) {
    let seen = lease.map(|(holder, s)| LeaseView { holder: holder.to_owned(), unchanged: Duration::from_secs(s) });
    assert_eq!(evaluate("me", seen.as_ref()), verdict);
}

#[rstest]
#[case::unchanged("7", "7", false)]
#[case::written("9", "10", false)]
#[case::restored("10", "9", true)]
#[case::not_a_number("10", "", false)]
fn an_older_version_is_seen_only_after_a_restore(#[case] before: &str, #[case] now: &str, #[case] back: bool) {
    assert_eq!(went_back(before, now), back);
}

#[test]
fn the_api_server_dates_a_lease() {
    let entry = |time: &str, fields: serde_json::Value| json!({ "manager": "any", "time": time, "fieldsV1": fields });
    let lease = |entries: serde_json::Value| {
        serde_json::from_value(json!({ "metadata": { "managedFields": entries }, "spec": {} })).expect("a Lease")
    };
    let renews = json!({ "f:spec": { "f:renewTime": {} } });
    let entries = json!([
        entry("1970-01-01T00:00:03Z", renews.clone()),
        entry("1970-01-01T00:00:07Z", renews),
        entry("1970-01-01T00:00:09Z", json!({ "f:metadata": { "f:labels": {} } })),
    ]);
    assert_eq!(written_at(&lease(entries)), Some(UnixMs(7_500)));
    assert_eq!(written_at(&lease(json!([]))), None);
}
