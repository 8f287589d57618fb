//! The connections of the flag service, with HTTP/1.1 or HTTP/2: a bounded number, none of them for long without a
//! request. I/O: TCP, TLS, the limits of this process.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::Service;

use crate::endpoints::{probes, router};
use crate::hub::Hub;
use crate::in_use::InUse;
use crate::lock::lock;
use crate::metrics::Connections;
use crate::peers::{Admission, Peers};
use crate::spiffe::ClientIdentity;
use crate::tls::Tls;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time, of all clients; who comes then is told to come again.
    pub connections: usize,
    /// The same of one address; this machine has no such limit.
    pub of_one_address: usize,
    /// The time for a handshake; and from its end, a connection's begin or the answer before, to the end of a
    /// request's head.
    pub head: Duration,
    /// The time for a whole request, a long poll excepted.
    pub request: Duration,
}

/// Descriptors that are kept for everything but connections of proxies.
const OTHER_DESCRIPTORS: usize = 256;
/// More than this a proxy's share of memory does not allow on any machine.
const MOST_CONNECTIONS: usize = 65_536;

impl Default for Limits {
    /// As many connections as this process may have descriptors, but for some.
    fn default() -> Limits {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        let descriptors = usize::try_from(descriptors).unwrap_or(MOST_CONNECTIONS);
        let spare = OTHER_DESCRIPTORS.min(descriptors / 2);
        Limits {
            connections: descriptors.saturating_sub(spare).min(MOST_CONNECTIONS),
            of_one_address: 1_024,
            // Longer than a proxy that has nothing to tell is silent.
            head: Duration::from_secs(30),
            request: Duration::from_secs(10),
        }
    }
}

/// Requests at a time on one connection of HTTP/2. A proxy has two; who hands on those of many opens another one.
const STREAMS: u32 = 32;
/// Bytes that a client of HTTP/2 may send before they are read.
const WINDOW: u32 = 64 << 10;
/// Those who are told at a time that there is no room.
const TURNED_AWAY: usize = 64;
/// How long that may take.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(1);
/// How often people are told that somebody is.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// Seconds after which who was turned away comes again: some sooner, some later.
const COME_AGAIN: std::ops::Range<u64> = 1..6;

/// What may look at a controller at a time, besides its proxies.
const PROBES: Limits =
    Limits { connections: 64, of_one_address: 64, head: Duration::from_secs(5), request: Duration::from_secs(5) };

/// A flag service, with what its listeners share.
#[derive(Debug, Clone)]
pub struct Server {
    app: Router,
    limits: Limits,
    room: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    /// When it was said last that somebody is turned away.
    said: Arc<Mutex<Option<Instant>>>,
    peers: Peers,
    connections: Connections,
}

/// A connection's place among all, and among those of its address; given back with this.
type Place = (OwnedSemaphorePermit, Admission);

impl Server {
    /// A flag service within these limits, which hold for all its listeners together.
    pub fn new(limits: Limits, hub: Arc<Hub>) -> Server {
        let connections = hub.metrics.connections.clone();
        connections.set_limit(limits.connections);
        tracing::info!(
            connections = limits.connections,
            "room for proxies: by the open files that this process may have"
        );
        Server::of(router(hub, limits), limits, connections)
    }

    /// One of probes and metrics alone, which waits for no proxy.
    pub fn probes(hub: Arc<Hub>) -> Server {
        Server::of(probes(hub, PROBES.request), PROBES, Connections::default())
    }

    fn of(app: Router, limits: Limits, connections: Connections) -> Server {
        let (room, peers) = (Arc::new(Semaphore::new(limits.connections)), Peers::new(limits.of_one_address));
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
        Server { app, limits, room, turned_away, said: Arc::default(), peers, connections }
    }

