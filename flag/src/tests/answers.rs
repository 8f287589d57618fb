//! How versions answer: buckets, sums, shares; and what is believed of a report.

use std::collections::BTreeMap;

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{nowhere, record};
use crate::answers::{Answers, Outcome, bucket, split};
use crate::count::{Counters, Totals};
use crate::named::Named;
use crate::table::{Channel, Table};

fn sums(parts: &[&[(u64, bool)]]) -> Answers {
    let mut sums = BTreeMap::new();
    for part in parts {
        let counters = Counters::default();
        for (ms, failed) in *part {
            counters.of("v2").answered(*ms, *failed);
        }
        Answers::add(&mut sums, &counters.answers());
    }
    sums.remove("v2").unwrap_or_default()
}

/// E3.
#[test]
fn what_a_stream_says_at_its_end() {
    let (http, awaited) = (Outcome::Http, Outcome::Awaited);
    let kinds = ["application/grpc", "application/grpc+proto", "application/grpc-web", "text/plain"];
    assert_eq!(kinds.map(|kind| Outcome::of_request(Some(kind))), [awaited, awaited, http, http]);
    assert_eq!(Outcome::of_request(None), http);
    let said = |status: &str| awaited.said(Some(status));
    let whole = "via_upstream";
    for (outcome, status, details, failed) in [
        (http, 200, whole, false),
        (http, 499, "", false),
        (http, 500, whole, true),
        (http, 200, "upstream_reset_after_response_started{remote_reset}", true),
        (http, 200, "http2.remote_reset", false),
        (http.said(Some("14")), 200, whole, false),
        (said("0"), 200, whole, false),
        (said("5"), 200, whole, false),
        (said("2"), 200, whole, true),
        (said("14"), 200, whole, true),
        (said("140"), 200, whole, false),
        (said("0"), 200, "upstream_reset_after_response_started{remote_reset}", true),
        // In the headers, or by Envoy itself.
        (awaited, 200, whole, true),
        (awaited, 200, "no_healthy_upstream", true),
        (awaited.said(None), 200, whole, true),
        (awaited, 200, "downstream_remote_disconnect", false),
        (awaited, 200, "http2.remote_reset", false),
    ] {
        assert_eq!(outcome.failed(status, details), failed, "{outcome:?} {status} {details}");
    }
}

#[test]
fn a_bucket_holds_less_than_twice_the_one_before() {
    let cases = [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1_023, 10), (1_024, 11), (u64::MAX, 17)];
    for (ms, expected) in cases {
        assert_eq!(bucket(ms), expected, "{ms} ms");
    }
}

#[test]
fn proxies_add_up() {
    let answers = sums(&[&[(0, false), (3, true)], &[(3, false), (70_000, false)]]);
    assert_eq!((answers.count(), answers.failed), (4, 1));
    assert_eq!((answers.by_ms.get(2), answers.by_ms.get(17)), (Some(&2), Some(&1)));
}

#[test]
fn a_share_of_the_answers_stays_below_a_latency() {
    let ninety_nine: Vec<(u64, bool)> = (0..100).map(|n| (if n < 99 { 3 } else { 500 }, false)).collect();
    let answers = sums(&[&ninety_nine]);
    assert_eq!(answers.quantile_ms(0.99), Some(4.0));
    assert_eq!(answers.quantile_ms(1.0), Some(512.0));
    assert_eq!(Answers::default().quantile_ms(0.5), None);
}

#[test]
fn keys_are_versions_with_a_bucket() {
    for (key, expected) in
        [("v2/0", Some(("v2", 0))), ("v2/17", Some(("v2", 17))), ("v2/18", None), ("v2", None), ("v2/x", None)]
    {
        assert_eq!(split(key), expected, "{key}");
    }
}

/// What was answered under another record says nothing about the one in effect.
#[test]
fn a_new_record_starts_from_nothing() {
    let mut table = Table::default();
    table.apply(Channel::Service, &[record(9, "v1")], &nowhere);
    let count = |table: &Table| {
        let flag = table.find("reviews").expect("a flag");
        flag.observed.sent.of("v1").answered(1, false);
        flag.state(0).answers.values().map(|totals| totals.started).sum::<u64>()
    };
    assert_eq!((count(&table), count(&table)), (1, 2));
    table.apply(Channel::Service, &[record(9, "v1")], &nowhere);
    assert_eq!(count(&table), 3);
    table.apply(Channel::Service, &[record(10, "v2")], &nowhere);
    assert_eq!(count(&table), 1);
    let totals = |finished| Totals { started: 1, finished };
    let state = table.find("reviews").expect("a flag").state(0);
    assert_eq!(state.answers, Named::from([("v1/1".to_owned(), totals(1))]));
}
