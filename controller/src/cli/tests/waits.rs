//! What scripts are told of a flag: exit codes, and what `wait` waits for.

use rstest::rstest;

use super::super::commands::exit_code;
use super::super::wait::Goal::{self, Acked, CleanedUp, Promotable, RolledBack, Settled, Stable};
use super::super::wait::{Standing, standing};
use super::*;

/// v2 serves everywhere, in this phase.
fn served(phase: Phase) -> Model {
    let mut model = view(Status { phase, blocked: None, ..settling() });
    (model.proxies.acked, model.ready) = (model.proxies.expected, "True".to_owned());
    model
}

fn with_status(model: Model, change: impl FnOnce(&mut Status)) -> Model {
    let mut status = model.status.clone().unwrap();
    change(&mut status);
    Model { status: Some(status), ..model }
}

fn reaches(model: &Model, goal: Goal) -> bool {
    standing(model, goal, None) == Standing::Reached
}

#[rstest]
#[case(Promotable, &[Phase::AwaitingPromotion])]
#[case(Acked, &[Phase::Switching, Phase::Settling, Phase::Retaining, Phase::Removing, Phase::Stable])]
#[case(Settled, &[Phase::Retaining, Phase::Removing, Phase::Stable])]
#[case(CleanedUp, &[Phase::Stable])]
#[case(Stable, &[Phase::Stable])]
fn a_goal_is_reached_in_its_phases(#[case] goal: Goal, #[case] phases: &[Phase]) {
    let before = [Phase::Adopting, Phase::Coexisting, Phase::AwaitingPromotion, Phase::ProvingRoutes, Phase::Holding];
    let after =
        [Phase::Committing, Phase::Switching, Phase::Settling, Phase::Retaining, Phase::Removing, Phase::Stable];
    for phase in before.into_iter().chain(after) {
        let is_before = before.contains(&phase);
        let model = with_status(served(phase), |status| {
            status.active_version = if is_before { "v1" } else { "v2" }.to_owned();
        });
        assert_eq!(reaches(&model, goal), phases.contains(&phase), "{phase:?}");
    }
}

#[test]
fn what_is_missing_is_no_goal() {
    for goal in [Acked, Settled, CleanedUp, Stable] {
        assert!(reaches(&served(Phase::Stable), goal), "{goal:?}");
        // The edit that is waited for has not been seen.
        let early = standing(&served(Phase::Stable), goal, Some("v3"));
        let expected = "the controller has not seen the last edit of reviews yet".to_owned();
        assert_eq!(early, Standing::Waits(expected.clone()));
        let unseen = Model { is_current: false, ..served(Phase::Stable) };
        assert_eq!(standing(&unseen, goal, None), Standing::Waits(expected));
    }
    let mut lacks = served(Phase::Stable);
    lacks.proxies.acked = 3;
    let waits = "reviews is Stable, and 3 of 4 proxies have acked".to_owned();
    assert_eq!(standing(&lacks, Acked, None), Standing::Waits(waits));
    (lacks.proxies.acked, lacks.proxies.expected) = (0, 0);
    assert!(!reaches(&lacks, Acked), "nobody has acked");
    let ending = with_status(served(Phase::Stable), |status| status.ending.extend(["v1".to_owned()]));
    assert!(reaches(&ending, Settled) && !reaches(&ending, CleanedUp) && !reaches(&ending, Stable));
    assert!(!reaches(&Model { ready: "False".to_owned(), ..served(Phase::Stable) }, Stable));
    assert!(!reaches(&resource(None), Acked));
}

/// A way back has an end too.
#[rstest]
#[case::asked_for(Phase::Switching, "v1", false)]
#[case::acked(Phase::Settling, "v1", false)]
#[case::quiet(Phase::Retaining, "v1", true)]
#[case::over(Phase::Stable, "v1", true)]
#[case::not_yet_flipped(Phase::Coexisting, "v2", false)]
fn a_way_back_is_waited_for(#[case] phase: Phase, #[case] active: &str, #[case] reached: bool) {
    let held = with_status(served(phase), |status| {
        let (version, for_spec_version) = ("v1".to_owned(), "v2".to_owned());
        status.r#override = Some(Override { version, for_spec_version, reason: "by request".to_owned(), at: NOW });
        status.active_version = active.to_owned();
    });
    assert_eq!(reaches(&held, RolledBack), reached);
    let waits = "reviews has not been rolled back from v2".to_owned();
    assert_eq!(standing(&served(phase), RolledBack, None), Standing::Waits(waits));
}

