//! What a flip and a removal rest on holds without a break; what was begun on a whole proof is ended; and what is not
//! known holds up only what it concerns. Each test has the id of its case in `tests/CASES.md`.

use machine::action::Action;
use machine::history::Happening;
use machine::observation::{Keeper, Strength};
use machine::plan::Effect;
use machine::reason::Reason;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;

use crate::fixtures::*;

/// The last thing that happened.
fn last(status: &Status) -> (Happening, &str) {
    status.history.last().map(|entry| (entry.event, entry.message.as_str())).unwrap()
}

/// v1 is adopted, and its record is published.
fn adopting_v1() -> Status {
    let status = Status { active_version: "v1".to_owned(), ..switching(Phase::Adopting) };
    recorded(status, NOW - 1, &["v1"])
}

/// C01: requests go by the flag already, so that v2 becomes active by a whole switch.
#[rstest]
#[case::part_of_it_serves(1, 2, (Phase::Stable, "v1"))]
#[case::nothing_of_it_serves(0, 2, (Phase::Coexisting, "v1"))]
fn another_version_than_the_adopted_one_is_switched_to(
    #[case] serving: u32,
    #[case] asked: u32,
    #[case] first: (Phase, &str),
) {
    let seen = seen().pods("v1", serving, asked).not_running("v2").kept_by(Keeper::Platform);
    let mut status = adopting_v1();
    for _ in 0..6 {
        status = next("", &status, &seen);
    }
    assert_eq!((status.phase, status.active_version.as_str()), (Phase::Coexisting, "v1"));
    assert!(words(&pass(&spec(""), &status, &seen).effects).contains("start v2"));
    // Adopted by what serves of it, at full strength or not.
    let v1 = "version: v1";
    let adopted: machine::spec::Spec =
        serde_saphyr::from_str(&format!("{{{v1}, services: [{{name: reviews}}]}}")).unwrap();
    let expected = if first.0 == Phase::Stable { Phase::Stable } else { Phase::Adopting };
    assert_eq!(pass(&adopted, &adopting_v1(), &seen).status.phase, expected);
}

/// C02: once v1 was told to stop on the whole proof, nothing that is lost afterwards starts it again.
#[rstest]
#[case::a_proxy_joins(seen().proxies(2).lags("late", "it never reported"))]
#[case::nobody_knows(seen().quiet_unknown())]
#[case::it_is_used(seen().busy(3))]
#[case::the_new_one_dies(seen().exited("v2"))]
#[case::the_new_one_hangs(seen().not_ready("v2"))]
#[case::routes(seen().routes(Reason::RouteConflict))]
fn what_was_stopped_on_a_proof_stays_stopped(#[case] seen: Seen) {
    let seen = seen.stopping("v1", &["pod v1-a"]);
    let mut status = switching(Phase::Removing);
    for _ in 0..5 {
        let plan = pass(&spec(""), &status, &seen);
        assert!(!words(&plan.effects).contains("v1"), "{}", words(&plan.effects));
        status = plan.status;
        assert_eq!(status.phase, Phase::Removing);
    }
    let ended = next("", &status, &seen.not_running("v1"));
    assert_eq!((ended.phase, last(&ended)), (Phase::Stable, (Happening::Removed, "v1 is stopped")));
}

/// C02: a failed target does, if the spec says so; and a rollback.
#[rstest]
#[case::it_died("onTargetFailure: Rollback", seen().exited("v2"))]
#[case::it_hangs("onTargetFailure: {action: Rollback, after: 0s}", seen().not_ready("v2"))]
#[case::by_hand("", seen().asked_for(Action::Rollback))]
fn only_a_way_back_starts_it_again(#[case] more: &str, #[case] seen: Seen) {
    let seen = seen.stopping("v1", &["pod v1-a"]);
    let back = next(more, &switching(Phase::Removing), &seen);
    let switch = back.switch.clone().unwrap();
    assert_eq!((back.phase, switch.to.as_str(), switch.rollback), (Phase::Coexisting, "v1", true));
    assert!(back.ending.is_empty() && back.leftovers.is_empty(), "what is gone back to is not removed");
}

