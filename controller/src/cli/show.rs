//! What people read. Pure.

use std::fmt::Write;

use flag::ledger::Quiet;
use jiff::Timestamp;

use crate::service::FlagView;
use crate::span::Span;
use crate::status::Phase;

/// Laggards that are listed.
const SHOWN: usize = 5;

fn when(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| format!("{time:.3}"))
}

/// A length of time, as exact as a person needs it.
fn ago(now: u64, then: u64) -> String {
    let ms = now.saturating_sub(then);
    if ms < 60_000 { format!("{:.1}s", ms as f64 / 1_000.0) } else { Span(ms - ms % 1_000).to_string() }
}

/// What a person can do about it.
fn advice(view: &FlagView, at: &str) -> Option<String> {
    let status = &view.status;
    let command = match status.phase {
        _ if status.suspended => "resume",
        Phase::AwaitingPromotion => "promote",
        Phase::Coexisting | Phase::ProvingRoutes => "abort",
        // To take a rollback back is to try again what it took back.
        Phase::Switching | Phase::Settling | Phase::Retaining if status.r#override.is_some() => "retry",
        Phase::Switching | Phase::Settling | Phase::Retaining => "rollback",
        Phase::Stable if status.r#override.is_some() => "retry",
        _ => return None,
    };
    Some(format!("versionflag {command} {at}"))
}

pub(super) fn status(view: &FlagView, at: &str) -> String {
    let (status, fleet, now) = (&view.status, &view.fleet, view.now);
    let mut text = String::new();
    let way = match (&status.switch, &status.target_version) {
        (Some(switch), Some(_)) => format!("{}→{}", switch.from, switch.to),
        _ => status.active_version.clone(),
    };
    let blocked = status.blocked.as_ref().map(|blocked| format!("  BLOCKED: {}", blocked.reason)).unwrap_or_default();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{}  {way}  {}  epoch {}  {}{blocked}",
        view.name,
        status.phase.name(),
        status.epoch(),
        ago(now, status.phase_since)
    );
    for (name, workload) in &view.versions {
        let active = *name == status.active_version;
        let totals = fleet.sent.get(name).copied().unwrap_or_default();
        if !active && !workload.running && totals.started == 0 {
            continue;
        }
        let role = match () {
            () if active => "● active",
            () if status.target_version.as_ref() == Some(name) => "○ target",
            () => "○ old",
        };
        let ready = match &workload.exited {
            Some(how) => format!("ended ({how})"),
            None if workload.ready => "ready".to_owned(),
            None if workload.running => "not ready".to_owned(),
            None => "stopped".to_owned(),
        };
        let open = totals.open().map_or_else(|| "?".to_owned(), |open| open.to_string());
        let _ = writeln!(text, "├─ {name} {role}  {ready}  in flight {open}  {} requests", totals.started);
    }
    let _ = writeln!(text, "├─ proxies {}/{} acked", fleet.acked, fleet.expected);
    for one in fleet.laggards.iter().take(SHOWN) {
        let _ = writeln!(text, "│  ├─ {}  {}", one.proxy, one.why);
    }
    if fleet.laggards.len() > SHOWN {
        let _ = writeln!(text, "│  └─ and {} more", fleet.laggards.len() - SHOWN);
    }
    if let Some(switch) = status.switch.as_ref().filter(|switch| !switch.removal && status.phase != Phase::Stable)
        && let Some(flipped) = switch.flipped_at
    {
        let acked = switch.acked_at.map_or_else(
            || "not all acked".to_owned(),
            |at| format!("all acked after {} ms", at.saturating_sub(flipped)),
        );
        let _ = writeln!(text, "├─ flipped {} ago, {acked}", ago(now, flipped));
    }
    let undo = advice(view, at).map(|command| format!("     you can: {command}")).unwrap_or_default();
    let _ = writeln!(text, "└─ waits for: {}{undo}", view.waiting);
    text
}

pub(super) fn why(view: &FlagView, at: &str) -> String {
    let (status, now) = (&view.status, view.now);
    let mut text = match &status.blocked {
        Some(blocked) => format!(
            "{} is blocked in {} for {}: {}\n",
            view.name,
            status.phase.name(),
            ago(now, blocked.since),
            blocked.message
        ),
        None => format!("{} is {}, waiting for {}\n", view.name, status.phase.name(), view.waiting),
    };
    let lagging = view.fleet.laggards.iter().chain(&view.fleet.config_laggards);
    for one in lagging.take(SHOWN) {
        let _ = writeln!(text, "  {}: {}", one.proxy, one.why);
    }
    if status.phase == Phase::Settling {
        let old = match view.fleet.old {
            Quiet::Unknown => "not known".to_owned(),
            Quiet::Busy { open } => format!("busy, {open} requests open"),
            Quiet::Since(since) => format!("quiet for {}", ago(now, since)),
        };
        let from = status.switch.as_ref().map(|switch| switch.from.as_str()).unwrap_or_default();
        let _ = writeln!(text, "  {from}: {old}");
    }
    if let Some(command) = advice(view, at) {
        let _ = writeln!(text, "  you can: {command}");
    }
    text
}

pub(super) fn history(view: &FlagView) -> String {
    let lines = view.status.history.iter();
    lines.map(|one| format!("{}  epoch {}  {}: {}\n", when(one.at), one.epoch, one.event, one.message)).collect()
}
