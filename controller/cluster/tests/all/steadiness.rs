//! T1: breaks between two looks are known from what pods count.

use cluster::steadiness::Steadiness;
use k8s_openapi::api::core::v1::Pod;
use machine::time::UnixMs;
use rstest::rstest;

fn pod(uid: &str, restarts: i32, ready_at: &str) -> Pod {
    let text = format!(
        "{{metadata: {{name: {uid}, uid: {uid}}}, status: {{containerStatuses: [{{name: app, image: a, imageID: a, \
         ready: true, restartCount: {restarts}}}], conditions: [{{type: Ready, status: 'True', \
         lastTransitionTime: '2026-01-01T00:00:{ready_at}Z'}}]}}}}"
    );
    serde_saphyr::from_str(&text).unwrap()
}

#[rstest]
#[case::nothing_changed(&[pod("a", 0, "10"), pod("b", 0, "10")], true, Some(1_000))]
#[case::a_container_was_started_again(&[pod("a", 1, "10"), pod("b", 0, "10")], true, Some(2_000))]
#[case::it_was_not_ready_in_between(&[pod("a", 0, "12"), pod("b", 0, "10")], true, Some(2_000))]
#[case::there_are_more(&[pod("a", 0, "10"), pod("b", 0, "10"), pod("c", 0, "15")], true, Some(1_000))]
#[case::there_are_less(&[pod("a", 0, "10")], true, Some(1_000))]
#[case::it_is_not_ready(&[pod("a", 0, "10")], false, None)]
fn a_version_is_ready_since_its_last_break(#[case] then: &[Pod], #[case] ready: bool, #[case] since: Option<u64>) {
    let mut steadiness = Steadiness::default();
    let first = [pod("a", 0, "10"), pod("b", 0, "10")];
    assert_eq!(steadiness.take(UnixMs(1_000), true, first.iter()), Some(UnixMs(1_000)));
    assert_eq!(steadiness.take(UnixMs(2_000), ready, then.iter()), since.map(UnixMs));
    assert_eq!(steadiness.take(UnixMs(3_000), true, then.iter()), since.or(Some(3_000)).map(UnixMs));
}
