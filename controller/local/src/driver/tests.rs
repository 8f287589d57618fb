use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use service::http::{Bytes, ExchangeLimits, HttpClient, Method, OutgoingRequest};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::group::Processes;
use crate::testing::{free_address, server, wait_for};

/// A controller of a flag with the version v1, in this process. What it started ends with it.
struct World {
    dir: TempDir,
    v1: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<tokio::task::JoinHandle<Result<(), DriverError>>>,
    service: SocketAddr,
}

impl World {
    async fn start() -> World {
        let (dir, v1, unknown) = (tempfile::tempdir().unwrap(), free_address(), free_address());
        let mut world = World { dir, v1, stop: None, ended: None, service: unknown };
        world.write(&[]);
        world.run(Audit::default()).await;
        world
            .until("Stable", |view| view["status"]["phase"] == "Stable" && view["versions"]["v1"]["ready"] == true)
            .await;
        world
    }

    fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("reviews.yaml")
    }

    /// Writes the file, in place, with more members of `local`.
    fn write(&self, more: &[(&str, Value)]) {
        // Longer than a turn takes.
        let ready = json!({ "command": ["sleep", "0.3"], "interval": "20ms" });
        let version = json!({ "command": server(self.v1), "address": self.v1.to_string(), "ready": ready });
        let mut local =
            json!({ "listen": "127.0.0.1:0", "proxies": [{ "id": "edge" }], "versions": { "v1": version } });
        for (name, value) in more {
            local[name] = value.clone();
        }
        let file = json!({
            "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag", "metadata": { "name": "reviews" },
            "spec": { "version": "v1", "services": [{ "name": "reviews" }] }, "local": local,
        });
        std::fs::write(self.path(), file.to_string()).unwrap();
    }

    async fn run(&mut self, audit: Audit) {
        let ((stop, stopped), (tell, bound)) = (oneshot::channel(), oneshot::channel());
        let path = self.path();
        self.ended = Some(tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            run(&path, audit, |address| tell.send(address).unwrap(), stopped).await
        }));
        (self.stop, self.service) = (Some(stop), bound.await.unwrap());
    }

    async fn end(&mut self) {
        drop(self.stop.take());
        self.ended.take().unwrap().await.unwrap().unwrap();
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let http = HttpClient::plain(ExchangeLimits { bytes: 1 << 20, time: Duration::from_secs(5) }).unwrap();
        let url = format!("http://{}{path}", self.service);
        let request = OutgoingRequest { method: Method::GET, url: &url, headers: &[], body: Bytes::new() };
        let (_, body) = http.exchange(request).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut view = Value::Null;
        wait_for(what, async || {
            let all: Value = serde_json::from_str(&self.get("/v1/status").await?).map_err(|error| error.to_string())?;
            view = all[0].clone();
            if is_so(&view) { Ok(()) } else { Err(view.to_string()) }
        })
        .await;
        view
    }

    fn processes(&self) -> Vec<i32> {
        let mut processes = Processes::default();
        processes.look();
        let state = self.dir.path().canonicalize().unwrap().join("reviews.state.json");
        processes.started_by(&state.to_string_lossy()).into_values().map(|(pid, _)| pid).collect()
    }

    fn kill(&self) {
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ended.iter().for_each(tokio::task::JoinHandle::abort);
        self.kill();
    }
}

/// T8: the disk is full, and v1 dies: it is started again, and what is wrong is in the status and in the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_kept_running_on_a_full_disk() {
    let mut world = World::start().await;
    let in_the_way = world.dir.path().join("reviews.state.json.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    let before = world.processes();
    world.kill();
    world.until("what is wrong", |view| view["status"]["blocked"]["reason"] == "StateNotWritten").await;
    wait_for("another v1", async || {
        let now = world.processes();
        if !now.is_empty() && now != before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    world.until("v1 is ready", |view| view["versions"]["v1"]["ready"] == true).await;
    let metrics = world.get("/metrics").await.unwrap();
    assert!(metrics.contains("versionflag_write_failures_total{file=\"state\"}"), "{metrics}");
    std::fs::remove_dir(&in_the_way).unwrap();
    let view = world.until("all is well", |view| view["status"].get("blocked").is_none()).await;
    assert!(view["status"]["history"].to_string().contains("v1 ended by itself: signal: 9"), "{view}");
    world.end().await;
}

/// A controller that begins again has nothing to say of what went on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_controller_is_no_news() {
    let mut world = World::start().await;
    let first = world.processes();
    world.end().await;
    let log = world.dir.path().join("audit.log");
    let (audit, written) = Audit::open(&log).unwrap();
    world.run(audit).await;
    world.until("ready", |view| view["versions"]["v1"]["ready"] == true).await;
    world.end().await;
    written.wait();
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(!lines.contains("locked") && lines.contains("Adopted"), "{lines}");
    assert_eq!(world.processes(), first);
}

/// SIGHUP has the file read again, even where nothing shows that it changed; the edit is in the history.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_has_the_file_read_again() {
    let mut world = World::start().await;
    let edits = |view: &Value| view["status"]["history"].to_string().matches("the file was edited").count();
    let path = world.path();
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&path).unwrap().replace(from, to);
        std::fs::write(&path, text).unwrap();
    };
    edit("\"interval\":\"20ms\"", "\"interval\":\"30ms\"");
    world.until("an edit", |view| edits(view) == 1).await;
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    edit("\"interval\":\"30ms\"", "\"interval\":\"40ms\"");
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    // Nobody else in this process minds it.
    let mut mine = signal(SignalKind::hangup()).unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
    mine.recv().await;
    world.until("another edit", |view| edits(view) == 2).await;
    world.end().await;
}
