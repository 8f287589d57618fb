//! Bad proxies: they are listed, and do over and over what no proxy should: send too much, lie, or take for ever. Each also
//! polls and reports as it should, over other connections: a switch waits for everybody who is listed. I/O: connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::proxy::Crowd;
use super::{Kind, token};

/// Between two deeds of one proxy.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a deed goes on at most, if the service does not end it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two bytes of one that is slow.
const SLOW: Duration = Duration::from_secs(1);
/// Bytes of a request's answer that are looked at.
const HEAD: usize = 64;

/// Bytes of answers that have room at one that never reads: with more, it is busy for long before it is in the way.
const UNREAD: u32 = 4_096;

/// What a bad proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
enum Deed {
    /// A report that is larger than any may be.
    Oversized,
    /// A report in the name of a good proxy.
    Impersonation,
    /// A report of an epoch that was never written.
    ForgedEpoch,
    /// A request of which a byte comes each second.
    SlowHead,
    /// A report of which a byte comes each second.
    SlowBody,
    /// Polls whose answers are never read.
    NeverReads,
}

/// What such a proxy does for ever.
pub(super) async fn misbehave(crowd: Arc<Crowd>, number: usize, name: String) {
    let deeds = <Deed as strum::VariantArray>::VARIANTS;
    let Some(deed) = deeds.get(number % deeds.len()).copied() else { return };
    sleep(PAUSE.mul_f64(fastrand::f64())).await;
    loop {
        let word: &str = deed.into();
        let came = match act(crowd.service, deed, number, &name).await {
            Ok(came) => came,
            Err(_) => "cut off".to_owned(),
        };
        crowd.board().misdeed(format!("{word}: {came}"));
        sleep(PAUSE).await;
    }
}

/// Does it once, on a connection of its own. What came of it: a status, or what ended it.
async fn act(service: SocketAddr, deed: Deed, number: usize, name: &str) -> Result<String> {
    let socket = if service.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if deed == Deed::NeverReads {
        socket.set_recv_buffer_size(UNREAD)?;
    }
    let mut stream = socket.connect(service).await?;
    let victim = Kind::Good.name(number);
    let lie = |proxy: &str, epoch: u64| {
        format!(
            r#"{{"protocol":{},"proxy":"{proxy}","boot":"forged","seq":{},"instances":[1],"complete":true,"flags":{{"scale":{{"epoch":{epoch},"hash":"0","gate":"open"}}}}}}"#,
            flag::PROTOCOL,
            u32::MAX
        )
    };
    match deed {
        Deed::Oversized => post(&mut stream, name, &" ".repeat(flag::limits::REPORT_BYTES + 1)).await,
        Deed::Impersonation => post(&mut stream, name, &lie(&victim, flag::limits::EPOCH_MAX)).await,
        Deed::ForgedEpoch => post(&mut stream, name, &lie(name, flag::limits::EPOCH_MAX + 1)).await,
        Deed::SlowHead => drip(&mut stream, &head(name, "GET /v1/snapshot", 0)).await,
        Deed::SlowBody => {
            stream.write_all(head(name, "POST /v1/report", 1_000).as_bytes()).await?;
            drip(&mut stream, &" ".repeat(1_000)).await
        }
        Deed::NeverReads => {
            let poll = head(name, &format!("GET /v1/snapshot?proxy={name}&revision=none"), 0);
            flood(&mut stream, poll.as_bytes()).await
        }
    }
}

fn head(name: &str, request: &str, bytes: usize) -> String {
    let token = token(name);
    format!(
        "{request} HTTP/1.1\r\nhost: versionflag\r\nauthorization: Bearer {token}\r\ncontent-length: {bytes}\r\n\r\n"
    )
}

async fn post(stream: &mut TcpStream, name: &str, body: &str) -> Result<String> {
    stream.write_all(head(name, "POST /v1/report", body.len()).as_bytes()).await?;
    // Who refuses it need not read all of it.
    let _ = stream.write_all(body.as_bytes()).await;
    timeout(PATIENCE, status(stream)).await.context("no answer")?
}

async fn status(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = [0; HEAD];
    let read = stream.read(&mut bytes).await?;
    let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned();
    Ok(text.split(' ').nth(1).context("no answer")?.to_owned())
}

/// Sends a byte after the other until the service has enough of it.
async fn drip(stream: &mut TcpStream, text: &str) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    for byte in text.bytes() {
        stream.write_all(&[byte]).await?;
        match timeout(SLOW, status(stream)).await {
            Ok(answer) => return answer,
            Err(_) if Instant::now() >= end => break,
            Err(_) => {}
        }
    }
    Ok("borne".to_owned())
}

/// Sends the same request until nothing more is taken, and holds on to the connection.
async fn flood(stream: &mut TcpStream, request: &[u8]) -> Result<String> {
    let writes = async {
        loop {
            if stream.write_all(request).await.is_err() {
                return;
            }
        }
    };
    let ended = timeout(PATIENCE, writes).await;
    Ok(if ended.is_ok() { "cut off" } else { "borne" }.to_owned())
}
