//! The program `versionflag local`, with versions that only sleep: this test listens for them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Place {
    dir: tempfile::TempDir,
    // Answers the readiness of v1.
    _v1: TcpListener,
    address: String,
}

impl Place {
    fn new() -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let place = Place { dir: tempfile::tempdir().unwrap(), _v1: listener, address };
        place.write("v1");
        place
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("reviews.yaml")
    }

    fn state_path(&self) -> PathBuf {
        self.dir.path().join("reviews.state.json")
    }

    fn write(&self, version: &str) {
        let text = format!(
            "apiVersion: versionflag.io/v1alpha1\nkind: VersionFlag\nmetadata: {{name: reviews}}\n\
             spec: {{version: {version}, services: [{{name: reviews}}]}}\n\
             local:\n  listen: 127.0.0.1:0\n  proxies: [{{id: edge}}]\n  versions:\n    \
             v1: {{command: [sleep, '600'], address: '{}'}}\n",
            self.address
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn start(&self) -> Child {
        let _ = std::fs::remove_file(self.dir.path().join("reviews.state.json.address"));
        let child = program(&["local", "-f"], &self.file()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.unwrap()
    }

    fn status(&self) -> Option<Value> {
        let out = program(&["status", "-o", "json"], &self.file()).output().unwrap();
        serde_json::from_slice::<Value>(&out.stdout).ok()?.get(0).cloned()
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| holds(status)) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "{what} was not seen: {status:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn pid(&self) -> i64 {
        let state: Value = serde_json::from_slice(&std::fs::read(self.state_path()).unwrap()).unwrap();
        state["processes"]["v1"]["pid"].as_i64().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = std::fs::read(self.state_path()).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        if let Some(pid) = state["processes"]["v1"]["pid"].as_i64() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn program(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_versionflag"));
    command.args(arguments).arg(file);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn stable(status: &Value) -> bool {
    status["status"]["phase"] == "Stable"
}

#[test]
fn a_killed_controller_finds_its_versions_again() {
    let place = Place::new();
    let first = place.start();
    place.until("Stable", stable);
    let pid = place.pid();
    kill(first);
    let second = place.start();
    place.until("v1 ready", |status| stable(status) && status["versions"]["v1"]["ready"] == true);
    assert_eq!(place.pid(), pid);
    kill(second);
}

#[test]
fn a_second_controller_is_refused_by_the_pid_of_the_first() {
    let place = Place::new();
    let first = place.start();
    place.until("Stable", stable);
    let second = program(&["local", "-f"], &place.file()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let pid = format!("process {}", first.id());
    assert!(stderr(&second).contains(&pid), "{}", stderr(&second));
    kill(first);
}

#[test]
fn a_damaged_state_file_is_named_and_kept() {
    let place = Place::new();
    std::fs::write(place.state_path(), "{\"format\": 1").unwrap();
    let out = program(&["local", "-f"], &place.file()).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("is damaged and is left as it is"), "{}", stderr(&out));
    assert_eq!(std::fs::read_to_string(place.state_path()).unwrap(), "{\"format\": 1");
}

#[test]
fn a_bad_edit_is_shown_and_taken_back() {
    let place = Place::new();
    let controller = place.start();
    place.until("Stable", stable);
    place.write("v9");
    let status = place.until("InvalidSpec", |status| status["status"]["blocked"]["reason"] == "InvalidSpec");
    let message = status["status"]["blocked"]["message"].as_str().unwrap();
    assert!(message.contains("spec.version \"v9\" is not in local.versions"), "{message}");
    assert_eq!(status["specVersion"], "v1");
    let code = program(&["status"], &place.file()).output().unwrap().status.code();
    assert_eq!(code, Some(3));
    place.write("v1");
    place.until("no block", |status| stable(status) && status["status"]["blocked"].is_null());
    kill(controller);
}
