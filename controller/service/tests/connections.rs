//! The connections of the flag service: what clients may take of them, and in which protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;
use std::time::Instant;

use axum::body::Bytes;
use axum::http::Request;
use flag::snapshot::Snapshot;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use service::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::running::{SOON, Service, publication, report};

mod running;

/// Sends byte by byte until the service has had enough, and gives what it said.
async fn drip(stream: TcpStream, bytes: &[u8]) -> String {
    let (mut from, mut to) = stream.into_split();
    let mut said = vec![];
    let drips = async {
        for byte in bytes.iter().cycle() {
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
            // The slowness is the fault that is played here.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        read = from.read_to_end(&mut said) => drop(read),
        () = drips => {}
        () = tokio::time::sleep(SOON) => panic!("it is not cut off"),
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn impatient() -> Limits {
    let soon = Duration::from_millis(300);
    Limits { head: soon, request: soon, ..Limits::default() }
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let service = Service::start(impatient()).await;
    let head = drip(service.connect().await, b"GET /healthz HTTP/1.1\r\nx: ").await;
    assert!(!head.contains(" 200 "), "{head}");
    let mut stream = service.connect().await;
    stream.write_all(b"POST /v1/report HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    let body = drip(stream, b" ").await;
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    // A poll may take longer than any other request.
    let begin = Instant::now();
    assert_eq!(service.poll("proxy=open&waitMs=1000").await.status, 204);
    assert!(begin.elapsed() >= Duration::from_secs(1), "the poll was cut off");
}

/// C18: who finds no room is told.
#[tokio::test]
async fn idle_connections_make_room() {
    let service = Service::start(Limits { connections: 2, ..impatient() }).await;
    let mut idle = [service.connect().await, service.connect().await];
    let full = service.get("/healthz", "").await;
    assert_eq!((full.status, full.reason()), (503, "full".to_owned()));
    assert!(full.head.contains("retry-after: "), "{}", full.head);
    let mut other = service.connect().await;
    other.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut said = vec![];
    tokio::time::timeout(SOON, other.read_to_end(&mut said)).await.expect("an end in time").unwrap();
    assert_eq!((said.get(3), said.get(12), said.last()), (Some(&4), Some(&7), Some(&11)), "settings, and a GOAWAY");
    for stream in &mut idle {
        let ended = tokio::time::timeout(SOON, stream.read(&mut [0; 1])).await.expect("an end in time");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    assert_eq!(service.get("/healthz", "").await.status, 200);
    assert!(service.get("/metrics", "").await.body.contains("versionflag_connections_turned_away_total 2\n"));
}

/// Whoever speaks HTTP/2 has one connection for all, and is cut off like any other.
#[tokio::test]
async fn a_proxy_needs_one_connection() {
    let service = Service::start(impatient()).await;
    service.hub.publish(publication("reviews", 1_000));
    let io = TokioIo::new(service.connect().await);
    let (mut requests, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut ask = |method: &str, path: &str, body: Vec<u8>| {
        let uri = format!("http://flags{path}");
        let request = Request::builder().method(method).uri(uri).body(Full::new(Bytes::from(body))).unwrap();
        requests.send_request(request)
    };
    let first = ask("GET", "/v1/snapshot?proxy=open&waitMs=0", vec![]).await.unwrap();
    assert_eq!(first.status(), 200);
    let bytes = first.into_body().collect().await.unwrap().to_bytes();
    let revision = Snapshot::parse(&bytes).unwrap().revision;
    let path = format!("/v1/snapshot?proxy=open&waitMs=20000&revision={revision}");
    let (waits, reported) = (ask("GET", &path, vec![]), ask("POST", "/v1/report", report("open")));
    let reported = tokio::time::timeout(SOON, reported).await.expect("an answer beside the poll").unwrap();
    assert_eq!(reported.status(), 200);
    let (answer, ()) = tokio::join!(waits, async {
        // Longer than a connection may be silent: a poll is no silence.
        tokio::time::sleep(Duration::from_millis(700)).await;
        service.publish(500);
    });
    assert_eq!(answer.unwrap().status(), 200);
    // A browser that has a name of its own for this machine says that name here.
    let asked = ask("GET", "/v1/status", vec![]).await.unwrap();
    assert_eq!(asked.status(), 403);
    let _ = tokio::time::timeout(SOON, connection).await.expect("an end in time").unwrap();
}

/// Another controller leads: whoever asks this one is to connect anew, whatever it speaks.
#[tokio::test]
async fn who_is_sent_away_loses_the_connection() {
    let service = Service::start(Limits::default()).await;
    service.hub.publish(publication("reviews", 1_000));
    let io = TokioIo::new(service.connect().await);
    let (mut requests, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    service.hub.set_leads(false);
    let request = Request::builder().uri("http://flags/v1/snapshot?proxy=open").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(requests.send_request(request).await.unwrap().status(), 503);
    tokio::time::timeout(SOON, connection).await.expect("an end in time").unwrap().unwrap();
}

#[tokio::test]
async fn who_never_says_what_it_speaks_is_cut_off() {
    let service = Service::start(impatient()).await;
    for begun in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = service.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut vec![])).await;
        ended.unwrap_or_else(|_| panic!("{begun:?} is not cut off")).ok();
    }
}
