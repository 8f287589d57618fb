//! What the loop looks at and acts on: the controller's memory, its disk, and the facts. Pure.

use super::facts::{Checks, Mesh, State, Versions};
use super::proxies::Proxies;
use super::report::Report;
use super::script::{Edit, Step, Takes};
use super::sight::Sight;
use crate::action::{Action, Request};
use crate::duration::Millis;
use crate::observation::{Headroom, Keeper, Observation};
use crate::plan::{Effect, Pass, Plan, upcoming};
use crate::reason::Problem;
use crate::reconcile::{World, reconcile};
use crate::spec::Spec;
use crate::status::Status;
use crate::time::UnixMs;

/// How long the world takes for things; `None`: they never happen.
#[derive(Debug)]
struct Pace {
    ready: Option<Millis>,
    ack: Option<Millis>,
    quiet: Option<Millis>,
    check: Option<Millis>,
    stop: Option<Millis>,
    drain: Option<Millis>,
}

/// A controller in a world that is made up.
#[derive(Debug)]
pub(super) struct Simulated {
    /// The time since the script began.
    pub(super) now: UnixMs,
    spec: Spec,
    spec_error: Option<String>,
    /// The status in the controller's memory.
    status: Status,
    /// The status on disk.
    stored: Status,
    /// Somebody else writes before the next write of the status.
    refuses: bool,
    /// The controller ends after the next write of the status that is done.
    dies: bool,
    pace: Pace,
    versions: Versions,
    proxies: Proxies,
    checks: Checks,
    mesh: Mesh,
    headroom: Headroom,
    routes: Option<Problem>,
    problem: Option<Problem>,
    keeper: Option<Keeper>,
    other_fence: Option<String>,
    /// When the controller began.
    leads_since: UnixMs,
    request: Option<Request>,
    requests: u64,
    /// What was done since the last look changed what is seen.
    changed: bool,
    report: Report,
}

/// One look.
#[derive(Debug)]
pub(super) struct Look {
    now: UnixMs,
    spec: Spec,
    seen: Observation,
}

/// The controller ended in the middle of a turn.
#[derive(Debug)]
pub(super) struct Ended;

impl Simulated {
    /// Nothing runs and nothing is known of the flag.
    pub(super) fn new(spec: Spec, shown: &str) -> Simulated {
        let now = UnixMs(0);
        let name = spec.services.first().map(|service| service.name.clone()).unwrap_or_default();
        let status = Status::new("simulated", &name, now);
        let seconds = |seconds: u64| Some(Millis(seconds * 1_000));
        Simulated {
            now,
            spec,
            spec_error: None,
            stored: status.clone(),
            report: Report::new(shown),
            status,
            refuses: false,
            dies: false,
            pace: Pace {
                ready: seconds(2),
                ack: Some(Millis(100)),
                quiet: seconds(1),
                check: seconds(1),
                stop: seconds(1),
                drain: Some(Millis(200)),
            },
            versions: Versions::default(),
            proxies: Proxies::new(),
            checks: Checks::default(),
            mesh: Mesh::default(),
            headroom: Headroom::Fits,
            routes: None,
            problem: None,
            keeper: None,
            other_fence: None,
            leads_since: now,
            request: None,
            requests: 0,
            changed: false,
        }
    }

    /// The text of all that happened.
    pub(super) fn told(self) -> String {
        self.report.text
    }

    pub(super) fn announce(&mut self, step: &Step) {
        self.report.step(step.say.as_deref(), &step.shown);
    }

    pub(super) fn takes(&mut self, takes: &Takes) {
        let Takes { ready, ack, quiet, check, stop, drain } = takes;
        let pace = &mut self.pace;
        let all = [
            (&mut pace.ready, ready),
            (&mut pace.ack, ack),
            (&mut pace.quiet, quiet),
            (&mut pace.check, check),
            (&mut pace.stop, stop),
            (&mut pace.drain, drain),
        ];
        all.into_iter().for_each(|(pace, said)| *pace = said.unwrap_or(*pace));
    }

    pub(super) fn see(&mut self, sight: &Sight) {
        let now = self.now;
        match sight {
            Sight::Version(name, state) => self.versions.see(now, name, state),
            Sight::Proxies(names) => self.proxies.expect(names, self.acks_at()),
            Sight::Acked(acked) => self.proxies.see(now, acked),
            Sight::ConfigLaggards(late) => self.proxies.config_laggards.clone_from(late),
            Sight::RouteLaggards(late) => self.proxies.route_laggards.clone_from(late),
            Sight::Old(old) => self.proxies.see_old(now, *old),
            Sight::WithoutFilter(names) => self.proxies.without_filter.clone_from(names),
            Sight::Ahead(ahead) => self.proxies.ahead = *ahead,
            Sight::Headroom(headroom) => self.headroom.clone_from(headroom),
            Sight::Check(name, said) => self.checks.see(now, name, said.as_ref()),
            Sight::Routes(problem) => self.routes.clone_from(problem),
            Sight::Problem(problem) => self.problem.clone_from(problem),
            Sight::CannotHold(names) => self.proxies.holds.cannot.clone_from(names),
            Sight::LongStreams(names) => self.proxies.holds.long.clone_from(names),
            Sight::OtherFence(other) => self.other_fence.clone_from(other),
            Sight::Keeper(keeper) => self.keeper = Some(*keeper),
        }
    }

