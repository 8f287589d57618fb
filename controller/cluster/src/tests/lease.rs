//! The Lease, at an API server.

use serde_json::json;

use super::Election;
use crate::fake_api::FakeApi;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/home/leases/versionflag";

/// A leader that stood still for long finds the Lease given back by one that has led meanwhile.
#[tokio::test]
async fn a_lease_that_somebody_else_has_had_is_not_gone_on_with() {
    let api = FakeApi::default();
    let (mut election, leadership) = Election::new(api.client(), "home", "versionflag", "a");
    election.turn().await.unwrap();
    assert!(leadership.holds());
    election.turn().await.unwrap();
    assert!(leadership.holds(), "it renews its own");
    let mut lease = api.get(LEASE).unwrap();
    lease["spec"]["holderIdentity"] = json!("");
    api.put(LEASE, lease);
    election.turn().await.unwrap();
    assert!(!leadership.holds(), "what it remembers is forgotten first");
    election.turn().await.unwrap();
    assert!(leadership.holds());
    assert_eq!(api.get(LEASE).unwrap()["spec"]["holderIdentity"], "a");
}
