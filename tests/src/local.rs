//! The whole system on this machine: the controller's local adapter, the versions it starts, and
//! Envoys that route by its flag. I/O: through its parts.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::Call;
use crate::dir::TestDir;
use crate::overlap::{self, Span};
use crate::process::{Process, program};
use crate::wait::wait_for;
use crate::{Envoy, EnvoyOptions, config};

const LIMIT: Duration = Duration::from_secs(30);
const WASM_ENV: &str = "VERSIONFLAG_WASM";
const TRAP_WASM_ENV: &str = "VERSIONFLAG_TRAP_WASM";

/// Where each version listens.
const VERSIONS: [(&str, u16); 3] = [("v1", 9001), ("v2", 9002), ("v3", 9003)];

/// One flag, `reviews`, with the versions v1 to v3 declared.
#[derive(Debug)]
pub struct Local<'a> {
    dir: &'a TestDir,
    ip: Ipv4Addr,
    file: Value,
    runs: Cell<u32>,
    /// What Envoys speak with the versions.
    pub upstream: config::Upstream,
    controller: Option<Process>,
}

/// An address of loopback that only this test uses, so that fixed ports are free on it.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 200, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The filter under test.
pub fn wasm() -> Result<PathBuf> {
    built(WASM_ENV)
}

/// The same, but a request with the header `x-trap` ends its VM.
pub fn trapping_wasm() -> Result<PathBuf> {
    built(TRAP_WASM_ENV)
}

fn built(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).with_context(|| format!("{variable} is not set: run `make test-envoy`"))?;
    Ok(PathBuf::from(path))
}

