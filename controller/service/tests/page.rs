//! The page of the flag service: what it is sent with, and what it is sent.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use rstest::rstest;
use serde_json::Value;
use service::{Authenticator, Hub, Limits, router, serve_within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::Service as _;

async fn get(hub: &Arc<Hub>, path: &str, more: (&str, &str)) -> Response {
    let mut request = Request::get(path).header(more.0, more.1).body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo("127.0.0.1:1".parse::<SocketAddr>().unwrap()));
    router(Arc::clone(hub), Limits::default()).call(request).await.unwrap()
}

fn hub() -> Arc<Hub> {
    let hub = Arc::new(Hub::new(Authenticator::listed()));
    hub.show_flag(view::at_work());
    hub
}

/// The next event of a stream.
async fn event(events: &mut Body) -> Vec<Value> {
    let frame = events.frame().await.unwrap().unwrap().into_data().unwrap();
    let text = std::str::from_utf8(&frame).unwrap();
    serde_json::from_str(text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap()).unwrap()
}

#[rstest]
#[case("/", "text/html; charset=utf-8")]
#[case("/page.css", "text/css; charset=utf-8")]
#[case("/page.js", "text/javascript; charset=utf-8")]
#[tokio::test]
async fn a_part_of_the_page_is_sent_once(#[case] path: &str, #[case] kind: &str) {
    let hub = hub();
    let answer = get(&hub, path, ("x-none", "")).await;
    assert_eq!((answer.status(), answer.headers()[header::CONTENT_TYPE].to_str().unwrap()), (StatusCode::OK, kind));
    let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let tag = answer.headers()[header::ETAG].to_str().unwrap().to_owned();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!((500..40_000).contains(&text.len()), "{}", text.len());
    // It works behind any path, and without anything from elsewhere.
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(!text.contains("innerHTML") && !text.contains("=\"/") && !text.contains("https://"), "{path}");
    let again = get(&hub, path, ("if-none-match", &format!("\"other\", W/{tag}"))).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(again.into_body().collect().await.unwrap().to_bytes().is_empty());
}

/// A name that somebody had lead to this machine reads nothing.
#[rstest]
#[tokio::test]
async fn the_page_is_not_served_by_a_name_of_somebody_else(#[values("/", "/v1/events")] path: &str) {
    assert_eq!(get(&hub(), path, ("host", "evil.example")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(get(&hub(), path, ("host", "localhost:7070")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_page_is_told_of_a_change() {
    let hub = hub();
    let answer = get(&hub, "/v1/events", ("x-none", "")).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut events = answer.into_body();
    let first = event(&mut events).await;
    assert_eq!((&first[0]["status"]["phase"], &first[0]["advice"]), (&"Settling".into(), &"rollback".into()));
    hub.show_flag(view::view());
    assert_eq!(event(&mut events).await[0]["status"]["phase"], "Stable");
    // Whoever comes later is sent what is known at once, and both the same.
    let mut late = get(&hub, "/v1/events", ("x-none", "")).await.into_body();
    assert_eq!(event(&mut late).await[0]["status"]["phase"], "Stable");
    // After the last one has gone somebody looks again for the next one.
    drop((events, late));
    hub.show_flag(view::at_work());
    let mut anew = get(&hub, "/v1/events", ("x-none", "")).await.into_body();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while event(&mut anew).await[0]["status"]["phase"] != "Settling" {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn more_pages_than_there_is_room_for_are_told_so() {
    let hub = hub();
    let mut open = vec![];
    for _ in 0..64 {
        let answer = get(&hub, "/v1/events", ("x-none", "")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        open.push(answer.into_body());
    }
    let refused = get(&hub, "/v1/events", ("x-none", "")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("64 pages are open already: close one"));
    open.pop();
    assert_eq!(get(&hub, "/v1/events", ("x-none", "")).await.status(), StatusCode::OK);
}

/// However large a fleet is, a page is not.
#[tokio::test]
async fn a_page_names_some_proxies_only() {
    let hub = hub();
    let mut view = view::at_work();
    let late =
        |number: usize| machine::fleet::ledger::Laggard { proxy: number.to_string(), why: "no report".to_owned() };
    view.fleet.laggards = (0..10_000).map(late).collect();
    hub.show_flag(view);
    let mut events = get(&hub, "/v1/events", ("x-none", "")).await.into_body();
    assert_eq!(event(&mut events).await[0]["fleet"]["laggards"].as_array().unwrap().len(), 64);
}

/// A connection on which a page is sent news is in use, however long ago its request was.
#[tokio::test]
async fn the_news_of_a_page_outlive_the_time_of_an_idle_connection() {
    let limits = Limits { head: Duration::from_millis(300), request: Duration::from_millis(300), ..Limits::default() };
    let (hub, listener) = (hub(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_within(limits, listener, Arc::clone(&hub), std::future::pending()));
    let mut page = TcpStream::connect(address).await.unwrap();
    page.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut next = async || {
        let mut some = vec![0; 1 << 16];
        let length = tokio::time::timeout(Duration::from_secs(20), page.read(&mut some)).await.unwrap().unwrap();
        length > 0
    };
    let begun = std::time::Instant::now();
    for view in [view::view(), view::at_work()].into_iter().cycle() {
        assert!(next().await, "it was cut off after {:?}", begun.elapsed());
        hub.show_flag(view);
        if begun.elapsed() > limits.head * 4 {
            break;
        }
    }
}
