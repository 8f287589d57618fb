//! The tree of one flag, a line for each thing, with what colours would say. Pure.

use std::fmt;

use super::model::{Model, VersionRow};
use super::show::{SHOWN, ago, command, long};
use machine::duration::Millis;
use machine::status::{Phase, Status, Switch};
use machine::time::UnixMs;

/// What a part of a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// What the line is about.
    Strong,
    /// Well.
    Good,
    /// Not known, or waited for.
    Waits,
    /// Wrong.
    Bad,
    /// Told by the clock.
    Clock,
    /// Less than the rest.
    Faint,
}

/// A line, in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line(pub(super) Vec<(Tone, String)>);

impl Line {
    pub(super) fn of(text: impl Into<String>) -> Line {
        Line::default().and(Tone::Plain, text)
    }

    pub(super) fn and(mut self, tone: Tone, text: impl Into<String>) -> Line {
        let text = text.into();
        if !text.is_empty() {
            self.0.push((tone, text));
        }
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(_, text)| to.write_str(text))
    }
}

/// The whole tree.
pub(super) fn lines(model: &Model, program: &str) -> Vec<Line> {
    let blocked = model.blocked.as_ref().map(|blocked| format!("BLOCKED: {}", blocked.reason));
    let ended = |line: Line| match &blocked {
        Some(blocked) => line.and(Tone::Plain, "  ").and(Tone::Bad, blocked),
        None => line,
    };
    let Some(status) = &model.status else {
        let head = Line::default().and(Tone::Strong, &model.name).and(Tone::Plain, format!("  {}", model.spec_version));
        return vec![ended(head), Line::of("└─ waits for: ").and(Tone::Waits, &model.waiting)];
    };
    let mut lines = vec![ended(head(model, status))];
    model.versions.iter().for_each(|version| of_version(&mut lines, model.now, version));
    proxies(&mut lines, model);
    checks(&mut lines, model);
    lines.extend(flipped(model, status));
    lines.extend(fence(model.now, status).map(|line| Line::of(format!("├─ {line}"))));
    if let Some(held) = status.r#override.as_ref().filter(|held| held.for_spec_version == model.spec_version) {
        let held = format!("{} is held against {}: {}", held.version, held.for_spec_version, held.reason);
        lines.push(Line::of("├─ ").and(Tone::Waits, held));
    }
    next(&mut lines, model, program);
    lines
}

fn head(model: &Model, status: &Status) -> Line {
    let phase = if status.phase == Phase::Stable { Tone::Good } else { Tone::Waits };
    Line::default()
        .and(Tone::Strong, &model.name)
        .and(Tone::Plain, format!("  {}  ", way(status)))
        .and(phase, status.phase.name())
        .and(Tone::Plain, format!("  epoch {}  ", status.epoch()))
        .and(Tone::Clock, ago(model.now, status.phase_since))
}

/// The way that a switch under way goes, or the version that serves.
pub(super) fn way(status: &Status) -> String {
    match (&status.switch, &status.target_version) {
        (Some(switch), Some(_)) => format!("{}→{}", switch.from, switch.to),
        _ => status.active_version.clone(),
    }
}

fn of_version(lines: &mut Vec<Line>, now: UnixMs, version: &VersionRow) {
    let role = if version.role.starts_with('●') { Tone::Good } else { Tone::Plain };
    let state = match version.state.split_whitespace().next() {
        Some("ready") => Tone::Good,
        Some("stopped") => Tone::Faint,
        _ => Tone::Bad,
    };
    // Only the first words say how it is.
    let (first, rest) = version.state.split_once("  ").unwrap_or((&version.state, ""));
    let rest = if rest.is_empty() { String::new() } else { format!("  {rest}") };
    lines.push(
        Line::of(format!("├─ {} ", version.name))
            .and(role, version.role)
            .and(Tone::Plain, "  ")
            .and(state, first)
            .and(Tone::Plain, rest + &version.requests)
            .and(Tone::Clock, next_start(now, version)),
    );
    lines.extend(version.notes.iter().map(|note| Line::of("│  └─ ").and(Tone::Waits, note)));
}

/// When a version is started again, after what is known of it.
pub(super) fn next_start(now: UnixMs, version: &VersionRow) -> String {
    let next = version.next_start.filter(|next| *next > now);
    next.map(|next| format!("  next start in {}", ago(next, now))).unwrap_or_default()
}

