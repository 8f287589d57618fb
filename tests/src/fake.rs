//! A flag service that answers as the test says, wrongly if need be. I/O: a server on loopback.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use flag::report::Report;
use flag::snapshot::Snapshot;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// How long a poll that has nothing new stays open.
const POLL: Duration = Duration::from_secs(20);

/// What a poll is answered with.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Nothing until something else is set.
    Silence,
    /// A snapshot, once for each revision that the proxy does not have.
    Snapshot(Snapshot),
    /// The same, so much later.
    Late(Duration, Snapshot),
    /// Anything, at once and every time.
    Raw(u16, Bytes),
}

/// A report, and when it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// When it came.
    pub at: Instant,
    /// The report.
    pub report: Report,
}

#[derive(Debug)]
struct Shared {
    reply: watch::Sender<Reply>,
    reports: Mutex<Vec<Received>>,
    /// Bodies that are not valid reports, with the reason.
    bad_reports: Mutex<Vec<String>>,
}

/// The fake. Its address stays the same while it is away.
#[derive(Debug)]
pub struct FakeService {
    addr: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

impl FakeService {
    /// One that is away: connections to its address are refused.
    pub async fn away() -> Result<FakeService> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        // On an address of loopback that nobody else uses, the port stays free.
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 201 + high % 50, low, NEXT.fetch_add(1, Ordering::Relaxed));
        let addr = TcpListener::bind((ip, 0)).await?.local_addr()?;
        let shared = Shared {
            reply: watch::Sender::new(Reply::Silence),
            reports: Mutex::default(),
            bad_reports: Mutex::default(),
        };
        Ok(FakeService { addr, shared: Arc::new(shared), server: None })
    }

    /// One that answers like this.
    pub async fn start(reply: Reply) -> Result<FakeService> {
        let mut service = FakeService::away().await?;
        service.answer(reply);
        service.appear().await?;
        Ok(service)
    }

    /// Where it listens, or would.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Listens.
    pub async fn appear(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.addr).await?;
        let shared = self.shared.clone();
        self.server = Some(tokio::spawn(async move {
            // Ends with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| serve(&shared, request));
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        }));
        Ok(())
    }

    /// Ends as a killed process does: open polls are cut off, connections are refused.
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Answers like this from now on, also the polls that are open.
    pub fn answer(&self, reply: Reply) {
        self.shared.reply.send_replace(reply);
    }

    /// Every valid report so far, in order.
    pub fn reports(&self) -> Vec<Received> {
        self.shared.reports.lock().expect("nobody panics while recording").clone()
    }

    /// Why reports were not valid.
    pub fn bad_reports(&self) -> Vec<String> {
        self.shared.bad_reports.lock().expect("nobody panics while recording").clone()
    }
}

impl Drop for FakeService {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn serve(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match request.uri().path() {
        "/v1/snapshot" => {
            let query = request.uri().query().unwrap_or_default();
            let revision = query.split('&').find_map(|pair| pair.strip_prefix("revision=")).unwrap_or_default();
            // Nothing new within the time of a poll is an answer too.
            timeout(POLL, poll(shared, revision)).await.unwrap_or((204, Bytes::new()))
        }
        "/v1/report" => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            match Report::parse(&body) {
                Ok(report) => {
                    let received = Received { at: Instant::now(), report };
                    shared.reports.lock().expect("nobody panics while recording").push(received);
                    (200, Bytes::from_static(b"{}"))
                }
                Err(error) => {
                    shared.bad_reports.lock().expect("nobody panics while recording").push(error.to_string());
                    (400, error.to_string().into())
                }
            }
        }
        _ => (404, Bytes::new()),
    };
    Ok(Response::builder().status(status).body(Full::new(body)).expect("a valid status"))
}

async fn poll(shared: &Shared, revision: &str) -> (u16, Bytes) {
    let mut replies = shared.reply.subscribe();
    loop {
        let reply = replies.borrow_and_update().clone();
        match reply {
            Reply::Raw(status, body) => return (status, body),
            Reply::Snapshot(snapshot) if snapshot.revision != revision => return (200, bytes(&snapshot)),
            Reply::Late(delay, snapshot) if snapshot.revision != revision => {
                // The delay is the fault that is played here.
                sleep(delay).await;
                return (200, bytes(&snapshot));
            }
            _ => {}
        }
        if replies.changed().await.is_err() {
            return (204, Bytes::new());
        }
    }
}

fn bytes(snapshot: &Snapshot) -> Bytes {
    serde_json::to_vec(snapshot).expect("serializable").into()
}
