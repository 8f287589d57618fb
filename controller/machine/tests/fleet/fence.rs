//! Whether requests are held everywhere and nothing is open on the version that is left: unknown is never zero, and a
//! hold that has run out never counts.

use std::collections::BTreeSet;

use flag::count::Totals;
use flag::fence::{Fenced, Held};
use flag::instance::{Findings, FlagState};
use flag::record::{Gate, Record};
use flag::report::Report;
use machine::fleet::fence::{FenceQuestion, FleetFence};
use machine::fleet::ledger::{FleetQuestion, Laggard, Ledger};
use proptest::prelude::*;
use rstest::rstest;

use super::ledger::{report, state};
use super::record;

const EPOCH: u64 = 9;
const DRAIN_MS: u64 = 2_000;

fn held_record() -> Record {
    Record { gate: Gate::Hold, ..record(EPOCH, "v1") }.seal().expect("valid")
}

/// What one proxy says.
#[derive(Debug, Clone)]
struct Says {
    fenced: Option<Fenced>,
    epoch: u64,
    gate: Gate,
    started: u64,
    open: u64,
    arrived: u64,
    unplaced: u64,
    route: &'static str,
    complete: bool,
}

/// It holds, and has nothing open.
fn holds() -> Says {
    let fenced = Fenced { epoch: EPOCH, held: Held::Holding, waiting: 3, watched_ms: 60_000, ..Fenced::default() };
    Says {
        fenced: Some(fenced),
        epoch: EPOCH,
        gate: Gate::Hold,
        started: 5,
        open: 0,
        arrived: 0,
        unplaced: 0,
        route: "versionflag:reviews:v1,v2:v1",
        complete: true,
    }
}

impl Says {
    fn fence(mut self, change: impl FnOnce(&mut Fenced)) -> Says {
        change(self.fenced.as_mut().expect("shown"));
        self
    }

    fn report(&self, proxy: &str, seq: u64) -> Report {
        let record = if self.epoch == EPOCH { held_record() } else { record(self.epoch, "v1") };
        let mut state = FlagState { gate: self.gate, ..state(&record, self.started, self.started - self.open) };
        state.routes.insert(self.route.to_owned());
        state.arrived.insert("v1".to_owned(), Totals { started: self.arrived, finished: 0 });
        let found = Findings {
            flag: "u-1".to_owned(),
            fenced: self.fenced.clone(),
            unplaced: self.unplaced,
            ..Findings::default()
        };
        Report { complete: self.complete, findings: vec![found], ..report(proxy, seq, state) }
    }
}

/// Two proxies, `a` and `b`; those that stand beside the old version are said.
struct Fleet {
    ledger: Ledger,
    now_ms: u64,
    seq: u64,
    members: BTreeSet<String>,
    old_since_ms: Option<u64>,
}

impl Fleet {
    fn new(members: &[&str]) -> Fleet {
        let members = members.iter().map(|one| (*one).to_owned()).collect();
        Fleet { ledger: Ledger::new(3_000), now_ms: 10_000, seq: 0, members, old_since_ms: None }
    }

    fn hear(&mut self, proxy: &str, says: &Says) -> FleetFence {
        self.now_ms += 10;
        self.seq += 1;
        self.ledger.accept(self.now_ms, says.report(proxy, self.seq)).expect("believed");
        self.view()
    }

    fn both(&mut self, a: &Says, b: &Says) -> FleetFence {
        self.hear("a", a);
        self.hear("b", b)
    }

    fn view(&self) -> FleetFence {
        let expected = ["a".to_owned(), "b".to_owned()].into();
        let fence = FenceQuestion {
            old: "v1".to_owned(),
            new: "v2".to_owned(),
            old_since_ms: self.old_since_ms,
            since: EPOCH,
            drain_ms: DRAIN_MS,
        };
        let asked = FleetQuestion { fence: Some(fence), members: self.members.clone(), ..FleetQuestion::default() };
        self.ledger.view(self.now_ms, &held_record(), &expected, &asked).fence.expect("asked for")
    }
}

fn whys(laggards: &[Laggard]) -> Vec<(&str, &str)> {
    laggards.iter().map(|one| (one.proxy.as_str(), one.why.as_str())).collect()
}

