//! Single requests for tests, sent byte for byte as they are written. I/O: one connection each.
//!
//! A library would make header names lower case and refuse what a hostile client sends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// A request over HTTP/1.1, on a connection of its own.
#[derive(Debug, Clone)]
pub struct Call {
    to: SocketAddr,
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
    body: String,
    limit: Duration,
    from: Option<IpAddr>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names as they came, in order.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: String,
}

impl Call {
    /// A GET.
    pub fn get(to: SocketAddr, path: &str) -> Call {
        Call {
            to,
            method: "GET".to_owned(),
            path: path.to_owned(),
            host: to.to_string(),
            headers: Vec::new(),
            body: String::new(),
            limit: Duration::from_secs(30),
            from: None,
        }
    }

    /// A POST.
    pub fn post(to: SocketAddr, path: &str, body: &str) -> Call {
        Call { method: "POST".to_owned(), body: body.to_owned(), ..Call::get(to, path) }
    }

    /// Asks for another host than the address.
    pub fn host(mut self, host: &str) -> Call {
        self.host = host.to_owned();
        self
    }

    /// Adds a header, spelled like this, also if there is one of that name already.
    pub fn header(mut self, name: &str, value: &str) -> Call {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How long the whole call may take; 30 s unless set.
    pub fn limit(mut self, limit: Duration) -> Call {
        self.limit = limit;
        self
    }

    /// Comes from this address, which has to be one of this machine's.
    pub fn from(mut self, address: IpAddr) -> Call {
        self.from = Some(address);
        self
    }

    /// Sends it and reads the answer to its end.
    pub async fn send(&self) -> Result<Answer> {
        let what = || format!("{} http://{}{}", self.method, self.to, self.path);
        timeout(self.limit, self.exchange()).await.with_context(what)?.with_context(what)
    }

    async fn exchange(&self) -> Result<Answer> {
        let mut request =
            format!("{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.method, self.path, self.host);
        for (name, value) in &self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            request += &format!("content-length: {}\r\n", self.body.len());
        }
        request += "\r\n";
        request += &self.body;
        let socket = if self.to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        let mut stream = socket.connect(self.to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        parse(&bytes)
    }
}

impl Answer {
    /// The first value of a header, in any spelling.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The version that answered.
    pub fn version(&self) -> &str {
        self.header("x-served-by").unwrap_or("-")
    }

    /// The values of `x-versionflag` that the backend got, joined by `|`.
    pub fn got_flag(&self) -> &str {
        self.header("x-got-flag").unwrap_or("-")
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body).with_context(|| format!("{} with body {:?}", self.status, self.body))
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, rest) = text.split_once("\r\n\r\n").with_context(|| format!("no answer but {text:?}"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: String::new() };
    let chunked = answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = answer.header("content-length").map(str::parse::<usize>).transpose()?;
    answer.body = match length {
        _ if chunked => dechunk(rest)?,
        Some(length) if rest.len() < length => bail!("the body ended after {} of {length} bytes", rest.len()),
        _ => rest.to_owned(),
    };
    Ok(answer)
}

fn dechunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("the body ended within a chunk")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        let (chunk, after) = after.split_at_checked(size).context("the body ended within a chunk")?;
        body += chunk;
        rest = after.strip_prefix("\r\n").context("a chunk without an end")?;
    }
}
