//! One version of a service, as a process of its own: the program `backend`. I/O.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::client::Call;
use crate::dir::TestDir;
use crate::process::{Process, program};
use crate::wait::wait_for;

/// How a backend is run.
#[derive(Debug, Clone)]
pub struct BackendOptions {
    /// What it says it is.
    pub version: String,
    /// Its process's name; the version unless set.
    pub name: Option<String>,
    /// Where it listens; a free port unless set.
    pub listen: SocketAddr,
    /// `/healthz` fails for so long.
    pub ready_after: Duration,
    /// `/healthz` fails for ever.
    pub fail_ready: bool,
    /// How long open requests may go on after SIGTERM.
    pub grace: Duration,
    /// It notes when each request was open, in the file NAME.spans.
    pub notes: bool,
}

impl Default for BackendOptions {
    fn default() -> BackendOptions {
        BackendOptions {
            version: "v1".to_owned(),
            name: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ready_after: Duration::ZERO,
            fail_ready: false,
            grace: Duration::from_secs(10),
            notes: false,
        }
    }
}

/// What a backend says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStats {
    /// What it says it is.
    pub version: String,
    /// Requests it has taken, those about itself excepted.
    pub served: u64,
    /// Requests it has not finished.
    pub open: u64,
    /// When it last took or finished one; 0 if never.
    pub last_served_unix_ms: u64,
}

/// A running backend.
#[derive(Debug)]
pub struct Backend {
    version: String,
    addr: SocketAddr,
    process: Process,
}

impl Backend {
    /// Starts one that listens on a free port.
    pub async fn start(dir: &TestDir, version: &str) -> Result<Backend> {
        Backend::start_with(dir, BackendOptions { version: version.to_owned(), ..BackendOptions::default() }).await
    }

    /// Starts one and waits until it listens; it may not be ready yet.
    pub async fn start_with(dir: &TestDir, options: BackendOptions) -> Result<Backend> {
        let name = options.name.as_deref().unwrap_or(&options.version);
        let addr_file = dir.file(&format!("{name}.addr"));
        let _ = std::fs::remove_file(&addr_file);
        let mut command = Command::new(program("backend")?);
        command
            .args(["--version", &options.version, "--listen", &options.listen.to_string()])
            .arg("--addr-file")
            .arg(&addr_file)
            .args(["--ready-after-ms", &options.ready_after.as_millis().to_string()])
            .args(["--grace-ms", &options.grace.as_millis().to_string()]);
        if options.notes {
            command.arg("--spans").arg(dir.file(&format!("{name}.spans")));
        }
        if options.fail_ready {
            command.arg("--fail-ready");
        }
        let mut process = Process::start(dir, name, command)?;
        let addr = wait_for(name, Duration::from_secs(20), async || -> Result<SocketAddr> {
            process.check_running()?;
            Ok(std::fs::read_to_string(&addr_file)?.trim().parse()?)
        })
        .await?;
        Ok(Backend { version: options.version, addr, process })
    }

    /// What it says it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its own counts.
    pub async fn stats(&self) -> Result<BackendStats> {
        Call::get(self.addr, "/stats").send().await?.json()
    }
}
