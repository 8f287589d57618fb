//! One version of a service, for tests and the demo: very cheap per request, and it says who it is.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;
use harness::Call;
use harness::backend::BackendStats;
use harness::dir::PID_ENV;
use harness::overlap::{Span, steady_us};
use harness::talk;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Interval, interval, sleep};

/// Serves HTTP/1.1 and HTTP/2 without TLS on one port.
#[derive(Debug, Parser)]
struct Options {
    /// Sent with every answer as x-served-by
    #[arg(long)]
    version: String,
    /// Port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Another address that it listens on
    #[arg(long)]
    also_listen: Option<SocketAddr>,
    /// Gets the address that it listens on
    #[arg(long)]
    addr_file: Option<PathBuf>,
    /// Gets its counts, as JSON, when it ends
    #[arg(long)]
    log: Option<PathBuf>,
    /// Gets the begin and the end of every request when it ends, in microseconds of the machine's steady clock, and its
    /// id
    #[arg(long)]
    spans: Option<PathBuf>,
    /// For so long /healthz is 503
    #[arg(long, default_value_t = 0)]
    ready_after_ms: u64,
    /// /healthz is always 503
    #[arg(long)]
    fail_ready: bool,
    /// Every so-manieth request is answered by 500; 0: none
    #[arg(long, default_value_t = 0)]
    fail_every: u64,
    /// How long open requests may go on after SIGTERM
    #[arg(long, default_value_t = 10_000)]
    grace_ms: u64,
}

struct Server {
    options: Options,
    spans: Option<File>,
    started: Instant,
    served: AtomicU64,
    open: AtomicU64,
    last_served_unix_ms: AtomicU64,
}

/// A proxy that was stalled opens many connections at once. One that does not fit into the backlog
/// hangs for seconds and is then reset, which says nothing about what is tested.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(16_384)
}

/// The next connection; never one where nobody listens.
async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut stop = signal(SignalKind::terminate())?;
    let listener = listen(options.listen)?;
    let other = options.also_listen.map(listen).transpose()?;
    let addr = listener.local_addr()?;
    if let Some(file) = &options.addr_file {
        let new = file.with_extension("new");
        std::fs::write(&new, addr.to_string())?;
        std::fs::rename(&new, file)?;
    }
    println!("{} listens on {addr}", options.version);
    tokio::spawn(end_with_the_test());

    let spans = options.spans.as_ref().map(|path| File::options().create(true).append(true).open(path)).transpose()?;
    let server = Arc::new(Server {
        options,
        spans,
        started: Instant::now(),
        served: AtomicU64::new(0),
        open: AtomicU64::new(0),
        last_served_unix_ms: AtomicU64::new(0),
    });
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            accepted = accept(other.as_ref()) => accepted,
            _ = stop.recv() => break,
        };
        let Ok((stream, peer)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let server = server.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // No connection ends while it is idle: a request that meets its end would fail, by nobody's fault.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }

    drop((listener, other));
    tokio::select! {
        () = connections.shutdown() => {}
        () = sleep(Duration::from_millis(server.options.grace_ms)) => {}
    }
    let counts = serde_json::to_string(&server.stats())?;
    println!("{} ends: {counts}", server.options.version);
    if let Some(log) = &server.options.log {
        writeln!(File::options().create(true).append(true).open(log)?, "{counts}")?;
    }
    std::process::exit(0);
}

impl Server {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<Answer> {
        let path = request.uri().path();
        let number = |key: &str| number(request.uri().query(), key);
        match path {
            "/healthz" => self.plain(if self.is_ready() { 200 } else { 503 }, Bytes::new()),
            "/stats" => {
                let body = serde_json::to_vec(&self.stats()).unwrap_or_default();
                self.plain(200, body.into())
            }
            "/peer" => self.plain(200, peer.ip().to_string().into()),
            "/crash" => std::process::exit(1),
            talk::PATH => {
                let open = Open::new(self.clone(), &request);
                self.talk(request, open)
            }
            _ => {
                let open = Open::new(self.clone(), &request);
                let every = self.options.fail_every;
                let fails = every > 0 && self.served.load(Relaxed).is_multiple_of(every);
                let mut status = if fails { 500 } else { 200 };
                match path {
                    "/slow" => sleep(Duration::from_millis(number("ms").unwrap_or(2_000))).await,
                    "/call" => return self.call_on(&request, open).await,
                    "/status" => status = number("code").unwrap_or(200) as u16,
                    "/grpc" => return self.grpc(&request, open),
                    "/stream" => {
                        let every = number("every").unwrap_or(100).max(1);
                        let left = number("ms").unwrap_or(30_000) / every;
                        let every = interval(Duration::from_millis(every));
                        return self.respond(200, &request, Answer::Stream { left, every, _open: open });
                    }
                    _ => {}
                }
                let body = Answer::Plain { body: Some(Bytes::from_static(b"ok\n")), _open: Some(open) };
                self.respond(status, &request, body)
            }
        }
    }

