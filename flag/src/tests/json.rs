//! How JSON is read: everything that is written, and nothing else.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;

use super::draft;
use crate::config::{Config, FlagService, Role, Workload};
use crate::count::Totals;
use crate::instance::{FlagState, Instance};
use crate::json::{self, Read};
use crate::lease::Lease;
use crate::named::Named;
use crate::record::{Gate, Preview, Record};
use crate::snapshot::Snapshot;

/// With every field set to something that is not its default.
fn flag() -> Record {
    let preview = Preview { header: "x-try".into(), value: "1".into(), version: "v2".into() };
    Record { gate: Gate::Hold, preview: Some(preview), ..draft(u64::MAX, "v2") }.seal().expect("valid")
}

fn comes_back<T: Read + Serialize + PartialEq + Debug + for<'de> serde::Deserialize<'de>>(value: T) {
    let text = serde_json::to_string(&value).expect("serializable");
    assert_eq!(json::parse::<T>(text.as_bytes()).expect("read"), value);
    assert_eq!(serde_json::from_str::<T>(&text).expect("read by serde"), value);
}

#[test]
fn what_is_written_is_read() {
    let totals = |started| Named::from([("v1".to_owned(), Totals { started, finished: 2 })]);
    let state = FlagState {
        epoch: 7,
        hash: "h".into(),
        gate: Gate::Hold,
        config_epoch: Some(6),
        sent: totals(3),
        arrived: totals(4),
        strangers: totals(6),
        answers: totals(5),
        unroutable: 8,
        conflicts: 9,
        routes: BTreeSet::from(["versionflag:reviews:v1".to_owned()]),
    };
    comes_back(FlagState::default());
    comes_back(Instance { id: 1, round: u64::MAX, flags: Named::from([("u-1".to_owned(), state)]) });
    comes_back(Lease { holder: 3, until_ms: 4 });
    comes_back(Snapshot {
        protocol: 1,
        revision: "\"\\\u{0}\u{e9}".into(),
        report_every_ms: 50,
        prove_routes: vec!["u-1".into()],
        measure: vec!["u-2".into()],
        flags: vec![flag()],
        asks: None,
    });
    for role in [Role::Auto, Role::Caller, Role::Edge, Role::Inbound] {
        comes_back(Config {
            protocol: 1,
            role,
            header: "x-other".into(),
            workload: Some(Workload { service: "ratings".into(), version: "v3".into() }),
            service: Some(FlagService { cluster: "c".into(), authority: "a".into() }),
            first_answer_ms: 1,
            flags: vec![flag()],
        });
    }
}

#[test]
fn what_is_left_out_has_a_default() {
    let config: Config = json::parse(b"{\"protocol\":1,\"service\":{\"cluster\":\"c\"}}").expect("read");
    let service = Some(FlagService { cluster: "c".into(), authority: "versionflag".into() });
    let expected = Config {
        protocol: 1,
        role: Role::Auto,
        header: "x-versionflag".into(),
        workload: None,
        service,
        first_answer_ms: 500,
        flags: vec![],
    };
    assert_eq!(config, expected);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    const TOTALS: &str = "{\"epoch\":1,\"hash\":\"\",\"gate\":\"open\",\"sent\":{\"v1\":{\"started\":1,\"finished\":";
    let ends = [
        ("-1}}}", "expected a whole number in sent.v1.finished"),
        ("1.5}}}", "expected a whole number in sent.v1.finished"),
        ("18446744073709551616}}}", "expected a whole number in sent.v1.finished"),
        ("1}},\"configEpoch\":-1}", "expected a whole number in configEpoch"),
        ("null}}}", "expected a whole number in sent.v1.finished"),
        ("1,\"open\":1}}}", "unknown field `open`, expected `started` or `finished` in sent.v1"),
        ("1,\"started\":1}}}", "duplicate field `started` in sent.v1"),
        ("1}},\"routes\":[\"\",{}]}", "expected a string in routes[1]"),
        ("1}},\"routes\":{}}", "expected a list in routes"),
        ("1}},\"arrived\":[]}", "expected an object in arrived"),
        ("1}}}}", "no JSON from line 1, column 77 on"),
        ("1", "no JSON from line 1, column 73 on"),
    ];
    for (end, message) in ends {
        let text = format!("{TOTALS}{end}");
        let error = json::parse::<FlagState>(text.as_bytes()).expect_err(message).to_string();
        assert!(error.starts_with(message), "{text}: {error:?} should be {message:?}");
    }
    let configs = [
        ("{}", "missing field `protocol`"),
        ("[1]", "expected an object"),
        ("{\"protocol\":4294967296}", "expected a whole number below 2^32 in protocol"),
        ("{\"protocol\":1,\"flags\":[{}]}", "missing field `uid` in flags[0]"),
        (
            "{\"protocol\":1,\"role\":\"x\"}",
            "unknown variant `x`, expected `auto`, `caller`, `edge` or `inbound` in role",
        ),
        ("{\"protocol\":1,\"workload\":{\"service\":true}}", "expected a string in workload.service"),
    ];
    for (text, message) in configs {
        let error = json::parse::<Config>(text.as_bytes()).expect_err(message).to_string();
        assert!(error.starts_with(message), "{text}: {error:?} should be {message:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(json::parse::<Config>(deep.as_bytes()).expect_err("deep").to_string().contains("column 128"));
}
