//! Probes wait for no proxy, and no address takes all connections.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use service::peers::Peers;
use service::{Authenticator, Hub, Limits, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(5);
const REPORT: &str =
    r#"{"protocol":1,"proxy":"a.shop","boot":"b","seq":1,"revision":"","instances":[],"complete":false,"flags":{}}"#;

async fn serve(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener, None, std::future::pending()));
    address
}

async fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!("{head} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{text}authorization: Bearer x\r\n\r\n{body}").as_bytes()).await.unwrap();
    stream
}

/// The first line of an answer, if it comes soon.
async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = send(address, &format!("GET {path}"), "").await;
    let mut said = vec![];
    tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await.ok()?.ok()?;
    String::from_utf8_lossy(&said).lines().next().map(str::to_owned)
}

// C21: every place is taken by reports whose tokens nobody reviews.
#[tokio::test]
async fn probes_wait_for_no_proxy() {
    let review = Box::new(|_: &str| Box::pin(std::future::pending()) as std::pin::Pin<Box<_>>);
    let addressed = Box::new(|_: &str, _, _: Option<&_>| Ok(()));
    let hub = Arc::new(Hub::new(Authenticator::Reviewed { review, addressed }));
    let limits = Limits { connections: 301, request: Duration::from_secs(60), ..Limits::default() };
    let (all, probes) = (serve(Server::new(limits, Arc::clone(&hub))).await, serve(Server::probes(hub)).await);
    let mut hung = vec![];
    for _ in 0..300 {
        hung.push(send(all, "POST /v1/report", REPORT).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(get(all, "/healthz").await.as_deref(), Some("HTTP/1.1 200 OK"));
    // Nor do people.
    assert_eq!(get(all, "/v1/status").await.as_deref(), Some("HTTP/1.1 200 OK"));
    // Not even a connection is left.
    hung.push(TcpStream::connect(all).await.unwrap());
    for path in ["/healthz", "/metrics"] {
        assert_eq!(get(probes, path).await.as_deref(), Some("HTTP/1.1 200 OK"), "{path}");
    }
    assert_eq!(get(probes, "/readyz").await.as_deref(), Some("HTTP/1.1 503 Service Unavailable"));
    assert_eq!(get(probes, "/v1/status").await.as_deref(), Some("HTTP/1.1 404 Not Found"));
}

// C21
#[test]
fn no_address_takes_all_connections() {
    let peers = Peers::new(2);
    let at = |text: &str| peers.admit(text.parse::<IpAddr>().unwrap());
    let held = [at("198.18.0.7"), at("::ffff:198.18.0.7")];
    assert!(held.iter().all(Option::is_some));
    assert!(at("198.18.0.7").is_none());
    assert!(at("198.18.0.8").is_some());
    drop(held);
    assert!(at("198.18.0.7").is_some());
    // From there others send, too.
    let here: Vec<_> = (0..5).map(|_| at("127.0.0.6")).collect();
    assert!(here.iter().all(Option::is_some));
}
