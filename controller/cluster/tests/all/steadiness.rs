//! T1: breaks between two looks are known from what pods count.

use std::sync::Arc;

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
    let first = [pod("a", 0, "10"), pod("b", 0, "10")];
    let mut steadiness = Steadiness::default();
    let mut take = |now, ready, pods: &[Pod]| steadiness.take(UnixMs(now), ready, [(0, &*shared(pods))].into_iter());
    assert_eq!(take(1_000, true, &first), Some(UnixMs(1_000)));
    assert_eq!(take(2_000, ready, then), since.map(UnixMs));
    assert_eq!(take(3_000, true, then), since.or(Some(3_000)).map(UnixMs));
}

fn shared(pods: &[Pod]) -> Vec<Arc<Pod>> {
    pods.iter().cloned().map(Arc::new).collect()
}

/// F10: what may be missing may come and go.
#[rstest]
#[case::one_of_them(1, &[pod("a", 1, "12"), pod("b", 0, "10")], 1_000)]
#[case::two_of_them(1, &[pod("a", 1, "12"), pod("b", 1, "12")], 2_000)]
#[case::none_may_be_missing(0, &[pod("a", 1, "12"), pod("b", 0, "10")], 2_000)]
fn a_pod_that_can_be_spared_breaks_nothing(#[case] spare: usize, #[case] then: &[Pod], #[case] since: u64) {
    let first = [pod("a", 0, "10"), pod("b", 0, "10")];
    let mut steadiness = Steadiness::default();
    let mut take = |now, pods: &[Pod]| steadiness.take(UnixMs(now), true, [(spare, &*shared(pods))].into_iter());
    assert_eq!(take(1_000, &first), Some(UnixMs(1_000)));
    assert_eq!(take(2_000, then), Some(UnixMs(since)));
}

/// Where no pod was ready in both looks, nobody knows what was in between: the only one may have gone first.
#[rstest]
#[case::all_are_others(0, &[pod("c", 0, "58"), pod("d", 0, "59")], 60_000)]
#[case::who_stayed_was_away(1, &[pod("a", 0, "30"), pod("c", 0, "58")], 60_000)]
#[case::one_is_still_there(0, &[pod("b", 0, "10"), pod("c", 0, "58")], 1_000)]
fn a_version_of_which_no_pod_stayed_is_ready_since_now(#[case] spare: usize, #[case] then: &[Pod], #[case] since: u64) {
    let first = [pod("a", 0, "10"), pod("b", 0, "10")];
    let mut steadiness = Steadiness::default();
    let mut take = |now, pods: &[Pod]| steadiness.take(UnixMs(now), true, [(spare, &*shared(pods))].into_iter());
    assert_eq!(take(1_000, &first), Some(UnixMs(1_000)));
    assert_eq!(take(60_000, then), Some(UnixMs(since)));
    assert_eq!(take(61_000, then), Some(UnixMs(since)));
}

#[test]
fn a_rolling_restart_that_is_seen_in_steps_breaks_nothing() {
    let mut steadiness = Steadiness::default();
    let steps = [["a", "b"], ["b", "c"], ["c", "d"]];
    for (now, uids) in (1_000..).step_by(1_000).zip(steps) {
        let pods = shared(&uids.map(|uid| pod(uid, 0, "10")));
        assert_eq!(steadiness.take(UnixMs(now), true, [(0, &*pods)].into_iter()), Some(UnixMs(1_000)), "{uids:?}");
    }
}

/// Each Service is served by its own pods.
#[test]
fn every_service_has_a_pod_that_stayed() {
    let mut steadiness = Steadiness::default();
    let mut take = |now, one: &[Pod], other: &[Pod]| {
        steadiness.take(UnixMs(now), true, [(0, &*shared(one)), (0, &*shared(other))].into_iter())
    };
    assert_eq!(take(1_000, &[pod("a", 0, "10")], &[pod("b", 0, "10")]), Some(UnixMs(1_000)));
    assert_eq!(take(2_000, &[pod("a", 0, "10")], &[pod("c", 0, "20")]), Some(UnixMs(2_000)));
}