impl<'a> Local<'a> {
    /// At v1, with short times, and one proxy expected: `edge`.
    pub fn new(dir: &'a TestDir) -> Result<Local<'a>> {
        let ip = own_address();
        let clusters: serde_json::Map<String, Value> = VERSIONS
            .iter()
            .map(|(version, _)| ((*version).to_owned(), json!([format!("reviews-{version}")])))
            .collect();
        let file = json!({
            "apiVersion": "versionflag.io/v1alpha1",
            "kind": "VersionFlag",
            "metadata": { "name": "reviews" },
            "spec": {
                "version": "v1",
                "services": [{ "name": "reviews", "hosts": ["reviews"], "clusters": clusters }],
                "coexistence": { "minReady": "200ms" },
                "settle": { "quietPeriod": "1s" },
                "cleanup": { "retainFor": "0s" },
            },
            "local": {
                "listen": SocketAddr::from((ip, 7070)).to_string(),
                "proxies": [{ "id": "edge" }],
                "filterConfig": {
                    "path": "filter.json", "routes": "routes.json", "wasm": wasm()?, "role": "edge",
                },
            },
        });
        let mut local = Local { dir, ip, file, runs: Cell::new(0), upstream: config::Upstream::H1, controller: None };
        for (version, port) in VERSIONS {
            local.declare(version, port)?;
        }
        Ok(local)
    }

    /// Puts a version into the file, with this port.
    pub fn declare(&mut self, version: &str, port: u16) -> Result<()> {
        let address = SocketAddr::from((self.ip, port)).to_string();
        self.file["local"]["versions"][version] = json!({
            "command": [program("backend")?, "--version", version, "--listen", address,
                        "--log", self.dir.file(&format!("{version}.stats"))],
            "address": address,
            "ready": { "path": "/healthz", "interval": "50ms" },
        });
        Ok(())
    }

    /// Has the versions note every request: see [`Local::spans`].
    pub fn note_requests(&mut self) {
        let versions = self.file["local"]["versions"].as_object_mut();
        for (version, declared) in versions.expect("versions of the file") {
            let spans = self.dir.file(&format!("{version}.spans"));
            let command = declared["command"].as_array_mut().expect("a command");
            command.extend([Value::from("--spans"), spans.display().to_string().into()]);
        }
    }

    /// When requests were open at a version, those that are over; none if it never had one.
    pub fn spans(&self, version: &str) -> Result<Vec<Span>> {
        let path = self.dir.file(&format!("{version}.spans"));
        if path.exists() { overlap::read(&path) } else { Ok(vec![]) }
    }

    /// The ids of the requests that a version had, those that are over.
    pub fn request_ids(&self, version: &str) -> Result<Vec<String>> {
        let all = overlap::read_with_ids(&self.dir.file(&format!("{version}.spans")))?;
        Ok(all.into_iter().map(|(_, id)| id).collect())
    }

    /// Takes a version out of the file.
    pub fn undeclare(&mut self, version: &str) {
        let versions = self.file["local"]["versions"].as_object_mut();
        versions.expect("versions of the file").remove(version);
    }

    /// Has the clusters come from a file, under the names that versions have by default.
    pub fn with_clusters(&mut self) {
        self.file["local"]["filterConfig"]["clusters"] = json!("clusters.json");
        self.file["spec"]["services"][0].as_object_mut().expect("a service").remove("clusters");
    }

    /// The clusters that proxies read now, by name.
    pub fn clusters_there(&self) -> Result<Vec<String>> {
        let text = std::fs::read(self.dir.file("clusters.json"))?;
        let resources = serde_json::from_slice::<Value>(&text)?["resources"].take();
        let all = resources.as_array().context("no clusters")?;
        Ok(all.iter().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect())
    }

    /// The file as it will be written; for changes before [`Local::start`] or [`Local::write`].
    pub fn file(&mut self) -> &mut Value {
        &mut self.file
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.dir.file("reviews.yaml")
    }

    /// Saves the file, as an editor does.
    pub fn write(&self) {
        self.dir.write("reviews.yaml", serde_json::to_vec_pretty(&self.file).expect("serializable"));
    }

    /// Asks for a version.
    pub fn ask(&mut self, version: &str) {
        self.file["spec"]["version"] = json!(version);
        self.write();
    }

    /// A controller for the file, which may already run.
    pub fn another_controller(&self) -> Result<Process> {
        self.controller_with(&[])
    }

    /// The same with more environment.
    pub fn controller_with(&self, environment: &[(&str, &str)]) -> Result<Process> {
        let run = self.runs.replace(self.runs.get() + 1);
        let mut command = Command::new(program("versionflag")?);
        command.arg("local").arg("-f").arg(self.path()).envs(environment.iter().copied());
        Process::start(self.dir, &format!("controller-{run}"), command)
    }

    /// Starts the controller, or starts it again, and waits until it looks after the flag.
    pub async fn start(&mut self) -> Result<()> {
        self.start_with(&[]).await
    }

    /// The same with more environment.
    pub async fn start_with(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        self.write();
        let mut controller = self.controller_with(environment)?;
        wait_for("the controller", LIMIT, async || {
            controller.check_running()?;
            let answer = self.get("/readyz").await?;
            ensure!(answer.status == 200, "not ready: {}", answer.body.trim());
            let named = ["path", "routes", "clusters"].map(|field| &self.file["local"]["filterConfig"][field]);
            let files = named.iter().filter_map(|name| name.as_str());
            ensure!(
                files.map(|name| self.dir.file(name)).all(|file| file.exists()),
                "no configuration for the proxies"
            );
            Ok(())
        })
        .await?;
        self.controller = Some(controller);
        Ok(())
    }

    /// The controller; it has to be started.
    pub fn controller(&mut self) -> &mut Process {
        self.controller.as_mut().expect("a started controller")
    }

    async fn get(&self, path: &str) -> Result<crate::client::Answer> {
        Call::get(self.service(), path).limit(Duration::from_secs(5)).send().await
    }

    /// Where the flag service listens.
    pub fn service(&self) -> SocketAddr {
        SocketAddr::from((self.ip, 7070))
    }

    /// Where a version of the file listens.
    pub fn address(&self, version: &str) -> SocketAddr {
        let address = self.file["local"]["versions"][version]["address"].as_str();
        address.and_then(|address| address.parse().ok()).expect("a version of the file has an address")
    }

    /// What the controller says of the flag: `{name, specVersion, status, fleet, …}`.
    pub async fn view(&self) -> Result<Value> {
        let flags: Vec<Value> = self.get("/v1/status").await?.json()?;
        flags.into_iter().next().context("the controller looks after no flag yet")
    }

    /// The phase, and the version in effect.
    pub async fn phase(&self) -> Result<(String, String)> {
        let view = self.view().await?;
        let text = |field: &str| view["status"][field].as_str().unwrap_or_default().to_owned();
        Ok((text("phase"), text("activeVersion")))
    }

    /// Waits until a phase is reached with this version in effect.
    pub async fn reaches(&self, phase: &str, version: &str) -> Result<()> {
        wait_for(&format!("{phase} at {version}"), LIMIT, async || {
            let (is, active) = self.phase().await?;
            ensure!(is == phase && active == version, "{is} at {active}: {}", self.blocked().await?);
            Ok(())
        })
        .await
    }

    /// Has a flip go to a version while this proxy stands still, which knew all that comes before the flip. With a probe
    /// there would be no flip.
    pub async fn flips_without(&mut self, proxy: &mut Envoy, version: &str) -> Result<()> {
        self.file()["spec"]["promotion"] = json!({ "mode": "Manual" });
        self.file()["spec"]["coexistence"]["probe"] = json!({ "mode": "None" });
        self.ask(version);
        wait_for("all know the version", LIMIT, async || {
            let view = self.view().await?;
            let (phase, fleet) = (&view["status"]["phase"], &view["fleet"]);
            let current = fleet["acked"] == fleet["expected"] && fleet["routeLaggards"] == json!([]);
            ensure!(phase == "AwaitingPromotion" && current, "{view}");
            Ok(())
        })
        .await?;
        proxy.pause()?;
        self.request("promote").await.map(drop)
    }

    /// Why it waits, in its own words.
    pub async fn blocked(&self) -> Result<String> {
        let view = self.view().await?;
        Ok(view["status"]["blocked"]["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until it blocks with a sentence that has all of these.
    pub async fn blocks(&self, words: &[&str]) -> Result<()> {
        wait_for("the reason", LIMIT, async || {
            let why = self.blocked().await?;
            ensure!(words.iter().all(|word| why.contains(word)), "blocked by {why:?}, not by {words:?}");
            Ok(())
        })
        .await
    }

    /// Whether anything listens for this version.
    pub async fn runs(&self, version: &str) -> bool {
        tokio::net::TcpStream::connect(self.address(version)).await.is_ok()
    }

    /// Asks for an action, as the CLI does, and waits for the answer.
    pub async fn answered(&self, action: &str) -> Result<()> {
        let id = self.request(action).await?;
        wait_for(&format!("an answer to {action}"), LIMIT, async || {
            let last = self.view().await?["status"]["lastRequest"].take();
            ensure!(last["id"] == id.as_str(), "{last}");
            Ok(())
        })
        .await
    }

    /// Waits for a look at everything that is so now: whoever answers has looked.
    pub async fn looks(&self) -> Result<()> {
        self.answered("suspend").await?;
        self.answered("resume").await
    }

    /// Asks for an action, as the CLI does. The id of the request.
    pub async fn request(&self, action: &str) -> Result<String> {
        let body = json!({ "flag": "reviews", "action": action }).to_string();
        let answer =
            Call::post(self.service(), "/v1/requests", &body).header("content-type", "application/json").send().await?;
        ensure!(answer.status == 202, "{action}: {} {}", answer.status, answer.body);
        let accepted: Value = answer.json()?;
        Ok(accepted["id"].as_str().context("an answer without an id")?.to_owned())
    }

    /// The Envoy configuration of an operator: filter and routes from the controller's files, and
    /// `unmarked`, a listener with the same routes but without the filter.
    pub fn envoy_config(&self) -> Value {
        let routes = self.dir.file("routes.json");
        let marked = config::listener_with_route_file("ingress", [self.filter()], "versionflag", &routes);
        let unmarked = config::listener_with_route_file("unmarked", [], "versionflag", &routes);
        config::bootstrap([marked, unmarked], self.clusters())
    }

    /// The configuration of an operator who writes the routes, all of this name.
    pub fn envoy_config_with_routes(&self, name: &str) -> Value {
        let by_version =
            VERSIONS.map(|(version, _)| config::route_when("x-versionflag", version, &format!("reviews-{version}")));
        let routes = by_version.into_iter().chain([config::route_to("reviews-v1")]);
        let routes = config::routes(routes.map(|route| config::named(name, route)));
        config::bootstrap([config::listener("ingress", [self.filter()], routes)], self.clusters())
    }

    fn filter(&self) -> Value {
        config::ecds_filter(
            "versionflag",
            &self.dir.file("filter.json"),
            config::WASM_TYPE.trim_start_matches("type.googleapis.com/"),
        )
    }

    fn clusters(&self) -> impl Iterator<Item = Value> {
        let versions = VERSIONS
            .map(|(version, _)| config::cluster(&format!("reviews-{version}"), self.address(version), self.upstream));
        versions.into_iter().chain([config::cluster("versionflag", self.service(), config::Upstream::H2)])
    }

    /// An Envoy with this node id, ready to serve.
    pub async fn envoy(&self, id: &str, concurrency: u32) -> Result<Envoy> {
        self.envoy_of(id, concurrency, self.envoy_config()).await
    }

    /// An Envoy with this node id and configuration.
    pub async fn envoy_of(&self, id: &str, concurrency: u32, config: Value) -> Result<Envoy> {
        let options = EnvoyOptions { name: id.to_owned(), concurrency, ..EnvoyOptions::default() };
        Envoy::start_with(self.dir, options, config).await
    }

    /// What `versionflag render envoy` prints for callers, on a free port.
    pub fn rendered_for_callers(&self) -> Result<Value> {
        let mut config = self.rendered("edge")?;
        config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = 0.into();
        Ok(config)
    }

    /// What `versionflag render envoy` prints for a proxy, checked by Envoy.
    pub fn rendered(&self, proxy: &str) -> Result<Value> {
        let mut command = Command::new(program("versionflag")?);
        let rendered = command.args(["render", "envoy", "--proxy", proxy, "-f"]).arg(self.path()).output()?;
        ensure!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        Envoy::validate_file(&self.dir.write("rendered.yaml", &rendered.stdout))?;
        Ok(serde_saphyr::from_str(&String::from_utf8(rendered.stdout)?)?)
    }
}
