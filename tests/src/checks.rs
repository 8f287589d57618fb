//! What checks ask: a webhook, and a real Prometheus that looks at an Envoy. I/O: listens, runs it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Envoy;
use crate::client::Call;
use crate::dir::TestDir;
use crate::local::own_address;
use crate::process::{Process, tool};
use crate::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// A service of the operator's, which is asked by a webhook.
#[derive(Debug)]
pub struct Hook {
    /// Where it is.
    pub address: SocketAddr,
    /// What it answers; 503 at first.
    pub status: Arc<AtomicU16>,
    /// What it was asked.
    pub bodies: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Hook {
    /// Starts one.
    pub async fn start() -> Result<Hook> {
        let listener = TcpListener::bind((own_address(), 0)).await?;
        let address = listener.local_addr()?;
        let (status, bodies) = (Arc::new(AtomicU16::new(503)), Arc::new(Mutex::new(vec![])));
        let (answer, seen) = (Arc::clone(&status), Arc::clone(&bodies));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                    async move {
                        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        seen.lock().expect("a lock").push(serde_json::from_slice(&body).unwrap_or_default());
                        let response = Response::builder().status(answer.load(Ordering::Relaxed));
                        Ok::<_, Infallible>(response.body(Full::new(Bytes::new())).expect("a response"))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(Hook { address, status, bodies, task })
    }
}

impl Hook {
    /// What it answers from now on.
    pub fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A Prometheus that looks at an Envoy every second.
pub async fn prometheus(dir: &TestDir, envoy: &Envoy) -> Result<(Process, SocketAddr)> {
    scraping(dir, envoy.admin(), "/stats/prometheus", &[]).await
}

/// A Prometheus that looks at one target every second, and evaluates these rules as often.
pub async fn scraping(
    dir: &TestDir,
    target: SocketAddr,
    path: &str,
    rules: &[PathBuf],
) -> Result<(Process, SocketAddr)> {
    let at = SocketAddr::from((own_address(), 9090));
    let config = json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": rules,
        "scrape_configs": [{
            "job_name": "tested", "metrics_path": path, "static_configs": [{ "targets": [target.to_string()] }],
        }],
    });
    let file = dir.write("prometheus.yaml", config.to_string());
    let mut command = Command::new(tool("VERSIONFLAG_PROMETHEUS", "tools/prometheus.sh")?);
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.file("prometheus").display()));
    command.arg(format!("--web.listen-address={at}"));
    let process = Process::start(dir, "prometheus", command)?;
    wait_for("Prometheus", LIMIT, async || {
        let answer = Call::get(at, "/-/ready").send().await?;
        ensure!(answer.status == 200, "{}", answer.body);
        Ok(())
    })
    .await?;
    Ok((process, at))
}
