//! What crosses the wire: golden files, validation with its messages, limits.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{draft, record};
use crate::config::Config;
use crate::limits;
use crate::record::{Preview, Record};
use crate::report::Report;
use crate::snapshot::Snapshot;

const SNAPSHOT: &str = include_str!("../../golden/snapshot.json");
const REPORT: &str = include_str!("../../golden/report.json");
const CONFIG: &str = include_str!("../../golden/config.json");
const ISTIO: &str = include_str!("../../golden/istio.json");

#[test]
fn golden_snapshot_is_what_both_sides_write() {
    let snapshot = Snapshot::parse(SNAPSHOT.as_bytes()).expect("valid");
    assert_eq!(snapshot.flags, [record(1_795_000_000_012, "v2")]);
    assert_eq!(serde_json::to_string_pretty(&snapshot).expect("serializable"), SNAPSHOT.trim_end());
}

#[test]
fn golden_report_is_what_both_sides_write() {
    let report = Report::parse(REPORT.as_bytes()).expect("valid");
    assert_eq!(serde_json::to_string_pretty(&report).expect("serializable"), REPORT.trim_end());
}

#[test]
fn golden_configuration_is_what_both_sides_write() {
    for golden in [CONFIG, ISTIO] {
        let config = Config::parse(golden.as_bytes()).expect("valid");
        assert_eq!(serde_json::to_string_pretty(&config).expect("serializable"), golden.trim_end());
    }
}

#[test]
fn an_empty_configuration_is_one() {
    let config = Config::parse(b"").expect("valid");
    assert_eq!((config.header.as_str(), config.service, config.flags), ("x-versionflag", None, vec![]));
}

#[test]
fn a_record_that_is_not_valid_says_why() {
    type Change = fn(&mut Record);
    let cases: [(Change, &str); 14] = [
        (|r| r.epoch = 0, "epoch is 0"),
        (|r| r.active = "v9".into(), "active names version \"v9\""),
        (|r| r.versions.extend(["-v".into()]), "versions \"-v\" is not a valid name"),
        (|r| r.versions.extend(["v".repeat(64)]), "at most 63"),
        (|r| r.members.clear(), "members has 0 entries"),
        (|r| r.members.push(r.members[0].clone()), "service \"reviews\" occurs twice"),
        (|r| r.members[0].hosts.clear(), "hosts has 0 entries"),
        (|r| r.members[0].service = String::new(), "service \"\" is not a valid name"),
        (|r| r.namespace = "a b".into(), "namespace \"a b\" is not a valid name"),
        (|r| r.version_label = "\"".into(), "versionLabel \"?\" is not a valid name"),
        (|r| r.members[0].selector = ["app= x".into()].into(), "selector \"app= x\" is not a valid name"),
        (
            |r| r.members[0].selector = (0..33).map(|number| format!("l{number}=x")).collect(),
            "selector has 33 entries; it may have 1 to 32",
        ),
        (|r| r.uid = "a b".into(), "uid \"a b\" is not a valid name"),
        (
            |r| r.preview = Some(Preview { header: "x-p".into(), value: "1".into(), version: "v7".into() }),
            "preview.version names version \"v7\"",
        ),
    ];
    for (change, message) in cases {
        let mut record = draft(5, "v1");
        change(&mut record);
        let error = record.seal().expect_err(message).to_string();
        assert!(error.contains(message), "{error:?} should contain {message:?}");
    }
}

#[test]
fn a_changed_record_is_noticed() {
    let mut record = record(5, "v1");
    record.active = "v2".into();
    assert!(record.check().expect_err("changed").to_string().contains("changed on its way"));
}

#[test]
fn spelling_of_hosts_does_not_change_the_record() {
    let mut other = draft(5, "v1");
    other.members[0].hosts = ["Reviews:9080", "REVIEWS.bookinfo.svc.cluster.local."].map(String::from).into();
    assert_eq!(other.seal().expect("valid"), record(5, "v1"));
}

