//! The program `versionflag local`, with versions that only listen.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod logs;
mod place;
mod terminal;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use place::{Ended, LONG, Place, SERVE, free, program, stable, stderr};

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

/// A path of the controller of this machine, by HTTP.
fn asked(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let host = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_page_of_this_machine_is_where_the_dashboard_says() {
    let place = Place::new();
    let controller = place.start();
    place.until("Stable", stable);
    let out = program(&["dashboard", "--no-open", "reviews", "-f"], &place.file()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let address = said.strip_prefix("the page is at ").and_then(|rest| rest.strip_suffix("/#reviews\n"));
    let page = asked(address.unwrap_or_else(|| panic!("{out:?}")), "/");
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("page.js"), "{page}");
    drop(controller);
    let silent = program(&["dashboard", "--no-open"], &place.file()).output().unwrap();
    assert_eq!(silent.status.code(), Some(1));
    assert!(stderr(&silent).contains("is it running?"), "{}", stderr(&silent));
}

/// T12: the only proxy that is listed has never reported.
/// T36: a controller that stands still is not waited for beyond the time that was given.
#[test]
fn a_wait_ends_in_its_time_with_a_controller_that_stands_still() {
    let place = Place::new();
    let controller = place.start();
    place.until("Stable", stable);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(controller.0.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let out = program(&["wait", "--for", "stable", "--timeout", "1s"], &place.file()).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    // The client by itself waits for longer, and says how long.
    assert!(stderr(&out).contains("has not answered in that time"), "{}", stderr(&out));
}

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

/// T35: comments of somebody's configuration are not lost unasked.
#[test]
fn a_configuration_keeps_its_comments_or_is_not_written() {
    let (place, inputs) = (Place::new(), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoys"));
    let text = std::fs::read_to_string(inputs.join("edge/envoy.yaml")).unwrap();
    let report = "- match: { prefix: \"/report\" }";
    assert!(text.contains(report));
    let text = text.replace(report, "- &report\n                match: { prefix: \"/report\" }");
    let envoy = place.dir.path().join("envoy.yaml");
    std::fs::write(&envoy, &text).unwrap();
    let merge = |more: &[&str]| {
        let flag = inputs.join("reviews.yaml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_versionflag"));
        command.args(["render", "envoy", "-f"]).arg(&flag).arg("--into").arg(&envoy).arg("--write").args(more);
        command.output().unwrap()
    };
    let refused = merge(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("nothing is written: ") && stderr(&refused).contains("--without-comments"));
    assert_eq!(std::fs::read_to_string(&envoy).unwrap(), text);
    let written = merge(&["--without-comments"]);
    assert_eq!(written.status.code(), Some(0), "{}", stderr(&written));
    assert!(!std::fs::read_to_string(&envoy).unwrap().contains('#'));
}

/// T35: a file that is referred to by two names is one file, and is written once.
#[test]
fn a_file_by_two_names_is_written_once() {
    let (place, inputs) = (Place::new(), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoys"));
    let (envoy, routes) = (place.dir.path().join("envoy.yaml"), place.dir.path().join("rds.yaml"));
    let listener = |name: &str, path: &str, port: u16| {
        let kind =
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let router = "{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
        format!(
            "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n    filter_chains:\n    \
             - filters:\n      - name: hcm\n        typed_config:\n          \"@type\": {kind}\n          stat_prefix: {name}\n          \
             rds: {{route_config_name: {name}, config_source: {{path_config_source: {{path: {path}}}}}}}\n          \
             http_filters: [{router}]\n"
        )
    };
    let both = [listener("other", "./rds.yaml", 10_001), listener("main", "rds.yaml", 10_000)].concat();
    std::fs::write(&envoy, format!("static_resources:\n  listeners:\n{both}")).unwrap();
    let table = |name: &str, domain: &str, cluster: &str| {
        format!(
            "- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  name: {name}\n  virtual_hosts:\n  \
             - {{name: {name}, domains: [{domain}], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}\n"
        )
    };
    let tables = table("other", "web.example", "web") + &table("main", "reviews.example", "reviews");
    std::fs::write(&routes, format!("resources:\n{tables}")).unwrap();
    let merge = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_versionflag"));
        command.args(["render", "envoy", "--write", "-f"]).arg(inputs.join("reviews.yaml")).arg("--into").arg(&envoy);
        command.output().unwrap()
    };
    let merged = merge();
    assert_eq!(merged.status.code(), Some(0), "{}", stderr(&merged));
    let text = std::fs::read_to_string(&routes).unwrap();
    assert!(text.contains("versionflag:reviews:"), "{text}");
    let again = merge();
    assert!(!stderr(&again).contains("is written"), "{}", stderr(&again));
    assert_eq!(std::fs::read_to_string(&routes).unwrap(), text);
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
