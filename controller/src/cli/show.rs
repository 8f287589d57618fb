//! What people read. Pure.

use std::fmt::Write;

use jiff::Timestamp;
use machine::fleet::ledger::Quiet;

use super::model::Model;
use super::tree;
use super::tree::{next_start, way};
use machine::duration::Millis;
use machine::reason::Reason;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

/// Laggards that are listed.
pub(super) const SHOWN: usize = 5;
/// What a filter reports that cannot ask a version, because its Envoy has no cluster of that name.
const NO_CLUSTER: &str = "the proxy has no such cluster";

fn when(at: UnixMs) -> String {
    let time = i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| at.0.to_string(), |time| format!("{time:.3}"))
}

/// A duration, as exact as a person needs it.
pub(super) fn long(duration: Millis) -> String {
    let ms = duration.0;
    if ms < 60_000 { format!("{:.1}s", ms as f64 / 1_000.0) } else { Millis(ms - ms % 1_000).to_string() }
}

/// How long ago something was.
pub(super) fn ago(now: UnixMs, then: UnixMs) -> String {
    long(now.since(then))
}

/// An age as kubectl writes it.
fn age(duration: Millis) -> String {
    let seconds = duration.0 / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..10_800 => format!("{minutes}m"),
        10_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// A command to copy, and what it is good for.
pub(super) fn command(program: &str, model: &Model) -> Option<String> {
    let word = model.advice()?;
    let good = if ["rollback", "abort"].contains(&word) { "undo" } else { "you can" };
    Some(format!("{good}: {program} {word} {}", model.at))
}

/// The tree of one flag.
pub(super) fn status(model: &Model, program: &str) -> String {
    tree::lines(model, program).iter().map(|line| format!("{line}\n")).collect()
}

/// What people would call a change: all of it but times, rates and counts.
pub(super) fn outline(model: &Model) -> String {
    let uncounted = |text: &str| text.chars().filter(|one| !one.is_ascii_digit()).collect::<String>();
    let status = model.status.as_ref().map(|status| {
        let switch = status.switch.as_ref().map(|switch| (switch.flipped_at, switch.acked_at, switch.settled_at));
        let held = status.r#override.as_ref().map(|held| (&held.version, &held.reason));
        (way(status), status.phase, status.epoch(), status.suspended, switch, held)
    });
    let versions: Vec<_> =
        model.versions.iter().map(|one| (&one.name, one.role, uncounted(&one.state), &one.notes)).collect();
    let laggards: Vec<_> = model.proxies.laggards.iter().map(|one| (&one.proxy, uncounted(&one.why))).collect();
    let refused: Vec<_> = model.refused.iter().map(|one| &one.proxy).collect();
    let proxies = (model.proxies.acked, model.proxies.expected, laggards, refused);
    let checks: Vec<_> = model.checks.iter().map(|check| (&check.name, check.mark)).collect();
    let blocked = model.blocked.as_ref().map(|blocked| (&blocked.reason, uncounted(&blocked.message)));
    // Requests come and go: that some are left is one thing to wait for.
    let is_busy = matches!(model.old, Some(Quiet::Busy { .. })) && blocked.is_none();
    let waiting = Some(uncounted(&model.waiting)).filter(|_| !is_busy);
    let next = model.next.as_ref().map(|next| &next.what);
    format!(
        "{:?}",
        (&model.namespace, &model.name, &model.spec_version, status, versions, proxies, checks, blocked, waiting, next)
    )
}

/// What is waited for, and what helps.
pub(super) fn why(model: &Model, program: &str) -> String {
    let now = model.now;
    let Some(status) = &model.status else {
        return format!("{} waits for {}\n", model.name, model.waiting);
    };
    let mut text = match &model.blocked {
        Some(blocked) => {
            let since = blocked.since.map(|since| format!(" for {}", ago(now, since))).unwrap_or_default();
            let (name, phase, reason) = (&model.name, status.phase.name(), &blocked.reason);
            format!("{name} is blocked in {phase} by {reason}{since}: {}\n{}", blocked.message, what_ends_it(reason))
        }
        None => format!("{} is {}, waits for: {}\n", model.name, status.phase.name(), model.waiting),
    };
    for version in model.versions.iter().filter(|version| version.next_start.is_some_and(|next| next > now)) {
        let _ = writeln!(text, "  {}: {}{}", version.name, version.state, next_start(now, version));
    }
    for note in model.versions.iter().flat_map(|version| &version.notes) {
        let _ = writeln!(text, "  {note}");
    }
    if let Some(version) = printing(model, status) {
        let _ = writeln!(text, "  what it printed: {program} logs {} --version {version}", model.at);
    }
    let proxies = &model.proxies;
    for one in proxies.laggards.iter().take(SHOWN) {
        let _ = writeln!(text, "  {}: {}", one.proxy, one.why);
    }
    for one in &model.refused {
        let _ = writeln!(text, "  refused {}: {}", one.proxy, one.why);
    }
    // In a cluster it comes by itself, and here where the controller writes it.
    let lacks_cluster = proxies.laggards.iter().any(|one| one.why.contains(NO_CLUSTER));
    if lacks_cluster && model.namespace.is_none() {
        let _ = writeln!(
            text,
            "  to add it to an Envoy of yours: {program} render envoy FILE --into ENVOYFILE --write, and have Envoy read it"
        );
    }
    if let Some(old) = model.old.as_ref().filter(|_| status.phase == Phase::Settling) {
        let acked_at = status.switch.as_ref().and_then(|switch| switch.acked_at).unwrap_or_default();
        let old = match old {
            Quiet::Unknown => "not known".to_owned(),
            Quiet::Busy { open: 0 } => "busy, requests were sent lately".to_owned(),
            Quiet::Busy { open: 1 } => "busy, 1 request open".to_owned(),
            Quiet::Busy { open } => format!("busy, {open} requests open"),
            // Before all have acked it counts for nothing.
            Quiet::Since(since) => format!("quiet for {}", ago(now, UnixMs(*since).max(acked_at))),
        };
        let from = status.switch.as_ref().map(|switch| switch.from.as_str()).unwrap_or_default();
        let _ = writeln!(text, "  {from}: {old}");
    }
    if let Some(command) = command(program, model) {
        let _ = writeln!(text, "  {command}");
    }
    text
}

/// The version of this machine that is not as it should be, and may have printed why.
fn printing<'a>(model: &Model, status: &'a Status) -> Option<&'a str> {
    let reason = model.blocked.as_ref().and_then(|blocked| blocked.reason.parse::<Reason>().ok());
    let target = status.switch.as_ref().map(|switch| switch.to.as_str());
    let version = match reason {
        Some(Reason::ActiveNotReady) => Some(status.active_version.as_str()),
        Some(Reason::TargetExited | Reason::TargetNotReady) => target,
        None if status.phase == Phase::Coexisting => target,
        _ => None,
    };
    version.filter(|_| model.namespace.is_none())
}

