//! The scripts in `simulations/`, each with its output beside it. `UPDATE_GOLDENS=1` writes the outputs anew.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use machine::simulate::simulate;
use rstest::rstest;
use serde_json::Value;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulations");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    scripts.sort();
    scripts
}

fn play(yaml: &str) -> Result<String, String> {
    let script: Value = serde_saphyr::from_str(yaml).unwrap();
    simulate(&script).map_err(|error| error.to_string())
}

#[test]
fn every_script_has_its_output() {
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    let scripts = scripts();
    assert!(scripts.len() >= 12, "{scripts:?}");
    let mut changed = vec![];
    for script in scripts {
        let name = script.file_name().unwrap().to_string_lossy().into_owned();
        let found = play(&fs::read_to_string(&script).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let golden = script.with_extension("out");
        if update {
            fs::write(&golden, &found).unwrap();
        }
        let kept = fs::read_to_string(&golden).unwrap_or_default();
        let differs = found.lines().zip(kept.lines()).find(|(found, kept)| found != kept);
        if found != kept {
            changed.push(format!("{name}: {differs:?}"));
        }
    }
    assert!(changed.is_empty(), "make them again with UPDATE_GOLDENS=1 and read the changes:\n{}", changed.join("\n"));
}

/// Both happen: the first write is refused, and the second is the last.
#[test]
fn a_conflict_and_a_crash_can_come_together() {
    let spec = "spec: {version: v1, services: [{name: reviews}], routing: {provider: External}}";
    let both = "{conflict: on the next write, crash: on the next write, spec: {version: v2}, pass: 1s}";
    let told = play(&format!("{{{spec}, steps: [{{see: {{v1: ready}}, pass: 1s}}, {both}]}}")).unwrap();
    let at = |word: &str| told.find(word).unwrap_or_else(|| panic!("no {word}: {told}"));
    assert!(at("conflict   somebody else") < at("begins again"), "{told}");
}

fn error_of(steps: &str) -> String {
    play(&format!("{{spec: {{version: v1, services: [{{name: reviews}}]}}, steps: {steps}}}")).unwrap_err()
}

#[rstest]
#[case::step(
    "[{pass: 1s}, {look: 1}]",
    "step 2: it has the word \"look\", which is none: write a mapping of say, takes,"
)]
#[case::version(
    "[{see: {v1: redy}}]",
    "step 1: see.v1 is redy: if v1 is a version, write ready, running, stopped, gone, "
)]
#[case::word("[{see: {prxies: 2}}]", "see.prxies is 2: if prxies is a version, write ready, running, ")]
#[case::laggard(
    "[{see: {proxies: [edge]}}, {see: {laggards: [cart]}}]",
    "step 2: see.laggards: cart is none of the proxies: edge"
)]
#[case::the_same_proxy_twice("[{see: {proxies: [edge, cart, edge]}}]", "see.proxies has edge twice")]
#[case::no_version("[{see: {'v 1 !': ready}}]", "step 1: see \"v 1 !\" is not a valid name")]
#[case::an_empty_version("[{see: {'': ready}}]", "step 1: see \"\" is not a valid name")]
#[case::two_verdicts(
    "[{see: {checks: {errors: {failed: a, passed: b}}}}]",
    "see.checks.errors is {failed: a, passed: b}: "
)]
#[case::more_than_short(
    "[{see: {headroom: {short: a, long: b}}}]",
    "see.headroom is {long: b, short: a}: write fits, "
)]
#[case::acked("[{see: {acked: 3}}]", "see.acked is 3: write all, none, or a number up to 2")]
#[case::old("[{see: {old: loud}}]", "see.old is loud: write quiet, unknown, or busy")]
#[case::headroom("[{see: {headroom: 3}}]", "see.headroom is 3: write fits, unknown, or {short: MESSAGE}")]
#[case::verdict("[{see: {checks: {errors: bad}}}]", "see.checks.errors is bad: write passed, failed, inconclusive, ")]
#[case::reason(
    "[{see: {routes: {reason: Laggards, message: m}}}]",
    "see.routes.reason is Laggards: write RouteConflict, "
)]
#[case::message("[{see: {problem: {reason: TooWide}}}]", "see.problem.message is null: write a text")]
#[case::keeper("[{see: {keeper: me}}]", "see.keeper is me: write controller or platform")]
#[case::duration("[{pass: 10}]", "step 1: pass is 10: write a length of time, such as 10s")]
#[case::unit("[{pass: '10'}]", "step 1: pass: duration \"10\" has no unit")]
#[case::pace("[{takes: {ready: soon}}]", "takes.ready: duration \"soon\" is not understood")]
#[case::action("[{ask: promot}]", "ask is promot: write promote, rollback, abort, retry, suspend or resume")]
#[case::crash("[{crash: later}]", "crash is later: write now, or on the next write")]
#[case::spec(
    "[{spec: {verion: v2}}]",
    "step 1: the spec is not understood: unknown field `verion`, expected one of `version`"
)]
fn an_unknown_word_is_named_with_what_is_allowed(#[case] steps: &str, #[case] expected: &str) {
    let error = error_of(steps);
    assert!(error.contains(expected), "{error}");
}

#[rstest]
#[case("{steps: []}", "the script has no spec: write what is asked for")]
#[case("{spec: {version: v1, services: [{name: reviews}]}}", "the script has no list of steps")]
#[case("{spec: {version: v1, services: []}, steps: []}", "the spec is not valid: ")]
#[case("[]", "the script is []: write a mapping of spec, steps")]
fn what_comes_before_the_steps_is_looked_at_as_well(#[case] script: &str, #[case] expected: &str) {
    let error = play(script).unwrap_err();
    assert!(error.starts_with(expected), "{error}");
}
