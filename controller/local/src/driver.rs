//! Observe, step, persist, act: again and again. I/O: everything of this adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use machine::fleet::traffic::Traffic;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::file::{File, FileError};
use super::files;
use super::headroom;
use super::process::{ProcessError, Supervisor};
use super::store::{Store, StoreError, beside, write_atomically};
use machine::checks::Questions;
use machine::envoy;
use machine::observation::{Headroom, Observation, Place};
use machine::plan::{Effect, step, upcoming};
use machine::status::{Phase, Status};
use service::audit::Audit;
use service::check_runner::Runner;
use service::clock::now_ms;
use service::failpoint;
use service::id::unique;
use service::{FlagView, Hub, Post, Senders};

const TICK_MS: u64 = 200;
/// Transitions in a row before anything else is looked at.
const PASSES: usize = 32;

/// Why the driver ends.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The operator's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The flag service.
    #[error("the flag service cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// Of the machine, for checks.
    #[error("the certificates that this machine trusts cannot be read: {0}")]
    Certificates(std::io::Error),
    /// The file with the address.
    #[error("{path} cannot be written: {error}")]
    Address {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// What tells one edit of a file from another.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.mtime(), data.mtime_nsec(), data.len(), data.ino()))
}

struct Driver {
    path: PathBuf,
    stamp: Stamp,
    file: File,
    spec_error: Option<String>,
    store: Store,
    supervisor: Supervisor,
    hub: Arc<Hub>,
    files: files::Writer,
    audit: Audit,
    checks: Arc<Runner>,
}

