//! The controller of the flags of one machine: turns of their state machines, and edits of their files. I/O: everything
//! of this adapter.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use machine::duration::Millis;
use machine::reconcile::reconcile;
use machine::status::Status;
use machine::time::UnixMs;
use service::audit::Audit;
use service::check_runner::CheckRunner;
use service::clock::now;
use service::id::unique;
use service::lock::lock;
use service::{Authenticator, Hub};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Instrument;

use super::edits::{Running, edits};
use super::file::{File, FileError};
use super::files::Stamp;
use super::group::Processes;
use super::logs::Logs;
use super::missing::{Missing, Refused};
use super::shared_files::SharedFiles;
use super::sockets::{self, Taken};
use super::sources::{self, Declared, stamps};
use super::store::{Store, StoreError, beside, write_atomically};
use super::supervisor::Supervisor;
use super::wasm::{self, WasmError};
use super::world::{Around, Machine};

/// The longest time between two turns.
const TICK: Millis = Millis(200);
/// The same of a flag of which nothing moves and nobody has told anything.
const REST: Millis = Millis(1_000);
/// For how long a flag that begins waits for what runs of it to answer.
const FIRST_ANSWERS: Millis = Millis(1_200);
/// Between two looks at files that have not changed, while a flag is missing: its state may have been put right.
const AGAIN: Millis = Millis(1_000);
/// For how long no file has had a flag that is let go: whoever saves a file may take it away for a moment.
const GONE: Millis = Millis(2_000);

/// Why the driver ends.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The operator's files.
    #[error(transparent)]
    File(#[from] FileError),
    /// A state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The flag service.
    #[error("the flag service cannot listen on {address} (local.listen): {error}{}", holder(address))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The filter's file, where no version serves yet that is to go on without it.
    #[error("local.filterConfig.wasm: {why}")]
    Filter {
        /// What is wrong with it.
        why: WasmError,
    },
    /// Of the machine, for checks.
    #[error("the certificates that this machine trusts cannot be read: {0}")]
    Certificates(std::io::Error),
}

/// Who listens there already, in words.
fn holder(address: &SocketAddr) -> String {
    let mut processes = Processes::default();
    processes.look();
    match sockets::taken(*address, &processes) {
        Taken::Free => String::new(),
        Taken::By(pids) => format!(
            ": {} listens there. End it, or give this controller another address; one controller has several flags as \
             `versionflag local FILE FILE`",
            sockets::named(&pids)
        ),
    }
}

/// One flag, and the file that it stands in.
struct Flag {
    path: PathBuf,
    machine: Machine,
    /// Until when it waits for the first answers of what runs.
    waits_until: Option<UnixMs>,
    /// Since when no file has it.
    gone_since: Option<UnixMs>,
    /// Until when nothing is to be done unless something happens.
    rests_until: Option<UnixMs>,
}

struct Driver {
    sources: Vec<PathBuf>,
    /// What the files were when they were read last; `None`: they are to be read again.
    stamps: Option<Vec<(PathBuf, Stamp)>>,
    /// When that was.
    read_at: UnixMs,
    flags: BTreeMap<String, Flag>,
    missing: Missing,
    around: Around,
    /// Where the flag service listens.
    address: std::net::SocketAddr,
}

