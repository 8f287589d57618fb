//! When the status of a VersionFlag is written, and how. I/O: through the writer.
//!
//! What changes the record is written at once. What was only seen is acted on at once, and written with the next
//! decision, or after a while.

use std::sync::Arc;

use machine::duration::Millis;
use machine::plan::Plan;
use machine::reason::Problem;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::clock::now;
use service::failpoint;

use super::Reconciler;
use super::observe::Seen;
use crate::context::{Context, TurnError};
use crate::prune::Trim;
use crate::resource::ResourceStatus;
use crate::status;
use crate::writer::is_conflict;

/// Between two writes for the words of what blocks alone, where they are about another matter.
const REWORD: Millis = Millis(2_000);
/// The same where they are about the same one: it may have other numbers all the time, and the cause of a shortage may
/// be another one.
const RENUMBER: Millis = Millis(30_000);
/// How long what was only seen waits for something that was decided, to be written with it.
const NEWS: Millis = Millis(1_000);

impl Reconciler {
    /// Remembers a status, with what there is to announce.
    pub(super) fn adopt(&mut self, status: Status, context: &Context<'_>) {
        if status.same_but_wording(&self.status) {
            self.status = status.into();
            return;
        }
        if let Some(seconds) = status.flipped_since(&self.status) {
            context.hub.observe_flip(&status.uid, seconds);
        }
        if let Some((committed, seconds)) = status.hold_ended_since(&self.status) {
            context.hub.observe_hold(committed, seconds);
        }
        let before = std::mem::replace(&mut self.status, status.into());
        self.unannounced.get_or_insert(before);
    }

    /// Whether what is remembered now is what was written last.
    pub(super) fn is_written(&self) -> bool {
        let written = self.resource.status.as_ref().and_then(|status| status.machine.as_ref());
        written.is_some_and(|written| written.same_but_wording(&self.status))
    }

    /// In how long what was only seen has to be written.
    pub(super) fn news_due(&self) -> Option<Millis> {
        self.news_since.map(|since| since.plus(NEWS).since(now()))
    }

    /// Writes the status of a plan, if it has to be. False: somebody else has written meanwhile, and everything has
    /// to be looked at again.
    pub(super) async fn persist(&mut self, seen: &Seen, plan: &Plan, context: &Context<'_>) -> Result<bool, TurnError> {
        let begins = plan.status.phase.holds() && !self.status.phase.holds();
        if begins && !context.hub.fences.claim(&self.status.uid, &self.name, &seen.expected) {
            return Ok(false);
        }
        context.hub.stopwatch.decided(&self.status, &plan.status, &seen.expected, seen.look.now, seen.began);
        let before = self.resource.status.clone();
        // Nobody has acked a record that is about to be written.
        let new = plan.status.record.as_ref().filter(|record| record.epoch != self.status.epoch());
        let observation = &seen.observation;
        let fleet = new.map(|new| {
            let asked = seen.look.question(&plan.status, observation.probe.clone());
            context.hub.reports.fleet(seen.look.now, new, &seen.expected, &asked)
        });
        let status = status::derive(&status::StatusInputs {
            now: seen.look.now,
            generation: self.resource.metadata.generation,
            spec: &seen.look.spec,
            machine: &plan.status,
            fleet: fleet.as_ref().unwrap_or(&observation.fleet),
            versions: &observation.versions,
            checks: &observation.checks,
            workloads: &seen.look.workloads,
            problem: observation.problem.as_ref(),
            routes: observation.routes.as_ref(),
            before: before.as_ref(),
        });
        let must_write = self.must_write(seen.look.now, before.as_ref(), &status, plan.problem.as_ref());
        let fresh = !must_write || self.write(status, plan.problem.clone(), context).await?;
        if fresh {
            context.hub.stopwatch.written(&self.status.uid);
            self.share();
        }
        Ok(fresh)
    }

    /// Whether the status has to be written before anything is done.
    pub(super) fn must_write(
        &mut self,
        now: UnixMs,
        before: Option<&ResourceStatus>,
        status: &ResourceStatus,
        problem: Option<&Problem>,
    ) -> bool {
        let Some(before) = before.filter(|before| before.same_decisions(status)) else {
            self.news_since = None;
            return true;
        };
        if !before.same_but_wording(status) {
            let since = *self.news_since.get_or_insert(now);
            let due = now.since(since) >= NEWS;
            self.news_since = self.news_since.filter(|_| !due);
            return due;
        }
        self.news_since = None;
        let same_matter = match (&self.worded, problem) {
            (Some(before), Some(now)) => before.is_matter_of(now),
            (before, now) => before.is_none() && now.is_none(),
        };
        let pace = if same_matter { RENUMBER } else { REWORD };
        let due = self.written_at.is_none_or(|at| now.since(at) >= pace);
        due && before.blocked_by != status.blocked_by
    }

    /// What is remembered is kept once: there may be many flags.
    fn share(&mut self) {
        let written = self.resource.status.as_mut().and_then(|status| status.machine.as_mut());
        if let Some(written) = written.filter(|written| **written == self.status) {
            *written = Arc::clone(&self.status);
        }
    }

    /// Writes the status. False: somebody else did meanwhile.
    async fn write(
        &mut self,
        status: ResourceStatus,
        problem: Option<Problem>,
        context: &Context<'_>,
    ) -> Result<bool, TurnError> {
        if !context.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        let commits = status.machine.as_ref().is_some_and(|status| status.phase == Phase::Committing);
        failpoint::point(if commits { "before a fence is committed" } else { "before the status is written" });
        match context.writer.status(&self.resource, status).await {
            Ok(mut written) => {
                failpoint::point("after the status was written");
                written.trim();
                self.written_at = Some(now());
                self.worded = problem;
                self.resource = written;
                Ok(true)
            }
            Err(error) if is_conflict(&error) => {
                if let Some(found) = context.writer.read(&self.resource).await? {
                    self.take_over(found);
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
