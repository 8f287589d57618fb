//! A VersionFlag as it was read: what this controller does not understand is told, and never lost.

use cluster::reading::{Reading, Unreadable};
use machine::status::Status;
use machine::time::UnixMs;
use rstest::rstest;
use serde_json::{Value, json};

fn flag(spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": {
            "name": "reviews", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "generation": 2,
            "managedFields": [{ "manager": "kubectl" }],
        },
        "spec": spec, "status": status,
    })
}

fn spec() -> Value {
    json!({ "version": "v1", "services": [{ "name": "reviews" }] })
}

fn with(mut value: Value, field: &str, to: Value) -> Value {
    value.as_object_mut().unwrap().insert(field.to_owned(), to);
    value
}

fn machine(uid: &str) -> Value {
    serde_json::to_value(Status::new(uid, "shop/reviews", UnixMs(1))).unwrap()
}

fn unreadable(value: Value) -> Unreadable {
    match Reading::of(value).unwrap() {
        Reading::Unreadable(found) => found,
        Reading::Flag(flag) => panic!("it was read: {flag:?}"),
    }
}

#[rstest]
#[case::new(flag(spec(), Value::Null), None)]
#[case::remembered(flag(spec(), json!({ "machine": machine("u1") })), Some("u1"))]
#[case::no_machine(flag(spec(), json!({ "machine": null })), None)]
// It says nothing of this object; the flag begins anew.
#[case::of_another_object(flag(spec(), json!({ "machine": with(machine("u0"), "later", json!(1)) })), None)]
// What is made from the machine is made again.
#[case::unknown_word(flag(spec(), json!({ "phase": "Fencing", "machine": machine("u1") })), Some("u1"))]
#[case::unknown_field(flag(spec(), json!({ "later": 1, "machine": machine("u1") })), Some("u1"))]
fn what_can_be_read_is_a_flag(#[case] value: Value, #[case] remembered: Option<&str>) {
    let found = Reading::of(value).unwrap();
    let flag = found.flag().unwrap();
    let machine = flag.status.as_ref().and_then(|status| status.machine.as_ref());
    assert_eq!(machine.map(|machine| machine.uid.as_str()), remembered);
    assert_eq!(flag.metadata.managed_fields, None);
    assert_eq!(found.services().collect::<Vec<_>>(), ["reviews"]);
}

const NEWER: &str = "status.machine was written by a newer controller: upgrade this one";
const SPEC: &str = "the spec is not one that this controller understands";

#[rstest]
#[case::field(flag(spec(), json!({ "machine": with(machine("u1"), "later", json!(1)) })), "NewerController", NEWER)]
#[case::phase(flag(spec(), json!({ "machine": with(machine("u1"), "phase", json!("Later")) })), "NewerController", NEWER)]
#[case::no_status_at_all(flag(spec(), json!({ "machine": { "anything": 1 } })), "NewerController", NEWER)]
#[case::not_an_object(flag(spec(), json!({ "machine": "x" })), "NewerController", NEWER)]
#[case::spec_field(flag(with(spec(), "later", json!(1)), Value::Null), "UnreadableSpec", SPEC)]
#[case::spec_word(
    flag(with(spec(), "routing", json!({ "provider": "Later" })), Value::Null), "UnreadableSpec", SPEC
)]
#[case::spec_type(flag(with(spec(), "version", json!(1)), json!({ "machine": machine("u1") })), "UnreadableSpec", SPEC)]
// The machine is what must not be lost.
#[case::both(
    flag(with(spec(), "later", json!(1)), json!({ "machine": with(machine("u1"), "later", json!(1)) })),
    "NewerController", NEWER
)]
fn what_cannot_be_read_says_why(#[case] value: Value, #[case] reason: &str, #[case] message: &str) {
    let found = unreadable(value);
    assert_eq!(found.problem.reason.name(), reason);
    assert!(found.problem.message.starts_with(message), "{}", found.problem.message);
    assert!(!found.problem.message.contains(", expected"), "{}", found.problem.message);
    assert_eq!(found.services, ["reviews"]);

    let patch = found.patch(UnixMs(5_000)).unwrap();
    assert_eq!(patch["metadata"], json!({ "resourceVersion": "7" }));
    let status = patch["status"].as_object().unwrap();
    assert_eq!(status.keys().collect::<Vec<_>>(), ["blockedBy", "conditions", "observedGeneration"]);
    assert_eq!(status["observedGeneration"], json!(2));
    assert_eq!(status["blockedBy"], json!(found.problem.message));
}

#[test]
fn what_is_wrong_is_written_once_and_other_conditions_stay() {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Any", "message": "any", "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let said = json!({
        "conditions": [
            condition("Ready", "False"), condition("Settled", "True"), condition("Reconciling", "True"),
        ],
        "machine": "x",
    });
    let mut value = flag(spec(), said);
    let patch = unreadable(value.clone()).patch(UnixMs(5_000)).unwrap();
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let shown: Vec<_> =
        conditions.iter().map(|one| (&one["type"], &one["status"], &one["lastTransitionTime"])).collect();
    let (old, now) = (json!("2026-01-01T00:00:00Z"), json!("1970-01-01T00:00:05Z"));
    let (yes, no) = (json!("True"), json!("False"));
    let kinds = ["Settled", "Ready", "Stalled"].map(|kind| json!(kind));
    assert_eq!(shown, [(&kinds[0], &yes, &old), (&kinds[1], &no, &old), (&kinds[2], &yes, &now)]);

    for (field, to) in patch["status"].as_object().unwrap() {
        value["status"][field] = to.clone();
    }
    assert_eq!(unreadable(value.clone()).patch(UnixMs(9_000)), None);

    // The next edit is as bad: nobody is to take what was said of the one before for what is said of it.
    value["metadata"]["generation"] = json!(3);
    let patch = unreadable(value).patch(UnixMs(9_000)).unwrap();
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    assert_eq!(patch["status"]["observedGeneration"], json!(3));
    assert_eq!(conditions[1..].iter().map(|one| &one["observedGeneration"]).collect::<Vec<_>>(), [&json!(3); 2]);
}

#[test]
fn without_metadata_it_is_an_error() {
    Reading::of(json!({ "spec": spec(), "metadata": "x" })).unwrap_err();
}