/// Runs until `stop` ends. Versions go on running. `sources` are files and directories of flags. `audit` is told what
/// happens, `bound` the flag service's address.
pub async fn run(
    sources: &[PathBuf],
    audit: Audit,
    bound: impl FnOnce(std::net::SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), DriverError> {
    // Without the first signal the next tick sees the end of a version.
    let (mut children, mut hangup) = (signal(SignalKind::child()).ok(), signal(SignalKind::hangup()).ok());
    let stamps = stamps(sources);
    let mut files = SharedFiles::default();
    let (opened, refused) = first(sources, &mut files)?;
    let hub = Arc::new(Hub::new(Authenticator::listed()).with_orders());
    let address = opened.first().map(|(_, one)| one.file.local.listen).ok_or_else(|| no_flags(sources))?;
    let listen = |error| DriverError::Listen { address, error };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let checks = CheckRunner::new(Arc::clone(&hub)).map_err(DriverError::Certificates)?;
    let around = Around { hub: Arc::clone(&hub), files: Arc::new(Mutex::new(files)), audit, checks };
    let flags = BTreeMap::new();
    let (missing, read_at) = (Missing::new(), now());
    let mut driver =
        Driver { sources: sources.to_vec(), stamps: Some(stamps), read_at, flags, missing, around, address };
    hub.set_incomplete(true);
    lock(&driver.around.files).hold(true);
    // All of them have their parts in the files of proxies before the first one has a turn.
    opened.into_iter().for_each(|(store, one)| driver.begin(store, one));
    driver.take_in(refused);
    bound(address);
    let server = tokio::spawn(service::serve(listener, Arc::clone(&hub), std::future::pending()));
    tokio::pin!(stop);
    let mut woken = true;
    loop {
        let wait = driver.turn(woken).await;
        woken = true;
        tokio::select! {
            () = hub.driver_woken() => {}
            () = told(&mut children) => {}
            () = told(&mut hangup) => driver.stamps = None,
            () = tokio::time::sleep(Duration::from_millis(wait.0)) => woken = false,
            () = &mut stop => break,
        }
    }
    driver.leave().await;
    server.abort();
    Ok(())
}

/// A flag that can begin, with its state.
type Opened = (Store, Declared);

/// The flags that can begin, and what is wrong with the others. Where none can, or another controller has one of them,
/// or the files of its proxies, there is nothing to do here.
fn first(sources: &[PathBuf], files: &mut SharedFiles) -> Result<(Vec<Opened>, Vec<Refused>), DriverError> {
    let edits = edits(&BTreeMap::new(), sources::read(sources));
    if edits.begun.is_empty() {
        let wrong = sources::read(sources).valid().err();
        return Err(wrong.unwrap_or_else(|| no_flags(sources)).into());
    }
    let (mut opened, mut refused, mut failed) = (vec![], edits.refused, None);
    for one in edits.begun {
        files.claim(one.file.local.written())?;
        match open(&one) {
            Ok(store) => opened.push((store, one)),
            Err(error @ DriverError::Store(StoreError::Locked { .. })) => return Err(error),
            Err(error) => {
                refused.push(unopened(&one, &error));
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok((opened, refused)),
    }
}

fn unopened(one: &Declared, error: &DriverError) -> Refused {
    Refused { path: one.path.clone(), flag: Some(one.file.metadata.name.clone()), why: error.to_string() }
}

fn no_flags(sources: &[PathBuf]) -> FileError {
    FileError::NoFiles(sources.first().cloned().unwrap_or_default())
}

/// This process gets a signal.
async fn told(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The state of a flag that begins.
fn open(one: &Declared) -> Result<Store, DriverError> {
    let file = &one.file;
    if let Some(error) = one.misses_its_state() {
        return Err(error.into());
    }
    let fresh = || Status::new(&unique(), &file.metadata.name, now());
    let mut store = Store::open(&file.local.state_file, fresh)?.belongs_to(&file.metadata.name)?;
    // Whoever serves already is kept running, whatever became of the file: then it is a problem of the status.
    if let Some(filter) = file.local.filter_config.as_ref().filter(|_| store.state.status.record.is_none()) {
        let sound = wasm::read(&filter.wasm).and_then(|bytes| wasm::check(&filter.wasm, &bytes));
        sound.map_err(|why| DriverError::Filter { why })?;
    }
    store.note();
    Ok(store)
}

impl Driver {
    fn begin(&mut self, mut store: Store, one: Declared) {
        let Declared { path, file, .. } = one;
        let note = beside(&file.local.state_file, ".address");
        if let Err(error) = write_atomically(&note, format!("{}\n", self.address).as_bytes()) {
            tracing::error!(%error, path = %note.display(), "cannot be written: commands may not find this controller");
        }
        let supervisor = Supervisor::adopt(logs(&file), Arc::clone(&self.around.hub), &mut store);
        self.around.audit.record_change(now(), None, &store.state.status);
        let name = file.metadata.name.clone();
        let machine = Machine::new(file, store, supervisor, &self.around);
        let waits_until = Some(now().plus(FIRST_ANSWERS));
        self.flags.insert(name, Flag { path, machine, waits_until, gone_since: None, rests_until: None });
    }

    /// Believes the proxies of all flags.
    fn list_proxies(&self) {
        let proxies = self.flags.values().flat_map(|flag| &flag.machine.file.local.proxies);
        self.around.hub.authenticator.set_proxies(proxies.map(|one| (one.id.clone(), one.token.clone())).collect());
    }

    /// Everything that can be done now, where something has happened for all flags. How long to wait for the next turn.
    async fn turn(&mut self, woken: bool) -> Millis {
        let edited = self.reload();
        // What comes from here on calls for another turn.
        self.around.hub.reports.take_reporters();
        let mut wait = TICK;
        for (name, flag) in self.flags.iter_mut().filter(|(_, flag)| woken || edited || flag.is_due()) {
            // Whatever is logged meanwhile is about this flag.
            wait = wait.min(flag.turn().instrument(tracing::info_span!("flag", name)).await);
        }
        self.missing.show(&self.around.hub);
        // What rests is looked at in its own time.
        self.around.hub.wake_on_reports(self.flags.values().any(|flag| flag.rests_until.is_none()));
        // Nobody is told of some flags as if they were all.
        if self.missing.holds().is_none() && self.flags.values().all(|flag| flag.machine.is_shown) {
            self.around.hub.set_incomplete(false);
            self.around.hub.readiness.mark_flags_observed();
        }
        wait.clamp(Millis(1), TICK)
    }

    /// Whether the files were read again.
    fn reload(&mut self) -> bool {
        let found = stamps(&self.sources);
        let is_due = |flag: &Flag| flag.gone_since.is_some_and(|since| now().since(since) >= GONE);
        let is_awaited = self.missing.is_awaited() && now().since(self.read_at) >= AGAIN;
        if self.stamps.as_ref() == Some(&found) && !self.flags.values().any(is_due) && !is_awaited {
            return false;
        }
        (self.stamps, self.read_at) = (Some(found), now());
        let running = self.flags.iter().map(|(name, flag)| (name.clone(), flag.running())).collect();
        let edits = edits(&running, sources::read(&self.sources));
        for (name, flag) in &mut self.flags {
            flag.gone_since = edits.absent.contains(name).then(|| flag.gone_since.unwrap_or_else(now));
        }
        for (name, error) in edits.kept {
            tracing::error!(flag = name, error, "the edit is not valid, the spec before it stays in force");
            if let Some(flag) = self.flags.get_mut(&name) {
                flag.machine.spec_error = Some(error);
            }
        }
        for (name, one) in edits.taken {
            if let Some(flag) = self.flags.get_mut(&name) {
                flag.take_edit(one);
            }
        }
        self.let_go();
        let mut refused = edits.refused;
        for one in edits.begun {
            match open(&one) {
                Ok(store) => {
                    tracing::info!(flag = one.file.metadata.name, path = %one.path.display(), "a flag begins");
                    self.begin(store, one);
                }
                Err(error) => refused.push(unopened(&one, &error)),
            }
        }
        self.take_in(refused);
        true
    }

    /// What was read is in force, but for this: what flags share waits for what is missing since this controller began.
    fn take_in(&mut self, refused: Vec<Refused>) {
        self.list_proxies();
        let flags: Vec<_> = self.flags.iter().map(|(name, flag)| (name.as_str(), flag.path.as_path())).collect();
        self.missing.take(&self.around.hub, refused, &flags, |since| now().since(since) >= GONE);
        let held = self.missing.holds();
        lock(&self.around.files).hold(held.is_some());
        for flag in self.flags.values_mut() {
            if flag.machine.held.is_some() && held.is_none() {
                tracing::info!(flag = flag.machine.file.metadata.name, "every flag has begun: it goes on");
            }
            flag.machine.held.clone_from(&held);
        }
    }

    fn let_go(&mut self) {
        let is_over = |_: &String, flag: &mut Flag| flag.gone_since.is_some_and(|since| now().since(since) >= GONE);
        for (_, flag) in self.flags.extract_if(.., is_over) {
            flag.machine.let_go();
            // Somebody else may have waited for what was the flag's.
            self.stamps = None;
        }
    }
}

impl Flag {
    fn running(&self) -> Running<'_> {
        Running { path: &self.path, file: &self.machine.file }
    }

    fn take_edit(&mut self, one: Declared) {
        let machine = &mut self.machine;
        if machine.file != one.file || machine.spec_error.is_some() {
            tracing::info!(flag = one.file.metadata.name, version = one.file.spec.version, "the file was edited");
        }
        self.path = one.path;
        machine.supervisor.set_logs(logs(&one.file));
        machine.take_edit(now(), one.file);
    }

    /// Everything that can be done now. How long to wait for the next turn. What cannot be written ends nothing: it is
    /// shown, and tried again.
    async fn turn(&mut self) -> Millis {
        let machine = &mut self.machine;
        // What is not known yet is no news.
        if let Some(until) = self.waits_until {
            machine.supervisor.poll(now().0, &mut machine.store, &machine.file.local.versions);
            let answered = tokio::time::timeout(Duration::ZERO, machine.supervisor.first_answers()).await.is_ok();
            if !answered && now() < until {
                return TICK;
            }
            self.waits_until = None;
        }
        machine.forgive();
        machine.supervisor.poll(now().0, &mut machine.store, &machine.file.local.versions);
        if machine.store.unwritten().is_some() {
            machine.store.note();
        }
        let wait = reconcile(machine).await;
        machine.show_store();
        let wait = wait.ok().flatten();
        self.rests_until = machine.rests().then(|| now().plus(wait.map_or(REST, |wait| wait.min(REST))));
        wait.unwrap_or(TICK)
    }

    /// Whether it has to be looked at though nobody has told anything: who is no child of this process ends silently.
    fn is_due(&self) -> bool {
        let rests = self.rests_until.is_some_and(|until| now() < until);
        !rests || !self.machine.store.state.processes.values().all(|process| process.alive())
    }
}

fn logs(file: &File) -> Logs {
    Logs::new(&file.metadata.name, &file.local.logs, &file.local.state_file)
}

mod leaving;
#[cfg(test)]
mod tests;
