//! What people are told of one VersionFlag: Events, the audit log, and what the flag service shows. I/O: through the
//! writer and the flag service.

use std::sync::Arc;

use machine::plan::{Effect, Plan, upcoming};
use machine::status::Status;
use service::FlagView;
use service::audit::new_entries;
use service::clock::now;

use super::Reconciler;
use super::observe::Seen;
use crate::context::Context;

impl Reconciler {
    /// One line and one Event for each thing that happened.
    pub(super) async fn announce(&self, before: &Status, context: &Context<'_>) {
        let status = &self.status;
        context.audit.record_change(now(), Some(before), status);
        for entry in new_entries(&before.history, &status.history) {
            let event = entry.event.name();
            tracing::info!(flag = self.name, event, epoch = entry.epoch, "{}", entry.message);
            context.writer.event(&self.resource, entry.event.is_warning(), event, &entry.message).await;
        }
        if let Some(blocked) = &status.blocked
            && before.blocked.as_ref().is_none_or(|old| old.reason != blocked.reason)
        {
            let reason = blocked.reason.name();
            tracing::warn!(flag = self.name, reason, "{}", blocked.message);
            context.writer.event(&self.resource, true, reason, &blocked.message).await;
        }
    }

    /// What the flag service shows, and whose reports the flag waits for: while acks or quiet are to be seen
    /// everybody's, otherwise those of the proxies that have not acked.
    pub(super) fn show(&mut self, seen: &Seen, plan: &Plan, context: &Context<'_>) {
        let observation = &seen.observation;
        // What was refused is not asked for any more.
        if !plan.effects.iter().any(|effect| matches!(effect, Effect::Route(_))) {
            self.unwritten = None;
        }
        let laggards = || observation.fleet.laggards.iter().map(|laggard| laggard.proxy.clone()).collect();
        self.awaited = if self.status.phase.awaits_reports() { seen.expected.clone() } else { laggards() };
        let (status, fleet) = (Arc::clone(&self.status), observation.fleet.clone());
        context.hub.show_flag(FlagView {
            spec_version: seen.look.spec.version.clone(),
            versions: observation.versions.clone(),
            checks: observation.checks.clone(),
            problem: observation.problem.as_ref().map(|problem| problem.reason),
            waiting: plan.waiting.clone(),
            next: upcoming(&seen.look.spec, &self.status),
            callers: seen.expected.clone(),
            ..FlagView::of(self.name.clone(), status, fleet, seen.look.now)
        });
    }
}
