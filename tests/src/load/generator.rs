//! Makes the requests when they fall due. I/O: the requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request as HttpRequest, Uri, Version};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::LoadPlan;
use super::connection::{Connection, Lost, Outgoing, read};
use super::results::{Kind, Protocol, Recorder, Request};
use crate::clock::now_us;

/// How often a request may find its connection closed before it could be written.
const ATTEMPTS: usize = 10;

/// A request that fell due. Whoever holds it has to record it.
struct Job {
    kind: Kind,
    due_us: u64,
    /// Dropped when the request is recorded: the load is over when all are.
    _open: mpsc::Sender<()>,
}

/// Requests that wait for a free HTTP/1.1 connection.
type Queue = mpsc::UnboundedSender<Job>;

struct Generator {
    target: SocketAddr,
    plan: LoadPlan,
    recorder: Arc<Recorder>,
    h2: Vec<Mutex<Option<Connection>>>,
}

/// Makes load until `stop` is dropped, and ends when every request is recorded.
pub(super) async fn run(target: SocketAddr, plan: LoadPlan, recorder: Arc<Recorder>, mut stop: oneshot::Receiver<()>) {
    let (open, mut all_done) = mpsc::channel::<()>(1);
    let h2 = (0..plan.h2_connections).map(|_| Mutex::new(None)).collect();
    let generator = Arc::new(Generator { target, plan, recorder, h2 });
    let plan = &generator.plan;
    let slow_at_once = (f64::from(plan.slow_per_s) * plan.slow.as_secs_f64()).ceil() as usize;
    let fast = generator.h1_connections(plan.h1_connections);
    let slow = generator.h1_connections(if plan.h1_connections > 0 { slow_at_once + 2 } else { 0 });
    let stream = generator.h1_connections(usize::from(plan.h1_connections > 0));

    let begin = Instant::now();
    let mut tick = interval(Duration::from_millis(1));
    // What fell due while this thread did not run is made up for at once.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut made = [0_u64; 3];
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => break,
            _ = tick.tick() => {}
        }
        let elapsed = begin.elapsed().as_secs_f64();
        let streams = match plan.stream {
            // The next one begins when the one before ought to have ended.
            Some(length) => (elapsed / length.as_secs_f64()) as u64 + 1,
            None => 0,
        };
        let due = [
            (Kind::Fast, (elapsed * f64::from(plan.rate_per_s)) as u64, &fast),
            (Kind::Slow, (elapsed * f64::from(plan.slow_per_s)) as u64, &slow),
            (Kind::Stream, streams, &stream),
        ];
        for ((kind, due, queue), made) in due.into_iter().zip(&mut made) {
            while *made < due {
                let job = Job { kind, due_us: now_us(), _open: open.clone() };
                generator.recorder.sent();
                generator.clone().dispatch(job, *made, queue);
                *made += 1;
            }
        }
    }
    drop((open, fast, slow, stream));
    while all_done.recv().await.is_some() {}
}

impl Generator {
    /// Connections that take requests from one queue.
    fn h1_connections(self: &Arc<Self>, count: usize) -> Queue {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..count {
            let (generator, inbox) = (self.clone(), inbox.clone());
            tokio::spawn(async move {
                let mut connection = None;
                loop {
                    let next = inbox.lock().await.recv().await;
                    let Some(job) = next else { break };
                    let request = generator.with_limit(&job, Protocol::H1, &mut connection).await;
                    generator.recorder.done(request);
                    if job.kind == Kind::Stream {
                        // Idle until the stream after the next, it may be one to an Envoy that is about to end, which
                        // says so only with an answer.
                        connection = None;
                    }
                }
            });
        }
        jobs
    }

