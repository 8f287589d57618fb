//! The state machine under random observations, requests and restarts.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use machine::checks::{Answer, Questions, Verdict};
use machine::fleet::ledger::{Fleet, Laggard, Quiet};
use machine::observation::{Action, Headroom, Observation, Place, Request, Workload};
use machine::plan::{Effect, Plan, step, wanted};
use machine::spec::{CleanupPolicy, Spec};
use machine::status::{Phase, Status};
use proptest::prelude::*;

const VERDICTS: [Verdict; 3] = [Verdict::Passed, Verdict::Failed, Verdict::Inconclusive];
const CHECK: &str = ", checks: [{name: a, webhook: {url: 'http://a'}}]";
const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

#[derive(Debug, Clone)]
enum Op {
    /// Time passes.
    Wait(u64),
    Ask(&'static str),
    Request(Action),
    /// The proxies take over what was published, or fall behind.
    Sync(bool),
    /// Requests to the old version: unknown, busy, quiet.
    Quiet(u8),
    Die(&'static str),
    /// The check's verdict from now on.
    Check(Verdict),
    /// The plan of this pass is lost; with effects, those after this many are.
    Crash(usize),
    /// Nothing happens but a pass.
    Pass,
}

fn op() -> impl Strategy<Value = Op> {
    let version = prop::sample::select(&VERSIONS[..]);
    let action = prop::sample::select(
        &[Action::Promote, Action::Rollback, Action::Abort, Action::Retry, Action::Suspend, Action::Resume][..],
    );
    prop_oneof![
        3 => (1_u64..20_000).prop_map(Op::Wait),
        2 => version.clone().prop_map(Op::Ask),
        2 => action.prop_map(Op::Request),
        4 => any::<bool>().prop_map(Op::Sync),
        3 => (0_u8..3).prop_map(Op::Quiet),
        1 => version.prop_map(Op::Die),
        2 => prop::sample::select(&VERDICTS[..]).prop_map(Op::Check),
        2 => (0_usize..4).prop_map(Op::Crash),
        12 => Just(Op::Pass),
    ]
}

fn spec(extra: &str) -> Spec {
    let yaml = format!(
        "{{version: v1, services: [{{name: reviews}}], settle: {{quietPeriod: 2s, timeout: 30s}}, \
         cleanup: {{retainFor: 5s}}, coexistence: {{minReady: 1s, headroom: Ignore}} {extra}}}"
    );
    serde_saphyr::from_str(&yaml).unwrap()
}

struct World {
    now: u64,
    spec: Spec,
    status: Status,
    /// Running versions, and since when.
    running: BTreeMap<String, u64>,
    published: Option<u64>,
    effective: Option<u64>,
    old: Quiet,
    /// The check's verdict, and since when.
    verdict: (Verdict, u64),
    request: Option<Request>,
    requests: u32,
    stops: Vec<String>,
    deleted: BTreeSet<String>,
}

impl World {
    fn new(spec: Spec) -> World {
        World {
            now: 1_000_000,
            spec,
            status: Status::new("uid", "reviews", 1_000_000),
            running: BTreeMap::new(),
            published: None,
            effective: None,
            old: Quiet::Unknown,
            verdict: (Verdict::Passed, 0),
            request: None,
            requests: 0,
            stops: vec![],
            deleted: BTreeSet::new(),
        }
    }

    fn fleet(&self) -> Fleet {
        let acked = self.effective.is_some() && self.effective == Some(self.status.epoch());
        let laggard = || vec![Laggard { proxy: "edge".to_owned(), why: "behind".to_owned() }];
        Fleet {
            expected: 1,
            acked: usize::from(acked),
            laggards: if acked { vec![] } else { laggard() },
            // Worse than the ledger, which never calls it quiet while an ack is missing.
            old: self.old,
            highest_epoch: self.effective.unwrap_or(0),
            ..machine::fleet::ledger::Fleet::unknown(0)
        }
    }

    fn seen(&self) -> Observation {
        let workload = |version: &str| {
            let since = self.running.get(version).copied();
            let ready = since.is_some_and(|since| self.now >= since + 300);
            let ready_since = since.filter(|_| ready).map(|since| since + 300);
            let exists = !self.deleted.contains(version);
            Workload { declared: exists, running: since.is_some(), ready, ready_since, exited: None, exists }
        };
        let (verdict, since) = self.verdict;
        let asked = Questions::of(&self.spec, &self.status).is_some();
        let answer = asked.then(|| Answer { verdict, message: String::new(), since });
        Observation {
            versions: VERSIONS.iter().map(|version| ((*version).to_owned(), workload(version))).collect(),
            headroom: Headroom::Fits,
            fleet: self.fleet(),
            request: self.request.clone(),
            spec_error: None,
            place: Place::default(),
            routes: None,
            checks: answer.map(|answer| ("a".to_owned(), answer)).into_iter().collect(),
        }
    }

    /// One pass; `keep` effects happen, and a changed status is kept only without a crash.
    fn pass(&mut self, crash: Option<usize>) {
        let seen = self.seen();
        let Plan { status, effects, .. } = step(self.now, &self.spec, &self.status, &seen);
        assert!(status == self.status || effects.is_empty(), "a pass either changes the status or acts");
        if status != self.status {
            if crash.is_none() {
                check_transition(&self.status, &status);
                let forward = status.switch.as_ref().is_some_and(|switch| !switch.removal && !switch.rollback);
                if status.phase == Phase::Removing && status.phase != self.status.phase && forward {
                    let passed = self.spec.checks.is_empty() || self.verdict.0 == Verdict::Passed;
                    assert!(passed, "removed although a check did not pass");
                }
                self.status = status;
            }
            return;
        }
        for effect in effects.into_iter().take(crash.unwrap_or(usize::MAX)) {
            match effect {
                Effect::Start { version } => {
                    assert!(!self.deleted.contains(&version), "what was deleted is asked for");
                    self.running.entry(version).or_insert(self.now);
                }
                Effect::Stop { version } => {
                    assert_ne!(version, self.status.active_version, "the active version is stopped");
                    assert_eq!(self.status.phase, Phase::Removing, "the intent was not on disk");
                    assert_eq!((seen.fleet.acked, seen.fleet.laggards.len()), (1, 0), "an ack is missing");
                    assert!(matches!(seen.fleet.old, Quiet::Since(t) if self.now - t >= 2_000), "not quiet");
                    assert!(seen.workload(&self.status.active_version).ready, "nothing else is ready");
                    let record = self.status.record.as_ref().unwrap();
                    assert!(!record.versions.contains(&version), "a proxy could still choose what is stopped");
                    self.running.remove(&version);
                    self.stops.push(version);
                }
                Effect::Delete { version } => {
                    let switch = self.status.switch.as_ref().unwrap();
                    assert!(!switch.rollback && !switch.removal && version == switch.from, "{switch:?}");
                    assert_eq!((self.status.phase, self.running.contains_key(&version)), (Phase::Removing, false));
                    assert_ne!(version, self.status.active_version, "the active version is deleted");
                    self.deleted.insert(version);
                }
                Effect::Publish(record) => {
                    assert_eq!(Some(record.as_ref()), self.status.record.as_ref(), "published before written");
                    self.published = Some(record.epoch);
                }
                Effect::Configure(record) | Effect::Route(record) => {
                    assert_eq!(Some(record.as_ref()), self.status.record.as_ref());
                }
            }
        }
    }

    fn apply(&mut self, op: &Op, restarts: bool) {
        match op {
            Op::Wait(ms) => self.now += ms,
            Op::Ask(version) => {
                (*version).clone_into(&mut self.spec.version);
                self.deleted.remove(*version);
            }
            Op::Request(action) => {
                self.requests += 1;
                self.request = Some(Request { id: self.requests.to_string(), action: *action });
            }
            Op::Sync(true) => self.effective = self.published.or(self.effective),
            Op::Sync(false) => self.effective = None,
            Op::Quiet(0) => self.old = Quiet::Unknown,
            Op::Quiet(1) => self.old = Quiet::Busy { open: 1 },
            Op::Quiet(_) => self.old = Quiet::Since(self.now),
            Op::Die(version) => {
                self.running.remove(*version);
            }
            Op::Check(verdict) if self.verdict.0 != *verdict => self.verdict = (*verdict, self.now),
            Op::Check(_) => {}
            Op::Crash(_) if !restarts => {}
            Op::Crash(kept) => self.pass(Some(*kept)),
            Op::Pass => {}
        }
        self.pass(None);
    }

    /// Everything goes well from here on.
    fn end(&mut self) {
        self.request = None;
        self.status.suspended = false;
        self.verdict = (Verdict::Passed, 0);
        for _ in 0..400 {
            self.now += 100;
            self.effective = self.published.or(self.effective);
            if !matches!(self.old, Quiet::Since(_)) {
                self.old = Quiet::Since(self.now);
            }
            let before = self.status.clone();
            self.pass(None);
            let arrived = self.status.phase == Phase::Stable && before == self.status;
            if arrived && self.running.len() == 1 && self.status.leftovers.is_empty() {
                return;
            }
        }
    }

    fn outcome(&self) -> (Phase, String, BTreeSet<String>, bool) {
        let running = self.running.keys().cloned().collect();
        (self.status.phase, self.status.active_version.clone(), running, self.status.r#override.is_some())
    }

    fn until(&mut self, phase: Phase) {
        for _ in 0..400 {
            if self.status.phase == phase {
                return;
            }
            self.now += 50;
            self.effective = self.published.or(self.effective);
            self.old = Quiet::Since(self.now.saturating_sub(2_000));
            self.pass(None);
        }
        panic!("{phase:?} was not reached: {:?}", self.status);
    }
}

fn check_transition(before: &Status, after: &Status) {
    use Phase::*;
    assert!(after.epoch() >= before.epoch(), "the epoch falls");
    if let (Some(one), Some(other)) = (&before.record, &after.record) {
        assert!(one == other || other.epoch > one.epoch, "an epoch is used twice");
        assert_eq!(other.active, after.active_version);
    }
    let (from, to) = (before.phase, after.phase);
    let next: &[Phase] = match from {
        Adopting => &[Stable],
        Stable => &[Coexisting, Settling],
        Coexisting => &[AwaitingPromotion, Stable],
        AwaitingPromotion => &[ProvingRoutes, Coexisting, Stable],
        ProvingRoutes => &[Switching, Coexisting, Stable],
        Switching => &[Settling, Coexisting, Switching],
        Settling => &[Retaining, Removing, Coexisting, Switching],
        Retaining => &[Removing, Settling, Coexisting, Switching, Stable],
        Removing => &[Stable, Settling],
    };
    assert!(from == to || next.contains(&to), "{from:?} to {to:?} skips a phase");
    if before.active_version != after.active_version && !before.active_version.is_empty() && from != Adopting {
        assert_eq!(to, Switching, "the active version changes without a switch");
    }
    if to == Removing && from == Settling {
        assert!(after.switch.as_ref().is_some_and(|switch| switch.removal), "retaining was skipped");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The assertions are in `World::pass`.
    #[test]
    fn never_unsafe_and_always_arrives(
        ops in prop::collection::vec(op(), 0..120),
        checked in any::<bool>(),
        policy in prop::sample::select(&[CleanupPolicy::ScaleToZero, CleanupPolicy::Delete][..]),
    ) {
        let mut world = World::new(spec(if checked { CHECK } else { "" }));
        world.spec.cleanup.policy = policy;
        for op in &ops {
            world.apply(op, true);
        }
        world.end();
        let (phase, active, running, _) = world.outcome();
        prop_assert_eq!(phase, Phase::Stable, "{:#?}", world.status);
        prop_assert_eq!(&active, wanted(&world.spec, &world.status));
        prop_assert_eq!(running, BTreeSet::from([active]));
    }

    /// A plan that is lost, and effects that are cut off, change nothing about the end.
    #[test]
    fn a_restart_converges(asked in prop::sample::select(&VERSIONS[..]), crashes in prop::collection::vec(0_usize..4, 1..40)) {
        let run = |crashes: &[usize]| {
            let mut world = World::new(spec(""));
            world.until(Phase::Stable);
            asked.clone_into(&mut world.spec.version);
            for kept in crashes {
                world.pass(Some(*kept));
                world.now += 200;
                world.effective = world.published.or(world.effective);
                world.pass(None);
            }
            world.end();
            world.outcome()
        };
        prop_assert_eq!(run(&crashes), run(&[]));
    }

    #[test]
    fn a_rollback_before_the_cleanup_returns(
        phase in prop::sample::select(&[Phase::Switching, Phase::Settling, Phase::Retaining][..]),
        wait in 0_u64..4_000,
        crashes in prop::collection::vec(0_usize..4, 0..10),
    ) {
        let mut world = World::new(spec(""));
        world.until(Phase::Stable);
        "v2".clone_into(&mut world.spec.version);
        world.until(phase);
        world.now += wait;
        let epoch = world.status.epoch();
        world.request = Some(Request { id: "back".to_owned(), action: Action::Rollback });
        for kept in &crashes {
            world.pass(Some(*kept));
        }
        world.pass(None);
        prop_assert_eq!(&world.status.active_version, "v1");
        prop_assert!(world.status.epoch() > epoch);
        world.end();
        prop_assert_eq!(&world.status.active_version, "v1", "it sticks");
        prop_assert!(!world.stops.contains(&"v1".to_owned()), "v1 was stopped on the way");
        prop_assert!(world.status.r#override.is_some());
    }
}

#[test]
fn a_whole_switch_goes_through_every_phase() {
    let mut world = World::new(spec(""));
    world.until(Phase::Stable);
    "v2".clone_into(&mut world.spec.version);
    for phase in &Phase::ALL[2..] {
        world.until(*phase);
    }
    world.until(Phase::Stable);
    assert_eq!(world.stops, ["v1"]);
    assert_eq!(world.status.record.as_ref().map(|record| record.versions.len()), Some(1));
}

#[test]
fn what_is_left_is_deleted_if_asked_for_and_what_is_rolled_back_is_not() {
    let mut world = World::new(spec(", promotion: {mode: Automatic}"));
    world.spec.cleanup.policy = CleanupPolicy::Delete;
    world.until(Phase::Stable);
    "v2".clone_into(&mut world.spec.version);
    world.until(Phase::Removing);
    world.end();
    assert_eq!((world.stops.as_slice(), &world.deleted), (&["v1".to_owned()][..], &BTreeSet::from(["v1".to_owned()])));
    let removed = world.status.history.iter().find(|event| event.event == "Removed").unwrap();
    assert_eq!(removed.message, "v1 is deleted");

    "v3".clone_into(&mut world.spec.version);
    world.until(Phase::Settling);
    world.request = Some(Request { id: "back".to_owned(), action: Action::Rollback });
    world.pass(None);
    world.end();
    assert_eq!(
        (world.status.active_version.as_str(), world.stops.as_slice()),
        ("v2", &["v1".to_owned(), "v3".to_owned()][..])
    );
    assert!(!world.deleted.contains("v3"), "it may be tried again");
}

#[test]
fn a_missing_ack_is_waited_for_forever() {
    let mut world = World::new(spec(""));
    world.until(Phase::Stable);
    "v2".clone_into(&mut world.spec.version);
    world.until(Phase::Switching);
    for _ in 0..100 {
        world.now += 60_000;
        world.pass(None);
    }
    assert_eq!(world.status.phase, Phase::Switching);
    let blocked = world.status.blocked.as_ref().unwrap();
    assert_eq!(blocked.reason, "Laggards");
    assert!(blocked.message.contains("edge (behind)"), "{}", blocked.message);
    assert!(world.running.contains_key("v1"));
}

#[test]
fn a_person_promotes() {
    let mut world = World::new(spec(", promotion: {mode: Manual}"));
    world.until(Phase::Stable);
    "v2".clone_into(&mut world.spec.version);
    world.until(Phase::AwaitingPromotion);
    for _ in 0..10 {
        world.now += 60_000;
        world.pass(None);
    }
    assert_eq!(world.status.phase, Phase::AwaitingPromotion);
    world.request = Some(Request { id: "p".to_owned(), action: Action::Promote });
    world.until(Phase::Switching);
}

#[test]
fn an_abort_stops_what_was_started_and_sticks() {
    let mut world = World::new(spec(", promotion: {mode: Manual}"));
    world.until(Phase::Stable);
    "v2".clone_into(&mut world.spec.version);
    world.until(Phase::AwaitingPromotion);
    world.request = Some(Request { id: "a".to_owned(), action: Action::Abort });
    world.pass(None);
    world.end();
    assert_eq!(world.outcome(), (Phase::Stable, "v1".to_owned(), BTreeSet::from(["v1".to_owned()]), true));
}
