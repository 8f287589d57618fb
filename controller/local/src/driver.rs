//! The controller of one flag on one machine: turns of its state machine, and edits of its file. I/O: everything of
//! this adapter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machine::duration::Millis;
use machine::reconcile::reconcile;
use machine::status::Status;
use service::audit::Audit;
use service::check_runner::CheckRunner;
use service::clock::now;
use service::id::unique;
use service::{Authenticator, Hub};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::file::{File, FileError};
use super::files::{Stamp, stamp};
use super::logs::Logs;
use super::store::{Store, StoreError, beside, write_atomically};
use super::supervisor::Supervisor;
use super::wasm::{self, WasmError};
use super::world::Machine;

/// The longest time between two turns.
const TICK: Millis = Millis(200);
/// For how long a controller that begins waits for what runs to answer.
const FIRST_ANSWERS: Duration = Duration::from_millis(1_200);

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
    /// The filter's file, where no version serves yet that is to go on without it.
    #[error("local.filterConfig.wasm: {0}")]
    Filter(#[from] WasmError),
    /// Of the machine, for checks.
    #[error("the certificates that this machine trusts cannot be read: {0}")]
    Certificates(std::io::Error),
}

struct Driver {
    path: PathBuf,
    stamp: Stamp,
    machine: Machine,
}

/// Runs until `stop` ends. Versions go on running. `audit` is told what
/// happens, `bound` the flag service's address.
pub async fn run(
    path: &Path,
    audit: Audit,
    bound: impl FnOnce(std::net::SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), DriverError> {
    // Without the first signal the next tick sees the end of a version.
    let (mut children, mut hangup) = (signal(SignalKind::child()).ok(), signal(SignalKind::hangup()).ok());
    let stamp = stamp(path);
    let file = File::read(path)?;
    let fresh = || Status::new(&unique(), &file.metadata.name, now());
    let mut store = Store::open(&file.local.state_file, fresh)?;
    // Whoever serves already is kept running, whatever became of the file: then it is a problem of the status.
    if let Some(filter) = file.local.filter_config.as_ref().filter(|_| store.state.status.record.is_none()) {
        wasm::check(&filter.wasm, &wasm::read(&filter.wasm)?)?;
    }
    store.note();
    let hub = Arc::new(Hub::new(Authenticator::listed()).with_orders());
    hub.authenticator.set_proxies(tokens(&file));
    let address = file.local.listen;
    let listen = |error| DriverError::Listen { address, error };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let note = beside(&file.local.state_file, ".address");
    if let Err(error) = write_atomically(&note, format!("{address}\n").as_bytes()) {
        tracing::error!(%error, path = %note.display(), "cannot be written: commands may not find this controller");
    }
    bound(address);
    let supervisor = Supervisor::adopt(logs(&file), Arc::clone(&hub), &mut store);
    let server = tokio::spawn(service::serve(listener, Arc::clone(&hub), std::future::pending()));
    let checks = CheckRunner::new(Arc::clone(&hub)).map_err(DriverError::Certificates)?;
    audit.record_change(now(), None, &store.state.status);
    let machine = Machine::new(file, store, supervisor, Arc::clone(&hub), audit, checks);
    let mut driver = Driver { path: path.to_owned(), stamp, machine };
    tokio::pin!(stop);
    driver.look_around().await;
    loop {
        let wait = driver.turn().await;
        tokio::select! {
            () = hub.driver_woken() => {}
            () = told(&mut children) => {}
            () = told(&mut hangup) => driver.stamp = None,
            () = tokio::time::sleep(Duration::from_millis(wait.0)) => {}
            () = &mut stop => break,
        }
    }
    server.abort();
    Ok(())
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

fn tokens(file: &File) -> BTreeMap<String, Option<String>> {
    file.local.proxies.iter().map(|proxy| (proxy.id.clone(), proxy.token.clone())).collect()
}

impl Driver {
    /// Waits for the first answers of the versions that run: what is not known yet is no news.
    async fn look_around(&mut self) {
        let machine = &mut self.machine;
        machine.supervisor.poll(now().0, &mut machine.store, &machine.file.local.versions);
        let _ = tokio::time::timeout(FIRST_ANSWERS, machine.supervisor.first_answers()).await;
    }

    /// Everything that can be done now. How long to wait for the next turn. What cannot be written ends nothing: it is
    /// shown, and tried again.
    async fn turn(&mut self) -> Millis {
        self.reload();
        let machine = &mut self.machine;
        machine.forgive();
        machine.supervisor.poll(now().0, &mut machine.store, &machine.file.local.versions);
        if machine.store.unwritten().is_some() {
            machine.store.note();
        }
        let wait = reconcile(machine).await;
        machine.show_store();
        wait.ok().flatten().unwrap_or(TICK).clamp(Millis(1), TICK)
    }

    fn reload(&mut self) {
        let found = stamp(&self.path);
        if found == self.stamp {
            return;
        }
        self.stamp = found;
        let machine = &mut self.machine;
        let read = File::read(&self.path).map_err(|error| error.to_string());
        match read.and_then(|file| same_place(&machine.file, file)) {
            Ok(file) => {
                tracing::info!(version = file.spec.version, "the file was edited");
                machine.hub.authenticator.set_proxies(tokens(&file));
                machine.supervisor.set_logs(logs(&file));
                machine.take_edit(now(), file);
            }
            Err(error) => {
                tracing::error!(error, "the edit is not valid, the spec before it stays in force");
                machine.spec_error = Some(error);
            }
        }
    }
}

fn logs(file: &File) -> Logs {
    Logs::new(&file.metadata.name, &file.local.logs, &file.local.state_file)
}

/// The new file, if nothing of it is other that cannot change while the controller runs.
fn same_place(old: &File, new: File) -> Result<File, String> {
    let fixed = [
        ("metadata.name", old.metadata.name != new.metadata.name),
        ("local.stateFile", old.local.state_file != new.local.state_file),
        ("local.listen", old.local.listen != new.local.listen),
    ];
    match fixed.iter().find(|(_, changed)| *changed) {
        Some((field, _)) => Err(format!("{field} changes only with a restart of the controller")),
        None => Ok(new),
    }
}

#[cfg(test)]
mod tests;
