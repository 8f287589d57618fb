//! The ConfigMap of a flag.

use machine::time::UnixMs;
use serde_json::json;

use super::KnownFiles;
use crate::consent::Consents;
use crate::context::TurnError;
use crate::fake_api::{FakeApi, around, flag};
use crate::providers::Files;
use crate::reconciler::Reconciler;
use crate::turns::{Around, Neighbours, context};
use crate::writer::is_conflict;

const MAP: &str = "/api/v1/namespaces/shop/configmaps/versionflag-reviews";

async fn begin() -> (FakeApi, Around, Reconciler) {
    let api = FakeApi::default();
    let path = flag(&api, "shop", "reviews");
    let resource = serde_json::from_value(api.get(&path).unwrap()).unwrap();
    (api.clone(), around(&api).await, Reconciler::new(&resource, UnixMs(0)))
}

/// Asks for one file of this text.
async fn write(flag: &mut Reconciler, around: &Around, text: &str) -> Result<(), TurnError> {
    flag.gathered = Files::from([("routes.json".to_owned(), text.to_owned())]);
    flag.write_gathered(&context(around, (&Neighbours::default(), &Consents::NotAsked), 1)).await
}

/// As if it had been looked at long ago.
fn wait(flag: &mut Reconciler) {
    flag.files = KnownFiles { looked_at: Some(UnixMs(0)), ..std::mem::take(&mut flag.files) };
}

// C20
#[tokio::test]
async fn files_are_put_right_whoever_has_changed_them() {
    let (api, around, mut flag) = begin().await;
    let text = || api.get(MAP).map(|map| map["data"]["routes.json"].clone());
    write(&mut flag, &around, "one").await.unwrap();
    assert_eq!(text(), Some(json!("one")));
    assert_eq!(api.writes().len(), 1);
    // At rest nothing is written, looked at or not.
    write(&mut flag, &around, "one").await.unwrap();
    wait(&mut flag);
    write(&mut flag, &around, "one").await.unwrap();
    assert_eq!(api.writes(), Vec::<String>::new());
    // Deleted.
    api.delete(MAP);
    wait(&mut flag);
    write(&mut flag, &around, "one").await.unwrap();
    assert_eq!(text(), Some(json!("one")));
    // Overwritten.
    let mut theirs = api.get(MAP).unwrap();
    theirs["data"] = json!({ "routes.json": "late", "more": "kept" });
    api.put(MAP, theirs);
    wait(&mut flag);
    write(&mut flag, &around, "one").await.unwrap();
    assert_eq!(text(), Some(json!("one")));
    assert_eq!(api.get(MAP).unwrap()["data"]["more"], "kept");
}

// C20: a leader of before, which has seen an earlier state.
#[tokio::test]
async fn a_late_write_of_files_is_a_conflict() {
    let (api, around, mut first) = begin().await;
    write(&mut first, &around, "one").await.unwrap();
    let resource = first.resource.clone();
    let mut second = Reconciler::new(&resource, UnixMs(0));
    write(&mut second, &around, "two").await.unwrap();
    let late = write(&mut first, &around, "late").await;
    assert!(matches!(&late, Err(TurnError::Api(error)) if is_conflict(error)), "{late:?}");
    assert_eq!(api.get(MAP).unwrap()["data"]["routes.json"], "two");
    // It looks again before it tries again.
    write(&mut first, &around, "three").await.unwrap();
    assert_eq!(api.get(MAP).unwrap()["data"]["routes.json"], "three");
}

#[tokio::test]
async fn files_that_are_too_large_say_so() {
    let (api, around, mut flag) = begin().await;
    let large = "x".repeat(1 << 20);
    let refused = write(&mut flag, &around, &large).await.unwrap_err().to_string();
    assert!(refused.starts_with("ConfigMap shop/versionflag-reviews would have 1048587 bytes"), "{refused}");
    assert_eq!(flag.unwritten.as_deref(), Some(refused.as_str()));
    assert_eq!(api.get(MAP), None);
    write(&mut flag, &around, "small").await.unwrap();
}
