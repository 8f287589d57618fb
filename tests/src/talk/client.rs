//! The client's side of each kind of stream. I/O: one connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, TE};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, interval, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{GRPC, Kind, Listener, PATH};

/// How long the answer to something may take, also when a proxy stands still for a while.
const ANSWER: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_millis(50);
/// A download is left long before.
const DOWNLOAD_MS: u64 = 600_000;

/// Talks until `ends` is dropped.
pub(super) async fn talk(
    kind: Kind,
    to: SocketAddr,
    host: &str,
    listener: &Listener,
    ends: oneshot::Receiver<()>,
) -> Result<()> {
    let stream = timeout(ANSWER, TcpStream::connect(to)).await.context("connecting")??;
    stream.set_nodelay(true)?;
    match kind {
        Kind::Grpc => grpc(stream, host, listener, ends).await,
        Kind::WebSocket => web_socket(stream, host, listener, ends).await,
        Kind::Download => download(stream, host, listener, ends).await,
    }
}

/// What the client of gRPC says, as it says it.
struct Messages(mpsc::UnboundedReceiver<Bytes>);

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().0.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

/// A message as gRPC frames it: not compressed, then its length.
fn message(number: u64) -> Bytes {
    let text = format!("message {number}");
    let mut framed = vec![0];
    framed.extend(u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
    framed.extend(text.as_bytes());
    framed.into()
}

async fn grpc(stream: TcpStream, host: &str, listener: &Listener, mut ends: oneshot::Receiver<()>) -> Result<()> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let (say, said) = mpsc::unbounded_channel();
    let request = Request::post(format!("http://{host}{PATH}")).header(CONTENT_TYPE, GRPC).header(TE, "trailers");
    let response = timeout(ANSWER, sender.send_request(request.body(Messages(said))?)).await.context("the head")??;
    begins(&response, 200, listener)?;
    ensure!(response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == GRPC), "the answer is not of gRPC");
    let mut body = response.into_body();
    let mut tick = interval(SAY_EVERY);
    for number in 0.. {
        if !next(&mut tick, &mut ends).await {
            break;
        }
        let message = message(number);
        say.send(message.clone())?;
        let mut answer = Vec::new();
        while answer.len() < message.len() {
            let frame = timeout(ANSWER, body.frame()).await.context("the answer to a message")?;
            let frame = frame.context("it was ended by the server")?.context("in the body")?;
            answer.extend(frame.into_data().ok().context("it was ended with trailers")?);
        }
        ensure!(answer == message, "another answer than was sent");
        listener.heard();
    }
    drop(say);
    let last = timeout(ANSWER, body.frame()).await.context("the trailers")?.context("no trailers")??;
    let Ok(trailers) = last.into_trailers() else { bail!("more was said than was asked for") };
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "ended with {trailers:?}");
    Ok(())
}

async fn web_socket(stream: TcpStream, host: &str, listener: &Listener, mut ends: oneshot::Receiver<()>) -> Result<()> {
    let request = format!("ws://{host}{PATH}").into_client_request()?;
    let (mut socket, response) = timeout(ANSWER, client_async(request, stream)).await.context("the upgrade")??;
    begins(&response, 101, listener)?;
    let mut tick = interval(SAY_EVERY);
    for number in 0.. {
        if !next(&mut tick, &mut ends).await {
            break;
        }
        let message = Message::text(format!("message {number}"));
        socket.send(message.clone()).await?;
        let answer = timeout(ANSWER, socket.next()).await.context("the answer to a frame")?;
        let answer = answer.context("it was ended by the server")??;
        ensure!(answer == message, "another answer than was sent: {answer:?}");
        listener.heard();
    }
    socket.close(None).await?;
    while let Some(rest) = timeout(ANSWER, socket.next()).await.context("the end")? {
        ensure!(rest?.is_close(), "more was said than was asked for");
    }
    Ok(())
}

async fn download(stream: TcpStream, host: &str, listener: &Listener, mut ends: oneshot::Receiver<()>) -> Result<()> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let every = SAY_EVERY.as_millis();
    let request = Request::get(format!("/stream?ms={DOWNLOAD_MS}&every={every}")).header(HOST, host);
    let request = request.body(Empty::<Bytes>::new())?;
    let response = timeout(ANSWER, sender.send_request(request)).await.context("the head")??;
    begins(&response, 200, listener)?;
    let mut body: Incoming = response.into_body();
    loop {
        let frame = tokio::select! {
            frame = timeout(ANSWER, body.frame()) => frame.context("more of it")?,
            _ = &mut ends => return Ok(()),
        };
        frame.context("it was ended by the server")?.context("in the body")?;
        listener.heard();
    }
}

/// Whether it is to go on, at the next tick.
async fn next(tick: &mut Interval, ends: &mut oneshot::Receiver<()>) -> bool {
    tokio::select! {
        biased;
        _ = ends => false,
        _ = tick.tick() => true,
    }
}

fn begins<T>(response: &Response<T>, status: u16, listener: &Listener) -> Result<()> {
    let version = response.headers().get("x-served-by").and_then(|version| version.to_str().ok());
    ensure!(response.status() == status, "status {} of {}", response.status(), version.unwrap_or("-"));
    listener.answered(version.context("nobody says who serves")?);
    Ok(())
}
