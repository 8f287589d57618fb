//! Reads a script: a spec, and steps that change what is seen and asked for. Pure.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::sight::{Reader, Sight};
use super::words::{Read, duration, inline, mapping, none_of, text};
use crate::action::Action;
use crate::duration::Millis;
use crate::spec::Spec;

/// The words of a step.
const STEP: [&str; 8] = ["say", "takes", "see", "spec", "ask", "conflict", "crash", "pass"];
const TAKES: [&str; 6] = ["ready", "ack", "quiet", "check", "stop", "drain"];
const ON_WRITE: &str = "on the next write";

/// Why a script cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScriptError {
    /// The step, counted from 1; `None`: what comes before the steps.
    pub step: Option<usize>,
    /// What is wrong there, and what to write instead.
    pub message: String,
}

impl ScriptError {
    pub(super) fn at(step: usize, message: String) -> ScriptError {
        ScriptError { step: Some(step), message }
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => write!(out, "step {step}: {}", self.message),
            None => out.write_str(&self.message),
        }
    }
}

/// A script that can be played.
#[derive(Debug)]
pub(super) struct Script {
    /// What is asked for at the start.
    pub(super) spec: Spec,
    /// The same as it was written.
    pub(super) shown: String,
    pub(super) steps: Vec<Step>,
}

/// Something changes, and then time passes.
#[derive(Debug)]
pub(super) struct Step {
    /// What the author says of it.
    pub(super) say: Option<String>,
    /// The step as it was written, without that.
    pub(super) shown: String,
    pub(super) changes: Vec<Change>,
    /// How long the loop runs.
    pub(super) pass: Millis,
}

/// What one word of a step changes.
#[derive(Debug)]
pub(super) enum Change {
    /// How long the world takes for things, from now on.
    Takes(Takes),
    /// What is seen.
    See(Vec<Sight>),
    /// What is asked for.
    Spec(Edit),
    /// A request by hand.
    Ask(Action),
    /// Somebody else writes before the next write of the controller.
    Conflict,
    /// The controller ends, and begins again.
    Crash(Crash),
}

/// When the controller ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Crash {
    Now,
    /// After its next write, before it does anything about it.
    OnWrite,
}

/// The spec after an edit.
#[derive(Debug)]
pub(super) enum Edit {
    Valid(Box<Spec>),
    /// What is wrong, in sentences.
    Invalid(String),
}

/// How long the world takes for things. `None` within: it never happens; `None` outside: as before.
#[derive(Debug, Default)]
pub(super) struct Takes {
    /// From the start of a version until it is ready.
    pub(super) ready: Option<Option<Millis>>,
    /// From the publication of a record until proxies ack.
    pub(super) ack: Option<Option<Millis>>,
    /// From the last ack until the old version is quiet.
    pub(super) quiet: Option<Option<Millis>>,
    /// Until a check passes.
    pub(super) check: Option<Option<Millis>>,
    /// Until a version has stopped.
    pub(super) stop: Option<Option<Millis>>,
    /// From when all hold requests until nothing is open on the old version.
    pub(super) drain: Option<Option<Millis>>,
}

impl Script {
    /// Reads all of it, so that nothing is played of one with an error.
    pub(super) fn read(value: &Value) -> Result<Script, ScriptError> {
        let before = |message| ScriptError { step: None, message };
        let map = mapping("the script", value, &["spec", "steps"]).map_err(before)?;
        let spec =
            map.get("spec").ok_or_else(|| before("the script has no spec: write what is asked for".to_owned()))?;
        let steps = map.get("steps").and_then(Value::as_array);
        let steps = steps.ok_or_else(|| before("the script has no list of steps".to_owned()))?;
        let mut edited = spec.clone();
        let first = match read_spec(&edited).map_err(before)? {
            Edit::Valid(spec) => *spec,
            Edit::Invalid(wrong) => return Err(before(format!("the spec is not valid: {wrong}"))),
        };
        let mut reader = Reader::default();
        let read = (1..).zip(steps).map(|(number, step)| {
            Step::read(step, &mut edited, &mut reader).map_err(|message| ScriptError::at(number, message))
        });
        Ok(Script { spec: first, shown: format!("spec: {}", inline(spec)), steps: read.collect::<Result<_, _>>()? })
    }
}

impl Step {
    fn read(value: &Value, edited: &mut Value, reader: &mut Reader) -> Read<Step> {
        let map = mapping("it", value, &STEP)?;
        let mut changes = vec![];
        if let Some(takes) = map.get("takes") {
            changes.push(Change::Takes(Takes::read(takes)?));
        }
        if let Some(see) = map.get("see") {
            changes.push(Change::See(reader.read(see)?));
        }
        if let Some(patch) = map.get("spec") {
            merge(edited, patch);
            changes.push(Change::Spec(read_spec(edited)?));
        }
        if let Some(ask) = map.get("ask") {
            let allowed = "promote, rollback, abort, retry, suspend or resume";
            changes.push(Change::Ask(Action::deserialize(ask).map_err(|_| none_of("ask", ask, allowed))?));
        }
        if let Some(conflict) = map.get("conflict") {
            let known = conflict.as_str() == Some(ON_WRITE);
            changes.push(known.then_some(Change::Conflict).ok_or_else(|| none_of("conflict", conflict, ON_WRITE))?);
        }
        if let Some(crash) = map.get("crash") {
            changes.push(Change::Crash(match crash.as_str() {
                Some("now") => Crash::Now,
                Some(ON_WRITE) => Crash::OnWrite,
                _ => return Err(none_of("crash", crash, &format!("now, or {ON_WRITE}"))),
            }));
        }
        let say = map.get("say").map(|say| text("say", say).map(str::to_owned)).transpose()?;
        let pass = map.get("pass").map(|pass| duration("pass", pass)).transpose()?.unwrap_or_default();
        let shown = STEP.iter().skip(1).filter_map(|word| Some(format!("{word}: {}", inline(map.get(*word)?))));
        Ok(Step { say, shown: shown.collect::<Vec<_>>().join(", "), changes, pass })
    }
}

impl Takes {
    fn read(value: &Value) -> Read<Takes> {
        let map = mapping("takes", value, &TAKES)?;
        let read = |word: &str| {
            let at = format!("takes.{word}");
            let one = |value: &Value| match value.as_str() {
                Some("never") => Ok(None),
                _ => duration(&at, value).map(Some).map_err(|error| format!("{error}, or never")),
            };
            map.get(word).map(one).transpose()
        };
        let (ready, ack, quiet) = (read("ready")?, read("ack")?, read("quiet")?);
        let (check, stop, drain) = (read("check")?, read("stop")?, read("drain")?);
        Ok(Takes { ready, ack, quiet, check, stop, drain })
    }
}

fn read_spec(value: &Value) -> Read<Edit> {
    let spec = Spec::deserialize(value).map_err(|error| format!("the spec is not understood: {error}"))?;
    let wrong = spec.validate();
    Ok(if wrong.is_empty() { Edit::Valid(Box::new(spec)) } else { Edit::Invalid(wrong.join("; ")) })
}

/// Merges a change into a spec, as `kubectl patch --type merge` does: null takes a key out.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
