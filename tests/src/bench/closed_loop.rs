//! Load as fast as it is answered, over a few keep-alive connections. I/O: the connections.
//!
//! It does as little as possible per request, so that on two cores the Envoy is what is busy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(super) struct Connections {
    streams: Vec<TcpStream>,
    request: Arc<[u8]>,
}

impl Connections {
    pub(super) async fn open(target: SocketAddr, host: &str, count: usize) -> Result<Connections> {
        let mut streams = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes().into();
        Ok(Connections { streams, request })
    }

    /// Keeps every connection busy for so long; gives how long it really took.
    pub(super) async fn drive(&mut self, time: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for mut stream in self.streams.drain(..) {
            let request = self.request.clone();
            tasks.spawn(async move {
                while begin.elapsed() < time {
                    stream.write_all(&request).await?;
                    answer(&mut stream).await?;
                }
                anyhow::Ok(stream)
            });
        }
        while let Some(task) = tasks.join_next().await {
            self.streams.push(task??);
        }
        Ok(begin.elapsed())
    }
}

/// Reads one answer, which is small and has a `content-length`.
async fn answer(stream: &mut TcpStream) -> Result<()> {
    let (mut buffer, mut filled) = ([0; 2048], 0);
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the connection was closed in the middle of an answer");
        filled += read;
        let text = &buffer[..filled];
        let Some(head) = text.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        ensure!(text.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(text));
        let mut lines = text[..head].split(|byte| *byte == b'\n');
        let Some(length) = lines.find_map(|line| line.strip_prefix(b"content-length: ")) else {
            bail!("an answer without a content-length: {}", String::from_utf8_lossy(text));
        };
        let length: usize = std::str::from_utf8(length)?.trim().parse()?;
        if filled == head + 4 + length {
            return Ok(());
        }
    }
}