    /// Serves until `stop` ends; with mutual TLS or without.
    pub async fn serve(self, listener: TcpListener, tls: Option<Arc<Tls>>, stop: impl Future<Output = ()>) {
        // Ends with this future, and all connections with it.
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                Ok((stream, peer)) = listener.accept() => self.take_in(stream, peer, tls.as_ref(), &mut connections),
                Some(_) = connections.join_next() => {}
                // Accepting failed, most likely for a lack of descriptors: until a connection ends.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = &mut stop => return,
            }
        }
    }

    fn take_in(&self, stream: TcpStream, peer: SocketAddr, tls: Option<&Arc<Tls>>, connections: &mut JoinSet<()>) {
        let Some(place) = self.place(peer) else {
            self.note_turned_away(peer);
            // Who is to be told in TLS would take a handshake.
            if let Some(telling) = Arc::clone(&self.turned_away).try_acquire_owned().ok().filter(|_| tls.is_none()) {
                connections.spawn(async move {
                    let _ = timeout(TURNED_AWAY_WITHIN, turn_away(stream)).await;
                    drop(telling);
                });
            }
            return;
        };
        let connection = self.clone().connection(stream, peer, tls.cloned());
        let open = self.connections.open.clone();
        open.inc();
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
            open.dec();
            drop(place);
        });
    }

    fn note_turned_away(&self, peer: SocketAddr) {
        self.connections.turned_away.inc();
        let mut said = lock(&self.said);
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            *said = Some(Instant::now());
            let limit = self.limits.connections;
            tracing::warn!(%peer, limit, "is turned away: all connections are taken; more open files make room for more");
        }
    }

    fn place(&self, peer: SocketAddr) -> Option<Place> {
        Some((Arc::clone(&self.room).try_acquire_owned().ok()?, self.peers.admit(peer.ip())?))
    }

    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<Tls>>,
    ) -> Result<(), ConnectionError> {
        // A flip is a small answer to a waiting poll: it must not wait for more to send.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.requests(stream, peer, None).await };
        let (stream, client) = timeout(self.limits.head, tls.accept(stream)).await.map_err(io::Error::from)??;
        self.requests(stream, peer, Some(Arc::new(client))).await
    }

    async fn requests<S>(
        self,
        stream: S,
        peer: SocketAddr,
        client: Option<Arc<ClientIdentity>>,
    ) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let in_use = Arc::new(InUse::default());
        let (app, using) = (self.app, Arc::clone(&in_use));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(Arc::clone(&using));
            if let Some(client) = &client {
                request.extensions_mut().insert(Arc::clone(client));
            }
            let (answer, use_) = (app.clone().call(request), InUse::begin(&using));
            async move {
                let answer = answer.await.unwrap_or_else(|never| match never {});
                // Who is to ask another controller, or later, does so on another connection.
                if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                    use_.close();
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.head);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(WINDOW / 4)
            .keep_alive_interval(self.limits.head)
            .keep_alive_timeout(self.limits.head);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = in_use.closes() => connection.as_mut().graceful_shutdown(),
                // HTTP/1.1 has a limit of its own, but not before it is known to be that.
                () = in_use.idles(self.limits.head) => return Ok(()),
            }
        }
    }
}

/// How whoever speaks HTTP/2 begins.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";
/// Two frames of HTTP/2: settings, and that no request was looked at and why, which is "enhance your calm".
const GO_AWAY: [u8; 26] = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Tells a client that there is no room, and when to come again, once it has asked.
async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    let mut some = [0; 1_024];
    let length = stream.read(&mut some).await?;
    if some.get(..length).is_some_and(|begun| begun.starts_with(HTTP2)) {
        stream.write_all(&GO_AWAY).await?;
    } else {
        let body = r#"{"error":"this controller has no room for another connection","reason":"full"}"#;
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: {}\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            fastrand::u64(COME_AGAIN),
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
    stream.shutdown().await?;
    // What is sent meanwhile is read: otherwise the answer is lost with the connection.
    while stream.read(&mut some).await? > 0 {}
    Ok(())
}

/// Why a connection ended early.
type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// Serves in plain text until `stop` ends, within these limits.
pub async fn serve_within(limits: Limits, listener: TcpListener, hub: Arc<Hub>, stop: impl Future<Output = ()>) {
    Server::new(limits, hub).serve(listener, None, stop).await;
}

/// Serves in plain text until `stop` ends, within the limits by default.
pub async fn serve(listener: TcpListener, hub: Arc<Hub>, stop: impl Future<Output = ()>) {
    serve_within(Limits::default(), listener, hub, stop).await;
}
