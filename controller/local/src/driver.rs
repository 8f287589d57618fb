//! The controller of one flag on one machine: turns of its state machine, and edits of its file. I/O: everything of
//! this adapter.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
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
use super::files;
use super::process::Supervisor;
use super::store::{Store, StoreError, beside, write_atomically};
use super::world::Machine;

/// The longest time between two turns.
const TICK: Millis = Millis(200);

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
    let stamp = stamp(path);
    let file = File::read(path)?;
    let fresh = || Status::new(&unique(), &file.metadata.name, now());
    let mut store = Store::open(&file.local.state_file, fresh)?;
    store.save()?;
    let hub = Arc::new(Hub::new(Authenticator::listed()));
    hub.authenticator.set_proxies(tokens(&file));
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
    let checks = CheckRunner::new(Arc::clone(&hub)).map_err(DriverError::Certificates)?;
    audit.record_change(now(), None, &store.state.status);
    let (written, files, spec_error) = (store.state.status.clone(), files::FileWriter::default(), None);
    let hub_of_flag = Arc::clone(&hub);
    let machine = Machine { file, spec_error, store, written, supervisor, hub: hub_of_flag, files, audit, checks };
    let mut driver = Driver { path: path.to_owned(), stamp, machine };
    // Without the signal the next tick sees it.
    let mut children = signal(SignalKind::child()).ok();
    tokio::pin!(stop);
    let result = loop {
        let wait = match driver.turn().await {
            Ok(wait) => wait,
            Err(error) => break Err(error.into()),
        };
        tokio::select! {
            () = hub.driver_woken() => {}
            () = ended(&mut children) => {}
            () = tokio::time::sleep(Duration::from_millis(wait.0)) => {}
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
    /// Everything that can be done now. How long to wait for the next turn.
    async fn turn(&mut self) -> Result<Millis, StoreError> {
        self.reload();
        let machine = &mut self.machine;
        machine.supervisor.poll(now().0, &mut machine.store, &machine.file.local.versions)?;
        let wait = reconcile(machine).await?;
        Ok(wait.unwrap_or(TICK).clamp(Millis(1), TICK))
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
                machine.file = file;
                machine.spec_error = None;
            }
            Err(error) => {
                tracing::error!(error, "the edit is not valid, the spec before it stays in force");
                machine.spec_error = Some(error);
            }
        }
    }
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