    /// Says again what it hears, over gRPC or a WebSocket.
    fn talk(&self, request: Request<Incoming>, open: Open) -> Response<Answer> {
        if let Some(key) = talk::server::accept(&request) {
            let body = Answer::Plain { body: None, _open: None };
            let mut response = self.respond(101, &request, body);
            let headers = response.headers_mut();
            headers.insert(CONNECTION, "upgrade".parse().expect("a valid header value"));
            headers.insert(UPGRADE, "websocket".parse().expect("a valid header value"));
            headers.insert("sec-websocket-accept", key.parse().expect("a valid header value"));
            talk::server::talk(request, open);
            return response;
        }
        if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != talk::GRPC) {
            return self.plain(StatusCode::BAD_REQUEST.as_u16(), Bytes::new());
        }
        let mut response = self.respond(200, &request, Answer::Plain { body: None, _open: None });
        response.headers_mut().insert(CONTENT_TYPE, talk::GRPC.parse().expect("a valid header value"));
        *response.body_mut() = Answer::Talk { echo: talk::server::Echo::of(request.into_body()), _open: open };
        response
    }

    /// An answer whose status of gRPC, `status`, comes in the trailers, or with the headers (`how=headers`); or that is
    /// cut off after its first part (`how=reset`).
    fn grpc(&self, request: &Request<Incoming>, open: Open) -> Response<Answer> {
        const STATUS: HeaderName = HeaderName::from_static("grpc-status");
        let query = |key: &str| text(request.uri().query(), key).unwrap_or_default();
        let status = HeaderMap::from_iter([(STATUS, query("status").parse().expect("a valid header value"))]);
        let first = Ok(Frame::data(Bytes::from_static(b"ok\n")));
        let (headers, parts) = match query("how") {
            "headers" => (status, VecDeque::new()),
            "reset" => (HeaderMap::new(), [first, Err(io::ErrorKind::Other.into())].into()),
            _ => (HeaderMap::new(), [first, Ok(Frame::trailers(status))].into()),
        };
        let mut response = self.respond(200, request, Answer::Parts { parts, _open: open });
        response.headers_mut().extend(headers);
        response
    }

    /// Calls the service at `to` as `host`, once the file `after` is there, hands the header `pass` on, and answers as
    /// both: the callee's status, and its version after its own.
    async fn call_on(&self, request: &Request<Incoming>, open: Open) -> Response<Answer> {
        let query = |key: &str| text(request.uri().query(), key);
        while query("after").is_some_and(|file| !Path::new(file).exists()) {
            sleep(Duration::from_millis(5)).await;
        }
        let answer = match (query("to").and_then(|to| to.parse().ok()), query("host")) {
            (Some(to), Some(host)) => {
                let mut call = Call::get(to, "/").host(host);
                if let Some(name) = query("pass")
                    && let Some(value) = request.headers().get(name).and_then(|value| value.to_str().ok())
                {
                    call = call.header(name, value);
                }
                call.send().await
            }
            _ => Err(anyhow::anyhow!("to or host is missing")),
        };
        let (status, version, body) = match answer {
            Ok(answer) => (answer.status, answer.version().to_owned(), answer.body),
            Err(error) => (502, "-".to_owned(), format!("{error:#}\n")),
        };
        let body = Answer::Plain { body: Some(body.into()), _open: Some(open) };
        let mut response = self.respond(status, request, body);
        let both = format!("{}+{version}", self.options.version);
        response.headers_mut().insert("x-served-by", both.parse().expect("versions are valid header values"));
        response
    }

    fn respond(&self, status: u16, request: &Request<Incoming>, body: Answer) -> Response<Answer> {
        let values: Vec<_> = request.headers().get_all("x-versionflag").iter().map(|v| v.as_bytes()).collect();
        let got = if values.is_empty() { b"-".to_vec() } else { values.join(&b'|') };
        Response::builder()
            .status(status)
            .header("x-served-by", &self.options.version)
            .header("x-got-flag", got)
            .body(body)
            .expect("status and headers are valid")
    }

    fn plain(&self, status: u16, body: Bytes) -> Response<Answer> {
        let body = Answer::Plain { body: (!body.is_empty()).then_some(body), _open: None };
        Response::builder()
            .status(status)
            .header("x-served-by", &self.options.version)
            .body(body)
            .expect("status and headers are valid")
    }

    fn is_ready(&self) -> bool {
        !self.options.fail_ready && self.started.elapsed() >= Duration::from_millis(self.options.ready_after_ms)
    }

    fn stats(&self) -> BackendStats {
        BackendStats {
            version: self.options.version.clone(),
            served: self.served.load(Relaxed),
            open: self.open.load(Relaxed),
            last_served_unix_ms: self.last_served_unix_ms.load(Relaxed),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test measures by the machine's clock")]
    fn touch(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_served_unix_ms.store(now.as_millis() as u64, Relaxed);
    }
}

/// Counts a request as open until its answer is sent or given up.
struct Open {
    server: Arc<Server>,
    begin_us: u64,
    /// As Envoy calls the request.
    id: String,
}

impl Open {
    fn new(server: Arc<Server>, request: &Request<Incoming>) -> Open {
        server.served.fetch_add(1, Relaxed);
        server.open.fetch_add(1, Relaxed);
        server.touch();
        let noted = server.spans.is_some().then(|| request.headers().get("x-request-id")).flatten();
        let id = noted.and_then(|id| id.to_str().ok()).unwrap_or("-").to_owned();
        Open { server, begin_us: steady_us(), id }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, Relaxed);
        self.server.touch();
        if let Some(spans) = &self.server.spans {
            let span = Span { begin_us: self.begin_us, end_us: steady_us() };
            // One write: lines of two requests never mix.
            let _ = (&mut &*spans).write_all(span.line(&self.id).as_bytes());
        }
    }
}