/// C03: that it was to be stopped was taken back, and somebody may have sent that on its way: what is gone back to is
/// marked before requests go there. Where nobody else can have, it is gone back to at once.
#[rstest]
#[case::somebody_else_scales(Keeper::Platform, Phase::Coexisting)]
#[case::nobody_else_does(Keeper::Controller, Phase::Switching)]
fn a_stop_that_may_still_come_is_minded_on_the_way_back(#[case] keeper: Keeper, #[case] expected: Phase) {
    let broken = next("", &switching(Phase::Removing), &seen().busy(3).kept_by(keeper));
    assert_eq!(broken.phase, Phase::Settling, "the proof broke");
    let back = next("", &broken, &seen().asked_for(Action::Rollback).kept_by(keeper));
    assert_eq!((back.phase, back.switch.map(|switch| switch.to).as_deref()), (expected, Some("v1")));
}

/// C06, F12: v1 is proved unused, and one pod of it never ends. What comes next does not wait for it.
#[test]
fn a_removal_that_cannot_end_holds_up_nothing() {
    let seen = seen().stopping("v1", &["pod v1-a", "pod v1-b"]).not_running("v3");
    let plan = pass(&spec(""), &switching(Phase::Removing), &seen);
    assert_eq!(plan.waiting, "v1 has to stop: pod v1-a, pod v1-b");
    let mut spec = spec("");
    "v3".clone_into(&mut spec.version);
    let next = pass(&spec, &switching(Phase::Removing), &seen).status;
    assert_eq!((next.phase, next.target_version.as_deref()), (Phase::Coexisting, Some("v3")));
    assert_eq!((next.ending, next.leftovers.len()), (names(&["v1"]), 0));
    let record = next.record.unwrap();
    assert_eq!(record.versions, names(&["v2", "v3"]), "what ends is nobody's to send requests to");
}

/// Nothing is switched any more, and what was stopped has not ended: that is not nothing.
#[test]
fn what_ends_when_nothing_is_switched_is_told() {
    let status = Status { ending: names(&["v1"]), ..switching(Phase::Stable) };
    let plan = pass(&spec(""), &status, &seen().stopping("v1", &["pod v1-a"]));
    assert_eq!((plan.status.phase, plan.waiting.as_str()), (Phase::Stable, "v1 has to stop: pod v1-a"));
    let ended = next("", &plan.status, &seen().not_running("v1"));
    assert_eq!(pass(&spec(""), &ended, &seen().not_running("v1")).waiting, "nothing: v2 serves");
}

/// C05: what can serve is gone back to at once, and made as strong as what the traffic comes from.
#[test]
fn a_rollback_goes_to_what_serves_and_says_how_strong_it_is() {
    let seen = seen().pods("v1", 9, 10).exited("v2").asked_for(Action::Rollback);
    let back = next("", &switching(Phase::Settling), &seen);
    assert_eq!((back.phase, back.active_version.as_str()), (Phase::Switching, "v1"));
    let told = "from v2 to v1, which is at 9 of 10 pods: rolled back by request";
    assert!(back.history.iter().any(|one| one.event == Happening::RolledBack && one.message == told), "{back:#?}");
    let seen = seen.acked(0);
    let mut rests = back;
    for _ in 0..2 {
        rests = next("", &rests, &seen);
    }
    let effects = words(&pass(&spec(""), &rests, &seen).effects);
    assert!(effects.starts_with("protect v1") && effects.contains("start v1 like v2"), "{effects}");
}

