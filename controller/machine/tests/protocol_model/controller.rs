//! The controllers: what each remembers and sees, and what the real loop makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures_util::FutureExt;
use machine::fleet::ledger::{FleetQuestion, Ledger};
use machine::observation::{Headroom, Keeper, Observation, ServiceFacts};
use machine::plan::{Effect, Pass, Plan, wanted};
use machine::reach::{Reach, probe};
use machine::reconcile::{World, reconcile};
use machine::spec::Spec;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

use crate::api::{Decision, Flag, Why, Workload, Write, decided, flips};
use crate::laws::Law;
use crate::model_parts::{Kept, Published, hash};
use crate::mutation::Mutation;
use crate::proxy::Sent;
use crate::world::{Protocol, State};
use crate::{SERVICE, VERSIONS, number};

/// A report older than this says nothing any more, in milliseconds.
const STALE_MS: u64 = 6_000;

/// The real ledger, told from others by what it says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Book(Arc<Ledger>, u64);

impl Book {
    fn new() -> Book {
        Book(Arc::new(Ledger::new(STALE_MS)), 0)
    }

    fn accept(&mut self, now: u64, sent: &Sent) -> bool {
        let taken = Arc::make_mut(&mut self.0).accept(now, sent.report.clone()).is_ok();
        self.1 = hash(&format!("{:?}", self.0));
        taken
    }
}

impl PartialEq for Book {
    fn eq(&self, other: &Book) -> bool {
        self.1 == other.1
    }
}

impl Eq for Book {}

impl Hash for Book {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.1.hash(state);
    }
}

/// What a controller has seen of the API server, each kind of object at its own time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) flag: Flag,
    pub(crate) workloads: [Workload; 3],
    /// How many proxies it knows of.
    pub(crate) proxies: usize,
}

/// The last report of a proxy that was believed, how often the same came in a row, and when the last one did.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Heard {
    pub(crate) sent: Arc<Sent>,
    pub(crate) times: u8,
    pub(crate) at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Controller {
    pub(crate) memory: Kept,
    /// The flag's resource as it was read or written last, and whether it was written here.
    pub(crate) resource: Flag,
    written: bool,
    pub(crate) view: View,
    /// How often each version had broken down at the last look, and since when it has been ready.
    steady: [(u8, Option<u64>); 3],
    book: Book,
    pub(crate) heard: BTreeMap<usize, Heard>,
    /// What its flag service gives out.
    pub(crate) published: Option<u8>,
    /// The configuration of proxies as it was read or written last.
    file: Option<(u8, Option<u8>)>,
    pub(crate) leads_since: u64,
    /// What it is about to write, in order.
    pub(crate) pending: Vec<Write>,
    /// It has looked, and nothing came since.
    pub(crate) rests: bool,
    /// When time alone may move it.
    pub(crate) wakes: Option<u64>,
}

impl Controller {
    pub(crate) fn new(flag: Flag, state: &State) -> Controller {
        let view = View { flag: flag.clone(), workloads: state.api.workloads, proxies: state.proxies.len() };
        Controller {
            memory: flag.status.clone(),
            resource: flag,
            written: false,
            view,
            steady: [(0, None); 3],
            book: Book::new(),
            heard: BTreeMap::new(),
            published: None,
            file: None,
            leads_since: state.now,
            pending: vec![],
            rests: false,
            wakes: None,
        }
    }

    pub(crate) fn hear(&mut self, now: u64, sent: &Arc<Sent>) {
        self.rests = false;
        if !self.book.accept(now, sent) {
            return;
        }
        let before = self.heard.get(&sent.proxy).filter(|heard| heard.sent.vms == sent.vms);
        let times = before.map_or(1, |heard| heard.times.saturating_add(1).min(3));
        self.heard.insert(sent.proxy, Heard { sent: Arc::clone(sent), times, at: now });
    }

    /// Somebody else may have written. As the controller of a cluster takes it over.
    pub(crate) fn take_over(&mut self, found: Flag) {
        let theirs = &found.status.status;
        let same = !self.written && theirs.record == self.memory.status.record;
        if theirs.epoch() > self.memory.status.epoch() || same {
            self.memory = found.status.clone();
        }
        self.resource = found;
    }

    /// One turn of the real loop, up to what has to be written.
    pub(crate) fn look(&mut self, state: &mut State, world: &Protocol) {
        if self.view.flag.version > self.resource.version {
            self.take_over(self.view.flag.clone());
        }
        let done = reconcile(&mut Turn { me: self, state, world }).now_or_never().unwrap();
        self.rests = true;
        if let Ok(wait) = done {
            self.wakes = wait.map(|wait| state.now + wait.0.max(1));
            self.mutate(state, world);
        }
    }

