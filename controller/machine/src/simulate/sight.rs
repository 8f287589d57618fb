//! Reads what a step lets the controller see. Pure.

use std::collections::BTreeMap;

use flag::record::check_version;
use serde::Deserialize;
use serde_json::Value;

use super::facts::State;
use super::proxies::{Acked, Old};
use super::words::{Read, duration, inline, mapping, names, none_of, text};
use crate::checks::Verdict;
use crate::duration::Millis;
use crate::observation::{Headroom, Keeper};
use crate::reason::{Group, Problem, Reason};

/// The words of `see` that are no version.
const WORDS: &str = "proxies, acked, laggards, configLaggards, routeLaggards, old, withoutFilter, ahead, headroom, \
                     checks, routes, problem, keeper, cannotHold, longStreams, otherFence";
const STATES: &str = "ready, running, stopped, gone, or {exited: WHY}";
const VERDICTS: &str = "passed, failed, inconclusive, or one of them with its message, as {failed: MESSAGE}";
/// How many proxies there are when nothing is said of them.
pub(super) const PROXIES: u64 = 2;
/// More than people want to read about.
const MOST: u64 = 1_000;

/// One thing that is seen from now on.
#[derive(Debug)]
pub(super) enum Sight {
    Version(String, State),
    /// Who has to ack.
    Proxies(Vec<String>),
    Acked(Acked),
    /// Who starts anew with an old configuration, and why that is known.
    ConfigLaggards(BTreeMap<String, String>),
    /// Who has shown routes that do not fit.
    RouteLaggards(BTreeMap<String, String>),
    Old(Old),
    /// Who comes to the old version past all filters.
    WithoutFilter(Vec<String>),
    /// How far a proxy's epoch is ahead of the clock.
    Ahead(Option<Millis>),
    Headroom(Headroom),
    /// What a check says; `None`: it passes by itself again.
    Check(String, Option<(Verdict, String)>),
    Routes(Option<Problem>),
    Problem(Option<Problem>),
    Keeper(Keeper),
    /// Who cannot hold requests.
    CannotHold(BTreeMap<String, String>),
    /// Who has streams open on the old version for long.
    LongStreams(BTreeMap<String, String>),
    /// Another flag that holds requests of the same callers.
    OtherFence(Option<String>),
}

/// What the proxies are called.
pub(super) fn numbered(count: u64) -> Vec<String> {
    (1..=count).map(|number| format!("proxy-{number}")).collect()
}

/// Reads what is seen, step after step.
#[derive(Debug)]
pub(super) struct Reader {
    proxies: Vec<String>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { proxies: numbered(PROXIES) }
    }
}

impl Reader {
    /// Everything that one step lets the controller see.
    pub(super) fn read(&mut self, value: &Value) -> Read<Vec<Sight>> {
        let map = value.as_object();
        let map = map.ok_or_else(|| none_of("see", value, &format!("a mapping of versions, {WORDS}")))?;
        // Whoever has to ack comes first: other words speak of them.
        let proxies = map.get("proxies").map(|value| self.proxies(value)).transpose()?;
        let mut sights: Vec<Sight> = proxies.into_iter().map(Sight::Proxies).collect();
        for (word, value) in map.iter().filter(|(word, _)| *word != "proxies") {
            sights.extend(self.word(word, value)?);
        }
        Ok(sights)
    }

    fn word(&self, word: &str, value: &Value) -> Read<Vec<Sight>> {
        let at = format!("see.{word}");
        let sight = match word {
            "acked" => Sight::Acked(self.acked(value)?),
            "laggards" => Sight::Acked(Acked::AllBut(self.laggards(&at, value)?)),
            "configLaggards" => Sight::ConfigLaggards(self.laggards(&at, value)?),
            "routeLaggards" => Sight::RouteLaggards(self.laggards(&at, value)?),
            "old" => Sight::Old(old(value)?),
            "withoutFilter" => Sight::WithoutFilter(none_or(value, |value| names(&at, value))?.unwrap_or_default()),
            "ahead" => Sight::Ahead(none_or(value, |value| duration(&at, value))?),
            "headroom" => Sight::Headroom(headroom(value)?),
            "checks" => return checks(value),
            "routes" => Sight::Routes(none_or(value, |value| problem(&at, value, Group::Routes))?),
            "problem" => Sight::Problem(none_or(value, |value| problem(&at, value, Group::Cluster))?),
            "cannotHold" => Sight::CannotHold(self.laggards(&at, value)?),
            "longStreams" => Sight::LongStreams(self.laggards(&at, value)?),
            "otherFence" => Sight::OtherFence(none_or(value, |value| text(&at, value).map(str::to_owned))?),
            "keeper" => Sight::Keeper(match value.as_str() {
                Some("controller") => Keeper::Controller,
                Some("platform") => Keeper::Platform,
                _ => return Err(none_of(&at, value, "controller or platform")),
            }),
            version => Sight::Version(version.to_owned(), state(&at, version, value)?),
        };
        Ok(vec![sight])
    }

    fn proxies(&mut self, value: &Value) -> Read<Vec<String>> {
        self.proxies = match value.as_u64().filter(|count| *count <= MOST) {
            Some(count) => numbered(count),
            None if value.is_array() => each_once("see.proxies", names("see.proxies", value)?)?,
            None => return Err(none_of("see.proxies", value, "a number up to 1000, or a list of names")),
        };
        Ok(self.proxies.clone())
    }

