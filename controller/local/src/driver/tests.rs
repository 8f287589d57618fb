mod fence;
mod missing;
mod taken;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use service::http::{Bytes, ExchangeLimits, HttpClient, Method, OutgoingRequest, header};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::group::Processes;
use crate::testing::{free_address, server, wait_for};

/// A controller of a flag with the version v1, in this process. What it started ends with it.
struct World {
    dir: TempDir,
    /// Its file, or the whole directory.
    source: PathBuf,
    v1: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<tokio::task::JoinHandle<Result<(), DriverError>>>,
    service: SocketAddr,
}

impl World {
    async fn start() -> World {
        let (dir, v1, unknown) = (tempfile::tempdir().unwrap(), free_address(), free_address());
        let source = dir.path().canonicalize().unwrap().join("reviews.yaml");
        let mut world = World { dir, source, v1, stop: None, ended: None, service: unknown };
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
        self.write_flag("reviews.yaml", "reviews", self.v1, more);
    }

    /// Writes the file of a flag with the version v1 at this address.
    fn write_flag(&self, path: &str, name: &str, v1: SocketAddr, more: &[(&str, Value)]) {
        // Longer than a turn takes.
        let ready = json!({ "command": ["sleep", "0.3"], "interval": "20ms" });
        let version = json!({ "command": server(v1), "address": v1.to_string(), "ready": ready });
        let mut local =
            json!({ "listen": "127.0.0.1:0", "proxies": [{ "id": "edge" }], "versions": { "v1": version } });
        for (name, value) in more {
            local[name] = value.clone();
        }
        let file = json!({
            "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag", "metadata": { "name": name },
            "spec": { "version": "v1", "services": [{ "name": name }] }, "local": local,
        });
        std::fs::write(self.dir.path().join(path), file.to_string()).unwrap();
    }