/// C05: one that has to be started first goes as soon as anything of it serves, if what serves now is not well.
#[rstest]
#[case::the_other_is_broken(false, Phase::AwaitingPromotion)]
#[case::the_other_is_well(true, Phase::Coexisting)]
fn a_rollback_that_starts_its_target_waits_for_all_of_it_only_beside_what_is_well(
    #[case] well: bool,
    #[case] then: Phase,
) {
    let status = with_switch(switching(Phase::Coexisting), |switch| switch.rollback = true);
    let seen = seen().pods("v2", 1, 10);
    let seen = if well { seen } else { seen.not_ready("v1") };
    assert_eq!(next("", &status, &seen).phase, then);
}

/// C08, C09, F09: the traffic of now needs what the active version has, whoever says how many there are of the new one.
#[rstest]
#[case::it_ran_before(Phase::Coexisting, "", Phase::Coexisting)]
#[case::it_was_shrunk_while_it_waited(Phase::AwaitingPromotion, "promotion: {mode: Manual}", Phase::Coexisting)]
#[case::in_the_last_moment(Phase::ProvingRoutes, "", Phase::Coexisting)]
#[case::as_declared(Phase::ProvingRoutes, "coexistence: {replicas: AsDeclared}", Phase::Switching)]
fn nothing_is_flipped_to_what_is_weaker(#[case] from: Phase, #[case] more: &str, #[case] to: Phase) {
    let seen = seen().pods("v1", 50, 50).pods("v2", 2, 2);
    let status = next(more, &switching(from), &seen);
    assert_eq!(status.phase, to);
    if to == Phase::Coexisting {
        assert_eq!(next(more, &with_switch(status, |one| one.headroom_at = Some(UnixMs(0))), &seen).phase, to);
    }
}

/// F23, C41: what is left of the version that serves is what requests have.
#[rstest]
#[case::it_begins(Phase::Coexisting, false, true, Phase::Coexisting)]
#[case::in_the_last_moment(Phase::ProvingRoutes, false, true, Phase::ProvingRoutes)]
#[case::nothing_is_left_of_it(Phase::ProvingRoutes, false, false, Phase::Switching)]
#[case::to_go_back(Phase::ProvingRoutes, true, true, Phase::Switching)]
fn nothing_is_flipped_while_what_serves_is_replaced_in_place(
    #[case] from: Phase,
    #[case] rollback: bool,
    #[case] left: bool,
    #[case] to: Phase,
) {
    let seen = if left { seen() } else { seen().not_running("v1") };
    let status = with_switch(switching(from), |switch| switch.rollback = rollback);
    let then = next("", &status, &seen.relabelled("v1", "Deployment/reviews makes v2"));
    assert_eq!(then.phase, to);
    let reason = then.blocked.map(|blocked| blocked.reason);
    assert_eq!(reason, (from == to).then_some(Reason::ChangedInPlace));
}

/// F10: a dip while it waits pauses, and a promotion by hand is not forgotten.
#[test]
fn a_dip_before_the_flip_forgets_no_promotion() {
    let promoted = with_switch(switching(Phase::ProvingRoutes), |switch| switch.promoted_at = Some(UnixMs(LONG_AGO)));
    let manual = "promotion: {mode: Manual}, coexistence: {minReady: 0s}";
    let dips = next(manual, &promoted, &seen().not_ready("v2"));
    assert_eq!((dips.phase, last(&dips)), (Phase::Coexisting, (Happening::TargetLost, "v2 is not ready any more")));
    let mut status = dips;
    for _ in 0..4 {
        status = next(manual, &status, &seen());
    }
    assert_eq!(status.active_version, "v2");
}

