//! `versionflag simulate`: what the controller makes of a script. I/O: reads the script.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use local::yaml::malformed;
use serde_json::Value;

/// The text of all that happens in the script of a file; `-`: of stdin.
pub(super) fn run(file: &Path) -> anyhow::Result<String> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        ("stdin".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    play(&text.with_context(|| name.clone())?).with_context(|| name)
}

fn play(text: &str) -> anyhow::Result<String> {
    let script: Value =
        serde_saphyr::from_str(text).map_err(|error| anyhow::Error::msg(malformed(&error).to_string()))?;
    Ok(machine::simulate::simulate(&script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plays_a_script() {
        let text = "{spec: {version: v1, services: [{name: reviews}]}, steps: [{see: {v1: ready}, pass: 1s}]}";
        assert!(play(text).unwrap().contains("Adopted: v1 serves"));
    }

    #[test]
    fn says_which_step_is_not_understood() {
        let text = "{spec: {version: v1, services: [{name: reviews}]}, steps: [{pass: 1s}, {ask: nothing}]}";
        assert!(play(text).unwrap_err().to_string().starts_with("step 2: ask is nothing: write promote, "));
    }

    #[test]
    fn names_the_file() {
        let error = run(Path::new("nowhere.yaml")).unwrap_err();
        assert_eq!(error.to_string(), "nowhere.yaml");
    }
}
