//! The connections of the flag service: a bounded number, none of them for long without a request.
//! I/O: TCP, TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::Service;

use crate::endpoints::{probes, router};
use crate::hub::Hub;
use crate::peers::Peers;
use crate::spiffe::ClientIdentity;
use crate::tls::Tls;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time, of all clients; who comes then waits.
    pub connections: usize,
    /// The same of one address; who comes then is sent away. This machine has no such limit.
    pub of_one_address: usize,
    /// The time for a handshake; and from its end, a connection's begin or the answer before, to the end of a
    /// request's head.
    pub head: Duration,
    /// The time for a whole request, a long poll excepted.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let (head, request) = (Duration::from_secs(10), Duration::from_secs(10));
        Limits { connections: 16_384, of_one_address: 1_024, head, request }
    }
}

/// What may look at a controller at a time, besides its proxies.
const PROBES: Limits =
    Limits { connections: 64, of_one_address: 64, head: Duration::from_secs(5), request: Duration::from_secs(5) };

/// A flag service, with what its listeners share.
#[derive(Debug, Clone)]
pub struct Server {
    app: Router,
    limits: Limits,
    room: Arc<Semaphore>,
    peers: Peers,
}

impl Server {
    /// A flag service within these limits, which hold for all its listeners together.
    pub fn new(limits: Limits, hub: Arc<Hub>) -> Server {
        Server::of(router(hub, limits.request), limits)
    }

    /// One of probes and metrics alone, which waits for no proxy.
    pub fn probes(hub: Arc<Hub>) -> Server {
        Server::of(probes(hub, PROBES.request), PROBES)
    }

    fn of(app: Router, limits: Limits) -> Server {
        let (room, peers) = (Arc::new(Semaphore::new(limits.connections)), Peers::new(limits.of_one_address));
        Server { app, limits, room, peers }
    }

    /// Serves until `stop` ends; with mutual TLS or without.
    pub async fn serve(self, listener: TcpListener, tls: Option<Arc<Tls>>, stop: impl Future<Output = ()>) {
        // Ends with this future, and all connections with it.
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = async {
                let place = Arc::clone(&self.room).acquire_owned().await;
                (listener.accept().await, place)
            };
            tokio::select! {
                (Ok((stream, peer)), place) = accepted => {
                    let Some(admission) = self.peers.admit(peer.ip()) else {
                        tracing::debug!(%peer, "has too many connections already");
                        continue;
                    };
                    let connection = self.clone().connection(stream, peer, tls.clone());
                    connections.spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%peer, %error, "a connection ended early");
                        }
                        drop((place, admission));
                    });
                }
                Some(_) = connections.join_next() => {}
                // Accepting failed, most likely for a lack of descriptors: until a connection ends.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = &mut stop => return,
            }
        }
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
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            if let Some(client) = &client {
                request.extensions_mut().insert(Arc::clone(client));
            }
            let answer = self.app.clone().call(request);
            async { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let mut server = http1::Builder::new();
        let server = server.timer(TokioTimer::new()).header_read_timeout(self.limits.head);
        Ok(server.serve_connection(TokioIo::new(stream), service).await?)
    }
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
