//! Whether a version is ready: asks it again and again. I/O: TCP, reads the clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::file::VersionCommand;
use service::Hub;
use service::clock::now_ms;

const TIMEOUT: Duration = Duration::from_secs(1);
/// A busy version may miss one or two questions.
const FAILURES: u32 = 3;

/// A running question. Ends when dropped.
#[derive(Debug)]
pub struct Probe {
    task: tokio::task::JoinHandle<()>,
    /// Unix milliseconds; 0: not ready.
    since: Arc<AtomicU64>,
}

impl Probe {
    /// Starts asking. Wakes the driver when the answer changes.
    pub fn start(version: &VersionCommand, hub: Arc<Hub>) -> Probe {
        let since = Arc::new(AtomicU64::new(0));
        let (address, ready, shared) = (version.address, version.ready.clone(), Arc::clone(&since));
        let task = tokio::spawn(async move {
            let mut failures = 0_u32;
            loop {
                let asked = tokio::time::timeout(TIMEOUT, ask(address, ready.path.as_deref())).await;
                let was = shared.load(Ordering::Relaxed);
                if matches!(asked, Ok(Ok(true))) {
                    failures = 0;
                    if was == 0 {
                        shared.store(now_ms(), Ordering::Relaxed);
                        hub.wake.notify_one();
                    }
                } else {
                    failures = failures.saturating_add(1);
                    if was != 0 && failures >= FAILURES {
                        shared.store(0, Ordering::Relaxed);
                        hub.wake.notify_one();
                    }
                }
                tokio::time::sleep(Duration::from_millis(ready.interval.0)).await;
            }
        });
        Probe { task, since }
    }

    /// Since when it has been ready.
    pub fn ready_since(&self) -> Option<u64> {
        Some(self.since.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(address: SocketAddr, path: Option<&str>) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let Some(path) = path else {
        return Ok(true);
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 2` is enough to know.
    let mut start = [0; 10];
    stream.read_exact(&mut start).await?;
    Ok(start.starts_with(b"HTTP/1.") && start.last() == Some(&b'2'))
}