    fn decision(&self, state: &State) -> Decision {
        Decision { status: self.memory.clone(), at: state.now, leads_since: self.leads_since }
    }

    pub(crate) fn scale(&mut self, state: &State, of: usize, replicas: u8, why: Why) {
        let by = self.decision(state);
        self.pending.push(Write::Scale { of, replicas, version: self.view.workloads[of].version, why, by });
    }

    fn act(&mut self, state: &mut State, world: &Protocol, effect: Effect) {
        match effect {
            Effect::Protect { version, epoch } => {
                let of = number(&version);
                if self.view.workloads[of].kept_at != Some(epoch) && world.mutation != Some(Mutation::ProtectsNothing) {
                    self.pending.push(Write::Keep(of, epoch));
                }
            }
            Effect::Start { version, like } => {
                let of = number(&version);
                let like = like.map_or(0, |like| self.view.workloads[number(&like)].replicas).max(1);
                if self.view.workloads[of].replicas < like {
                    self.scale(state, of, like, Why::Start);
                }
            }
            Effect::Publish(publication) => {
                let number = state.publication(Published::new(*publication));
                let silent =
                    self.memory.status.phase == Phase::Switching && world.mutation == Some(Mutation::PublishesNothing);
                if self.published != Some(number) && !silent {
                    self.pending.push(Write::Publish(number));
                }
            }
            Effect::Configure(record) => {
                let number = state.published.iter().position(|one| one.0.record == *record).unwrap() as u8;
                let (version, known) = *self.file.get_or_insert(state.api.file);
                let same = known.is_some_and(|known| state.published[usize::from(known)].0.record == *record);
                if !same {
                    self.pending.push(Write::File(number, version));
                }
            }
            Effect::Stop { version } if self.view.workloads[number(&version)].replicas > 0 => {
                self.scale(state, number(&version), 0, Why::Stop);
            }
            Effect::Stop { .. } | Effect::Cluster { .. } | Effect::Route(_) | Effect::Delete { .. } => {}
        }
    }

    /// Its next write is done, or was refused.
    pub(crate) fn write(&mut self, state: &mut State, world: &Protocol) {
        let write = self.pending.remove(0);
        if state.land(world, &write).is_err() {
            self.pending.clear();
            self.rests = false;
            match write {
                Write::Status(..) => self.take_over(state.api.flag.clone()),
                Write::File(..) => self.file = None,
                _ => {}
            }
            return;
        }
        match write {
            Write::Status(status, _) => {
                (self.memory, self.resource, self.written) = (status, state.api.flag.clone(), true);
                self.rests = false;
            }
            Write::File(..) => self.file = Some(state.api.file),
            Write::Publish(number) => self.published = Some(number),
            Write::Keep(..) | Write::Scale { .. } => {}
        }
    }

    fn observation(&mut self, state: &State, world: &Protocol) -> Observation {
        let spec = &world.specs[self.resource.wants];
        let (status, mut seen) = (Arc::clone(&self.memory.status), Observation::unknown());
        for (of, version) in VERSIONS.into_iter().enumerate() {
            let workload = self.view.workloads[of];
            let (breaks, since) = self.steady[of];
            let since = since.filter(|_| breaks == workload.breaks).unwrap_or(state.now);
            let since = workload.ready().then_some(since);
            self.steady[of] = (workload.breaks, since);
            seen.versions.insert(version.to_owned(), workload.state(version, since));
            seen.uncovered.insert(version.to_owned(), BTreeSet::new());
        }
        let reach = Reach { readiness: Some("/ready".to_owned()), ..Reach::default() };
        let reach = VERSIONS.map(|version| (version.to_owned(), reach.clone())).into();
        seen.services.insert(SERVICE.to_owned(), ServiceFacts { reach, ..ServiceFacts::default() });
        seen.headroom = Headroom::Fits;
        seen.keeper = Keeper::Platform;
        seen.leads_since = UnixMs(self.leads_since);
        seen.given_out = self.published.map(|number| crate::proxy::record(&state.published, number).gate);
        seen.request = self.resource.request();
        seen.probe = probe(spec, &status, &seen.services);
        if let Some(record) = &status.record {
            let asked = FleetQuestion { probe: seen.probe.clone(), ..status.asked(spec) };
            let expected = (0..self.view.proxies).map(|proxy| proxy.to_string()).collect();
            seen.fleet = self.book.0.view(state.now, record, &expected, &asked);
        }
        self.mistake(&mut seen, world);
        seen
    }