/// T1: it was ready for long enough by what was seen then, and has been ready by what is seen now only since that moment.
#[rstest]
#[case::for_that_moment("minReady: 1s", NOW - 5, Phase::Coexisting)]
#[case::since_then("minReady: 1s", NOW - 4, Phase::Coexisting)]
#[case::for_long_enough("minReady: 1s", NOW - 1_005, Phase::Switching)]
#[case::a_moment_is_enough("minReady: 0s", NOW - 5, Phase::Switching)]
fn a_flip_rests_on_all_of_the_time_that_was_asked_for(#[case] asked: &str, #[case] since: u64, #[case] to: Phase) {
    let mut seen = seen();
    seen.0.versions.insert("v2".to_owned(), ready(since));
    let status = with_switch(switching(Phase::ProvingRoutes), |switch| switch.ready_at = Some(UnixMs(NOW - 5)));
    assert_eq!(next(&format!("coexistence: {{{asked}}}"), &status, &seen).phase, to);
}

/// C10: a service that is added joins when the version that requests go to serves there.
#[rstest]
#[case::not_there(None, &["reviews"])]
#[case::nobody_serves(Some(0), &["reviews"])]
#[case::somebody_does(Some(1), &["ratings", "reviews"])]
fn a_service_joins_when_the_active_version_serves_there(#[case] serving: Option<u32>, #[case] members: &[&str]) {
    let mut seen = seen().pods("v2", 2, 2);
    if let Some(serving) = serving {
        let workload = seen.0.versions.get_mut("v2").unwrap();
        workload.strength.insert("ratings".to_owned(), Strength { asked: 1, serving });
        workload.ready = serving > 0;
    }
    let mut spec = spec("");
    let mut ratings = spec.services[0].clone();
    "ratings".clone_into(&mut ratings.name);
    spec.services.push(ratings);
    let stable = switching(Phase::Stable);
    seen.0.versions.get_mut("v2").unwrap().ready &= serving.is_some_and(|serving| serving > 0);
    let after = pass(&spec, &stable, &seen).status;
    let found: std::collections::BTreeSet<String> =
        after.record.unwrap().members.iter().map(|member| member.service.clone()).collect();
    assert_eq!(found, names(members));
}

/// T1: ready in one instant is not ready: the new version serves without a break for the quiet period, and for all of
/// `retainFor`.
#[rstest]
#[case::it_came_back_just_now(Phase::Settling, NOW - 400, Phase::Settling)]
#[case::for_long_enough(Phase::Settling, NOW - 10_000, Phase::Retaining)]
#[case::it_was_away_while_v1_stayed(Phase::Retaining, NOW - 400, Phase::Settling)]
#[case::it_was_away_before_the_stop(Phase::Removing, NOW - 400, Phase::Settling)]
#[case::it_never_was(Phase::Retaining, NOW - 61_000, Phase::Removing)]
fn a_break_of_the_target_starts_the_proof_anew(#[case] from: Phase, #[case] since: u64, #[case] to: Phase) {
    let mut seen = seen();
    seen.0.versions.insert("v2".to_owned(), ready(since));
    let status = next("", &switching(from), &seen);
    assert_eq!(status.phase, to, "{status:#?}");
    if from != Phase::Settling && to == Phase::Settling {
        let switch = status.switch.as_ref().unwrap();
        assert_eq!((switch.settled_at, switch.retain_until), (None, None), "all of it stays for as long again");
        let told = "v2 is known to be ready without a break for the last 400ms only";
        assert_eq!(last(&status), (Happening::Unsettled, told));
    }
}

/// T1: a request to v1 that nobody saw in an instant is seen by its counter.
#[test]
fn a_request_in_between_starts_the_proof_anew() {
    let status = next("", &switching(Phase::Retaining), &seen().quiet_since(NOW - 900));
    assert_eq!((status.phase, last(&status).0), (Phase::Settling, Happening::Unsettled));
    // Whoever has not spoken yet does not break it: what it did meanwhile is known when it speaks.
    let joined = next("", &switching(Phase::Retaining), &seen().proxies(2).lags("late", "it never reported"));
    assert_eq!(joined.phase, Phase::Retaining);
}

