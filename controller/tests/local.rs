//! The program `versionflag local`, with versions that only listen.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where [`serves`] listens, if it is meant to.
const SERVE: &str = "VERSIONFLAG_TEST_SERVE";
const LONG: Duration = Duration::from_secs(60);

struct Place {
    dir: tempfile::TempDir,
    /// Where nobody listens.
    address: String,
}

impl Place {
    fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap(), address: free() };
        place.write("v1");
        place
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("reviews.yaml")
    }

    fn state_path(&self) -> PathBuf {
        self.dir.path().join("reviews.state.json")
    }

    /// Asks for v2.
    fn switch(&self) {
        self.write("v1");
        let text = std::fs::read_to_string(self.file()).unwrap().replace("{version: v1", "{version: v2");
        let v2 = format!("    v2: {}\n", version(&free()));
        let listens = "coexistence: {minReady: 0s, headroom: Ignore, probe: {mode: None}}, services: [{name: reviews}]";
        std::fs::write(self.file(), text.replace("services: [{name: reviews}]", listens) + &v2).unwrap();
    }

    fn write(&self, version: &str) {
        let text = format!(
            "apiVersion: versionflag.io/v1alpha1\nkind: VersionFlag\nmetadata: {{name: reviews}}\n\
             spec: {{version: {version}, services: [{{name: reviews}}]}}\n\
             local:\n  listen: 127.0.0.1:0\n  proxies: [{{id: edge}}]\n  versions:\n    v1: {}\n",
            self::version(&self.address)
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn start(&self) -> Ended {
        self.start_with(Stdio::null())
    }

    fn start_with(&self, stderr: Stdio) -> Ended {
        let _ = std::fs::remove_file(self.dir.path().join("reviews.state.json.address"));
        Ended(program(&["local", "-f"], &self.file()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap())
    }

    fn watch(&self) -> (Ended, Lines, Lines) {
        let mut watch = program(&["status", "-w"], &self.file());
        let mut watch = Ended(watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let (out, err) = (watch.0.stdout.take().unwrap(), watch.0.stderr.take().unwrap());
        (watch, Lines::of(out), Lines::of(err))
    }

    fn status(&self) -> Option<Value> {
        let out = program(&["status", "-o", "json"], &self.file()).output().unwrap();
        serde_json::from_slice::<Value>(&out.stdout).ok()?.get(0).cloned()
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
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

    fn pid(&self) -> i64 {
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
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn program(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_versionflag"));
    command.args(arguments).arg(file);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A version that listens.
fn version(address: &str) -> String {
    format!(
        "{{command: [sh, -c, '{}'], address: '{address}', ready: {{command: ['true'], interval: 20ms}}}}",
        serves_at(address)
    )
}

fn serves_at(address: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!("exec env {SERVE}={address} {} --exact serves --nocapture >/dev/null", program.display())
}

/// Not a test: the version that the tests start.
#[test]
fn serves() {
    let Ok(address) = std::env::var(SERVE) else { return };
    std::thread::spawn(|| {
        std::thread::sleep(LONG * 5);
        std::process::exit(1);
    });
    TcpListener::bind(address).unwrap().incoming().for_each(drop);
}

/// A process that ends with the test, whatever becomes of it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ended {
    fn code(&mut self) -> Option<i32> {
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
struct Lines(mpsc::Receiver<String>);

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Lines {
        // Nobody reads a line before it is asked for, but one.
        let (send, lines) = mpsc::sync_channel(0);
        std::thread::spawn(move || {
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            lines.map(|line| send.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Lines(lines)
    }

    fn until(&self, what: &str) -> String {
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

fn stable(status: &Value) -> bool {
    status["status"]["phase"] == "Stable"
}

#[test]
fn a_killed_controller_finds_its_versions_again() {
    let place = Place::new();
    let first = place.start();
    place.until("Stable", stable);
    let pid = place.pid();
    drop(first);
    let _second = place.start();
    place.until("v1 ready", |status| stable(status) && status["versions"]["v1"]["ready"] == true);
    assert_eq!(place.pid(), pid);
}

#[test]
fn a_second_controller_is_refused_by_the_pid_of_the_first() {
    let place = Place::new();
    let first = place.start();
    place.until("Stable", stable);
    let second = program(&["local", "-f"], &place.file()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let pid = format!("process {}", first.0.id());
    assert!(stderr(&second).contains(&pid), "{}", stderr(&second));
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
    let _controller = place.start();
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
}

/// T9: nobody reads its log any more, as behind `2>&1 | head -3`.
#[test]
fn a_controller_outlives_whoever_reads_its_log() {
    let place = Place::new();
    let mut controller = place.start_with(Stdio::piped());
    drop(controller.0.stderr.take());
    place.until("Stable", stable);
    // Each of both is a line of the log.
    place.write("v9");
    place.until("InvalidSpec", |status| status["status"]["blocked"]["reason"] == "InvalidSpec");
    place.write("v1");
    place.until("no block", |status| status["status"]["blocked"].is_null());
    assert!(controller.0.try_wait().unwrap().is_none());
}

/// T9
#[test]
fn what_prints_to_nobody_is_done() {
    let place = Place::new();
    for arguments in [["lint", "-f"], ["render", "envoy"]] {
        let more: &[&str] = if arguments[0] == "render" { &["-f"] } else { &[] };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = program(&[&arguments, more].concat(), &place.file()).stdout(writer).output().unwrap();
        assert_eq!((out.status.code(), stderr(&out)), (Some(0), String::new()), "{arguments:?}");
    }
}

/// T16: as with `status -w | grep -m1 Stable`, of a flag that does not change any more.
#[test]
fn a_watch_ends_when_nobody_reads_it() {
    let place = Place::new();
    let _controller = place.start();
    place.until("Stable", stable);
    let mut watch = program(&["status", "-w"], &place.file());
    let mut watch = Ended(watch.stdout(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(watch.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("Stable"), "{line}");
    drop(out);
    assert_eq!(watch.code(), Some(0));
}

/// T16
#[test]
fn a_watch_goes_on_with_the_next_controller() {
    let place = Place::new();
    let first = place.start();
    place.until("Stable", stable);
    let (_watch, out, err) = place.watch();
    out.until("Stable");
    drop(first);
    err.until("is it running?");
    // Listens on another port.
    let _second = place.start();
    out.until("Stable");
    place.write("v9");
    out.until("BLOCKED: InvalidSpec");
}

/// T12: the only proxy that is listed has never reported.
#[test]
fn nothing_is_flipped_before_all_have_reported() {
    let place = Place::new();
    let _controller = place.start();
    place.until("Stable", stable);
    assert_eq!(program(&["status"], &place.file()).output().unwrap().status.code(), Some(4));
    let over = program(&["wait", "--for=cleaned-up", "--timeout=1m"], &place.file()).output().unwrap();
    assert_eq!(over.status.code(), Some(0), "{}", stderr(&over));
    place.switch();
    let held = place.until("a flip that is held", |status| status["status"]["blocked"]["reason"] == "Laggards");
    assert_eq!((&held["status"]["phase"], &held["status"]["activeVersion"]), (&"ProvingRoutes".into(), &"v1".into()));
    let message = held["status"]["blocked"]["message"].as_str().unwrap();
    assert!(message.contains("0 of 1 proxies acked; missing: edge"), "{message}");
    let late = program(&["wait", "--for=acked", "--timeout=1s"], &place.file()).output().unwrap();
    assert_eq!(late.status.code(), Some(1), "{}", stderr(&late));
    let waits = "not acked within 1s: reviews is blocked in ProvingRoutes by Laggards: 0 of 1 proxies acked";
    assert!(stderr(&late).contains(waits), "{}", stderr(&late));
    let abort = program(&["abort"], &place.file()).output().unwrap();
    assert!(abort.status.success(), "{}", stderr(&abort));
    let vain = program(&["wait", "--for=settled", "--timeout=1m"], &place.file()).output().unwrap();
    assert_eq!(vain.status.code(), Some(3), "{}", stderr(&vain));
}

/// A version that prints lines from a file for ever, as they come.
fn prints(place: &Place, lines: &str) {
    let text = std::fs::read_to_string(place.file()).unwrap();
    let text = text.replacen("-c, 'exec env", &format!("-c, 'tail -n +1 -F {lines} & exec env"), 1);
    std::fs::write(place.file(), text.replacen("local:\n", "local:\n  logs: {maxSize: '20'}\n", 1)).unwrap();
}

fn logs(place: &Place, more: &[&str]) -> Output {
    program(&[&["logs"], more, &["-f"]].concat(), &place.file()).output().unwrap()
}

/// A process that follows a log, once it has printed what there was: it listens to Ctrl-C from then on.
fn follows(follow: &Ended) -> nix::unistd::Pid {
    let pid = nix::unistd::Pid::from_raw(follow.0.id().cast_signed());
    let catches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 2 != 0
    };
    let deadline = Instant::now() + LONG;
    while !catches() {
        assert!(Instant::now() < deadline, "it does not listen to SIGINT");
        std::thread::sleep(Duration::from_millis(10));
    }
    pid
}

/// T20: what was printed is read from the files, the rotated ones included, while a controller runs or none does.
#[test]
fn what_a_version_printed_is_shown_over_all_its_files() {
    let place = Place::new();
    let none = logs(&place, &[]);
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("no controller has run with"), "{}", stderr(&none));
    let lines = place.dir.path().join("lines");
    std::fs::write(&lines, "").unwrap();
    prints(&place, &lines.display().to_string());
    let controller = place.start();
    place.until("Stable", stable);
    let say = |text: &str| {
        let mut file = std::fs::File::options().append(true).open(&lines).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    let mut follow = program(&["logs", "--follow", "--lines", "0", "-f"], &place.file());
    let mut follow = Ended(follow.stdout(Stdio::piped()).spawn().unwrap());
    let mut followed = BufReader::new(follow.0.stdout.take().unwrap());
    follows(&follow);
    let mut all = String::new();
    for number in 0..3 {
        let line = format!("line {number} of those that fill a small file\n");
        say(&line);
        let mut seen = String::new();
        followed.read_line(&mut seen).unwrap();
        assert_eq!(seen, line);
        all.push_str(&line);
        let kept = place.dir.path().join(format!("reviews-v1.log.{}", number + 1));
        let deadline = Instant::now() + LONG;
        while !kept.exists() {
            assert!(Instant::now() < deadline, "{} was not kept", kept.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    drop(controller);
    let printed = |more: &[&str]| String::from_utf8(logs(&place, more).stdout).unwrap();
    assert_eq!(printed(&[]), all);
    assert_eq!(printed(&["--lines", "2"]), all.split_once('\n').unwrap().1);
    assert_eq!(printed(&["reviews", "--version", "v1", "--lines", "1"]), all.lines().last().unwrap().to_owned() + "\n");
    let unknown = logs(&place, &["--version", "v9"]);
    assert!(stderr(&unknown).contains("v9 has no log in") && stderr(&unknown).contains("there is: v1"));
    assert!(stderr(&logs(&place, &["ratings"])).contains("there is no flag ratings"));
    // Nobody reads it any more.
    drop(followed);
    assert_eq!(follow.code(), Some(0));
}

/// T20: Ctrl-C is how people end it.
#[test]
fn following_a_log_ends_cleanly_by_an_interrupt() {
    let place = Place::new();
    std::fs::write(place.dir.path().join("reviews-v1.log"), "a line\n").unwrap();
    let mut follow = program(&["logs", "--follow", "--version", "v1", "-f"], &place.file());
    let mut follow = Ended(follow.stdout(Stdio::piped()).spawn().unwrap());
    Lines::of(follow.0.stdout.take().unwrap()).until("a line");
    let pid = follows(&follow);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(follow.code(), Some(0));
}

/// T19
#[test]
fn a_version_is_started_anew_and_stopped_by_commands() {
    let place = Place::new();
    let _controller = place.start();
    let started = |status: &Value| status["versions"]["v1"]["started"].clone();
    let first = started(&place.until("Stable", |status| stable(status) && started(status).is_u64()));
    let order = |verb: &str, more: &[&str]| {
        let out = program(&[&[verb, "--version", "v1"], more, &["-f"]].concat(), &place.file()).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &stderr(&out))
    };
    let (code, text) = order("restart", &[]);
    assert!(code == Some(1) && text.contains("refused: v1 serves") && text.contains("--force"), "{text}");
    let (code, text) = order("restart", &["reviews", "--force"]);
    assert!(code == Some(0) && text.contains("reviews  v1  Stable"), "{text}");
    place.until("another v1", |status| status["versions"]["v1"]["ready"] == true && started(status) != first);
    assert_eq!(order("stop", &[]).0, Some(1));
    let (code, text) = order("stop", &["--force"]);
    assert!(code == Some(0) && text.contains("v1 was stopped by request"), "{text}");
    place.until("no v1", |status| status["versions"]["v1"]["running"] == false);
    assert!(order("stop", &["ratings"]).1.contains("ratings is no flag of the controller"));
}

/// T21: the commands of `manifests/envoy/README.md` that end it leave the example as it was: a second run is like the
/// first.
#[test]
fn the_example_is_as_new_after_its_end() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/envoy");
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
    let readme = read("README.md");
    let mut blocks = readme.split_once("## Stop it").unwrap().1.split("```").skip(1).step_by(2);
    let (stop, clean) = (blocks.next().unwrap(), blocks.next().unwrap());
    let place = Place::new();
    let (flag, rest) = (read("reviews.yaml"), "  # How each version is started.");
    let (before, after) = flag.split_once("  filterConfig:").unwrap();
    let after = after.split_once(rest).unwrap().1;
    let ports = [free(), free()].map(|address| address.rsplit(':').next().unwrap().to_owned());
    let file = format!("{before}{rest}{after}").replace("127.0.0.1:7070", "127.0.0.1:0");
    let file = file.replace("9001", "FIRST").replace("9002", &ports[1]).replace("FIRST", &ports[0]);
    let file = file.replace("minReady: 2s", "minReady: 0s");
    std::fs::write(place.file(), &file).unwrap();
    std::fs::write(place.dir.path().join("server.py"), read("server.py")).unwrap();
    let shell = |script: &str| {
        let bin = Path::new(env!("CARGO_BIN_EXE_versionflag")).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        let out = shell.args(["-c", script]).env("PATH", path).current_dir(place.dir.path()).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &stderr(&out)
    };
    let is_free = |port: &str| TcpListener::bind(format!("127.0.0.1:{port}")).is_ok();
    for run in ["first", "second"] {
        let mut controller = place.start();
        let begins = |status: &Value| stable(status) && status["status"]["activeVersion"] == "v1";
        place.until(run, |status| begins(status) && status["versions"]["v1"]["ready"] == true);
        shell("sed -i 's/^  version: v1/  version: v2/' reviews.yaml");
        place.until("v2", |status| status["versions"]["v2"]["ready"] == true);
        let said = shell(stop);
        let pid = nix::unistd::Pid::from_raw(controller.0.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(controller.code(), Some(0));
        shell(clean);
        let deadline = Instant::now() + LONG;
        while !ports.iter().all(|port| is_free(port)) {
            assert!(Instant::now() < deadline, "a version goes on running: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut left: Vec<_> =
            std::fs::read_dir(place.dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["reviews.yaml", "server.py"]);
        assert_eq!(std::fs::read_to_string(place.file()).unwrap(), file);
    }
}
