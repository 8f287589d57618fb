//! Whether a version is ready: asks it again and again. I/O: TCP, HTTP, commands, reads the clock.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use super::file::{Ready, VersionCommand};
use service::Hub;
use service::clock::now;
use service::http::{Bytes, ExchangeLimits, HttpClient, Method, OutgoingRequest, header};

/// Bytes of an answer that are read. What it says does not matter, but whoever hangs up early has servers complain.
const ANSWER: usize = 65_536;
/// A busy version may miss one or two questions.
const FAILURES: u32 = 3;
/// Where gRPC services are asked for their health.
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";

/// What is known of a version by its answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    /// Since when it has been ready, in Unix milliseconds.
    pub(crate) since: Option<u64>,
    /// The answer to the last question that it did not pass; `None`: it passed the last one, or was not asked yet.
    pub(crate) lacks: Option<String>,
    /// It was asked at least once.
    asked: bool,
}

/// How a version is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    address: SocketAddr,
    how: VersionCommand,
}

/// A running question. Ends when dropped.
#[derive(Debug)]
pub struct Probe {
    task: tokio::task::JoinHandle<()>,
    question: Question,
    found: Arc<watch::Sender<Readiness>>,
    /// A switch is under way, which rests on the answers.
    hurried: Arc<watch::Sender<bool>>,
}

impl Probe {
    /// Starts asking at an address. Wakes the driver when the answer changes.
    pub(crate) fn start(how: &VersionCommand, address: SocketAddr, hub: Arc<Hub>) -> Probe {
        Probe::ask(how, address, hub, Arc::default(), Arc::default())
    }

    /// Asks in another way from now on, if there is one. What was found until now counts.
    pub(crate) fn follow(&mut self, how: &VersionCommand, address: SocketAddr, hub: &Arc<Hub>) {
        if self.question != Question::of(how, address) {
            *self = Probe::ask(how, address, Arc::clone(hub), Arc::clone(&self.found), Arc::clone(&self.hurried));
        }
    }

    /// Whether a switch is under way: one that begins has it asked at once.
    pub(crate) fn hurry(&self, hurried: bool) {
        self.hurried.send_if_modified(|known| std::mem::replace(known, hurried) != hurried);
    }

    fn ask(
        how: &VersionCommand,
        address: SocketAddr,
        hub: Arc<Hub>,
        found: Arc<watch::Sender<Readiness>>,
        hurried: Arc<watch::Sender<bool>>,
    ) -> Probe {
        let question = Question::of(how, address);
        let (asked, tell, mut hurry) = (question.clone(), Arc::clone(&found), hurried.subscribe());
        let task = tokio::spawn(async move {
            let mut failures = 0_u32;
            let http = asked.client();
            loop {
                let answer = match &http {
                    Ok(http) => asked.ask(http).await,
                    Err(error) => Err(error.clone()),
                };
                failures = if answer.is_ok() { 0 } else { failures.saturating_add(1) };
                if tell.send_if_modified(|known| known.take(answer, failures)) {
                    hub.wake_driver();
                }
                pause(&asked.how.ready, failures == 0, &mut hurry).await;
            }
        });
        Probe { task, question, found, hurried }
    }

    /// What is known now.
    pub(crate) fn readiness(&self) -> Readiness {
        self.found.borrow().clone()
    }

    /// Told when the first answer is there.
    pub(crate) fn first_answer(&self) -> watch::Receiver<Readiness> {
        self.found.subscribe()
    }
}

/// Waits for the next question.
async fn pause(ready: &Ready, passed: bool, hurry: &mut watch::Receiver<bool>) {
    let hurried = *hurry.borrow_and_update();
    let pause = |calm| tokio::time::sleep(Duration::from_millis(ready.pause(calm).0));
    if hurried || !passed {
        return pause(false).await;
    }
    tokio::select! {
        () = pause(true) => {}
        // Whoever has named an interval means it.
        Ok(_) = hurry.wait_for(|hurried| *hurried), if ready.interval.is_none() => {}
    }
}

impl Readiness {
    /// Whether it was asked.
    pub(crate) fn is_known(&self) -> bool {
        self.asked
    }

