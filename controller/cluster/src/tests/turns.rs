//! Turns of many flags beside each other.

use std::cell::Cell;
use std::time::Duration;

use super::Turns;
use crate::fake_api::{FakeApi, around, flag};

const LIMIT: Duration = Duration::from_secs(20);
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/versionflag/endpointslices/versionflag";

/// Runs until something is so.
async fn until(api: &FakeApi, done: impl Fn() -> bool) -> bool {
    let mut turns = Turns::new(around(api).await);
    let mut election = tokio::spawn(std::future::pending());
    let stop = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::pin!(stop);
    let ended = tokio::time::timeout(LIMIT, turns.run(&mut election, stop.as_mut())).await;
    election.abort();
    ended.is_ok_and(|ended| ended.is_ok())
}

// C37
#[tokio::test]
async fn a_slow_namespace_holds_up_no_other() {
    let api = FakeApi::default();
    for one in 0..80 {
        flag(&api, "a-slow", &format!("service-{one}"));
    }
    let quick = flag(&api, "b-quick", "reviews");
    api.stand_still("/namespaces/a-slow/");
    let written = |path: &str| api.get(path).is_some_and(|found| found["status"]["phase"].is_string());
    assert!(until(&api, || written(&quick)).await, "{:?}", api.writes());
    assert!(!written("/apis/versionflag.io/v1alpha1/namespaces/a-slow/versionflags/service-0"));
}

// C20
#[tokio::test]
async fn proxies_are_led_to_who_acts_whoever_has_written_there() {
    let api = FakeApi::default();
    let around = around(&api).await;
    let [here] = &crate::leader::endpoints("versionflag", "a", &["198.18.0.7".parse().unwrap()], 7070, None)[..] else {
        panic!("a slice");
    };
    let lead = async || around.writer.lead(here, || true).await;
    lead().await.unwrap();
    assert_eq!(api.writes(), [format!("POST {SLICE}")]);
    lead().await.unwrap();
    assert_eq!(api.writes(), Vec::<String>::new());
    // A leader of before writes late.
    let mut theirs = api.get(SLICE).unwrap();
    theirs["endpoints"][0]["addresses"] = serde_json::json!(["198.18.0.8"]);
    api.put(SLICE, theirs);
    lead().await.unwrap();
    assert_eq!(api.writes(), [format!("PATCH {SLICE}")]);
    assert_eq!(api.get(SLICE).unwrap()["endpoints"][0]["addresses"][0], "198.18.0.7");
    api.delete(SLICE);
    lead().await.unwrap();
    assert_eq!(api.writes(), [format!("POST {SLICE}")]);
    // Who does not act any more writes nothing.
    api.delete(SLICE);
    around.writer.lead(here, || false).await.unwrap();
    assert_eq!(api.writes(), Vec::<String>::new());
}

// C20
#[tokio::test]
async fn who_leads_looks_again_where_proxies_are_led() {
    let (api, deleted) = (FakeApi::default(), Cell::new(false));
    let led_again = || {
        let led = api.get(SLICE).is_some();
        if led && !deleted.replace(true) {
            api.delete(SLICE);
            return false;
        }
        led
    };
    assert!(until(&api, led_again).await);
    assert_eq!(api.writes(), [format!("POST {SLICE}"), format!("POST {SLICE}")]);
}
