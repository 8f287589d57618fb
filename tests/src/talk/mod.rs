//! Streams that stay open for as long as a test wants: gRPC, WebSockets and long downloads, on which
//! something is said all the time. I/O: the streams, each on a thread of its own.
//!
//! Nothing that is said may get lost, and a stream that ends in any way but the one that was asked for
//! was cut.

mod client;
pub mod server;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use crate::lock::lock;
use crate::wait::{GiveUp, Look, wait_for};

/// Where a backend talks.
pub const PATH: &str = "/talk";
/// What makes a request one of gRPC.
pub const GRPC: &str = "application/grpc";

const LIMIT: Duration = Duration::from_secs(30);

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Messages both ways over HTTP/2, and a status in the trailers.
    Grpc,
    /// Frames both ways on a connection that was HTTP/1.1.
    WebSocket,
    /// A response over HTTP/1.1 that does not end. Its client leaves it.
    Download,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Grpc, Kind::WebSocket, Kind::Download];
}

#[derive(Debug, Default)]
struct State {
    version: Option<String>,
    said: u64,
    error: Option<String>,
}

/// A stream that is open. Dropped, it is cut off.
#[derive(Debug)]
pub struct Talk {
    kind: Kind,
    state: Arc<Mutex<State>>,
    end: Option<oneshot::Sender<()>>,
    done: oneshot::Receiver<Result<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Where the thread of a stream writes.
#[derive(Debug, Clone)]
struct Listener(Arc<Mutex<State>>);

impl Listener {
    /// The response has begun.
    fn answered(&self, version: &str) {
        lock(&self.0).version = Some(version.to_owned());
    }

    /// Something was said, and the answer came.
    fn heard(&self) {
        lock(&self.0).said += 1;
    }
}

impl Talk {
    /// Opens one to a host; it is open when this returns.
    pub async fn open(kind: Kind, to: SocketAddr, host: &str) -> Result<Talk> {
        Talk::start(kind, to, host, || Ok(())).opened(host).await
    }

    /// The same from within a network namespace.
    #[cfg(feature = "kube")]
    pub async fn open_in(network: &crate::netns::Network, kind: Kind, to: SocketAddr, host: &str) -> Result<Talk> {
        let network = network.clone();
        Talk::start(kind, to, host, move || network.enter()).opened(host).await
    }

    async fn opened(self, host: &str) -> Result<Talk> {
        let what = format!("{:?} to {host}", self.kind);
        wait_for(&what, LIMIT, async || self.lives().map(|()| self.said() > 0)?.found()).await?;
        Ok(self)
    }

    fn start(kind: Kind, to: SocketAddr, host: &str, prepare: impl FnOnce() -> Result<()> + Send + 'static) -> Talk {
        let state = Arc::new(Mutex::new(State::default()));
        let (end, ends) = oneshot::channel();
        let (told, done) = oneshot::channel();
        let (listener, host) = (Listener(state.clone()), host.to_owned());
        let thread = std::thread::spawn(move || {
            let talk = || {
                prepare()?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let result = runtime.block_on(client::talk(kind, to, &host, &listener, ends));
                runtime.shutdown_background();
                result
            };
            let result = talk();
            if let Err(error) = &result {
                lock(&listener.0).error = Some(format!("{error:#}"));
            }
            let _ = told.send(result);
        });
        Talk { kind, state, end: Some(end), done, thread: Some(thread) }
    }

    /// The version that it is with.
    pub fn version(&self) -> String {
        lock(&self.state).version.clone().unwrap_or_else(|| "-".to_owned())
    }

    /// How much was said on it.
    pub fn said(&self) -> u64 {
        lock(&self.state).said
    }

    /// An error if it was cut.
    pub fn lives(&self) -> Result<()> {
        match &lock(&self.state).error {
            Some(error) => bail!(GiveUp(format!("{:?} was cut: {error}", self.kind))),
            None => Ok(()),
        }
    }

    /// Waits until more was said on it.
    pub async fn goes_on(&self) -> Result<()> {
        let before = self.said();
        wait_for(&format!("{:?} to go on", self.kind), LIMIT, async || {
            self.lives()?;
            (self.said() > before + 3).found()
        })
        .await
    }

    /// Ends it as its protocol wants it.
    pub async fn end(mut self) -> Result<()> {
        self.goes_on().await?;
        drop(self.end.take());
        let done = tokio::time::timeout(LIMIT, &mut self.done).await;
        done.with_context(|| format!("{:?} does not end", self.kind))?.context("the stream's thread ended early")?
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