/// Runs until `stop` ends. Versions go on running. `audit` is told what
/// happens, `bound` the flag service's address.
pub async fn run(
    path: &Path,
    audit: Audit,
    bound: impl FnOnce(std::net::SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), DriverError> {
    let stamp = stamp(path);
    let file = File::read(path)?;
    let fresh = || Status::new(&unique(), &file.metadata.name, now_ms());
    let mut store = Store::open(&file.local.state_file, fresh)?;
    store.save()?;
    let hub = Arc::new(Hub::new(Senders::listed()));
    hub.senders.know(tokens(&file));
    let address = file.local.listen;
    let listen = |error| DriverError::Listen { address, error };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let note = beside(&file.local.state_file, ".address");
    write_atomically(&note, format!("{address}\n").as_bytes())
        .map_err(|error| DriverError::Address { path: note.clone(), error })?;
    bound(address);
    let logs = file.local.state_file.parent().unwrap_or(Path::new("."));
    let supervisor = Supervisor::adopt(&file.metadata.name, logs, Arc::clone(&hub), &mut store)?;
    let server = tokio::spawn(service::serve(listener, Arc::clone(&hub), std::future::pending()));
    let mut driver = Driver {
        path: path.to_owned(),
        stamp,
        file,
        spec_error: None,
        store,
        supervisor,
        hub: Arc::clone(&hub),
        files: files::Writer::default(),
        audit,
        checks: Runner::new(Arc::clone(&hub)).map_err(DriverError::Certificates)?,
    };
    driver.audit.tell(now_ms(), None, &driver.store.state.status);
    // Without the signal the next tick sees it.
    let mut children = signal(SignalKind::child()).ok();
    tokio::pin!(stop);
    let result = loop {
        let wait = match driver.turn() {
            Ok(wait) => wait,
            Err(error) => break Err(error.into()),
        };
        tokio::select! {
            () = hub.wake.notified() => {}
            () = ended(&mut children) => {}
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            () = &mut stop => break Ok(()),
        }
    };
    server.abort();
    result
}

/// A version that was started here ends.
async fn ended(children: &mut Option<Signal>) {
    match children {
        Some(children) => {
            children.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn tokens(file: &File) -> BTreeMap<String, Option<String>> {
    file.local.proxies.iter().map(|proxy| (proxy.id.clone(), proxy.token.clone())).collect()
}

impl Driver {
    /// Everything that can be done now. In how many milliseconds to look again.
    fn turn(&mut self) -> Result<u64, StoreError> {
        self.reload();
        self.supervisor.poll(now_ms(), &mut self.store, &self.file.local.versions)?;
        for _ in 0..PASSES {
            let now_ms = now_ms();
            let seen = self.observe(now_ms);
            let plan = step(now_ms, &self.file.spec, &self.store.state.status, &seen);
            if plan.status == self.store.state.status {
                self.show(now_ms, seen, plan.waiting);
                for effect in &plan.effects {
                    self.act(now_ms, effect)?;
                }
                return Ok(plan.requeue_ms.unwrap_or(TICK_MS).clamp(1, TICK_MS));
            }
            let before = std::mem::replace(&mut self.store.state.status, plan.status);
            if !self.store.state.status.same_but_wording(&before) {
                self.store.save()?;
                self.tell(&before);
            }
        }
        Ok(1)
    }

    fn reload(&mut self) {
        let found = stamp(&self.path);
        if found == self.stamp {
            return;
        }
        self.stamp = found;
        match File::read(&self.path).map_err(|error| error.to_string()).and_then(|file| self.same_place(file)) {
            Ok(file) => {
                tracing::info!(version = file.spec.version, "the file was edited");
                self.hub.senders.know(tokens(&file));
                self.file = file;
                self.spec_error = None;
            }
            Err(error) => {
                tracing::error!(error, "the edit is not valid, the spec before it stays in force");
                self.spec_error = Some(error);
            }
        }
    }

    /// What cannot change while the controller runs.
    fn same_place(&self, file: File) -> Result<File, String> {
        let (old, new) = (&self.file, &file);
        let fixed = [
            ("metadata.name", old.metadata.name != new.metadata.name),
            ("local.stateFile", old.local.state_file != new.local.state_file),
            ("local.listen", old.local.listen != new.local.listen),
        ];
        match fixed.iter().find(|(_, changed)| *changed) {
            Some((field, _)) => Err(format!("{field} changes only with a restart of the controller")),
            None => Ok(file),
        }
    }

    fn observe(&self, now_ms: u64) -> Observation {
        let (state, versions) = (&self.store.state, &self.file.local.versions);
        let known: BTreeSet<&String> = versions.keys().chain(state.processes.keys()).collect();
        let workload = |version: &str| self.supervisor.workload(&self.store, version, versions.contains_key(version));
        let status = &state.status;
        let expected = self.expected();
        let fleet = status.record.as_ref().map(|record| self.hub.fleet(now_ms, record, &expected, &status.asked()));
        let needed =
            status.switch.as_ref().filter(|switch| status.phase == Phase::Coexisting && switch.headroom_at.is_none());
        let headroom = needed.map_or(Headroom::Unknown, |switch| {
            let running: Vec<String> = state.processes.keys().cloned().collect();
            headroom::look(&switch.to, versions, &running)
        });
        let fleet = fleet.unwrap_or_else(|| machine::fleet::ledger::Fleet::unknown(0));
        let questions = Questions::of(&self.file.spec, status);
        Observation {
            checks: self.checks.look(now_ms, &self.file.metadata.name, questions, &fleet),
            versions: known.into_iter().map(|version| (version.clone(), workload(version))).collect(),
            headroom,
            fleet,
            request: self
                .hub
                .next_request(&self.file.metadata.name, status.last_request.as_ref().map(|last| last.id.as_str())),
            spec_error: self.spec_error.clone(),
            place: Place::default(),
            routes: None,
        }
    }

    /// Who has to ack: a sidecar only while its version runs.
    fn expected(&self) -> BTreeSet<String> {
        let runs = |version: &str| self.supervisor.workload(&self.store, version, true).running;
        let proxies = self.file.local.proxies.iter();
        let expected = proxies.filter(|proxy| proxy.sidecar.as_ref().is_none_or(|sidecar| runs(&sidecar.version)));
        expected.map(|proxy| proxy.id.clone()).collect()
    }

    fn show(&self, now_ms: u64, seen: Observation, waiting: String) {
        let status = self.store.state.status.clone();
        let name = self.file.metadata.name.clone();
        let spec_version = self.file.spec.version.clone();
        self.hub.show(FlagView {
            name,
            spec_version,
            next: upcoming(&self.file.spec, &status),
            status: Arc::new(status),
            fleet: seen.fleet,
            versions: seen.versions,
            checks: seen.checks,
            waiting,
            callers: self.expected(),
            traffic: Traffic::default(),
            now: now_ms,
        });
        self.hub.looked.store(true, Ordering::Relaxed);
    }

    /// Only the state file's errors end the controller: what it cannot remember it must not do.
    fn act(&mut self, now_ms: u64, effect: &Effect) -> Result<(), StoreError> {
        let versions = &self.file.local.versions;
        match effect {
            Effect::Publish(record) => {
                let status = &self.store.state.status;
                let measure = Questions::of(&self.file.spec, status).is_some_and(|asked| asked.measures());
                if self.hub.publish(Post { measure, ..Post::of(status, record) }) {
                    failpoint::point("after the record was published");
                }
            }
            Effect::Route(record) => {
                let header = &self.file.spec.routing.header;
                let path = self.file.local.filter_config.as_ref().and_then(|filter| filter.routes.clone());
                if let Some(path) = path {
                    let text = envoy::routes(header, record);
                    self.write(record.epoch, text.map(|text| BTreeMap::from([(path, text)])));
                }
            }
            Effect::Configure(record) => {
                let texts = files::filters(&self.file.local, &self.file.spec.routing.header, record);
                self.write(record.epoch, texts);
            }
            Effect::Start { version } => {
                if let Some(how) = versions.get(version) {
                    match self.supervisor.start(now_ms, &mut self.store, version, how) {
                        Ok(()) => {}
                        Err(ProcessError::Store(error)) => return Err(error),
                        Err(error) => tracing::error!(version, %error, "cannot be started"),
                    }
                }
            }
            // A process leaves nothing, so the policy is refused.
            Effect::Delete { .. } => {}
            Effect::Stop { version } => {
                let how = versions.get(version).map(|version| version.stop.clone()).unwrap_or_default();
                self.supervisor.stop(now_ms, &mut self.store, version, &how)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, epoch: u64, texts: Result<BTreeMap<PathBuf, String>, serde_json::Error>) {
        let texts = match texts {
            Ok(texts) => texts,
            Err(error) => return tracing::error!(%error, "the files for Envoy cannot be made"),
        };
        for (path, text) in texts {
            match self.files.write(&path, text) {
                Ok(true) => {
                    tracing::info!(epoch, path = %path.display(), "configured");
                    failpoint::point("after the proxies were configured");
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%error, path = %path.display(), "cannot be written"),
            }
        }
    }

    /// One line for each transition.
    fn tell(&self, before: &Status) {
        let status = &self.store.state.status;
        self.audit.tell(now_ms(), Some(before), status);
        if before.phase != status.phase {
            let (from, to) = (before.phase.name(), status.phase.name());
            let (active, epoch) = (&status.active_version, status.epoch());
            let target = status.target_version.as_deref().unwrap_or_default();
            tracing::info!(from, to, active, target, epoch, "phase");
        }
        if let Some(blocked) = &status.blocked
            && before.blocked.as_ref().is_none_or(|old| old.reason != blocked.reason)
        {
            tracing::warn!(reason = blocked.reason, message = blocked.message, "blocked");
        }
        if let Some(seconds) = status.flipped_since(before) {
            self.hub.flipped(seconds);
        }
    }
}