#[test]
fn a_snapshot_that_is_not_valid_says_why() {
    let replaced = |from: &str, to: &str| {
        assert!(SNAPSHOT.contains(from), "the golden file has {from:?}");
        SNAPSHOT.replace(from, to)
    };
    let cases = [
        (String::new(), "not a snapshot"),
        ("garbage".into(), "not a snapshot"),
        (SNAPSHOT[..40].into(), "not a snapshot"),
        (replaced("\"revision\"", "\"surprise\""), "unknown field"),
        (replaced("\"protocol\": 1", "\"protocol\": 9"), "protocol 9 is not understood"),
        (replaced("\"reportEveryMs\": 100", "\"reportEveryMs\": 1"), "it may be 20 to 60000"),
        (replaced("\"active\": \"v2\"", "\"active\": \"v1\""), "changed on its way"),
        (" ".repeat(2 << 20), "are too many"),
    ];
    for (text, message) in cases {
        let error = Snapshot::parse(text.as_bytes()).expect_err(message).to_string();
        assert!(error.contains(message), "{error:?} should contain {message:?}");
    }
}

#[test]
fn two_flags_may_not_claim_one_host() {
    let mut snapshot = Snapshot::parse(SNAPSHOT.as_bytes()).expect("valid");
    let other = Record { uid: "u-2".into(), name: "bookinfo/other".into(), ..draft(7, "v1") };
    snapshot.flags.push(other.seal().expect("valid"));
    let text = serde_json::to_vec(&snapshot).expect("serializable");
    let error = Snapshot::parse(&text).expect_err("conflict").to_string();
    assert!(error.contains("belongs to two flags, \"bookinfo/reviews\" and \"bookinfo/other\""), "{error}");
}

#[test]
fn a_configuration_that_is_not_valid_says_why() {
    let cases = [
        ("{", "not a versionflag configuration"),
        ("{\"protocol\":2}", "protocol 2 is not understood"),
        ("{\"protocol\":1,\"flags\":[{\"versionLable\":\"x\"}]}", "unknown field `versionLable`"),
        ("{\"protocol\":1,\"headr\":\"x\"}", "unknown field `headr`"),
        ("{\"protocol\":1,\"header\":\"X-Flag\"}", "lower-case HTTP header name"),
        ("{\"protocol\":1,\"firstAnswerMs\":60000}", "at most 10000"),
        ("{\"protocol\":1,\"role\":\"sideways\"}", "unknown variant `sideways`"),
    ];
    for (text, message) in cases {
        let error = Config::parse(text.as_bytes()).expect_err(message).to_string();
        assert!(error.contains(message), "{error:?} should contain {message:?}");
    }
}

/// C11: nobody may hold up a flag for ever with an epoch that no clock will reach.
#[test]
fn a_report_with_an_epoch_that_was_never_written_is_refused() {
    let mut report = Report::parse(REPORT.as_bytes()).expect("valid");
    for (epoch, believed) in [(limits::EPOCH_MAX, true), (limits::EPOCH_MAX + 1, false), (u64::MAX, false)] {
        report.flags.values_mut().for_each(|state| state.epoch = epoch);
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(Report::parse(text.as_bytes()).is_ok(), believed, "{epoch}");
    }
}

#[test]
fn a_lying_report_is_refused() {
    let cases = [
        ("\"finished\": 10", "\"finished\": 99", "but 99 finished"),
        ("\"protocol\": 1", "\"protocol\": 3", "protocol 3"),
        ("\"proxy\": \"edge\"", "\"proxy\": \"\"", "cannot be true"),
        ("\"seq\"", "\"sequence\"", "unknown field"),
    ];
    for (from, to, message) in cases {
        assert!(REPORT.contains(from), "the golden file has {from:?}");
        let error = Report::parse(REPORT.replacen(from, to, 1).as_bytes()).expect_err(message).to_string();
        assert!(error.contains(message), "{error:?} should contain {message:?}");
    }
}