#[test]
fn nobody_is_nothing_that_holds() {
    let fence = Fleet::new(&[]).view();
    assert!(!fence.drained && fence.not_holding.len() == 2 && fence.open.len() == 2, "{fence:?}");
    let asked = FleetQuestion {
        fence: Some(FenceQuestion {
            old: "v1".to_owned(),
            new: "v2".to_owned(),
            old_since_ms: None,
            since: EPOCH,
            drain_ms: 1,
        }),
        ..FleetQuestion::default()
    };
    let nobody = Ledger::new(3_000).view(1, &held_record(), &BTreeSet::new(), &asked);
    assert!(!nobody.fence.expect("asked for").drained);
}

#[test]
fn all_that_hold_with_nothing_open_are_drained() {
    let mut fleet = Fleet::new(&[]);
    assert!(!fleet.hear("a", &holds()).drained, "b has said nothing");
    let fence = fleet.hear("b", &holds());
    assert!(fence.drained && fence.in_the_way().next().is_none(), "{fence:?}");
    assert_eq!(fence.waiting, 6);
    fleet.now_ms += 3_001;
    let stale = fleet.view();
    assert!(!stale.drained && stale.not_holding.len() == 2, "{stale:?}");
}

#[rstest]
#[case::an_older_filter(Says { fenced: None, ..holds() })]
#[case::a_worker_without_it(holds().fence(|one| one.epoch = 0))]
#[case::another_record(holds().fence(|one| one.epoch = 8))]
#[case::not_acked(Says { epoch: 8, gate: Gate::Open, ..holds() })]
#[case::another_gate(Says { gate: Gate::Open, ..holds() })]
#[case::not_held(holds().fence(|one| one.held = Held::Open))]
#[case::run_out(holds().fence(|one| one.held = Held::Expired))]
#[case::run_out_somewhere(holds().fence(|one| (one.held, one.epoch) = (Held::Expired, 0)))]
#[case::sent(Says { open: 1, ..holds() })]
#[case::arrived(Says { arrived: 1, ..holds() })]
#[case::without_the_route(Says { route: "versionflag:reviews:v1:v1", ..holds() })]
#[case::not_placed(Says { unplaced: 1, ..holds() })]
#[case::a_worker_is_late(Says { complete: false, ..holds() })]
fn whatever_is_missing_at_one_is_missing(#[case] b: Says) {
    let mut fleet = Fleet::new(&[]);
    for _ in 0..4 {
        let fence = fleet.both(&holds(), &b);
        assert!(!fence.drained, "{fence:?}");
        let named: BTreeSet<&str> =
            fence.unable.iter().chain(fence.in_the_way()).map(|one| one.proxy.as_str()).collect();
        assert_eq!(named, BTreeSet::from(["b"]), "{fence:?}");
    }
    let again = fleet.both(&holds(), &holds());
    // What was missing is there now: but for a hold that has run out once.
    let ran_out = b.fenced.is_some_and(|one| one.held == Held::Expired);
    assert_eq!(again.drained, !ran_out, "{again:?}");
}

#[test]
fn a_hold_that_has_run_out_never_counts_again() {
    let mut fleet = Fleet::new(&[]);
    fleet.both(&holds(), &holds().fence(|one| one.held = Held::Expired));
    for _ in 0..4 {
        let fence = fleet.both(&holds(), &holds());
        assert_eq!((fence.drained, whys(&fence.expired)), (false, vec![("b", "its hold has run out")]));
    }
    // It was another one.
    let mut fleet = Fleet::new(&[]);
    let before = Says { epoch: EPOCH - 1, gate: Gate::Hold, ..holds() };
    fleet.both(&holds(), &before.fence(|one| (one.held, one.epoch) = (Held::Expired, EPOCH - 1)));
    assert!(fleet.both(&holds(), &holds()).drained);
}

/// Whoever stands beside the old version, or lets requests through by their mark, may begin some while another one is
/// looked at.
#[rstest]
#[case::callers(&[], 0, true)]
#[case::one_beside_it(&["b"], 0, true)]
#[case::two_beside_it(&["a", "b"], 0, false)]
#[case::one_passed(&[], 1, false)]
fn zero_at_each_is_zero_at_once_only_where_nothing_can_begin(
    #[case] members: &[&str],
    #[case] passed: u64,
    #[case] drained: bool,
) {
    let mut fleet = Fleet::new(members);
    let now = || holds().fence(|one| one.passed = passed);
    let busy = Says { open: 1, ..now() };
    fleet.both(&now(), &busy);
    assert_eq!(fleet.both(&now(), &now()).drained, drained, "b has been so in one report only");
    // `a` has begun and ended one meanwhile: there was no moment for both yet.
    let another = Says { started: 6, ..now() };
    assert_eq!(fleet.hear("a", &another).drained, drained);
    assert_eq!(fleet.hear("b", &now()).drained, drained);
    assert_eq!(fleet.hear("a", &another).drained, drained, "before it said so b was looked at last");
    fleet.hear("b", &now());
    assert!(fleet.hear("a", &another).drained, "b was looked at twice since a began to be without any");
}

