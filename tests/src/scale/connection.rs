//! The connections of a simulated proxy to the flag service: of HTTP/2, one for all of its requests, or of HTTP/1.1, one
//! for each kind of request. I/O: the connections.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::load::Protocol;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What one connection of HTTP/2 keeps at most of what is not sent or not read yet: there are thousands of them.
const WINDOW: u32 = 1 << 16;

type Body = Full<Bytes>;

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// In how many seconds to ask again.
    pub(super) retry_after: Option<u64>,
    pub(super) body: Bytes,
}

/// Sends one request after the other over HTTP/1.1, or any number at once over HTTP/2.
#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// The place of one connection, which is made anew when it is lost.
#[derive(Debug)]
pub(super) struct Slot {
    service: SocketAddr,
    protocol: Protocol,
    sender: Mutex<Option<Sender>>,
}

impl Slot {
    pub(super) fn new(service: SocketAddr, protocol: Protocol) -> Slot {
        Slot { service, protocol, sender: Mutex::new(None) }
    }

    /// Sends a request and reads the answer to its end, all within `limit`. Of HTTP/1.1, a connection on which that
    /// fails is closed.
    pub(super) async fn send(&self, request: Request<Body>, limit: Duration) -> Result<Answer> {
        timeout(limit, self.exchange(request)).await.context("timed out")?
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answer> {
        match self.sender().await? {
            Sender::H2(mut sender) => read(sender.send_request(request).await?).await,
            Sender::H1(mut sender) => {
                let answer = read(sender.send_request(request).await?).await?;
                *self.sender.lock().await = Some(Sender::H1(sender));
                Ok(answer)
            }
        }
    }

    /// A connection on which a request can be sent, as far as is known here.
    async fn sender(&self) -> Result<Sender> {
        // Whoever else wants it meanwhile waits for the same connection.
        let mut slot = self.sender.lock().await;
        match slot.take() {
            Some(Sender::H1(mut sender)) => {
                let ready = sender.ready().await;
                if ready.is_ok() {
                    return Ok(Sender::H1(sender));
                }
            }
            Some(Sender::H2(sender)) if !sender.is_closed() => {
                *slot = Some(Sender::H2(sender.clone()));
                return Ok(Sender::H2(sender));
            }
            _ => {}
        }
        let sender = timeout(CONNECT_LIMIT, self.connect()).await.context("connecting timed out")??;
        if let Sender::H2(sender) = &sender {
            *slot = Some(Sender::H2(sender.clone()));
        }
        Ok(sender)
    }

    async fn connect(&self) -> Result<Sender> {
        let stream = TcpStream::connect(self.service).await?;
        // While nobody listens on a loopback port, a client can meet itself there.
        ensure!(stream.local_addr()? != self.service, "nobody listens");
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        // What goes wrong on a connection is seen by the request that it goes wrong for.
        Ok(match self.protocol {
            Protocol::H1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(async move { drop(connection.await) });
                Sender::H1(sender)
            }
            Protocol::H2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
                builder.max_send_buf_size(WINDOW as usize);
                let (sender, connection) = builder.handshake(io).await?;
                tokio::spawn(async move { drop(connection.await) });
                Sender::H2(sender)
            }
        })
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer> {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(response.into_body(), flag::limits::SNAPSHOT_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("in the body: {error}"))?.to_bytes();
    Ok(Answer { status, retry_after, body })
}