#[test]
fn what_blocks_is_waited_for_and_said() {
    let blocked = "reviews is blocked in Switching by Laggards: 2 of 4 proxies have not acked";
    assert_eq!(standing(&view(settling()), Settled, None), Standing::Waits(blocked.to_owned()));
}

#[test]
fn what_only_a_person_ends_is_waited_for_in_vain() {
    let held = with_status(served(Phase::Stable), |status| {
        let (version, for_spec_version) = ("v1".to_owned(), "v2".to_owned());
        status.r#override = Some(Override { version, for_spec_version, reason: "by request".to_owned(), at: NOW });
    });
    let why = "v1 is held against v2: by request; `retry` ends that".to_owned();
    assert_eq!(standing(&held, Settled, None), Standing::InVain(why));
    let in_vain = with_status(held, |status| {
        status.phase = Phase::ProvingRoutes;
        let fence = FenceStatus { attempts: 3, ..FenceStatus::default() };
        status.switch = status.switch.take().map(|switch| Switch { fence: Some(fence), ..switch });
    });
    let why = "v1 is held against v2: by request; `abort` ends that".to_owned();
    assert_eq!(standing(&in_vain, Settled, None), Standing::InVain(why));
    let mut wrong = served(Phase::Stable);
    wrong.blocked = view(settling()).blocked.map(|one| Blocker { reason: "InvalidSpec".to_owned(), ..one });
    assert!(matches!(standing(&wrong, Stable, Some("v3")), Standing::InVain(_)));
    let over = standing(&served(Phase::Settling), Promotable, None);
    assert_eq!(over, Standing::InVain("v2 is let in already".to_owned()));
}

/// T12: what nobody has acked is no success.
#[test]
fn a_status_is_a_number_for_scripts() {
    let (fine, mut lacks, blocked) = (served(Phase::Stable), served(Phase::Stable), view(settling()));
    lacks.proxies.acked = 3;
    assert_eq!(exit_code(&[&fine]), 0);
    assert_eq!(exit_code(&[&fine, &lacks]), 4);
    assert_eq!(exit_code(&[&lacks, &blocked]), 3);
    lacks.proxies.expected = 0;
    assert_eq!(exit_code(&[&lacks]), 0);
}

/// Nothing counts before all have acked, and no number is none.
#[rstest]
#[case(Quiet::Since(NOW.0 - 62_000), "  v1: quiet for 1.5s\n")]
#[case(Quiet::Since(NOW.0 - 1_000), "  v1: quiet for 1.0s\n")]
#[case(Quiet::Busy { open: 0 }, "  v1: busy, requests were sent lately\n")]
#[case(Quiet::Busy { open: 1 }, "  v1: busy, 1 request open\n")]
#[case(Quiet::Busy { open: 2 }, "  v1: busy, 2 requests open\n")]
fn what_is_known_of_the_old_version_contradicts_nothing(#[case] old: Quiet, #[case] line: &str) {
    let model = with_status(served(Phase::Settling), |status| {
        status.switch.as_mut().unwrap().acked_at = Some(ago(1_500));
    });
    let why = show::why(&Model { old: Some(old), ..model }, "versionflag");
    assert!(why.contains(line), "{why}");
}

/// What changes all the time is no change; what people look for is.
#[test]
fn an_outline_has_what_people_call_a_change() {
    let before = show::outline(&view(settling()));
    let mut later = seen(settling());
    later.now = UnixMs(NOW.0 + 1_000);
    later.traffic.known = 4;
    later.traffic.versions.insert("v2".to_owned(), Flow { started: 9, open: 3, per_second: 40.0, rated: 4 });
    assert_ne!(show::status(&Model::of_view(&later, ""), ""), show::status(&view(settling()), ""));
    assert_eq!(show::outline(&Model::of_view(&later, "")), before);
    let mut acked = seen(settling());
    acked.fleet.acked = 3;
    assert_ne!(show::outline(&Model::of_view(&acked, "")), before);
    assert_ne!(show::outline(&view(Status { blocked: None, ..settling() })), before);
}