    /// What a flip rests on, by itself: what was seen of the target, and the last word of every proxy.
    fn check_flip(&self, state: &mut State, world: &Protocol, next: &Status) {
        let Some(switch) = next.switch.as_ref() else { return };
        let (spec, workloads) = (&world.specs[self.resource.wants], &self.view.workloads);
        let (from, to) = (workloads[number(&switch.from)], workloads[number(&switch.to)]);
        if switch.rollback {
            state.breaks_if(to.serving == 0, Law::Flip);
            return;
        }
        let steady = to.ready() && to.ready_since + spec.coexistence.min_ready.0 <= state.now;
        let strong = to.replicas >= from.replicas;
        let (record, published) = (self.memory.status.record.as_ref(), &state.published);
        let word = |proxy| {
            let heard = self.heard.get(&proxy).map(|heard| &heard.sent);
            heard.is_some_and(|sent| {
                record.is_some_and(|record| sent.has(record, published)) && sent.reaches(&switch.to, published)
            })
        };
        let reached = (0..self.view.proxies).all(word);
        state.breaks_if(!steady || !strong || !reached, Law::Flip);
    }

    fn check_acks(&self, state: &mut State, next: &Status) {
        let Some(record) = &next.record else { return };
        let word = |proxy| self.heard.get(&proxy).is_some_and(|heard| heard.sent.has(record, &state.published));
        let all = (0..self.view.proxies).all(word);
        state.breaks_if(!all, Law::AckOfAll);
    }
}

/// One turn.
struct Turn<'a> {
    me: &'a mut Controller,
    state: &'a mut State,
    world: &'a Protocol,
}

/// What a turn has seen.
struct Seen {
    now: UnixMs,
    spec: Arc<Spec>,
    seen: Observation,
}

/// The turn waits for a write.
struct Waits;

impl World for Turn<'_> {
    type Seen = Seen;
    type Error = Waits;

    fn observe(&mut self) -> Seen {
        let spec = Arc::clone(&self.world.specs[self.me.resource.wants]);
        Seen { now: UnixMs(self.state.now), spec, seen: self.me.observation(self.state, self.world) }
    }

    fn pass(seen: &Seen) -> Pass<'_> {
        Pass { now: seen.now, spec: &seen.spec, seen: &seen.seen }
    }

    fn status(&self) -> &Status {
        &self.me.memory.status
    }

    fn adopt(&mut self, status: Status) {
        self.me.memory = Kept::new(status);
    }

    async fn persist(&mut self, seen: &Seen, plan: &Plan) -> Result<bool, Waits> {
        let (stored, next) = (&self.me.resource.status.status, &plan.status);
        // Whoever sees that it was stopped never takes that back.
        let left = self.me.memory.status.switch.as_ref().map(|switch| switch.from.clone()).unwrap_or_default();
        let back = next.active_version != self.me.memory.status.active_version;
        let unsettles = self.me.memory.status.phase == Phase::Removing && next.phase == Phase::Settling && !back;
        self.state.breaks_if(unsettles && seen.seen.workload(&left).stopped, Law::StoppedStays);
        if decided(stored) == decided(next) {
            return Ok(true);
        }
        let acked = |status: &Status| status.switch.as_ref().filter(|one| !one.removal).and_then(|one| one.acked_at);
        if flips(stored, next) {
            self.me.check_flip(self.state, self.world, next);
        }
        // What it had decided before is written again over what another one that leads has written.
        let known = [acked(stored), acked(&self.me.memory.status)];
        if acked(next).is_some() && !known.contains(&acked(next)) && next.phase == Phase::Settling {
            self.me.check_acks(self.state, next);
        }
        self.me.pending.push(Write::Status(Kept::new(next.clone()), self.me.resource.version));
        for effect in plan.effects.clone() {
            self.me.act(self.state, self.world, effect);
        }
        Err(Waits)
    }

    fn show(&mut self, seen: &Seen, plan: &Plan) {
        let status = &plan.status;
        let ready = seen.seen.workload(&status.active_version).ready;
        let rests = status.phase == Phase::Stable && status.active_version == wanted(&seen.spec, status) && ready;
        let waits = !rests || !status.leftovers.is_empty() || !status.ending.is_empty();
        let silent = self.world.mutation == Some(Mutation::IsSilent) && status.phase == Phase::Removing;
        let nothing = silent || plan.waiting.is_empty() || plan.waiting.starts_with("nothing");
        self.state.breaks_if(waits && nothing, Law::Says);
    }

    async fn execute(&mut self, _: &Seen, effect: Effect) -> Result<(), Waits> {
        self.me.act(self.state, self.world, effect);
        Ok(())
    }

    async fn complete(&mut self, _: &Seen) -> Result<bool, Waits> {
        Ok(true)
    }
}
