//! A place where `versionflag local` runs: its file, its commands, and the end of all that it started.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where [`super::serves`] listens, if it is meant to.
pub(super) const SERVE: &str = "VERSIONFLAG_TEST_SERVE";
pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    /// Where nobody listens.
    pub(super) address: String,
}

impl Place {
    pub(super) fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap(), address: free() };
        place.write("v1");
        place
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.path().join("reviews.yaml")
    }

    pub(super) fn state_path(&self) -> PathBuf {
        self.dir.path().join("reviews.state.json")
    }

    /// Asks for v2.
    pub(super) fn switch(&self) {
        self.write("v1");
        let text = std::fs::read_to_string(self.file()).unwrap().replace("{version: v1", "{version: v2");
        let v2 = format!("    v2: {}\n", version(&free()));
        let listens = "coexistence: {minReady: 0s, headroom: Ignore, probe: {mode: None}}, services: [{name: reviews}]";
        std::fs::write(self.file(), text.replace("services: [{name: reviews}]", listens) + &v2).unwrap();
    }

    pub(super) fn write(&self, version: &str) {
        let text = format!(
            "apiVersion: versionflag.io/v1alpha1\nkind: VersionFlag\nmetadata: {{name: reviews}}\n\
             spec: {{version: {version}, services: [{{name: reviews}}]}}\n\
             local:\n  listen: 127.0.0.1:0\n  proxies: [{{id: edge}}]\n  versions:\n    v1: {}\n",
            self::version(&self.address)
        );
        std::fs::write(self.file(), text).unwrap();
    }

    pub(super) fn start(&self) -> Ended {
        self.start_with(Stdio::null())
    }

    pub(super) fn start_with(&self, stderr: Stdio) -> Ended {
        let _ = std::fs::remove_file(self.dir.path().join("reviews.state.json.address"));
        Ended(program(&["local", "-f"], &self.file()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap())
    }

    pub(super) fn watch(&self) -> (Ended, Lines, Lines) {
        let mut watch = program(&["status", "-w"], &self.file());
        let mut watch = Ended(watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let (out, err) = (watch.0.stdout.take().unwrap(), watch.0.stderr.take().unwrap());
        (watch, Lines::of(out), Lines::of(err))
    }

    pub(super) fn status(&self) -> Option<Value> {
        let out = program(&["status", "-o", "json"], &self.file()).output().unwrap();
        serde_json::from_slice::<Value>(&out.stdout).ok()?.get(0).cloned()
    }

    pub(super) fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LONG;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| holds(status)) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "{what} was not seen: {status:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn pid(&self) -> i64 {
        let state: Value = serde_json::from_slice(&std::fs::read(self.state_path()).unwrap()).unwrap();
        state["processes"]["v1"]["pid"].as_i64().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = std::fs::read(self.state_path()).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        for pid in ["v1", "v2"].iter().filter_map(|version| state["processes"][version]["pid"].as_i64()) {
            let group = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// An address where nobody listens.
pub(super) fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub(super) fn program(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_versionflag"));
    command.args(arguments).arg(file);
    command
}

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A version that listens.
pub(super) fn version(address: &str) -> String {
    format!(
        "{{command: [sh, -c, '{}'], address: '{address}', ready: {{command: ['true'], interval: 20ms}}}}",
        serves_at(address)
    )
}

pub(super) fn serves_at(address: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!("exec env {SERVE}={address} {} --exact serves --nocapture >/dev/null", program.display())
}

/// A process that ends with the test, whatever becomes of it.
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ended {
    pub(super) fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it goes on")
    }
}

/// What a process prints, until this is dropped.
pub(super) struct Lines(mpsc::Receiver<String>);

impl Lines {
    pub(super) fn of(stream: impl Read + Send + 'static) -> Lines {
        // Nobody reads a line before it is asked for, but one.
        let (send, lines) = mpsc::sync_channel(0);
        std::thread::spawn(move || {
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            lines.map(|line| send.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Lines(lines)
    }

    pub(super) fn until(&self, what: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let line = self.0.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            match line {
                Ok(line) if line.contains(what) => return line,
                Ok(_) => {}
                Err(error) => panic!("{what} was not printed: {error}"),
            }
        }
    }
}

pub(super) fn stable(status: &Value) -> bool {
    status["status"]["phase"] == "Stable"
}
