//! The backend's side: says again what it hears. I/O: the stream that it is given.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{SinkExt, StreamExt};
use hyper::Request;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The answer of gRPC: every message as it came, and a status when there are no more.
#[derive(Debug)]
pub struct Echo(Option<Incoming>);

impl Echo {
    /// Of what this request says.
    pub fn of(request: Incoming) -> Echo {
        Echo(Some(request))
    }

    /// The next frame; an error of the client's ends the answer without a status.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(request) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(request).poll_frame(context));
        match frame {
            Some(Ok(frame)) => Poll::Ready(Some(frame)),
            Some(Err(_)) => {
                self.0 = None;
                Poll::Ready(None)
            }
            None => {
                self.0 = None;
                let status = [("grpc-status".parse().ok(), HeaderValue::from_static("0"))];
                let trailers: HeaderMap = status.into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
                Poll::Ready(Some(Frame::trailers(trailers)))
            }
        }
    }
}

/// What a request for a WebSocket is answered with; `None`: it asks for none.
pub fn accept(request: &Request<Incoming>) -> Option<String> {
    let asks = request.headers().get("upgrade").is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = request.headers().get("sec-websocket-key").filter(|_| asks)?;
    Some(derive_accept_key(key.as_bytes()))
}

/// Talks on the connection of a request whose answer is 101, until the client ends it. `held` is dropped
/// then.
pub fn talk<T: Send + 'static>(mut request: Request<Incoming>, held: T) {
    tokio::spawn(async move {
        let _held = held;
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            // What closes it is answered by the library.
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
    });
}
