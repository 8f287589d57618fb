//! A flag service that runs, and what it answers.

// Not every test uses all of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flag::named::Named;
use flag::report::Report;
use machine::duration::Millis;
use machine::observation::Observation;
use machine::publication::Publication;
use machine::record::Draft;
use machine::status::{Phase, Status, Switch};
use machine::time::UnixMs;
use serde_json::Value;
use service::{Authenticator, Hub, Limits, serve_within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// More than any answer takes, less than a long poll.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Service {
    pub(crate) hub: Arc<Hub>,
    pub(crate) address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

/// It expects `open` without a token, and `edge` and `other` with one each.
pub(crate) fn hub() -> Arc<Hub> {
    let hub = Arc::new(Hub::new(Authenticator::listed()));
    let token = |token: &str| Some(token.to_owned());
    let proxies = [("open", None), ("edge", token("secret-1")), ("other", token("secret-2"))];
    hub.authenticator.set_proxies(proxies.map(|(name, token)| (name.to_owned(), token)).into());
    hub.readiness.mark_flags_observed();
    hub
}

impl Service {
    pub(crate) async fn start(limits: Limits) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (hub, address) = (hub(), listener.local_addr().unwrap());
        let server = tokio::spawn(serve_within(limits, listener, Arc::clone(&hub), std::future::pending()));
        Service { hub, address, server }
    }

    /// Publishes something else than before.
    pub(crate) fn publish(&self, report_every: u64) {
        assert!(self.hub.publish(publication("reviews", report_every)));
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, header: &str) -> Answer {
        self.get_by("127.0.0.1:7070", path, header).await
    }

    pub(crate) async fn get_by(&self, host: &str, path: &str, header: &str) -> Answer {
        let mut stream = self.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Answer::read(stream).await
    }

    pub(crate) async fn poll(&self, query: &str) -> Answer {
        self.get(&format!("/v1/snapshot?{query}"), "").await
    }

    pub(crate) async fn report(&self, report: &[u8], header: &str) -> Answer {
        let mut stream = self.connect().await;
        let length = report.len();
        let head = format!("POST /v1/report HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n");
        stream.write_all(format!("{head}{header}\r\n").as_bytes()).await.unwrap();
        stream.write_all(report).await.unwrap();
        Answer::read(stream).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// All that comes until the service closes the connection.
    pub(crate) async fn read(mut stream: TcpStream) -> Answer {
        let mut bytes = vec![];
        // What the service did not read makes it reset the connection after its answer.
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("an end in time");
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn reason(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        assert!(body["error"].as_str().is_some_and(|error| error.len() > 10), "no sentence in {body}");
        body["reason"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn publication(name: &str, report_every: u64) -> Publication {
    let yaml = format!("{{version: v1, services: [{{name: {name}}}]}}");
    let spec = serde_saphyr::from_str(&yaml).unwrap();
    let versions = BTreeSet::from(["v1".to_owned()]);
    let draft = Draft { uid: name, name, epoch: 1, active: "v1", versions: &versions, preview: None, before: None };
    let record = draft.record(&spec, &Observation::unknown()).seal().unwrap();
    let report_every = Millis(report_every);
    Publication {
        record,
        report_every,
        prove_routes: false,
        measure: false,
        probe: None,
        health: None,
        fence: None,
        audience: None,
    }
}

/// The status of a flip to what is published.
pub(crate) fn flips(published: &Publication) -> Status {
    let record = published.record.clone();
    let mut status = Status::new(&record.uid, &record.name, UnixMs(0));
    (status.phase, status.switch) =
        (Phase::Switching, Some(Switch { flipped_at: Some(UnixMs(7)), ..Switch::default() }));
    status.record = Some(record);
    status
}

pub(crate) fn report(proxy: &str) -> Vec<u8> {
    let report = Report {
        protocol: flag::PROTOCOL,
        proxy: proxy.to_owned(),
        boot: "b".to_owned(),
        seq: 1,
        revision: String::new(),
        instances: vec![1],
        complete: true,
        flags: Named::new(),
        findings: Default::default(),
    };
    serde_json::to_vec(&report).unwrap()
}