/// T1: what hangs has failed, after a time that the spec says.
#[rstest]
#[case::just_now(1_000, false)]
#[case::for_long(30_000, true)]
fn a_target_that_hangs_has_failed(#[case] ago: u64, #[case] back: bool) {
    let rollback = "onTargetFailure: Rollback";
    let status = with_switch(switching(Phase::Retaining), |switch| switch.target_lost_at = Some(UnixMs(NOW - ago)));
    let mut status = next(rollback, &status, &seen().not_ready("v2"));
    assert_eq!((status.phase, last(&status).0), (Phase::Settling, Happening::Unsettled));
    status = next(rollback, &status, &seen().not_ready("v2"));
    let expected = if back { (Phase::Switching, "v1") } else { (Phase::Settling, "v2") };
    assert_eq!((status.phase, status.active_version.as_str()), expected);
}

/// T6: a command that is sent twice does once what it says.
#[rstest]
#[case::at_once(Phase::Switching)]
#[case::later(Phase::Settling)]
#[case::when_all_is_over(Phase::Stable)]
#[case::before_it_went_back(Phase::Coexisting)]
fn a_second_rollback_of_the_same_switch_is_refused(#[case] phase: Phase) {
    let again = next("", &going_back(phase), &seen().asked_for(Action::Rollback));
    let refused = again.last_request.as_ref().and_then(|last| last.refused.as_deref());
    assert_eq!(refused, Some("v1 is held against v2 already (by request): `retry` goes forward again"));
    assert_eq!(again.active_version, "v1");
}

/// T6: what was asked about another switch than the one of now is refused, whoever asked for it.
#[rstest]
#[case::this_one(Action::Abort, Some(0), true)]
#[case::any(Action::Abort, None, true)]
#[case::another(Action::Abort, Some(7), false)]
#[case::another_rollback(Action::Rollback, Some(7), false)]
#[case::no_switch_is_needed(Action::Suspend, Some(7), true)]
fn a_request_is_about_the_switch_that_was_seen(
    #[case] action: Action,
    #[case] about: Option<u64>,
    #[case] granted: bool,
) {
    let mut seen = seen().asked_for(action);
    seen.0.request.as_mut().unwrap().switch = about.map(UnixMs);
    let after = next("promotion: {mode: Manual}", &switching(Phase::AwaitingPromotion), &seen);
    let refused = after.last_request.and_then(|last| last.refused);
    let why = "it was asked about another switch: it is from v1 to v2 now; look again";
    assert_eq!(refused.as_deref(), (!granted).then_some(why));
}

/// Whoever waits for a deadline has as long again once it had settled.
#[test]
fn a_deadline_does_not_outlive_what_was_settled() {
    let spec = "settle: {timeout: 30s, onTimeout: Rollback}";
    let unsettled = Status { phase_since: UnixMs(NOW - 1_000), ..switching(Phase::Settling) };
    assert_eq!(next(spec, &unsettled, &seen().busy(1)).phase, Phase::Settling);
    let overdue = Status { phase_since: UnixMs(NOW - 31_000), ..switching(Phase::Settling) };
    assert_eq!(next(spec, &overdue, &seen().busy(1)).phase, Phase::Switching);
}

/// F15: going back helps nobody where only the old version calls itself.
#[rstest]
#[case::only_itself(&[], "Rollback", Phase::Settling)]
#[case::others_too(&["web-0"], "Rollback", Phase::Switching)]
#[case::past_it(&[], "Proceed", Phase::Retaining)]
fn a_version_that_calls_itself_rolls_nothing_back(#[case] senders: &[&str], #[case] then: &str, #[case] to: Phase) {
    let seen = seen().busy(1).called_by(&["v1-a"], senders);
    let status = next(&format!("settle: {{timeout: 1s, onTimeout: {then}}}"), &switching(Phase::Settling), &seen);
    assert_eq!(status.phase, to);
    let blocked = status.blocked.map(|blocked| blocked.reason);
    assert_eq!(blocked, (to == Phase::Settling).then_some(Reason::CallsItself));
}

