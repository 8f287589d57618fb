//! One client connection, of either protocol. I/O: the connection.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::results::Protocol;

pub(super) type Outgoing = Request<Empty<Bytes>>;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Sends one request after the other over HTTP/1.1, or any number at once over HTTP/2.
pub(super) enum Connection {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

/// Why there is no response.
pub(super) enum Lost {
    /// The connection was closed before the request was written: nobody has seen it.
    Unsent,
    /// The request may have been seen.
    Failed(String),
}

impl Connection {
    pub(super) async fn open(target: SocketAddr, protocol: Protocol) -> Result<Connection, String> {
        let connect = async {
            let stream = TcpStream::connect(target).await.map_err(|error| format!("connecting: {error}"))?;
            // While nobody listens on a loopback port, a client can meet itself there.
            if stream.local_addr().ok() == Some(target) {
                return Err("connecting: nobody listens".to_owned());
            }
            let _ = stream.set_nodelay(true);
            let io = TokioIo::new(stream);
            let handshake = |error: hyper::Error| format!("handshake: {error}");
            Ok(match protocol {
                Protocol::H1 => {
                    let (sender, connection) = http1::handshake(io).await.map_err(handshake)?;
                    // What goes wrong on it is seen by the request that it goes wrong for.
                    tokio::spawn(async move { drop(connection.await) });
                    Connection::H1(sender)
                }
                Protocol::H2 => {
                    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(handshake)?;
                    tokio::spawn(async move { drop(connection.await) });
                    Connection::H2(sender)
                }
            })
        };
        timeout(CONNECT_LIMIT, connect).await.unwrap_or_else(|_| Err("connecting: timed out".to_owned()))
    }

    /// Whether a request can be sent, as far as is known here; waits until an HTTP/1.1 connection
    /// is done with the request before.
    pub(super) async fn is_usable(&mut self) -> bool {
        match self {
            Connection::H1(sender) => sender.ready().await.is_ok(),
            Connection::H2(sender) => !sender.is_closed(),
        }
    }

    pub(super) async fn send(&mut self, request: Outgoing) -> Result<Response<Incoming>, Lost> {
        let sent = match self {
            Connection::H1(sender) => sender.try_send_request(request).await,
            Connection::H2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error: TrySendError<Outgoing>| match error.take_message() {
            Some(_) => Lost::Unsent,
            None => Lost::Failed(chain(&error.into_error())),
        })
    }

    /// The same connection for another request at the same time, which only HTTP/2 has.
    pub(super) fn share(&self) -> Option<Connection> {
        match self {
            Connection::H1(_) => None,
            Connection::H2(sender) => Some(Connection::H2(sender.clone())),
        }
    }
}

/// Reads a response to its end.
pub(super) async fn read(mut body: Incoming) -> Result<(), String> {
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| format!("in the body: {}", chain(&error)))?;
    }
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