    /// Every other request goes over HTTP/2, where there are connections of both kinds.
    fn dispatch(self: Arc<Self>, job: Job, number: u64, queue: &Queue) {
        let over_h2 = match (self.plan.h1_connections, self.h2.len()) {
            (_, 0) => false,
            (0, _) => true,
            _ => number % 2 == 1,
        };
        if !over_h2 {
            let _ = queue.send(job);
            return;
        }
        let index = (number / 2) as usize % self.h2.len();
        tokio::spawn(async move {
            let mut connection = None;
            let request = self.over_h2(&job, index, &mut connection).await;
            self.recorder.done(request);
        });
    }

    /// Takes part in the shared connection, which is opened by the first to miss it.
    async fn over_h2(&self, job: &Job, index: usize, connection: &mut Option<Connection>) -> Request {
        {
            let mut shared = self.h2[index].lock().await;
            let usable = match shared.as_mut() {
                Some(shared) => shared.is_usable().await,
                None => false,
            };
            if !usable {
                *shared = match Connection::open(self.target, Protocol::H2).await {
                    Ok(opened) => Some(opened),
                    Err(error) => return Request { error: Some(error.into()), ..blank(job, Protocol::H2) },
                };
            }
            *connection = shared.as_ref().and_then(Connection::share);
        }
        self.with_limit(job, Protocol::H2, connection).await
    }

    async fn with_limit(&self, job: &Job, protocol: Protocol, connection: &mut Option<Connection>) -> Request {
        let mut request = blank(job, protocol);
        let limit = self.plan.timeout + self.plan.expected(job.kind);
        let done = timeout(limit, self.perform(&mut request, connection)).await;
        request.error = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.into()),
            Err(_) => Some(format!("no whole response within {limit:?}").into()),
        };
        if request.error.is_some() {
            // Whatever state it is in, the next request shall not suffer for it.
            *connection = None;
        }
        request.end_us = now_us();
        request
    }

    /// Sends the request, on a new connection if the one at hand turns out to be closed.
    async fn perform(&self, request: &mut Request, connection: &mut Option<Connection>) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            if let Some(open) = connection.as_mut()
                && !open.is_usable().await
            {
                *connection = None;
            }
            let at_hand = match connection {
                Some(open) => open,
                None => connection.insert(Connection::open(self.target, request.protocol).await?),
            };
            request.start_us = now_us();
            match at_hand.send(self.outgoing(request.kind, request.protocol)).await {
                Ok(response) => {
                    request.head_us = now_us();
                    request.status = response.status().as_u16();
                    let version = response.headers().get("x-served-by").and_then(|value| value.to_str().ok());
                    request.version = version.map(|version| self.recorder.head(version));
                    return read(response.into_body()).await;
                }
                Err(Lost::Unsent) => *connection = None,
                Err(Lost::Failed(error)) => return Err(error),
            }
        }
        Err(format!("{ATTEMPTS} connections were closed before the request was written"))
    }

    fn outgoing(&self, kind: Kind, protocol: Protocol) -> Outgoing {
        let (path, authority) = (self.plan.path(kind), self.plan.authority.as_str());
        let mut request = HttpRequest::new(Empty::new());
        match protocol {
            Protocol::H1 => {
                *request.uri_mut() = path.parse().expect("a valid path");
                let host = HeaderValue::from_str(authority).expect("a valid authority");
                request.headers_mut().insert(hyper::header::HOST, host);
            }
            Protocol::H2 => {
                *request.version_mut() = Version::HTTP_2;
                let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path);
                *request.uri_mut() = uri.build().expect("a valid authority and path");
            }
        }
        for (name, value) in &self.plan.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a valid header name");
            request.headers_mut().append(name, HeaderValue::from_str(value).expect("a valid header value"));
        }
        request
    }
}

fn blank(job: &Job, protocol: Protocol) -> Request {
    let now = now_us();
    Request {
        due_us: job.due_us,
        start_us: now,
        head_us: 0,
        end_us: now,
        status: 0,
        version: None,
        protocol,
        kind: job.kind,
        error: None,
    }
}
