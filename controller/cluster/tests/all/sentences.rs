//! The sentences of conditions are true of what is known.

use machine::fleet::ledger::{Fleet, Laggard, Quiet};
use machine::reason::{Problem, Reason};
use machine::spec::{Headroom, Percent};
use machine::status::Status;
use rstest::rstest;

use crate::objects::Cluster;
use crate::status::{DONE, RETAINING, SETTLING, STABLE, World, world};
use cluster::status::foremost;
use cluster::workloads::Workloads;

/// Status, reason and sentence of a condition.
fn said(world: &World, kind: &str) -> String {
    let condition = world.status(1_000_000).conditions.into_iter().find(|one| one.type_ == kind).unwrap();
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

fn laggard(why: &str) -> Laggard {
    Laggard { proxy: "edge".to_owned(), why: why.to_owned() }
}

#[rstest]
#[case::proved(RETAINING, false, Quiet::Since(1), "nothing reaches v1 any more")]
#[case::after_a_restart(RETAINING, false, Quiet::Unknown, "nothing reached v1 any more when it settled")]
#[case::while_suspended(RETAINING, false, Quiet::Busy { open: 1 }, "1 request is open on v1")]
#[case::waived(RETAINING, true, Quiet::Busy { open: 3 },
    "it went on without proof, as settle.onTimeout asks: 3 requests are open on v1")]
#[case::waived_and_closed(RETAINING, true, Quiet::Busy { open: 0 },
    "it went on without proof, as settle.onTimeout asks: requests were sent to v1 lately")]
#[case::waived_and_unknown(
    RETAINING,
    true,
    Quiet::Unknown,
    "it went on without proof, as settle.onTimeout asks: it is not known whether something reaches v1"
)]
#[case::removed(DONE, false, Quiet::Unknown, "nothing reached v1 any more, and it is removed")]
#[case::waived_and_removed(
    DONE,
    true,
    Quiet::Unknown,
    "it went on without proof, as settle.onTimeout asks, and v1 is removed"
)]
fn what_settled_is_said_by_what_is_known(
    #[case] machine: &str,
    #[case] waived: bool,
    #[case] old: Quiet,
    #[case] message: &str,
) {
    let mut world = world(machine);
    world.machine.switch.as_mut().unwrap().waived = waived;
    world.fleet.old = old;
    assert_eq!(said(&world, "Settled"), format!("True Settled: {message}"));
}

#[rstest]
#[case::all(2, 2, "every proxy sends new requests to v2", "v2 serves")]
#[case::one_lags(
    1,
    2,
    "1 of 2 proxies are known to send new requests to v2",
    "v2 serves, and 1 of 2 proxies are known to have its record"
)]
#[case::there_is_none(0, 0, "0 of 0 proxies are known to send new requests to v2", "v2 serves")]
fn who_sends_to_the_new_version_is_counted(
    #[case] acked: usize,
    #[case] expected: usize,
    #[case] switched: &str,
    #[case] ready: &str,
) {
    let mut world = world(SETTLING);
    world.fleet = Fleet { acked, ..Fleet::unknown(expected) };
    assert_eq!(said(&world, "Switched"), format!("True Acked: {switched}"));
    assert_eq!(said(&world, "Ready"), format!("True Serving: {ready}"));
}

#[test]
fn a_removal_is_said_to_be_over_when_it_is() {
    for (machine, message) in [(SETTLING, "v1 only has to be removed"), (DONE, "v1 was only removed")] {
        let mut world = world(machine);
        world.machine.switch.as_mut().unwrap().removal = true;
        assert_eq!(said(&world, "Switched"), format!("True Removal: {message}"));
    }
}

#[rstest]
#[case(SETTLING)]
#[case::at_rest_with_what_stays(DONE)]
fn routes_past_which_requests_go_are_not_ready(#[case] machine: &str) {
    let mut world = world(machine);
    world.fleet.strays.push(laggard("3 to GET reviews/, by route \"old\" to cluster reviews-v1"));
    let first = world.status(1_000_000);
    assert_eq!(
        said(&world, "RoutesReady"),
        "False PastTheFlag: requests have gone past the flag, such as at edge: 3 to GET reviews/, by route \"old\" to \
         cluster reviews-v1"
    );
    // More of them are no news.
    world.fleet.strays = vec![laggard("4 to GET reviews/, by route \"old\" to cluster reviews-v1")];
    assert!(world.status(1_000_000).same_but_wording(&first));
}

#[rstest]
#[case::whole(3, "v2 is at full strength")]
#[case::a_share(2, "v2 is as strong as coexistence.ready asks for: 2 of 3 pods serve in Service reviews")]
fn how_strong_the_target_is_is_said(#[case] serving: i32, #[case] message: &str) {
    let mut world = world(STABLE);
    world.spec.coexistence.ready = Percent(600_000);
    let mut cluster = Cluster::default();
    cluster.service("reviews").deployment("v2", 3, serving);
    world.workloads = Workloads::find("shop", &world.spec, &cluster.objects);
    assert_eq!(said(&world, "TargetReady"), format!("True Ready: {message}"));
}

#[test]
fn whether_the_new_version_fitted_is_known_only_where_that_was_asked_for() {
    let mut world = world(SETTLING);
    assert_eq!(said(&world, "HeadroomAvailable"), "True Checked: v2 fitted");
    world.spec.coexistence.headroom = Headroom::Warn;
    let message = "v2 fitted, or was started all the same, as coexistence.headroom asks";
    assert_eq!(said(&world, "HeadroomAvailable"), format!("True Checked: {message}"));
}

#[rstest]
#[case::nothing_was_switched(None, "nothing was switched yet")]
#[case::one_was_given_up(Some("v1"), "no switch is under way: the last one was given up, and v2 stays")]
fn what_is_said_without_a_switch(#[case] before: Option<&str>, #[case] message: &str) {
    let mut world = world(STABLE);
    world.machine = Status { previous_version: before.map(str::to_owned), ..world.machine };
    for kind in ["Switched", "Settled", "CleanedUp"] {
        assert_eq!(said(&world, kind), format!("Unknown NoSwitch: {message}"));
    }
}

#[rstest]
#[case::what_holds(&[Reason::PluginUnknown, Reason::HostNetwork], Reason::HostNetwork)]
#[case::wherever_it_is(&[Reason::IstioUnknown, Reason::ServiceTaken, Reason::HostNetwork, Reason::Forbidden], Reason::ServiceTaken)]
#[case::what_bars_the_plugin_of_others(&[Reason::WatchStale, Reason::Workloads, Reason::HeaderTaken], Reason::HeaderTaken)]
#[case::the_first(&[Reason::PluginUnknown, Reason::Forbidden], Reason::PluginUnknown)]
fn the_problem_that_holds_comes_first(#[case] reasons: &[Reason], #[case] first: Reason) {
    let problems = reasons.iter().map(|reason| Problem::new(*reason, "a sentence"));
    assert_eq!(foremost(problems).map(|problem| problem.reason), Some(first));
}