/// What the operator went past once is not asked for again, and nothing else is waived with it.
#[rstest]
#[case::the_same(seen().busy(1), Phase::Removing)]
#[case::another_kind(seen().acked(0), Phase::Retaining)]
#[case::the_target(seen().not_ready("v2"), Phase::Settling)]
fn a_waiver_holds_for_what_was_waived(#[case] seen: Seen, #[case] to: Phase) {
    let proceed = "settle: {timeout: 1s, onTimeout: Proceed}";
    let status = with_switch(switching(Phase::Retaining), |switch| switch.waived = true);
    assert_eq!(next(proceed, &status, &seen).phase, to);
}

/// F18: what a proxy did not reach breaks the proof, and begins it anew.
#[rstest]
#[case::now(seen().unreached("edge", "status 503", true), Phase::Settling)]
#[case::past_the_flag(seen().strays("edge", "1 to reviews/api"), Phase::Settling)]
#[case::lately(seen().reached_since(NOW - 1_500), Phase::Settling)]
#[case::long_ago(seen().reached_since(NOW - 30_000), Phase::Removing)]
// Whoever joins breaks nothing, and is waited for.
#[case::a_joiner(seen().unreached("edge", "it has not tried yet", false), Phase::Retaining)]
fn what_is_not_reached_keeps_the_old_version(#[case] seen: Seen, #[case] then: Phase) {
    let status = with_switch(switching(Phase::Retaining), |one| one.settled_at = Some(UnixMs(NOW - 1_000)));
    assert_eq!(next("settle: {quietPeriod: 10s}", &status, &seen).phase, then);
}

/// What both `Proceed` ask for, on which an operator counts.
const BOTH: &str = "settle: {timeout: 1s, onTimeout: Proceed, quietPeriod: 10s}, switch: {laggards: Proceed}";
const ONE: &str = "settle: {timeout: 1s, onTimeout: Proceed, quietPeriod: 10s}";

/// C07, C36, F18, T27: what nobody may go past, whatever the spec asks for and whatever was gone past already.
#[rstest]
#[case::taken(BOTH, seen().problem(Reason::ServiceTaken))]
#[case::stale(BOTH, seen().problem(Reason::WatchStale))]
#[case::another_flag_is_missing(BOTH, seen().routes(Reason::OtherFlagUnread))]
#[case::not_reached(BOTH, seen().unreached("edge", "cluster c: no healthy host", false))]
#[case::reached_just_now(BOTH, seen().reached_since(NOW - 1))]
#[case::not_reached_and_no_ack(BOTH, seen().proxies(2).lags("late", "it never reported").unreached("edge", "no healthy host", false))]
// What is unknown takes more than what is busy.
#[case::unknown(ONE, seen().quiet_unknown())]
#[case::unknown_and_a_stray(ONE, seen().quiet_unknown().strays("edge", "1 to x"))]
#[case::busy_and_from_before(ONE, seen().busy(1).filter_came("web.shop", NOW - 1_000))]
fn nothing_goes_past_this(#[case] more: &str, #[case] seen: Seen) {
    assert_eq!(next(more, &switching(Phase::Settling), &seen).phase, Phase::Settling);
    let mesh = format!("{more}, routing: {{provider: Istio}}");
    let status = with_switch(switching(Phase::Removing), |one| one.waived = true);
    for more in [more, &mesh] {
        let plan = pass(&spec(more), &status, &seen);
        assert!(!plan.effects.iter().any(|effect| matches!(effect, Effect::Stop { .. })), "{}", words(&plan.effects));
    }
}

/// What was gone past is not said to be so.
#[test]
fn a_switch_that_was_waved_through_is_not_called_quiet() {
    let status = next(ONE, &switching(Phase::Settling), &seen().busy(3));
    let said: Vec<&str> = status.history.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(said[said.len() - 2..], ["v1 may go, as settle.onTimeout asks", "3 requests are open on v1"]);
}

