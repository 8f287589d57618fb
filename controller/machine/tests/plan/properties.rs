//! The loop under random observations, requests, deaths and restarts. The house asserts what must never happen; here
//! stands what happens in between, and where it ends.

use std::collections::BTreeSet;

use machine::action::Action;
use machine::checks::Verdict;
use machine::fleet::ledger::Quiet;
use machine::observation::{Headroom, Keeper};
use machine::plan::wanted;
use machine::reason::Reason;
use machine::spec::{CleanupPolicy, Spec};
use machine::status::Phase;
use proptest::prelude::*;

use crate::house::{Fuse, House, Plot, VERSIONS, Write, problem};

#[derive(Debug, Clone)]
enum Op {
    /// Time passes.
    Wait(u64),
    /// The spec asks for a version.
    Ask(&'static str),
    Request(Action),
    /// A proxy takes over what was published.
    Hear(usize),
    /// A proxy takes over its configuration and its routes.
    Read(usize),
    /// A proxy starts anew, from its configuration.
    Restart(usize),
    /// A proxy does not reach this version; `None`: it reaches all.
    CutOff(usize, Option<&'static str>),
    /// A proxy says nothing until it takes over something.
    Silence(usize),
    /// Requests are open on the version that is left, as far as they do not wait.
    Serve(usize, bool),
    /// Another flag holds requests of the same callers.
    OtherFence(bool),
    /// Requests to the old version: unknown, busy, quiet.
    Quiet(u8),
    Die(&'static str),
    /// It ends, and is ready again before anybody looks.
    Flicker(&'static str),
    /// An autoscaler keeps it at one pod.
    Shrink(&'static str),
    Check(Verdict),
    Room(u8),
    /// Something is wrong in the cluster, or nothing is any more.
    Problem(Option<Reason>),
    /// Somebody else's routes are in the way, or no longer.
    Conflict(bool),
    /// How long subsets take to appear.
    Lag(u64),
    SpecUnknown(bool),
    SpecError(bool),
    /// The controller dies at a write or an act.
    Crash(Fuse),
    /// Somebody else writes the status.
    Clash,
    /// The next write takes its time.
    SlowWrite(u64),
    /// What was done calls for another look.
    Again,
    /// Time passes, and all goes well.
    GoWell(u64),
    /// Nothing happens but a turn.
    Pass,
}

fn fuse() -> impl Strategy<Value = Fuse> {
    (0_usize..5, any::<bool>()).prop_map(|(acts, after)| Fuse { acts, after })
}

fn op() -> impl Strategy<Value = Op> {
    let version = prop::sample::select(&VERSIONS[..]);
    let action = prop::sample::select(
        &[Action::Promote, Action::Rollback, Action::Abort, Action::Retry, Action::Suspend, Action::Resume][..],
    );
    let verdict = prop::sample::select(&[Verdict::Passed, Verdict::Failed, Verdict::Inconclusive][..]);
    let reason = prop::sample::select(&[Reason::Forbidden, Reason::HeaderTaken, Reason::TooWide][..]);
    let people = prop_oneof![
        2 => version.clone().prop_map(Op::Ask),
        2 => action.prop_map(Op::Request),
        1 => any::<bool>().prop_map(Op::SpecError),
        1 => any::<bool>().prop_map(Op::SpecUnknown),
    ];
    let proxies = prop_oneof![
        6 => (0_usize..2).prop_map(Op::Hear),
        4 => (0_usize..2).prop_map(Op::Read),
        1 => (0_usize..2).prop_map(Op::Restart),
        1 => (0_usize..2).prop_map(Op::Silence),
        1 => (0_usize..2, prop::option::of(version.clone())).prop_map(|(which, version)| Op::CutOff(which, version)),
        3 => (0_u8..3).prop_map(Op::Quiet),
        4 => (0_usize..2, any::<bool>()).prop_map(|(which, busy)| Op::Serve(which, busy)),
    ];
    let cluster = prop_oneof![
        2 => version.clone().prop_map(Op::Die),
        2 => version.clone().prop_map(Op::Flicker),
        2 => version.prop_map(Op::Shrink),
        2 => verdict.prop_map(Op::Check),
        1 => (0_u8..3).prop_map(Op::Room),
        1 => prop::option::of(reason).prop_map(Op::Problem),
        1 => any::<bool>().prop_map(Op::Conflict),
        1 => any::<bool>().prop_map(Op::OtherFence),
        1 => (0_u64..1_500).prop_map(Op::Lag),
    ];
    let controller = prop_oneof![3 => fuse().prop_map(Op::Crash), 1 => Just(Op::Clash), 1 => Just(Op::Again)];
    prop_oneof![
        4 => (1_u64..20_000).prop_map(Op::Wait),
        8 => (1_u64..4_000).prop_map(Op::GoWell),
        5 => people,
        10 => proxies,
        5 => cluster,
        3 => controller,
        8 => Just(Op::Pass),
    ]
}

/// What happens within a hold: it is over in two seconds.
fn op_of_a_hold() -> impl Strategy<Value = Op> {
    let action = prop::sample::select(&[Action::Rollback, Action::Abort, Action::Suspend, Action::Resume][..]);
    prop_oneof![
        4 => (1_u64..400).prop_map(Op::Wait),
        10 => (0_usize..2).prop_map(Op::Hear),
        6 => (0_usize..2, any::<bool>()).prop_map(|(which, busy)| Op::Serve(which, busy)),
        1 => (0_usize..2).prop_map(Op::Restart),
        1 => (0_usize..2).prop_map(Op::Silence),
        1 => prop::sample::select(&VERSIONS[..]).prop_map(Op::Die),
        1 => prop::sample::select(&VERSIONS[..]).prop_map(Op::Ask),
        1 => action.prop_map(Op::Request),
        1 => fuse().prop_map(Op::Crash),
        1 => Just(Op::Clash),
        2 => (100_u64..2_500).prop_map(Op::SlowWrite),
        4 => Just(Op::Pass),
    ]
}

/// Where the first switch stands when things begin to happen. A house that begins anew seldom comes so far.
const BEGIN: [Phase; 7] = [
    Phase::Coexisting,
    Phase::Holding,
    Phase::Committing,
    Phase::Switching,
    Phase::Settling,
    Phase::Retaining,
    Phase::Removing,
];

const FENCED: &str = ", switch: {mode: Fenced, fence: {attempts: 100}}";
const EXTERNAL: &str = "routing: {provider: External}";
const MESH: &str = "routing: {provider: Istio}";

/// A spec with short times, of two services.
pub(crate) fn spec(more: &str) -> Spec {
    let yaml = format!(
        "{{version: v1, services: [{{name: reviews}}, {{name: ratings}}], settle: {{quietPeriod: 2s, timeout: 30s}}, \
         cleanup: {{retainFor: 5s}}, coexistence: {{minReady: 1s}}, {more}}}"
    );
    serde_saphyr::from_str(&yaml).unwrap()
}

/// Without a mesh, where the controller keeps what serves running.
pub(crate) fn house(more: &str) -> House {
    House::new(Plot { spec: spec(&format!("{EXTERNAL}, {more}")), keeper: Keeper::Controller })
}

fn plot() -> impl Strategy<Value = Plot> {
    let keeper = prop::sample::select(&[Keeper::Controller, Keeper::Platform][..]);
    let policy = prop::sample::select(&[CleanupPolicy::ScaleToZero, CleanupPolicy::Delete][..]);
    let checks = prop::sample::select(&["", ", checks: [{name: a, webhook: {url: 'http://a'}}]"][..]);
    let failure = prop::sample::select(&["", ", onTargetFailure: Rollback"][..]);
    let provider = prop::sample::select(&[EXTERNAL, MESH][..]);
    let switch = prop::sample::select(&["", FENCED][..]);
    let all = (keeper, policy, checks, failure, provider, switch);
    all.prop_map(|(keeper, policy, checks, failure, provider, switch)| {
        let mut spec = spec(&format!("{provider}{checks}{failure}{switch}"));
        spec.cleanup.policy = policy;
        Plot { spec, keeper }
    })
}

impl House {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Wait(ms) => self.pass_time(*ms),
            Op::Flicker(version) => self.flicker(version),
            Op::Shrink(version) => _ = self.scaled.insert((*version).to_owned()),
            Op::GoWell(ms) => return self.go_well(*ms),
            Op::Ask(version) => self.want(version),
            Op::Request(action) => self.ask(*action),
            Op::Hear(which) => self.hear(*which),
            Op::Read(which) => self.read(*which),
            Op::Restart(which) => self.proxies.restart(*which),
            Op::CutOff(which, version) => self.proxies.all[*which].cut_off = version.map(str::to_owned),
            Op::Silence(which) => self.proxies.all[*which].speaks = false,
            Op::Serve(which, busy) => self.serve(*which, *busy),
            Op::OtherFence(other) => self.other_fence = other.then(|| "other".to_owned()),
            Op::Quiet(0) => self.proxies.old = Quiet::Unknown,
            Op::Quiet(1) => self.proxies.old = Quiet::Busy { open: 1 },
            Op::Quiet(_) => self.proxies.old = Quiet::Since(self.now),
            Op::Die(version) => self.die(version),
            Op::Check(verdict) => self.check_says(*verdict),
            Op::Room(0) => self.room = Headroom::Unknown,
            Op::Room(1) => self.room = Headroom::Short { message: "no room".to_owned() },
            Op::Room(_) => self.room = Headroom::Fits,
            Op::Problem(reason) => self.problem = reason.map(problem),
            Op::Conflict(conflict) => self.mesh.iter_mut().for_each(|mesh| mesh.conflict = *conflict),
            Op::Lag(ms) => self.mesh.iter_mut().for_each(|mesh| mesh.lag = *ms),
            Op::SpecUnknown(unknown) => self.spec_unknown = *unknown,
            Op::SpecError(wrong) => self.spec_error = *wrong,
            Op::Crash(fuse) => self.fuse = Some(*fuse),
            Op::Clash => self.write = Write::Conflicts,
            Op::SlowWrite(ms) => self.write = Write::Takes(*ms),
            Op::Again => self.again = true,
            Op::Pass => {}
        }
        self.turn();
    }
}

/// A whole world a case takes its time: without `PROPTEST_CASES` (`make test-unit` sets it) fewer are
/// tried than elsewhere.
fn config() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(96),
    }
}

proptest! {
    #![proptest_config(config())]

    /// C01, C02, C03, C08, F18, T1: with the repair of any of them taken out, this fails.
    #[test]
    fn never_unsafe_and_always_arrives(
        plot in plot(),
        begin in prop::option::of(prop::sample::select(&BEGIN[..])),
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut house = House::new(plot);
        if let Some(phase) = begin {
            house.until(Phase::Stable);
            house.want("v2");
            house.until(if phase.holds() && !house.spec.switch.is_fenced() { Phase::Switching } else { phase });
        }
        for op in &ops {
            house.apply(op);
        }
        house.end();
        let (phase, active, running, _) = house.outcome();
        prop_assert_eq!(phase, Phase::Stable, "{:#?}", house.memory);
        prop_assert_eq!(&active, wanted(&house.spec, &house.memory));
        prop_assert_eq!(running, BTreeSet::from([active]));
    }

    /// Neither committed nor let go without the proof, whatever happens within a hold; and it ends. With the proof of
    /// either step taken out, this fails.
    #[test]
    fn a_hold_is_left_by_the_proof_or_given_up(
        keeper in prop::sample::select(&[Keeper::Controller, Keeper::Platform][..]),
        begin in prop::sample::select(&[Phase::Holding, Phase::Committing][..]),
        busy in any::<bool>(),
        ops in prop::collection::vec(op_of_a_hold(), 0..40),
    ) {
        let mut house = House::new(Plot { spec: spec(&format!("{EXTERNAL}{FENCED}")), keeper });
        house.until(Phase::Stable);
        house.want("v2");
        house.until(begin);
        house.serve(0, busy);
        for op in &ops {
            house.apply(op);
        }
        house.end();
        prop_assert_eq!(house.memory.phase, Phase::Stable, "{:#?}", house.memory);
        prop_assert_eq!(&house.memory.active_version, wanted(&house.spec, &house.memory));
    }

    /// A plan that is lost, and effects that are cut off, change nothing about the end.
    #[test]
    fn a_restart_converges(
        plot in plot(),
        asked in prop::sample::select(&VERSIONS[..]),
        crashes in prop::collection::vec(fuse(), 1..40),
    ) {
        let run = |crashes: &[Fuse]| {
            let mut house = House::new(plot.clone());
            house.until(Phase::Stable);
            house.want(asked);
            for fuse in crashes {
                house.fuse = Some(*fuse);
                house.turn();
                house.fuse = None;
                house.go_well(200);
            }
            house.end();
            house.outcome()
        };
        prop_assert_eq!(run(&crashes), run(&[]));
    }

    #[test]
    fn a_rollback_before_the_cleanup_returns(
        plot in plot(),
        phase in prop::sample::select(&[Phase::Switching, Phase::Settling, Phase::Retaining][..]),
        wait in 0_u64..4_000,
        crashes in prop::collection::vec(fuse(), 0..10),
    ) {
        let mut house = House::new(plot);
        house.until(Phase::Stable);
        house.want("v2");
        house.until(phase);
        house.pass_time(wait);
        let epoch = house.memory.epoch();
        house.ask(Action::Rollback);
        for fuse in &crashes {
            house.fuse = Some(*fuse);
            house.turn();
        }
        house.fuse = None;
        house.turn();
        if !house.spec.switch.is_fenced() {
            prop_assert_eq!(&house.memory.active_version, "v1");
            prop_assert!(house.memory.epoch() > epoch);
        }
        house.end();
        prop_assert_eq!(&house.memory.active_version, "v1", "it sticks");
        prop_assert!(!house.stops.contains(&"v1".to_owned()), "v1 was stopped on the way");
        prop_assert!(house.memory.r#override.is_some());
    }
}
