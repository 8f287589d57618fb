//! What is believed of what watches have told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::observation::Headroom;
use machine::spec::Spec;
use serde_json::{Value, json};
use service::{Authenticator, Hub};

use super::{Cache, Told, no_pods};
use crate::fake_api::FakeApi;
use crate::workloads::Workloads;
use crate::{headroom, proxies};

const LATE: Duration = Duration::from_secs(46);

async fn cache(api: &FakeApi, namespace: Option<&str>, asks: bool) -> Cache {
    let hub = Arc::new(Hub::new(Authenticator::listed()));
    Cache::start(&api.client(), (namespace, asks), &hub, no_pods(), Told::default()).await
}

/// A pod that is terminating on a node that is there no more.
fn left_behind() -> FakeApi {
    let api = FakeApi::default();
    api.put("/api/v1/nodes/near", node());
    api.put(
        "/api/v1/namespaces/shop/pods/web-0",
        json!({
            "metadata": { "name": "web-0", "namespace": "shop", "labels": { "versionflag.io/proxy": "" },
                "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "nodeName": "far", "containers": [{ "name": "app" }] }, "status": { "phase": "Running" },
        }),
    );
    api
}

fn node() -> Value {
    json!({ "metadata": { "name": "near" }, "status": { "allocatable": { "cpu": "4", "pods": "10" } } })
}

fn spec() -> Spec {
    serde_json::from_value(json!({ "version": "v2", "services": [{ "name": "reviews" }] })).unwrap()
}

/// How many proxies have to ack, and whether there is room for nothing.
fn look(cache: &Cache, now: Instant) -> (usize, Headroom) {
    let expected = proxies::expected("shop", &spec(), &cache.near("shop", [], now));
    let beside = headroom::injected(&Workloads::default(), &[]);
    (expected.len(), headroom::look("shop", "v2", &[], &beside, &cache.room("shop", now)))
}

/// C36.
#[tokio::test]
async fn what_is_told_of_nodes_long_ago_proves_nothing() {
    let (cache, now) = (cache(&left_behind(), None, false).await, Instant::now());
    assert_eq!(look(&cache, now), (0, Headroom::Fits));
    assert_eq!(look(&cache, now + LATE), (1, Headroom::Unknown));
    // Nothing else rests on them.
    let about = cache.problem(now + LATE).unwrap().about;
    assert!(about.contains(&"pods".to_owned()) && !about.contains(&"nodes".to_owned()), "{about:?}");
}

/// Without the right to read nodes the controller begins, and waits for every pod.
#[tokio::test]
async fn nodes_that_may_not_be_read_prove_nothing() {
    let api = left_behind();
    api.refuse("/api/v1/nodes");
    let cache = cache(&api, None, false).await;
    assert_eq!(look(&cache, Instant::now()), (1, Headroom::Unknown));
    assert_eq!(cache.problem(Instant::now()), None);
}

/// C36.
#[tokio::test]
async fn consents_of_long_ago_hold() {
    let api = FakeApi::default();
    api.put("/api/v1/namespaces/web", json!({ "metadata": { "name": "web" } }));
    let (asks, now) = (cache(&api, None, true).await, Instant::now());
    assert_eq!(asks.problem(now), None);
    assert!(asks.problem(now + LATE).unwrap().about.contains(&"namespaces".to_owned()));
    // Who asks nobody watches none.
    let asks_not = cache(&api, None, false).await;
    assert!(!asks_not.problem(Instant::now() + LATE).unwrap().about.contains(&"namespaces".to_owned()));
}