fn proxies(lines: &mut Vec<Line>, model: &Model) {
    let proxies = &model.proxies;
    let tone = if proxies.acked < proxies.expected { Tone::Waits } else { Tone::Plain };
    let acked = format!("{}/{} acked", proxies.acked, proxies.expected);
    lines.push(Line::of("├─ proxies ").and(tone, acked));
    // A resource names the first laggards only.
    let lagging = proxies.expected.saturating_sub(proxies.acked).max(proxies.laggards.len());
    let more = if proxies.laggards.is_empty() { 0 } else { lagging - proxies.laggards.len().min(SHOWN) };
    let mut shown = proxies.laggards.iter().take(SHOWN).peekable();
    while let Some(one) = shown.next() {
        let branch = if shown.peek().is_none() && more == 0 { "└─" } else { "├─" };
        lines.push(Line::of(format!("│  {branch} {}  ", one.proxy)).and(Tone::Waits, &one.why));
    }
    if more > 0 {
        lines.push(Line::of(format!("│  └─ and {more} more")));
    }
    for one in &model.refused {
        lines.push(Line::of("├─ ").and(Tone::Bad, "refused").and(Tone::Plain, format!(" {}  {}", one.proxy, one.why)));
    }
}

fn checks(lines: &mut Vec<Line>, model: &Model) {
    for check in &model.checks {
        // A condition has all of them in one.
        let of = if check.name.is_empty() { "checks".to_owned() } else { format!("check {}", check.name) };
        let tone = match check.mark {
            '✔' => Tone::Good,
            '✘' => Tone::Bad,
            _ => Tone::Waits,
        };
        let mark = Line::of(format!("├─ {of} ")).and(tone, check.mark.to_string());
        lines.push(mark.and(Tone::Plain, format!(" {}", check.message)));
    }
}

fn flipped(model: &Model, status: &Status) -> Option<Line> {
    let is_shown = |switch: &&Switch| !switch.removal && status.phase != Phase::Stable;
    let switch = status.switch.as_ref().filter(is_shown)?;
    let flipped = switch.flipped_at?;
    let acked = switch
        .acked_at
        .map_or_else(|| "not all acked".to_owned(), |at| format!("all acked after {} ms", at.since(flipped).0));
    // Reports are no closer than that.
    let shown = |ms: u64| if ms < 100 { "<0.1s".to_owned() } else { long(Millis(ms)) };
    // After a fence there is none, unless it is so long that reports show it.
    let overlap = model.overlap.filter(|ms| switch.fence.is_none() || *ms >= 100);
    let overlap = overlap.map(|ms| format!(", overlap {}", shown(ms))).unwrap_or_default();
    let line = Line::of("├─ flipped ").and(Tone::Clock, format!("{} ago", ago(model.now, flipped)));
    Some(line.and(Tone::Plain, format!(", {acked}{overlap}")))
}

/// For how long requests wait, or did.
fn fence(now: UnixMs, status: &Status) -> Option<String> {
    let fence = status.switch.as_ref().filter(|_| status.phase != Phase::Stable)?.fence.as_ref()?;
    if let Some(at) = fence.held_at.filter(|_| status.phase.holds()) {
        let (so_far, most, attempts) = (ago(now, at), fence.max_hold, fence.attempts);
        return Some(format!("requests have waited for {so_far}, {most} at most: attempt {attempts}"));
    }
    let waited = match fence.most_waiting {
        0 => "no report showed how many waited".to_owned(),
        most => format!("{most} waited at most at once"),
    };
    let (held, attempt) = (format!("requests were held for {} ms, {waited}", fence.held_ms?), fence.attempts);
    let why = fence.aborted.as_ref().filter(|_| fence.opened_at.is_none());
    let tries = if attempt > 1 { format!(", at attempt {attempt}") } else { String::new() };
    Some(why.map_or(format!("{held}{tries}"), |why| format!("attempt {attempt} was given up: {held}; {why}")))
}

fn next(lines: &mut Vec<Line>, model: &Model, program: &str) {
    let command = command(program, model).map(|command| format!("     {command}")).unwrap_or_default();
    // The tree has a line for each thing; `why` has all of a long one.
    let waiting = model.waiting.lines().next().unwrap_or_default();
    let tone = if model.blocked.is_some() { Tone::Bad } else { Tone::Plain };
    let Some(next) = &model.next else {
        return lines.push(Line::of("└─ waits for: ").and(tone, waiting).and(Tone::Strong, command));
    };
    // While something blocks, time alone leads nowhere.
    let at = next.at.filter(|at| *at > model.now && model.blocked.is_none());
    let soon = at.map(|at| format!(" in ≥{}", ago(at, model.now))).unwrap_or_default();
    lines.push(Line::of("├─ waits for: ").and(tone, waiting));
    lines.push(Line::of(format!("└─ next: {}", next.what)).and(Tone::Clock, soon).and(Tone::Strong, command));
}