    pub(super) fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Valid(spec) => {
                self.spec.clone_from(spec);
                self.spec_error = None;
            }
            Edit::Invalid(wrong) => self.spec_error = Some(wrong.clone()),
        }
    }

    pub(super) fn ask(&mut self, action: Action) {
        self.requests += 1;
        self.request = Some(Request { id: format!("request-{}", self.requests), action, switch: None });
    }

    pub(super) fn refuse_next_write(&mut self) {
        self.refuses = true;
    }

    pub(super) fn die_at_next_write(&mut self) {
        self.dies = true;
    }

    /// Ends the controller and begins it again: what is on disk is left, and nobody has reported to it yet.
    pub(super) fn restart(&mut self) {
        self.dies = false;
        self.status.clone_from(&self.stored);
        self.leads_since = self.now;
        self.proxies.forget(self.acks_at());
        self.checks.forget();
        self.mesh.forget(self.now);
        self.report.restarts(self.now, &self.status);
    }

    fn acks_at(&self) -> Option<UnixMs> {
        self.pace.ack.map(|ack| self.now.plus(ack))
    }

    /// Has happen what is due.
    pub(super) fn happen(&mut self) {
        let told = self.versions.happen(self.now).into_iter().chain(self.proxies.happen(self.now));
        for line in told {
            self.report.line(self.now, "seen", &line);
        }
    }

    /// When something happens next by itself.
    pub(super) fn due(&self) -> Option<UnixMs> {
        let (now, pace) = (self.now, &self.pace);
        let all = [self.versions.due(), self.proxies.due(now), self.checks.due(now, pace.check)];
        all.into_iter().flatten().min()
    }

    /// One turn of the loop, and in how long it asks for the next one.
    pub(super) fn turn(&mut self) -> Option<Millis> {
        loop {
            match at_once(reconcile(self)) {
                Some(Ok(again)) => return again,
                // It ends at most once for each time that the script says so.
                Some(Err(Ended)) => self.restart(),
                None => return None,
            }
        }
    }

    fn observation(&mut self) -> Observation {
        let (now, spec, status) = (self.now, &self.spec, &self.status);
        self.proxies.leave(&status.asked(&self.spec).old, self.pace.quiet);
        self.proxies.holds.takes(self.pace.drain);
        let in_mesh = spec.routing.in_mesh();
        let by_default = if in_mesh { Keeper::Platform } else { Keeper::Controller };
        let named = status.record.iter().flat_map(|record| record.versions.clone());
        Observation {
            versions: self.versions.workloads(named.chain([spec.version.clone()])),
            headroom: self.headroom.clone(),
            fleet: self.proxies.fleet(now, status.epoch()),
            request: self.request.clone(),
            spec_error: self.spec_error.clone(),
            checks: self.checks.answers(now, spec, status, self.pace.check),
            namespace: if in_mesh { "default".to_owned() } else { String::new() },
            services: self.mesh.services(spec, &self.versions),
            problem: self.problem.clone(),
            routes: self.routes.clone().or_else(|| self.mesh.problem(spec, status)),
            keeper: self.keeper.unwrap_or(by_default),
            leads_since: self.leads_since,
            other_fence: self.other_fence.clone(),
            ..Observation::unknown()
        }
    }

    fn act(&mut self, effect: &Effect) -> bool {
        let (now, pace) = (self.now, &self.pace);
        match effect {
            Effect::Start { version, .. } => self.versions.start(now, version, pace.ready),
            Effect::Publish(publication) => {
                self.proxies.holds.publish(publication.fence.as_ref(), publication.record.gate);
                self.proxies.publish(publication.record.epoch, self.acks_at())
            }
            Effect::Route(order) => self.mesh.write(now, order),
            Effect::Stop { version } => self.versions.stop(now, version, pace.stop),
            Effect::Delete { version } => {
                self.versions.see(now, version, &State::Gone);
                true
            }
            Effect::Protect { version, epoch } => self.versions.protect(version, *epoch),
            Effect::Cluster { .. } | Effect::Configure(_) => false,
        }
    }
}

impl World for Simulated {
    type Seen = Look;
    type Error = Ended;

    fn observe(&mut self) -> Look {
        self.changed = false;
        Look { now: self.now, spec: self.spec.clone(), seen: self.observation() }
    }

    fn pass(look: &Look) -> Pass<'_> {
        Pass { now: look.now, spec: &look.spec, seen: &look.seen }
    }

    fn status(&self) -> &Status {
        &self.status
    }

    fn adopt(&mut self, status: Status) {
        self.report.adopted(self.now, &self.status, &status);
        self.status = status;
    }

    async fn persist(&mut self, _: &Look, plan: &Plan) -> Result<bool, Ended> {
        if self.stored.same_but_wording(&plan.status) {
            return Ok(true);
        }
        if std::mem::take(&mut self.refuses) {
            self.report.line(
                self.now,
                "conflict",
                "somebody else has written the status: nothing is done, and all is looked at again",
            );
            return Ok(false);
        }
        self.stored.clone_from(&plan.status);
        if std::mem::take(&mut self.dies) {
            self.report.adopted(self.now, &self.status, &plan.status);
            return Err(Ended);
        }
        Ok(true)
    }

    fn show(&mut self, look: &Look, plan: &Plan) {
        let next = upcoming(&look.spec, &plan.status);
        self.report.shown(look.now, plan, next);
    }

    async fn execute(&mut self, _: &Look, effect: Effect) -> Result<(), Ended> {
        self.changed |= self.act(&effect);
        Ok(())
    }

    async fn complete(&mut self, _: &Look) -> Result<bool, Ended> {
        Ok(!self.changed)
    }
}

/// The outcome of what waits for nobody.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(outcome) => Some(outcome),
        std::task::Poll::Pending => None,
    }
}