#[test]
fn long_streams_are_named_and_short_looks_are_not_enough() {
    let mut fleet = Fleet::new(&[]);
    let long = holds().fence(|one| one.oldest_ms = 12_300);
    let short = holds().fence(|one| one.watched_ms = 1_999);
    let fence = fleet.both(&long, &short);
    assert_eq!(whys(&fence.long), [("a", "a stream has been open on v1 for at least 12.3 s")]);
    assert_eq!(whys(&fence.unwatched), [("b", "it has looked for 1999 ms")]);
}

/// A proxy that has not heard yet that another version is left shows what it has seen of the one before.
#[test]
fn what_was_seen_of_another_version_says_nothing() {
    let mut fleet = Fleet::new(&[]);
    fleet.old_since_ms = Some(fleet.now_ms);
    fleet.now_ms += 3 * DRAIN_MS;
    let looked = |watched_ms, oldest_ms| holds().fence(|one| (one.watched_ms, one.oldest_ms) = (watched_ms, oldest_ms));
    let both = |fleet: &mut Fleet, says: &Says| {
        let fence = fleet.both(says, says);
        (fence.unwatched.len(), fence.long.len())
    };
    assert_eq!(both(&mut fleet, &looked(60_000, 0)), (2, 0));
    assert_eq!(both(&mut fleet, &looked(60_000, 60_000)), (2, 0));
    assert_eq!(both(&mut fleet, &looked(DRAIN_MS - 1, 0)), (2, 0));
    assert_eq!(both(&mut fleet, &looked(DRAIN_MS, 0)), (0, 0));
    assert_eq!(both(&mut fleet, &looked(DRAIN_MS + 1, DRAIN_MS + 1)), (0, 2));
}

fn says() -> impl Strategy<Value = Says> {
    let held = prop::sample::select(&[Held::Holding, Held::Holding, Held::Open, Held::Expired][..]);
    let few = || prop::sample::select(&[0_u64, 0, 0, 1][..]);
    let (fence, right) = (prop::bool::weighted(0.9), prop::bool::weighted(0.9));
    (held, fence, right, few(), few(), few(), prop::bool::weighted(0.9), few()).prop_map(
        |(held, fence, right, open, arrived, unplaced, complete, passed)| {
            let says = holds().fence(|one| {
                (one.held, one.passed) = (held, passed);
                one.epoch = if right { EPOCH } else { 8 };
            });
            let fenced = says.fenced.clone().filter(|_| fence);
            Says { fenced, open, arrived, unplaced, complete, ..says }
        },
    )
}

proptest! {
    /// In whatever order reports come: drained is only what every last report says of itself, in time.
    #[test]
    fn unknown_is_never_zero(
        reports in prop::collection::vec((any::<bool>(), says(), 0_u64..2_000), 1..60),
        beside in 0_usize..3,
    ) {
        let mut fleet = Fleet::new(&["a", "b"][..beside]);
        let (mut last, mut expired) = ([None, None], false);
        for (which, says, pause) in reports {
            fleet.now_ms += pause;
            let fence = fleet.hear(if which { "b" } else { "a" }, &says);
            expired |= says.fenced.as_ref().is_some_and(|one| one.held == Held::Expired);
            last[usize::from(which)] = Some((fleet.now_ms, says));
            let fine = |one: &Option<(u64, Says)>| one.as_ref().is_some_and(|(at, says)| {
                let fenced = says.fenced.as_ref().is_some_and(|one| one.held == Held::Holding && one.epoch == EPOCH);
                let nothing = says.open + says.arrived + says.unplaced == 0;
                fleet.now_ms - at <= 3_000 && fenced && nothing && says.complete
            });
            prop_assert!(!fence.drained || (last.iter().all(fine) && !expired), "{fence:?}");
        }
    }
}
