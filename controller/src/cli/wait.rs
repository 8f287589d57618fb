//! `versionflag wait`: until a flag is where it is asked to be, for scripts. I/O: terminal, and through the clients.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tokio::time::{Instant, sleep, timeout_at};

use super::args::{At, Output};
use super::commands::{Source, jsons};
use super::model::Model;
use super::terminal::{print, print_json, warn};
use super::{FAILED, IN_VAIN};
use local::sources::find;
use machine::duration::Millis;
use machine::reason::Reason;
use machine::status::{Override, Phase};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// What is asked takes so long at most where no time is left.
const LEAST: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Goal {
    /// The version that is asked for is ready, and waits to be let in
    Promotable,
    /// It serves, and every proxy that has to has acked that
    Acked,
    /// It serves, and nothing reaches the version before any more
    Settled,
    /// The same, and nothing has to be removed any more
    CleanedUp,
    /// It serves, nothing is under way, and nothing is wrong
    Stable,
    /// It was given up: the version that is held against it serves, and nothing reaches another one any more
    RolledBack,
}

impl Goal {
    fn words(self) -> &'static str {
        match self {
            Goal::Promotable => "promotable",
            Goal::Acked => "acked",
            Goal::Settled => "settled",
            Goal::CleanedUp => "cleaned up",
            Goal::Stable => "stable",
            Goal::RolledBack => "rolled back",
        }
    }
}

/// How far a flag is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Reached,
    /// Not there yet, for this.
    Waits(String),
    /// Nothing but an edit or a command leads there: why.
    InVain(String),
}

/// Whether a flag is where it is asked to be. `edited`: the version that the operator's file asks for, which the
/// controller may not have seen yet. Pure.
pub(super) fn standing(model: &Model, goal: Goal, edited: Option<&str>) -> Standing {
    let (name, wanted) = (&model.name, &model.spec_version);
    let reason = model.blocked.as_ref().and_then(|blocked| blocked.reason.parse::<Reason>().ok());
    if let (Some(blocked), Some(Reason::InvalidSpec | Reason::UnreadableSpec | Reason::NotSupported)) =
        (&model.blocked, reason)
    {
        return Standing::InVain(format!("{name} is blocked by {}: {}", blocked.reason, blocked.message));
    }
    let Some(status) = &model.status else {
        return Standing::Waits(format!("{name} waits for {}", model.waiting));
    };
    if !model.is_current || edited.is_some_and(|version| version != wanted) {
        return Standing::Waits(format!("the controller has not seen the last edit of {name} yet"));
    }
    let against = |held: &&Override| held.for_spec_version == *wanted && held.version != *wanted;
    let version = match (status.r#override.as_ref().filter(against), goal) {
        (None, Goal::RolledBack) => {
            return Standing::Waits(format!("{name} has not been rolled back from {wanted}"));
        }
        (None, _) => wanted,
        (Some(held), Goal::RolledBack) => &held.version,
        (Some(Override { version, reason: why, .. }), _) => {
            // There `retry` would hold requests for that way back once more.
            let command = if status.was_held_in_vain() { "abort" } else { "retry" };
            return Standing::InVain(format!("{version} is held against {wanted}: {why}; `{command}` ends that"));
        }
    };
    let serves = status.active_version == *version && !status.phase.before_flip();
    let serves = serves && !matches!(status.phase, Phase::Adopting | Phase::Committing);
    let proxies = &model.proxies;
    let acked = serves && proxies.expected > 0 && proxies.acked == proxies.expected;
    let over = matches!(status.phase, Phase::Retaining | Phase::Removing | Phase::Stable);
    let clean = serves && status.phase == Phase::Stable && status.leftovers.is_empty() && status.ending.is_empty();
    let reached = match goal {
        Goal::Promotable if serves => return Standing::InVain(format!("{wanted} is let in already")),
        Goal::Promotable => status.phase == Phase::AwaitingPromotion && status.target_version.as_ref() == Some(wanted),
        Goal::Acked => acked,
        Goal::Settled | Goal::RolledBack => serves && over,
        Goal::CleanedUp => clean,
        Goal::Stable => clean && model.blocked.is_none() && model.ready == "True",
    };
    if reached {
        return Standing::Reached;
    }
    let phase = status.phase.name();
    Standing::Waits(match &model.blocked {
        Some(blocked) => format!("{name} is blocked in {phase} by {}: {}", blocked.reason, blocked.message),
        None if goal == Goal::Acked && serves => {
            format!("{name} is {phase}, and {} of {} proxies have acked", proxies.acked, proxies.expected)
        }
        None => format!("{name} is {phase}, and waits for: {}", model.waiting),
    })
}

pub(super) async fn run(at: &At, goal: Goal, timeout: Millis, program: &str) -> anyhow::Result<ExitCode> {
    let mut source = Source::open(at, false).await?;
    let deadline = Instant::now() + Duration::from_millis(timeout.0);
    in_time(deadline, source.has_one()).await?;
    let files = match &source {
        Source::Cluster { name: None, .. } => {
            bail!("the name of a VersionFlag is missing: `{program} list` shows them")
        }
        Source::Cluster { .. } => vec![],
        Source::Service { at, .. } => at.paths(),
    };
    // Who has never answered is not waited for.
    let mut looked = Ok(in_time(deadline, source.look(None)).await?);
    loop {
        let found = find(&files).unwrap_or_default();
        let edited = |name: &str| {
            let one = found.iter().find(|one| found.len() == 1 || one.flag.as_deref() == Some(name));
            one.and_then(|one| one.version.as_deref())
        };
        let missing = match &looked {
            Ok(shown) => {
                let standings = shown.iter().map(|one| standing(&one.model, goal, edited(&one.model.name)));
                match standings
                    .filter(|one| *one != Standing::Reached)
                    .max_by_key(|one| matches!(one, Standing::InVain(_)))
                {
                    Some(Standing::InVain(why)) => {
                        warn(&format!("{program}: {why}"));
                        return Ok(ExitCode::from(IN_VAIN));
                    }
                    Some(Standing::Waits(what)) => what,
                    Some(Standing::Reached) | None if !shown.is_empty() => {
                        match at.output {
                            Output::Json => print_json(&jsons(shown))?,
                            Output::Text => {
                                let names: Vec<_> = shown.iter().map(|one| one.model.name.as_str()).collect();
                                print(&format!("{} is {}\n", names.join(", "), goal.words()))?;
                            }
                        }
                        return Ok(ExitCode::SUCCESS);
                    }
                    _ => "no flag is there yet".to_owned(),
                }
            }
            Err(error) => format!("{error:#}"),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            warn(&format!("{program}: not {} within {timeout}: {missing}", goal.words()));
            return Ok(ExitCode::from(FAILED));
        }
        sleep(left.min(LOOK)).await;
        looked = in_time(deadline, source.look(None)).await;
        if looked.is_err() {
            source.reopen();
        }
    }
}

/// What is asked of the controller, and not for much longer than there is time.
async fn in_time<T>(deadline: Instant, asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let until = deadline.max(Instant::now() + LEAST);
    timeout_at(until, asked).await.context("the controller has not answered in that time")?
}
