//! The unit of systemd that is shipped, by systemd's own judgement, and its example.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::path::Path;
use std::process::Command;

/// The most that systemd may find open in it, in tenths: 100 is a service without any of its limits.
const EXPOSURE: &str = "--threshold=30";

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/systemd").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn its_example_is_taken() {
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filters/level-1/versionflag.wasm");
    let (text, dir) = (shipped("reviews.yaml"), tempfile::tempdir().unwrap());
    let text = text.replace("/usr/local/lib/versionflag.wasm", filter.to_str().unwrap());
    let file = dir.path().join("reviews.yaml");
    std::fs::write(&file, text).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_versionflag")).args(["lint", "-f"]).arg(&file).output().unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

#[test]
fn the_unit_is_valid_and_closed_to_what_it_does_not_need() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "systemd-analyze is missing: install systemd");
        return eprintln!("systemd-analyze is not installed: the unit is not looked at");
    }
    let text = shipped("versionflag@.service");
    assert!(text.contains("\nExecStart=/usr/local/bin/versionflag local -f "));
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("versionflag@reviews.service");
    std::fs::write(&unit, text.replace("/usr/local/bin/versionflag", env!("CARGO_BIN_EXE_versionflag"))).unwrap();
    for check in [vec!["verify"], vec!["security", "--offline=true", EXPOSURE]] {
        let out = Command::new("systemd-analyze").args(&check).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{check:?}: {said}");
        assert!(!said.contains("Unknown"), "{check:?}: {said}");
    }
}
