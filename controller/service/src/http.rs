//! One HTTP exchange with somebody else, bounded in bytes and in time: for checks, for the commands that ask a
//! flag service, and for the question whether a version is ready. I/O: HTTP, by TLS or without.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

pub use hyper::body::Bytes;
pub use hyper::header::{self, HeaderName};
pub use hyper::{Method, StatusCode};

/// What one exchange may take.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeLimits {
    /// Bytes of an answer's body.
    pub bytes: usize,
    /// From the connection's begin to the last byte that is read.
    pub time: Duration,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct OutgoingRequest<'a> {
    /// GET, POST and so on.
    pub method: Method,
    /// `http://` or `https://`, with host and path.
    pub url: &'a str,
    /// Headers beside those that the client writes itself: Host and Content-Length.
    pub headers: &'a [(HeaderName, &'a str)],
    /// The body; may be empty.
    pub body: Bytes,
}

/// Why an exchange has no result. The sentences are for the person who wrote the URL.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The URL or a header is malformed: nothing was sent.
    #[error("the address is not valid: {0}")]
    Address(#[from] hyper::http::Error),
    /// No connection, or one that broke before the head of an answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The body broke off.
    #[error("its answer cannot be read: {0}")]
    Body(String),
    /// The body is longer than [`ExchangeLimits::bytes`].
    #[error("its answer has more than {0} bytes")]
    TooLong(usize),
    /// [`ExchangeLimits::time`] is over.
    #[error("there is no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

/// A client with one set of limits for all its exchanges.
#[derive(Debug, Clone)]
pub struct HttpClient {
    connections: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limits: ExchangeLimits,
}

impl HttpClient {
    /// A client that believes the servers whose certificates this machine trusts. Fails where it trusts none.
    pub fn with_trust_of_machine(limits: ExchangeLimits) -> std::io::Result<HttpClient> {
        let connector = HttpsConnectorBuilder::new().with_provider_and_native_roots(default_provider())?;
        let connections = Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build());
        Ok(HttpClient { connections, limits })
    }

    /// A client for `http://` only: it believes no certificate. Each exchange has a connection of its own, so that
    /// it also shows whether the server still takes connections.
    pub fn plain(limits: ExchangeLimits) -> Result<HttpClient, rustls::Error> {
        let connections = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(plain_connector()?);
        Ok(HttpClient { connections, limits })
    }

    /// The same by HTTP/2 without TLS, as gRPC has it.
    pub fn plain_http2(limits: ExchangeLimits) -> Result<HttpClient, rustls::Error> {
        let connector = plain_connector()?;
        let mut builder = Client::builder(TokioExecutor::new());
        let connections = builder.pool_max_idle_per_host(0).http2_only(true).build(connector);
        Ok(HttpClient { connections, limits })
    }

    /// Sends a request and reads the whole answer, whatever its status is.
    pub async fn exchange(&self, request: OutgoingRequest<'_>) -> Result<(StatusCode, Bytes), ExchangeError> {
        self.in_time(async {
            let answer = self.head_of_answer(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), self.limits.bytes).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => ExchangeError::TooLong(self.limits.bytes),
                false => ExchangeError::Body(with_causes(error.as_ref())),
            })?;
            Ok((status, body.to_bytes()))
        })
        .await
    }

    /// Sends a request and takes the status of the answer. The body is read as far as the limits go, since whoever
    /// hangs up early has servers complain; what it says, or how long it takes, does not matter.
    pub async fn status(&self, request: OutgoingRequest<'_>) -> Result<StatusCode, ExchangeError> {
        let answer = self.in_time(self.head_of_answer(request)).await?;
        let status = answer.status();
        let rest = async { Ok(Limited::new(answer.into_body(), self.limits.bytes).collect().await) };
        let _ = self.in_time(rest).await;
        Ok(status)
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ExchangeError>>) -> Result<T, ExchangeError> {
        let time = self.limits.time;
        tokio::time::timeout(time, work).await.map_err(|_| ExchangeError::Timeout(time)).flatten()
    }

    async fn head_of_answer(&self, request: OutgoingRequest<'_>) -> Result<Response<Incoming>, ExchangeError> {
        let mut sent = Request::builder().method(request.method).uri(request.url);
        for (name, value) in request.headers {
            sent = sent.header(name, *value);
        }
        let sent = sent.body(Full::new(request.body))?;
        let answer = self.connections.request(sent).await;
        answer.map_err(|error| ExchangeError::Unreachable(with_causes(&error)))
    }
}

/// Connections that believe no certificate.
fn plain_connector() -> Result<HttpsConnector<HttpConnector>, rustls::Error> {
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
}

/// An error and what led to it, in one line: hyper's own text names only the layer.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