enum Answer {
    Plain { body: Option<Bytes>, _open: Option<Open> },
    Stream { left: u64, every: Interval, _open: Open },
    Talk { echo: talk::server::Echo, _open: Open },
    Parts { parts: VecDeque<io::Result<Frame<Bytes>>>, _open: Open },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Answer::Plain { body, .. } => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Answer::Talk { echo, .. } => echo.poll(context).map(|frame| frame.map(Ok)),
            Answer::Parts { parts, .. } => Poll::Ready(parts.pop_front()),
            Answer::Stream { left: 0, .. } => Poll::Ready(None),
            Answer::Stream { left, every, .. } => {
                ready!(every.poll_tick(context));
                *left -= 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"tick\n")))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Plain { body, .. } => body.is_none(),
            Answer::Parts { parts, .. } => parts.is_empty(),
            _ => false,
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Answer::Plain { body, .. } => hyper::body::SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Answer::Stream { .. } | Answer::Talk { .. } | Answer::Parts { .. } => hyper::body::SizeHint::default(),
        }
    }
}

fn number(query: Option<&str>, key: &str) -> Option<u64> {
    text(query, key)?.parse().ok()
}

fn text<'a>(query: Option<&'a str>, key: &str) -> Option<&'a str> {
    query?.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// A backend whose parent is a controller that was killed is nobody's child: it ends when the test
/// has gone that all of it belonged to.
async fn end_with_the_test() {
    let Some(test) = std::env::var(PID_ENV).ok().and_then(|pid| pid.parse().ok()) else { return };
    let mut every = interval(Duration::from_secs(1));
    while kill(Pid::from_raw(test), None).is_ok() {
        every.tick().await;
    }
    std::process::exit(1);
}