/// What ends a blocker, as docs/reference/reasons.md has it.
fn what_ends_it(reason: &str) -> String {
    let end = reason.parse::<Reason>().map(Reason::end).unwrap_or_default();
    if end.is_empty() { String::new() } else { format!("  what ends it: {end}\n") }
}

/// What happened lately.
pub(super) fn history(model: &Model) -> String {
    let lines = model.status.iter().flat_map(|status| &status.history);
    lines.map(|one| format!("{}  epoch {}  {}: {}\n", when(one.at), one.epoch, one.event, one.message)).collect()
}

/// A line for each flag, in columns.
pub(super) fn table(models: &[Model]) -> String {
    let head = ["NAMESPACE", "NAME", "TARGET", "ACTIVE", "PHASE", "PROXIES", "READY", "BLOCKED-BY", "AGE"];
    let rows = models.iter().map(|model| {
        let status = model.status.as_ref();
        [
            model.namespace.clone().unwrap_or_default(),
            model.name.clone(),
            model.spec_version.clone(),
            status.map(|status| status.active_version.clone()).unwrap_or_default(),
            status.map(|status| status.phase.name().to_owned()).unwrap_or_default(),
            format!("{}/{}", model.proxies.acked, model.proxies.expected),
            model.ready.clone(),
            model.blocked.as_ref().map(|blocked| blocked.reason.clone()).unwrap_or_default(),
            model.created.map(|created| age(model.now.since(created))).unwrap_or_default(),
        ]
        .map(|cell| if cell.is_empty() { "-".to_owned() } else { cell })
    });
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let line = |row: &[String; 9]| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}   ", width = width(column)));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}
