//! A simulated proxy: it keeps one long poll open, puts what comes into effect at once, and reports, at the pace and with
//! the patience of the filter. I/O: its requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use flag::backoff;
use flag::count::Totals;
use flag::level::LEVEL;
use flag::named::Named;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::Board;
use super::connection::{Answer, Slot};
use super::content::{Content, Contents, Reporter};
use super::token;
use crate::load::Protocol;
use crate::lock::lock;
use crate::overlap::steady_us;

/// How long the flag service may hold a long poll, as in the filter; and so for the other times.
const WAIT_MS: u64 = 20_000;
const POLL_LIMIT: Duration = Duration::from_millis(WAIT_MS + 5_000);
const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// Between the beginnings of two polls, where the first brings nothing new.
const POLL_AGAIN: Duration = Duration::from_secs(1);

/// What all proxies of one process share.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) service: SocketAddr,
    protocol: Protocol,
    contents: Mutex<Contents>,
    board: Mutex<Board>,
}

/// One proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    crowd: Arc<Crowd>,
    number: usize,
    name: String,
    boot: String,
    bearer: String,
    polls: Arc<Slot>,
    reports: Arc<Slot>,
    /// The snapshot in effect.
    content: Mutex<Option<Arc<Content>>>,
    news: Notify,
    /// Epoch of the record in effect, and of the last one whose ack was answered.
    epoch: AtomicU64,
    acked: AtomicU64,
}

/// A request was in vain.
#[derive(Debug)]
struct Failed {
    why: anyhow::Error,
    /// In how many seconds to ask again, where the service says that.
    retry_after: Option<u64>,
}

impl Failed {
    /// How long to wait after so many failures in a row: never in step with the others.
    fn wait(&self, failures: u32) -> Duration {
        let backoff = Duration::from_millis(backoff::wait_ms(failures, fastrand::u64(..)));
        match self.retry_after.map(Duration::from_secs) {
            Some(asked) => backoff.max(asked.mul_f64(1.0 + fastrand::f64() / 2.0)),
            None => backoff,
        }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(why: anyhow::Error) -> Failed {
        Failed { why, retry_after: None }
    }
}

impl From<Answer> for Failed {
    fn from(Answer { status, retry_after, body }: Answer) -> Failed {
        let text = String::from_utf8_lossy(&body);
        Failed { why: anyhow!("status {status}: {}", flag::shortened(&text)), retry_after }
    }
}

impl Crowd {
    pub(super) fn new(service: SocketAddr, protocol: Protocol, proxies: usize) -> Crowd {
        Crowd { service, protocol, contents: Mutex::default(), board: Mutex::new(Board::new(proxies)) }
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }
}

impl Proxy {
    pub(super) fn new(crowd: &Arc<Crowd>, number: usize, name: String) -> Proxy {
        let slot = || Arc::new(Slot::new(crowd.service, crowd.protocol));
        let polls = slot();
        let reports = match crowd.protocol {
            Protocol::H1 => slot(),
            Protocol::H2 => Arc::clone(&polls),
        };
        Proxy {
            crowd: Arc::clone(crowd),
            number,
            boot: format!("{:016x}", steady_us()),
            bearer: format!("Bearer {}", token(&name)),
            name,
            polls,
            reports,
            content: Mutex::default(),
            news: Notify::new(),
            epoch: AtomicU64::new(0),
            acked: AtomicU64::new(0),
        }
    }

    /// Polls and reports for ever, from so much later on.
    pub(super) async fn live(self, later: Duration) {
        sleep(later).await;
        tokio::join!(self.polls(), self.reports());
    }

    async fn polls(&self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            match self.poll().await {
                Ok(true) => failures = 0,
                Ok(false) => {
                    failures = 0;
                    sleep_until(began + POLL_AGAIN).await;
                }
                Err(failed) => {
                    failures += 1;
                    self.crowd.board().poll_failed(&failed.why);
                    sleep(failed.wait(failures)).await;
                }
            }
        }
    }

    /// One long poll. Whether it brought a snapshot that this proxy did not have.
    async fn poll(&self) -> Result<bool, Failed> {
        let had = lock(&self.content).as_ref().map(|content| content.snapshot.revision.clone()).unwrap_or_default();
        let (name, level) = (&self.name, LEVEL);
        let path = format!("/v1/snapshot?proxy={name}&revision={had}&waitMs={WAIT_MS}&level={level}");
        let answer = self.polls.send(self.request(Method::GET, &path, vec![])?, POLL_LIMIT).await?;
        match answer.status {
            200 => {}
            204 => return Ok(false),
            _ => return Err(answer.into()),
        }
        let content = lock(&self.crowd.contents).of(&answer.body)?;
        let is_new = content.snapshot.revision != had;
        self.take(content);
        Ok(is_new)
    }

    /// Puts a snapshot into effect. The higher epoch wins, as everywhere.
    fn take(&self, content: Arc<Content>) {
        if let Some(record) = content.record() {
            let had = self.epoch.fetch_max(record.epoch, Ordering::Relaxed);
            if record.epoch > had {
                self.crowd.board().got(steady_us(), record.epoch, &record.active);
            } else if record.epoch < had {
                self.crowd.board().set_back();
            }
        }
        *lock(&self.content) = Some(content);
        self.news.notify_one();
    }

    async fn reports(&self) {
        // Totals only grow, and nothing stays open.
        let mut sent = Named::<Totals>::new();
        let (mut seq, mut failures) = (0, 0);
        self.news.notified().await;
        loop {
            let Some(content) = lock(&self.content).clone() else { return };
            if let Some(record) = content.record() {
                let so_far = sent.get(&record.active).copied().unwrap_or_default();
                sent.insert(record.active.clone(), so_far.plus(Totals { started: 1, finished: 1 }));
            }
            seq += 1;
            let due = match self.report(&content, seq, &sent).await {
                Ok(first) => {
                    failures = 0;
                    let every = Duration::from_millis(content.snapshot.report_every_ms.into());
                    // All have acked at about the same time: they must not go on in step.
                    Instant::now() + if first { every.mul_f64(fastrand::f64()) } else { every }
                }
                Err(failed) => {
                    failures += 1;
                    self.crowd.board().report_failed(&failed.why);
                    Instant::now() + failed.wait(failures)
                }
            };
            tokio::select! {
                () = self.news.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// One report. Whether it was the first of this record.
    async fn report(&self, content: &Content, seq: u64, sent: &Named<Totals>) -> Result<bool, Failed> {
        let from = Reporter { proxy: &self.name, boot: &self.boot, seq };
        let body = content.report(from, sent)?;
        let answer = self.reports.send(self.request(Method::POST, "/v1/report", body)?, REPORT_LIMIT).await?;
        if answer.status != 200 {
            return Err(answer.into());
        }
        let epoch = content.record().map_or(0, |record| record.epoch);
        let first = self.acked.fetch_max(epoch, Ordering::Relaxed) < epoch;
        let (now_us, mut board) = (steady_us(), self.crowd.board());
        board.answered(now_us, self.number);
        if first {
            board.acked(now_us, epoch);
        }
        Ok(first)
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>> {
        let request = Request::builder().method(method).header(AUTHORIZATION, &self.bearer);
        let request = match self.crowd.protocol {
            Protocol::H1 => request.uri(path).header(HOST, "versionflag"),
            Protocol::H2 => request.uri(format!("http://versionflag{path}")),
        };
        let request = if body.is_empty() { request } else { request.header(CONTENT_TYPE, "application/json") };
        request.body(Full::new(body.into())).context("a request")
    }
}
