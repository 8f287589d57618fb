//! What one flag makes of what is stored, and of what is seen.

use std::collections::BTreeSet;

use machine::action::{Action, Request};
use machine::observation::Observation;
use machine::reason::{Problem, Reason};
use machine::record::Draft;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;
use serde_json::{Value, json};

use super::Reconciler;
use crate::consent::Consents;
use crate::fake_api::{FakeApi, around, flag};
use crate::resource::{ResourceStatus, VersionFlag};
use crate::turns::{Around, Neighbours, context};

/// Of v1, which waits for a person to let v2 in.
fn waiting(resource: &VersionFlag, epoch: u64) -> Status {
    let versions = BTreeSet::from(["v1".to_owned(), "v2".to_owned()]);
    let draft = Draft {
        uid: "shop-reviews",
        name: "shop/reviews",
        epoch,
        active: "v1",
        versions: &versions,
        preview: None,
        before: None,
    };
    let record = draft.record(&resource.spec, &Observation::unknown()).seal().unwrap();
    let switch = serde_json::from_value(json!({ "from": "v1", "to": "v2", "startedAt": 1 })).unwrap();
    Status {
        phase: Phase::AwaitingPromotion,
        active_version: "v1".to_owned(),
        target_version: Some("v2".to_owned()),
        record: Some(record),
        switch: Some(switch),
        ..Status::new("shop-reviews", "shop/reviews", UnixMs(1))
    }
}

/// An API server with a flag, and its path.
fn begin() -> (FakeApi, String) {
    let api = FakeApi::default();
    let path = flag(&api, "shop", "reviews");
    (api, path)
}

fn read(api: &FakeApi, path: &str) -> VersionFlag {
    serde_json::from_value(api.get(path).unwrap()).unwrap()
}

/// Stores a status, as a leader does.
fn store(api: &FakeApi, path: &str, machine: &Status) -> VersionFlag {
    let mut object = api.get(path).unwrap();
    object["spec"]["version"] = json!("v2");
    object["status"] = json!({ "machine": machine });
    api.put(path, object);
    read(api, path)
}

fn stored(api: &FakeApi, path: &str) -> Value {
    api.get(path).unwrap()["status"]["machine"].take()
}

async fn turn(flag: &mut Reconciler, cached: &VersionFlag, around: &Around) {
    let neighbours = Neighbours::default();
    flag.turn(cached, None, &context(around, (&neighbours, &Consents::NotAsked), 1)).await.unwrap();
}

/// Words are current after a while, and sooner where they are about another matter.
#[rstest]
#[case::the_same_words("a quota leaves 1 of 4", Reason::HeadroomShort, 90_000, false)]
#[case::other_words("no node has room", Reason::HeadroomShort, 29_999, false)]
#[case::for_a_while("no node has room", Reason::HeadroomShort, 30_000, true)]
#[case::another_matter("no node has room", Reason::HeadroomUnknown, 2_000, true)]
#[case::another_matter_just_now("no node has room", Reason::HeadroomUnknown, 1_999, false)]
fn what_blocks_is_said_in_current_words(
    #[case] words: &str,
    #[case] reason: Reason,
    #[case] after: u64,
    #[case] written: bool,
) {
    let said = |words: &str| ResourceStatus { blocked_by: Some(words.to_owned()), ..ResourceStatus::default() };
    let (api, path) = begin();
    let mut flag = Reconciler::new(&read(&api, &path), UnixMs(1));
    flag.written_at = Some(UnixMs(1_000));
    flag.worded = Some(Problem::new(Reason::HeadroomShort, "a quota leaves 1 of 4").about(["v2"]));
    let (before, problem) = (said("a quota leaves 1 of 4"), Problem::new(reason, words).about(["v2"]));
    let due = flag.must_write(UnixMs(1_000 + after), Some(&before), &said(words), Some(&problem));
    assert_eq!(due, written);
}

/// The leader before has granted `suspend`, at the same record, and the cache of the next one does not show it yet.
#[tokio::test]
async fn what_the_leader_before_granted_is_not_undone() {
    let (api, path) = begin();
    let old = waiting(&read(&api, &path), 7);
    let cached = store(&api, &path, &old);
    store(&api, &path, &Status { suspended: true, ..old.clone() });
    let around = around(&api).await;
    let mut next = Reconciler::new(&cached, UnixMs(1));
    turn(&mut next, &cached, &around).await;
    assert_eq!(stored(&api, &path)["suspended"], true);
    // Once it has written it knows what is there: anything else is an edit.
    next.written_at = Some(UnixMs(1));
    let edited = store(&api, &path, &old);
    turn(&mut next, &edited, &around).await;
    assert_eq!(stored(&api, &path)["suspended"], true);
}

/// A record that was edited is none that a leader has written: each of them has an epoch of its own.
#[tokio::test]
async fn an_edited_record_is_taken_over_by_nobody() {
    let (api, path) = begin();
    let old = waiting(&read(&api, &path), 7);
    let cached = store(&api, &path, &old);
    let edited = old.record.clone().map(|record| flag::record::Record { active: "v2".to_owned(), ..record });
    store(&api, &path, &Status { record: edited, suspended: true, ..old.clone() });
    let mut next = Reconciler::new(&cached, UnixMs(1));
    turn(&mut next, &cached, &around(&api).await).await;
    let found = stored(&api, &path);
    assert_eq!((&found["record"]["active"], &found["suspended"]), (&json!("v1"), &json!(false)));
}

#[tokio::test]
async fn a_request_whose_answer_was_not_stored_is_answered_anew() {
    let (api, path) = begin();
    let old = waiting(&read(&api, &path), 7);
    let cached = store(&api, &path, &old);
    store(&api, &path, &Status { previous_version: Some("v0".to_owned()), ..old });
    let around = around(&api).await;
    let request = Request { id: "one".to_owned(), action: Action::Suspend, switch: None };
    assert!(around.hub.requests.push("shop/reviews", request));
    let mut next = Reconciler::new(&cached, UnixMs(1));
    turn(&mut next, &cached, &around).await;
    let found = stored(&api, &path);
    assert_eq!((&found["previousVersion"], &found["suspended"]), (&json!("v0"), &json!(true)));
    assert_eq!(found["lastRequest"]["id"], "one");
    turn(&mut next, &read(&api, &path), &around).await;
    assert!(around.hub.requests.waiting_flags().is_empty());
}

/// Nothing is known of Istio, or of where the filter is, which holds nothing; that there is no such Service does.
#[tokio::test]
async fn what_holds_is_hidden_by_nothing() {
    let (api, path) = begin();
    let mut object = api.get(&path).unwrap();
    object["spec"]["routing"] = json!({ "provider": "Istio" });
    api.put(&path, object);
    let (around, neighbours) = (around(&api).await, Neighbours::default());
    let context = context(&around, (&neighbours, &Consents::NotAsked), 1);
    let seen = Reconciler::new(&read(&api, &path), UnixMs(1)).observe(None, &context);
    let problem = seen.observation.problem.unwrap();
    assert_eq!(problem.reason, Reason::Workloads, "{}", problem.message);
}

/// It is no part of what the state machine remembers, and blocks all the same.
#[tokio::test]
async fn what_has_to_be_put_right_is_in_the_metrics() {
    let (api, path) = begin();
    let around = around(&api).await;
    turn(&mut Reconciler::new(&read(&api, &path), UnixMs(1)), &read(&api, &path), &around).await;
    let metrics = around.hub.metrics_text();
    let line = "versionflag_blocked{flag=\"shop/reviews\",reason=\"Workloads\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
}
