//! How a benchmark or a test talks to its processes of simulated proxies: questions and answers, a line of JSON each, over
//! one connection of loopback that the process makes. It ends with that connection. I/O: that connection, the process.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::board::{Counts, Progress, Times};
use super::proxy::{Crowd, Proxy};
use super::{Kind, bad};
use crate::dir::TestDir;
use crate::load::Protocol;
use crate::process::{Process, program};

/// For the process to come up, and for one answer of it.
const LIMIT: Duration = Duration::from_secs(60);
/// So many proxies begin in one second: a service takes in so many connections at a time, and who does not fit waits for a
/// second.
const BEGIN_PER_S: usize = 2_000;

/// What a process of proxies is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Question {
    /// What happened to them in all: [`Counts`].
    Counts,
    /// How far they are with a record: [`Progress`], if one of them has it.
    Progress {
        /// The lowest epoch that it may have.
        from: u64,
        /// Its active version.
        version: String,
    },
    /// When a record came: [`Times`].
    Times {
        /// Its epoch.
        epoch: u64,
    },
    /// How many had a report answered since then.
    AnsweredSince {
        /// In microseconds of the steady clock.
        us: u64,
    },
}

/// What a process of proxies is to do.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Of which kind they are.
    pub kind: Kind,
    /// How many.
    pub count: usize,
    /// Where the flag service is.
    pub service: SocketAddr,
    /// What they speak with it.
    pub protocol: Protocol,
}

/// A process of simulated proxies, seen from outside.
#[derive(Debug)]
pub struct Proxies {
    /// How many there are.
    pub count: usize,
    /// The process, for its CPU and memory.
    pub process: Process,
    stream: BufReader<TcpStream>,
}

impl Proxies {
    /// Starts them.
    pub async fn start(dir: &TestDir, orders: &Orders) -> Result<Proxies> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut command = Command::new(program("proxies")?);
        command
            .args(["--control", &listener.local_addr()?.to_string(), "--service", &orders.service.to_string()])
            .args(["--count", &orders.count.to_string()]);
        if orders.kind == Kind::Bad {
            command.arg("--bad");
        }
        if orders.protocol == Protocol::H1 {
            command.arg("--http1");
        }
        let name = format!("proxies-{}", orders.kind.word());
        let process = Process::start(dir, &name, command)?;
        let (stream, _) = timeout(LIMIT, listener.accept()).await.with_context(|| format!("no word of {name}"))??;
        Ok(Proxies { count: orders.count, process, stream: BufReader::new(stream) })
    }

    /// What happened to them in all.
    pub async fn counts(&mut self) -> Result<Counts> {
        self.ask(Question::Counts).await
    }

    /// How far they are with the first record that goes to this version, of this epoch or a later one; `None`: none of
    /// them has it.
    pub async fn progress(&mut self, from: u64, version: &str) -> Result<Option<Progress>> {
        self.ask(Question::Progress { from, version: version.to_owned() }).await
    }

    /// When a record came.
    pub async fn times(&mut self, epoch: u64) -> Result<Times> {
        self.ask(Question::Times { epoch }).await
    }

    /// How many had a report answered since a time of the steady clock.
    pub async fn answered_since(&mut self, us: u64) -> Result<usize> {
        self.ask(Question::AnsweredSince { us }).await
    }

    async fn ask<T: DeserializeOwned>(&mut self, question: Question) -> Result<T> {
        self.process.check_running()?;
        let exchange = async {
            write_line(&mut self.stream, &question).await?;
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the proxies are gone");
            Ok(serde_json::from_str(&line)?)
        };
        timeout(LIMIT, exchange).await.with_context(|| format!("no answer to {question:?}"))?
    }
}

/// What the process itself does: it lives as long as somebody may ask. `control` is who asks.
pub async fn obey(control: SocketAddr, orders: Orders) -> Result<()> {
    let stream = TcpStream::connect(control).await.context("whoever started these proxies is gone")?;
    stream.set_nodelay(true)?;
    let crowd = Arc::new(Crowd::new(orders.service, orders.protocol, orders.count));
    let spread = Duration::from_millis((orders.count * 1_000 / BEGIN_PER_S) as u64);
    for number in 0..orders.count {
        let name = orders.kind.name(number);
        if orders.kind == Kind::Bad {
            tokio::spawn(bad::misbehave(Arc::clone(&crowd), number, name.clone()));
        }
        tokio::spawn(Proxy::new(&crowd, number, name).live(spread.mul_f64(fastrand::f64())));
    }
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let answer = answer(&crowd, serde_json::from_str(&line)?)?;
        write_line(&mut stream, &answer).await?;
        line.clear();
    }
    Ok(())
}

fn answer(crowd: &Crowd, question: Question) -> Result<Value> {
    let board = crowd.board();
    Ok(match question {
        Question::Counts => serde_json::to_value(board.counts())?,
        Question::Progress { from, version } => serde_json::to_value(board.progress(from, &version))?,
        Question::Times { epoch } => serde_json::to_value(board.times(epoch))?,
        Question::AnsweredSince { us } => board.answered_since(us).into(),
    })
}

async fn write_line(stream: &mut BufReader<TcpStream>, what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(stream.write_all(&line).await?)
}
