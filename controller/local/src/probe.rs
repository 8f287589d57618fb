//! Whether a version is ready: asks it again and again. I/O: TCP, HTTP, reads the clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::file::VersionCommand;
use service::Hub;
use service::clock::now;
use service::http::{Bytes, ExchangeError, ExchangeLimits, HttpClient, Method, OutgoingRequest, header};

/// What one question may take. The body of an answer is not read.
const LIMITS: ExchangeLimits = ExchangeLimits { bytes: 0, time: Duration::from_secs(1) };
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
            let (mut failures, http) = (0_u32, HttpClient::plain(LIMITS));
            loop {
                let asked = match &http {
                    Ok(http) => ask(http, address, ready.path.as_deref()).await.unwrap_or(false),
                    Err(_) => false,
                };
                let was = shared.load(Ordering::Relaxed);
                if asked {
                    failures = 0;
                    if was == 0 {
                        shared.store(now().0, Ordering::Relaxed);
                        hub.wake_driver();
                    }
                } else {
                    failures = failures.saturating_add(1);
                    if was != 0 && failures >= FAILURES {
                        shared.store(0, Ordering::Relaxed);
                        hub.wake_driver();
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

/// Whether the version takes connections, or answers a GET of this path with 2xx.
async fn ask(http: &HttpClient, address: SocketAddr, path: Option<&str>) -> Result<bool, ExchangeError> {
    let Some(path) = path else {
        return Ok(timeout(LIMITS.time, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok()));
    };
    let (url, headers) = (format!("http://{address}{path}"), &[(header::CONNECTION, "close")]);
    let request = OutgoingRequest { method: Method::GET, url: &url, headers, body: Bytes::new() };
    Ok(http.status(request).await?.is_success())
}
