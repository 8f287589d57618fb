//! The text of a simulation: what changed, with the time since the script began. Pure.

use std::fmt::Write;

use super::effects::words;
use crate::plan::{Effect, Plan, Upcoming};
use crate::reason::Reason;
use crate::status::{Override, Status};
use crate::time::UnixMs;

const HEAD: &str = "Times and epochs count from the start: the record of epoch 5000 was decided at 5s.";

/// What was told so far, and what need not be told again.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// All lines.
    pub(super) text: String,
    /// The time of the last line of this step.
    at: Option<UnixMs>,
    blocked: Option<(Reason, String)>,
    waiting: String,
    next: Option<Upcoming>,
    effects: Vec<Effect>,
}

impl Report {
    /// Begins with what is asked for.
    pub(super) fn new(shown: &str) -> Report {
        Report { text: format!("{HEAD}\n\n> {shown}\n"), ..Report::default() }
    }

    /// A step begins.
    pub(super) fn step(&mut self, say: Option<&str>, shown: &str) {
        self.text.push('\n');
        // Writing to a String does not fail.
        for line in say.unwrap_or_default().lines() {
            let _ = writeln!(self.text, "# {line}");
        }
        if !shown.is_empty() {
            let _ = writeln!(self.text, "> {shown}");
        }
        self.at = None;
    }

    /// One thing that happened.
    pub(super) fn line(&mut self, now: UnixMs, word: &str, text: &str) {
        let at = if self.at == Some(now) { String::new() } else { now.since(UnixMs(0)).to_string() };
        self.at = Some(now);
        let _ = writeln!(self.text, "{at:>12}  {word:<9}  {text}");
    }

    /// The controller has begun again, with this status.
    pub(super) fn restarts(&mut self, now: UnixMs, status: &Status) {
        let (phase, epoch) = (status.phase.name(), status.epoch());
        self.line(
            now,
            "restart",
            &format!("the controller begins again in {phase} with epoch {epoch}, and forgot what it saw"),
        );
        let text = std::mem::take(&mut self.text);
        *self = Report { text, at: self.at, ..Report::default() };
    }

    /// A status follows another one.
    pub(super) fn adopted(&mut self, now: UnixMs, old: &Status, new: &Status) {
        if let Some(last) = new.last_request.as_ref().filter(|last| old.last_request.as_ref() != Some(last))
            && let Some(why) = &last.refused
        {
            self.line(now, "refused", &format!("{}: {why}", last.action.name()));
        }
        if old.phase != new.phase {
            self.line(now, "phase", &format!("{} → {}", old.phase.name(), new.phase.name()));
        }
        // Only the last entries are kept, so that they are not told apart by their number.
        for entry in new.history.iter().filter(|entry| !old.history.contains(entry)) {
            self.line(now, "history", &format!("{}: {}", entry.event, entry.message));
        }
        if old.r#override != new.r#override {
            self.line(now, "held", &held(new.r#override.as_ref()));
        }
    }

    /// Where the flag stands, and what is done.
    pub(super) fn shown(&mut self, now: UnixMs, plan: &Plan, next: Option<Upcoming>) {
        for effect in plan.effects.iter().filter(|effect| !self.effects.contains(effect)).cloned().collect::<Vec<_>>() {
            self.line(now, "does", &words(&effect));
        }
        self.effects.clone_from(&plan.effects);
        let blocked = plan.status.blocked.as_ref().map(|blocked| (blocked.reason, blocked.message.clone()));
        if self.blocked != blocked {
            let text = blocked.as_ref().map(|(reason, message)| format!("{reason}: {message}"));
            self.line(now, "blocked", text.as_deref().unwrap_or("no more"));
        }
        let said = blocked.as_ref().is_some_and(|(_, message)| *message == plan.waiting);
        if self.waiting != plan.waiting && !said && !plan.waiting.is_empty() {
            self.line(now, "waits for", &plan.waiting);
        }
        (self.blocked, self.waiting) = (blocked, plan.waiting.clone());
        if self.next != next {
            self.line(now, "next", &coming(now, next.as_ref()));
            self.next = next;
        }
    }
}

fn held(held: Option<&Override>) -> String {
    let held = held
        .map(|held| format!("{}, although the spec asks for {}: {}", held.version, held.for_spec_version, held.reason));
    held.unwrap_or_else(|| "no version any more".to_owned())
}

fn coming(now: UnixMs, next: Option<&Upcoming>) -> String {
    let Some(next) = next else { return "nothing by itself".to_owned() };
    let at = next.at.filter(|at| *at > now).map(|at| format!(", at {} or later", at.since(UnixMs(0))));
    format!("{}{}", next.what, at.unwrap_or_default())
}
