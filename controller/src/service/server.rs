//! The connections of the flag service: a bounded number, none of them for long without a request.
//! I/O: TCP.

use std::convert::Infallible;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::Service;

use super::{Hub, router};

/// What one client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; who comes then waits.
    pub connections: usize,
    /// From a connection's begin, or the answer before, to the end of a request's head.
    pub head: Duration,
    /// For a whole request, a long poll excepted.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let (head, request) = (Duration::from_secs(10), Duration::from_secs(10));
        Limits { connections: 16_384, head, request }
    }
}

/// Serves until `stop` ends, within these limits.
pub async fn serve_within(limits: Limits, listener: TcpListener, hub: Arc<Hub>, stop: impl Future<Output = ()>) {
    let app = router(hub, limits.request);
    let room = Arc::new(Semaphore::new(limits.connections));
    // Ends with this future, and all connections with it.
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            (Ok((stream, peer)), place) = accepted => {
                let connection = connection(stream, peer, app.clone(), limits.head);
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Some(_) = connections.join_next() => {}
            // Accepting failed, most likely for a lack of descriptors: until a connection ends.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = &mut stop => return,
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: Router, head: Duration) {
    // A flip is a small answer to a waiting poll: it must not wait for more to send.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = app.clone().call(request);
        async { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut server = http1::Builder::new();
    let served =
        server.timer(TokioTimer::new()).header_read_timeout(head).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