    fn acked(&self, value: &Value) -> Read<Acked> {
        let count = match value.as_str() {
            Some("all") => return Ok(Acked::AllBut(BTreeMap::new())),
            Some("none") => Some(0),
            _ => value.as_u64().and_then(|count| usize::try_from(count).ok()),
        };
        let count = count.filter(|count| *count <= self.proxies.len());
        let late = self.proxies.iter().skip(count.unwrap_or_default());
        count
            .map(|_| Acked::AllBut(late.map(|name| (name.clone(), String::new())).collect()))
            .ok_or_else(|| none_of("see.acked", value, &format!("all, none, or a number up to {}", self.proxies.len())))
    }

    /// Laggards with why, or without; or `none`.
    fn laggards(&self, at: &str, value: &Value) -> Read<BTreeMap<String, String>> {
        let named = match value {
            Value::Object(all) => {
                all.iter().map(|(name, why)| Ok((name.clone(), text(at, why)?.to_owned()))).collect::<Read<_>>()?
            }
            Value::Array(_) => names(at, value)?.into_iter().map(|name| (name, String::new())).collect(),
            _ if value.as_str() == Some("none") => BTreeMap::new(),
            _ => return Err(none_of(at, value, "none, a list of proxies, or a mapping of proxies to why")),
        };
        match named.keys().find(|name| !self.proxies.contains(name)) {
            Some(name) => Err(format!("{at}: {name} is none of the proxies: {}", self.proxies.join(", "))),
            None => Ok(named),
        }
    }
}

fn each_once(at: &str, names: Vec<String>) -> Read<Vec<String>> {
    let twice = names.iter().enumerate().find(|(number, name)| names.iter().take(*number).any(|one| one == *name));
    match twice {
        Some((_, name)) => Err(format!("{at} has {name} twice")),
        None => Ok(names),
    }
}

fn none_or<T>(value: &Value, read: impl Fn(&Value) -> Read<T>) -> Read<Option<T>> {
    if value.as_str() == Some("none") {
        Ok(None)
    } else {
        read(value).map(Some).map_err(|why| format!("{why}, or none"))
    }
}

fn state(at: &str, version: &str, value: &Value) -> Read<State> {
    check_version("see", version).map_err(|error| error.to_string())?;
    if value.is_object() {
        let how = mapping(at, value, &["exited"])?.get("exited").unwrap_or(&Value::Null);
        return Ok(State::Exited(text(&format!("{at}.exited"), how)?.to_owned()));
    }
    match value.as_str() {
        Some("ready") => Ok(State::Ready),
        Some("running") => Ok(State::Running),
        Some("stopped") => Ok(State::Stopped),
        Some("gone") => Ok(State::Gone),
        _ => Err(format!(
            "{at} is {}: if {version} is a version, write {STATES}; if not, the words are {WORDS}",
            inline(value)
        )),
    }
}

fn old(value: &Value) -> Read<Old> {
    let wrong = || none_of("see.old", value, "quiet, unknown, or busy with the number of open requests, as busy 3");
    let Some(word) = value.as_str() else { return Err(wrong()) };
    match word {
        "quiet" => Ok(Old::Quiet),
        "unknown" => Ok(Old::Unknown),
        _ => word.strip_prefix("busy ").and_then(|open| open.parse().ok()).map(Old::Busy).ok_or_else(wrong),
    }
}

fn headroom(value: &Value) -> Read<Headroom> {
    match value.as_str() {
        Some("fits") => Ok(Headroom::Fits),
        Some("unknown") => Ok(Headroom::Unknown),
        _ => match only(value) {
            Some(("short", message)) => Ok(Headroom::Short { message: message.to_owned() }),
            _ => Err(none_of("see.headroom", value, "fits, unknown, or {short: MESSAGE}")),
        },
    }
}

/// The only key of a mapping, and its text.
fn only(value: &Value) -> Option<(&str, &str)> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.iter().find_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

fn checks(value: &Value) -> Read<Vec<Sight>> {
    let map = value.as_object().ok_or_else(|| none_of("see.checks", value, "a mapping of checks to verdicts"))?;
    map.iter().map(|(name, value)| Ok(Sight::Check(name.clone(), verdict(name, value)?))).collect()
}

fn verdict(name: &str, value: &Value) -> Read<Option<(Verdict, String)>> {
    let wrong = || none_of(&format!("see.checks.{name}"), value, &format!("{VERDICTS}; or none"));
    if value.as_str() == Some("none") {
        return Ok(None);
    }
    let (word, message) = value.as_str().map(|word| (word, word)).or_else(|| only(value)).ok_or_else(wrong)?;
    let verdict = Verdict::deserialize(&Value::from(word)).map_err(|_| wrong())?;
    Ok(Some((verdict, message.to_owned())))
}

fn problem(at: &str, value: &Value, group: Group) -> Read<Problem> {
    let map = mapping(at, value, &["reason", "message"])?;
    let word = text(&format!("{at}.reason"), map.get("reason").unwrap_or(&Value::Null))?;
    let message = text(&format!("{at}.message"), map.get("message").unwrap_or(&Value::Null))?;
    let known = Reason::ALL.iter().filter(|reason| reason.group() == group);
    let reason = known.clone().find(|reason| reason.name() == word);
    let all = || known.clone().map(|reason| reason.name()).collect::<Vec<_>>().join(", ");
    let reason = reason.copied().ok_or_else(|| none_of(&format!("{at}.reason"), &Value::from(word), &all()))?;
    Ok(Problem::new(reason, message))
}