/// P12: connections from before the filter came are waited for, and that breaks nothing.
#[rstest]
#[case::lately(seen().filter_came("web.shop", NOW - 44_000), Phase::Settling, Phase::Settling)]
#[case::retained(seen().filter_came("web.shop", NOW - 44_000), Phase::Retaining, Phase::Retaining)]
#[case::nobody(seen(), Phase::Settling, Phase::Retaining)]
fn what_was_there_before_the_filter_is_waited_for(#[case] seen: Seen, #[case] from: Phase, #[case] then: Phase) {
    let status = with_switch(switching(from), |one| one.settled_at = Some(UnixMs(NOW - 1_000)));
    assert_eq!(next("cleanup: {retainFor: 0s}", &status, &seen).phase, then);
}

/// What serves is gone back to, whoever reaches it.
#[test]
fn a_rollback_does_not_wait_to_be_reached() {
    let status = going_back(Phase::ProvingRoutes);
    let services = [("reviews".to_owned(), facts_with_readiness())].into();
    assert_eq!(machine::reach::probe(&spec(""), &status, &services), None);
    assert!(machine::reach::probe(&spec(""), &switching(Phase::ProvingRoutes), &services).is_some());
}

fn facts_with_readiness() -> machine::observation::ServiceFacts {
    let clusters = [("reviews-v2".to_owned(), "reviews".to_owned())].into();
    let reach = machine::reach::Reach { clusters, readiness: Some("/ready".to_owned()) };
    let reach = [("v1".to_owned(), reach.clone()), ("v2".to_owned(), reach)].into();
    machine::observation::ServiceFacts { reach, ..Default::default() }
}

#[rstest]
#[case::asked_for("", Some("/ready"))]
#[case::a_path("coexistence: {probe: {path: /x}}", Some("/x"))]
#[case::none("coexistence: {probe: {mode: None}}", None)]
fn a_spec_says_what_is_asked_for(#[case] more: &str, #[case] path: Option<&str>) {
    let services = [("reviews".to_owned(), facts_with_readiness())].into();
    let probe = machine::reach::probe(&spec(more), &switching(Phase::Switching), &services);
    assert_eq!(probe.as_ref().map(|probe| probe.clusters[0].path.as_str()), path);
    assert_eq!(machine::reach::probe(&spec(more), &switching(Phase::Stable), &services), None);
    // Where nobody knows what could be asked for, nothing is.
    let known = machine::reach::probe(&spec(more), &switching(Phase::Switching), &Default::default());
    assert_eq!(known, None, "the record of this test has no clusters");
}

/// With `laggards: Proceed` whoever does not report is gone past; not who reports that it does not reach it.
#[rstest]
#[case::silent(seen().proxies(2).lags("edge", "last seen").unreached("edge", "last seen", false), Phase::Switching)]
#[case::told(seen().unreached("edge", "cluster c: no healthy host", false), Phase::ProvingRoutes)]
#[case::both(
    seen().proxies(2).lags("edge", "last seen").unreached("edge", "last seen", false).unreached("b", "503", false),
    Phase::ProvingRoutes
)]
fn who_is_gone_past_need_not_reach(#[case] seen: Seen, #[case] then: Phase) {
    let status = switching(Phase::ProvingRoutes);
    assert_eq!(next("switch: {laggards: Proceed, ackTimeout: 1s}", &status, &seen).phase, then);
}

/// A proxy that is gone past hides no break of another one.
#[test]
fn what_broke_comes_before_what_may_be_gone_past() {
    let seen = seen().proxies(2).lags("edge", "last seen").unreached("b", "status 503", true);
    let status = next(
        "settle: {timeout: 1s, onTimeout: Proceed}, switch: {laggards: Proceed}",
        &switching(Phase::Settling),
        &seen,
    );
    assert_eq!((status.phase, blocked(&status)), (Phase::Settling, Some(Reason::NotReached)));
}