    /// Takes in an answer, the so-manieth failure in a row. Whether anything changed.
    fn take(&mut self, answer: Result<(), String>, failures: u32) -> bool {
        let before = std::mem::replace(self, Readiness { asked: true, ..self.clone() });
        match answer {
            Ok(()) => {
                self.since = self.since.or_else(|| Some(now().0));
                self.lacks = None;
            }
            Err(lacks) => {
                self.since = self.since.filter(|_| failures < FAILURES);
                self.lacks = Some(lacks);
            }
        }
        *self != before
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Question {
    fn of(how: &VersionCommand, address: SocketAddr) -> Question {
        Question { address, how: how.clone() }
    }

    fn http2(&self) -> bool {
        self.how.http2 || self.how.ready.grpc.is_some()
    }

    fn client(&self) -> Result<HttpClient, String> {
        let limits = ExchangeLimits { bytes: ANSWER, time: self.limit() };
        let client = if self.http2() { HttpClient::plain_http2(limits) } else { HttpClient::plain(limits) };
        client.map_err(|error| error.to_string())
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.how.ready.timeout.0)
    }

    /// One question. The error says what came instead of the right answer.
    async fn ask(&self, http: &HttpClient) -> Result<(), String> {
        match (&self.how.ready.path, &self.how.ready.grpc, &self.how.ready.command) {
            (Some(path), ..) => self.ask_http(http, path).await,
            (_, Some(service), _) => self.ask_grpc(http, service).await,
            (.., Some(command)) => {
                self.ask_command(command).await?;
                // What a program says of itself shows nothing of the address that requests go to.
                self.connect().await
            }
            _ => self.connect().await,
        }
    }

    async fn connect(&self) -> Result<(), String> {
        match timeout(self.limit(), TcpStream::connect(self.address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("it takes no connections at {}: {error}", self.address)),
            Err(_) => Err(format!("it takes no connection at {} within {}", self.address, self.how.ready.timeout)),
        }
    }

    async fn ask_http(&self, http: &HttpClient, path: &str) -> Result<(), String> {
        let url = format!("http://{}{path}", self.address);
        let close: &[_] = if self.http2() { &[] } else { &[(header::CONNECTION, "close")] };
        let request = OutgoingRequest { method: Method::GET, url: &url, headers: close, body: Bytes::new() };
        match http.status(request).await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("GET {path} is answered by {status}")),
            Err(error) => Err(format!("GET {path}: {error}")),
        }
    }

    async fn ask_grpc(&self, http: &HttpClient, service: &str) -> Result<(), String> {
        let url = format!("http://{}{GRPC_HEALTH}", self.address);
        let headers = &[(header::CONTENT_TYPE, "application/grpc"), (header::TE, "trailers")];
        let request = OutgoingRequest { method: Method::POST, url: &url, headers, body: health_request(service) };
        let (status, body) = http.exchange(request).await.map_err(|error| format!("gRPC health: {error}"))?;
        if !status.is_success() {
            return Err(format!("gRPC health is answered by {status}"));
        }
        match health_answer(&body) {
            Some(1) => Ok(()),
            Some(2) => Err("gRPC health is NOT_SERVING".to_owned()),
            Some(other) => Err(format!("gRPC health is {other}, not SERVING")),
            None => Err(format!("it does not answer {GRPC_HEALTH} for service {service:?}")),
        }
    }

    async fn ask_command(&self, command: &[String]) -> Result<(), String> {
        let (program, arguments) = command.split_first().map_or(("", &[][..]), |(one, rest)| (one.as_str(), rest));
        let mut asked = Command::new(program);
        asked.args(arguments).envs(&self.how.env).kill_on_drop(true).process_group(0);
        asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(directory) = &self.how.directory {
            asked.current_dir(directory);
        }
        let mut child = asked.spawn().map_err(|error| format!("{program} could not be started: {error}"))?;
        // What it started would run for ever otherwise, and be one more each time.
        let _group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()));
        match timeout(self.limit(), child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
            Ok(Err(error)) => Err(format!("{program} cannot be waited for: {error}")),
            Err(_) => Err(format!("{program} did not end within {}", self.how.ready.timeout)),
        }
    }
}

/// A process group that ends with the question that it was started for.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// A message of gRPC, `HealthCheckRequest {service = 1}`: a byte, its length, the field.
fn health_request(service: &str) -> Bytes {
    let name = service.as_bytes();
    // A name has 127 bytes at most: its length is one byte.
    let field = match u8::try_from(name.len()) {
        Ok(length @ 1..) => [&[0x0a, length], name].concat(),
        _ => vec![],
    };
    let length = u32::try_from(field.len()).unwrap_or_default().to_be_bytes();
    Bytes::from([&[0], length.as_slice(), &field].concat())
}

/// The status in a message of gRPC, `HealthCheckResponse {status = 1}`; `None`: it is none.
fn health_answer(body: &[u8]) -> Option<u8> {
    let length = u32::from_be_bytes(body.get(1..5)?.try_into().ok()?);
    let message = body.get(5..)?.get(..usize::try_from(length).ok()?)?;
    match message {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