    async fn run(&mut self, audit: Audit) {
        let ((stop, stopped), (tell, bound)) = (oneshot::channel(), oneshot::channel());
        let sources = [self.source.clone()];
        self.ended = Some(tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            run(&sources, audit, |address| tell.send(address).unwrap(), stopped).await
        }));
        (self.stop, self.service) = (Some(stop), bound.await.unwrap());
    }

    async fn end(&mut self) {
        drop(self.stop.take());
        self.ended.take().unwrap().await.unwrap().unwrap();
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<String, String> {
        let headers = &[(header::CONTENT_TYPE, "application/json")];
        let http = HttpClient::plain(ExchangeLimits { bytes: 1 << 20, time: Duration::from_secs(5) }).unwrap();
        let url = format!("http://{}{path}", self.service);
        let request = OutgoingRequest { method, url: &url, headers, body };
        let (_, body) = http.exchange(request).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.until_all(what, |all| all.as_array().is_some_and(|all| all.first().is_some_and(&is_so))).await[0].clone()
    }

    /// Waits for something of all flags.
    async fn until_all(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut all = Value::Null;
        wait_for(what, async || {
            all = serde_json::from_str(&self.get("/v1/status").await?).map_err(|error| error.to_string())?;
            if is_so(&all) { Ok(()) } else { Err(all.to_string()) }
        })
        .await;
        all
    }

    fn processes(&self) -> Vec<i32> {
        self.processes_of("reviews.state.json")
    }

    fn processes_of(&self, state: &str) -> Vec<i32> {
        let mut processes = Processes::default();
        processes.look();
        let state = self.dir.path().canonicalize().unwrap().join(state);
        processes.started_by(&state.to_string_lossy()).into_values().map(|(pid, _)| pid).collect()
    }

    /// The ids of the starts of a version of which something runs.
    fn started(&self, version: &str) -> Vec<String> {
        let mut processes = Processes::default();
        processes.look();
        let state = self.dir.path().canonicalize().unwrap().join("reviews.state.json");
        let started = processes.started_by(&state.to_string_lossy()).into_iter();
        started.filter(|(marks, _)| marks.version == version).map(|(marks, _)| marks.id).collect()
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut file: Value = serde_json::from_slice(&std::fs::read(self.path()).unwrap()).unwrap();
        change(&mut file);
        std::fs::write(self.path(), file.to_string()).unwrap();
    }

    /// Asks for something of a version, and waits for the answer: why it is refused.
    async fn order(&self, id: &str, verb: &str, version: &str, force: bool) -> String {
        let order = json!({ "flag": "reviews", "id": id, "verb": verb, "version": version, "force": force });
        let accepted = self.exchange(Method::POST, "/v1/orders", order.to_string().into()).await.unwrap();
        assert_eq!(accepted, json!({ "id": id }).to_string());
        let answer = |view: &Value| {
            let orders = view["status"]["orders"].as_array().cloned().unwrap_or_default();
            orders.into_iter().find(|order| order["id"] == id)
        };
        let view = self.until("an answer", |view| answer(view).is_some()).await;
        answer(&view).unwrap()["refused"].as_str().unwrap_or_default().to_owned()
    }

    fn kill(&self) {
        for pid in ["reviews.state.json", "b.state.json"].into_iter().flat_map(|state| self.processes_of(state)) {
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

/// T34: whoever waits for a proxy is told that it cannot read what it needs, before anything is switched.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_is_said_at_rest() {
    let mut world = World::start().await;
    let in_the_way = world.dir.path().join("filter.json");
    std::fs::create_dir(&in_the_way).unwrap();
    world.write(&files());
    let notes = |view: &Value| view["versions"]["v1"]["notes"].to_string();
    world.until("what is wrong", |view| notes(view).contains("filter.json cannot be written")).await;
    std::fs::remove_dir(&in_the_way).unwrap();
    world.until("all is well", |view| !notes(view).contains("cannot be written")).await;
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

/// T19, T32: what waits is started anew at once, what serves only by force; each order is done once, whoever dies in
/// between; what was stopped stays so.
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_started_anew_and_stopped_by_request() {
    let mut world = World::start().await;
    let (address, script) = (free_address(), world.dir.path().join("v2.sh"));
    // It is killed after the grace, so that there is time in between.
    crate::testing::script(&script, "trap '' TERM", address);
    let wrapped = format!("sh '{}'; true", script.display());
    world.edit(|file| {
        file["spec"]["version"] = json!("v2");
        file["spec"]["promotion"] = json!({ "mode": "Manual" });
        file["spec"]["coexistence"] = json!({ "minReady": "0s", "headroom": "Ignore", "probe": { "mode": "None" } });
        file["local"]["versions"]["v2"] = json!({
            "command": ["sh", "-c", wrapped], "address": address.to_string(),
            "ready": { "interval": "20ms" }, "stop": { "grace": "2s" },
        });
    });
    let waits =
        |view: &Value| view["status"]["phase"] == "AwaitingPromotion" && view["versions"]["v2"]["ready"] == true;
    world.until("v2 waits", waits).await;
    let (v1, first) = (world.started("v1"), world.started("v2"));

    world.edit(|file| file["local"]["versions"]["v2"]["env"] = json!({ "LEVEL": "2" }));
    let outdated = |view: &Value| {
        view["versions"]["v2"]["notes"].to_string().contains("versionflag restart reviews -f FILE --version v2")
    };
    let view = world.until("a note", outdated).await;
    assert!(view["status"]["history"].to_string().contains("v2 goes on as it was started"), "{view}");
    assert_eq!(world.started("v2"), first);

    assert!(world.order("a", "restart", "v1", false).await.contains("v1 serves"));
    assert_eq!(world.order("b", "restart", "v2", false).await, "");
    let anew = |view: &Value| waits(view) && view["status"].get("restarts").is_none() && !outdated(view);
    world.until("v2 was started anew", anew).await;
    let second = world.started("v2");
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
    assert_eq!(world.started("v1"), v1);
    assert_eq!(world.order("b", "restart", "v2", false).await, "");
    assert!(world.order("c", "restart", "v9", true).await.contains("there is no version v9"));
    assert_eq!(world.started("v2"), second, "one id is one order");

    // The controller ends while v2 does.
    assert_eq!(world.order("d", "restart", "v2", false).await, "");
    world.end().await;
    assert_eq!(world.started("v2"), second, "its grace is not over");
    world.run(Audit::default()).await;
    world.until("v2 was started anew by the next controller", anew).await;
    let third = world.started("v2");
    assert!(third.len() == 1 && third != second, "{second:?} {third:?}");

    assert!(world.order("e", "stop", "v2", false).await.contains("`abort` gives that up"));
    assert!(world.order("f", "stop", "v1", false).await.contains("v1 serves"));
    assert_eq!(world.order("g", "stop", "v2", true).await, "");
    world.until("v2 is stopped", |view| view["versions"]["v2"]["running"] == false).await;
    world.end().await;
    world.run(Audit::default()).await;
    world.until("v1 is found again", |view| view["versions"]["v1"]["ready"] == true).await;
    assert_eq!(world.order("h", "stop", "v1", true).await, "");
    world.until("v1 is stopped", |view| view["versions"]["v1"]["running"] == false).await;
    assert!(world.order("i", "stop", "v1", true).await.contains("is stopped already"));
    assert_eq!(world.processes(), [] as [i32; 0], "what was stopped stays so");
    assert_eq!(world.order("j", "restart", "v1", false).await, "");
    world.until("v1 serves again", |view| view["versions"]["v1"]["ready"] == true).await;
    assert!(world.started("v2").is_empty() && world.started("v1") != v1);
    world.end().await;
}

/// The flags of all files, in their order, each stable, where its v1 serves.
fn stable(all: &Value, names: &[&str]) -> bool {
    let is = |view: &Value| view["status"]["phase"] == "Stable" && view["versions"]["v1"]["ready"] == true;
    let all: Vec<&Value> = all.as_array().into_iter().flatten().collect();
    all.iter().map(|view| view["name"].as_str().unwrap()).eq(names.iter().copied()) && all.into_iter().all(is)
}

/// T15: a flag that is added begins; what is wrong with one keeps no other; one that is taken out is let go, its version
/// goes on, and it is found again when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn flags_come_and_go() {
    let mut world = World::start().await;
    world.end().await;
    world.source = world.dir.path().canonicalize().unwrap();
    let routes = world.dir.path().join("routes.json");
    // An old build of the filter is one all the same.
    let wasm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/filters/level-1/versionflag.wasm");
    let files = [("filterConfig", json!({ "path": "filter.json", "routes": "routes.json", "wasm": wasm }))];
    let hosts = || std::fs::read_to_string(&routes).unwrap_or_default();
    let (other, log) = (free_address(), world.dir.path().join("audit.log"));
    world.write(&files);
    let (audit, written) = Audit::open(&log).unwrap();
    world.run(audit).await;
    world.until_all("one flag", |all| stable(all, &["reviews"])).await;
    world.write_flag("b.yaml", "ratings", other, &files);
    world.until_all("two flags", |all| stable(all, &["ratings", "reviews"])).await;
    wait_for("the routes of both", async || {
        let text = hosts();
        let both = text.contains("\"ratings\"") && text.contains("\"reviews\"");
        if both { Ok(()) } else { Err(text) }
    })
    .await;
    let (kept, first) = (world.processes_of("b.state.json"), world.processes());
    assert_eq!((kept.len(), first.len()), (1, 1));

    // The same host in both, as somebody may save it.
    let text = std::fs::read_to_string(world.dir.path().join("b.yaml")).unwrap();
    std::fs::write(world.dir.path().join("b.yaml"), text.replace("{\"name\":\"ratings\"}]", "{\"name\":\"reviews\"}]"))
        .unwrap();
    let clash = |view: &Value| {
        view["status"]["blocked"]["message"].as_str().is_some_and(|why| why.contains("is a host of reviews"))
    };
    let all = world.until_all("what is wrong", |all| clash(&all[0])).await;
    assert_eq!(
        (all[0]["status"]["blocked"]["reason"].as_str(), all[1]["status"].get("blocked")),
        (Some("InvalidSpec"), None)
    );

    std::fs::remove_file(world.dir.path().join("b.yaml")).unwrap();
    world.until_all("one flag again", |all| stable(all, &["reviews"])).await;
    wait_for("the routes of one", async || {
        let text = hosts();
        if text.contains("\"reviews\"") && !text.contains("\"ratings\"") { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(world.processes_of("b.state.json"), kept, "it goes on");
    let state = std::fs::read_to_string(world.dir.path().join("b.state.json")).unwrap();
    assert!(state.contains("the controller lets go of it"), "{state}");

    world.write_flag("b.yaml", "ratings", other, &files);
    world.until_all("two flags again", |all| stable(all, &["ratings", "reviews"])).await;
    assert_eq!((world.processes_of("b.state.json"), world.processes()), (kept, first), "nothing is started twice");
    world.end().await;
    written.wait();
    let log = std::fs::read_to_string(log).unwrap();
    let told = log
        .lines()
        .filter(|line| line.contains("lets go of it") && line.contains("\"ratings\"") && !line.contains("replayed"));
    assert_eq!(told.count(), 1, "{log}");
}

/// What the files for Envoy are, and that a filter is there.
fn files() -> [(&'static str, Value); 1] {
    let wasm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/filters/level-1/versionflag.wasm");
    [("filterConfig", json!({ "path": "filter.json", "routes": "routes.json", "wasm": wasm }))]
}

/// T28: while nothing moves a flag is looked at once a second, and at once when what runs of it has ended, though it is
/// nobody's child here.
#[tokio::test(flavor = "multi_thread")]
async fn a_flag_of_which_nothing_moves_rests() {
    let mut world = World::start().await;
    world.end().await;
    let sources = [world.source.clone()];
    let mut files = SharedFiles::default();
    let (opened, _) = first(&sources, &mut files).unwrap();
    let hub = Arc::new(Hub::new(Authenticator::listed()).with_orders());
    let checks = CheckRunner::new(Arc::clone(&hub)).unwrap();
    let around = Around { hub, files: Arc::new(Mutex::new(files)), audit: Audit::default(), checks };
    let (flags, missing, read_at, address) = (BTreeMap::new(), Missing::new(), now(), world.service);
    let stamps = Some(stamps(&sources));
    let mut driver = Driver { sources: sources.to_vec(), stamps, read_at, flags, missing, around, address };
    opened.into_iter().for_each(|(store, one)| driver.begin(store, one));
    driver.take_in(vec![]);
    let rests = |driver: &Driver| driver.flags["reviews"].rests_until;
    wait_for("rest", async || {
        driver.turn(true).await;
        rests(&driver).map(|_| ()).ok_or_else(|| "it does not rest".to_owned())
    })
    .await;
    let before = rests(&driver);
    driver.turn(false).await;
    assert_eq!(rests(&driver), before, "nobody has told anything");
    tokio::time::sleep(Duration::from_millis(REST.0)).await;
    driver.turn(false).await;
    assert!(rests(&driver) > before, "its time is over");
    driver.turn(true).await;
    let before = rests(&driver);
    world.kill();
    wait_for("the end", async || {
        driver.turn(false).await;
        if rests(&driver) == before { Err("it rests".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(now() < before.unwrap(), "it was not waited for");
}
