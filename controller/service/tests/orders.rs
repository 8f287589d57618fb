//! `POST /v1/orders` and `/v1/requests`: who may ask, and what is said of a body of another form.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use http_body_util::BodyExt;
use machine::order::{Order, Verb};
use machine::time::UnixMs;
use rstest::rstest;
use serde_json::{Value, json};
use service::{Authenticator, FlagView, Hub, Limits, router};
use tower::Service as _;

use crate::view::view;

mod view;

const RESTART: &str = r#"{"flag": "shop/reviews", "verb": "restart", "version": "v2", "id": "1", "started": 7}"#;
const PROMOTE: &str = r#"{"flag": "shop/reviews", "action": "promote"}"#;

fn hub() -> Hub {
    let hub = Hub::new(Authenticator::listed()).with_orders();
    hub.show_flag(view());
    hub.readiness.mark_flags_observed();
    hub
}

/// Status and body of the answer to a POST by this peer, with one more header.
async fn post(hub: &Arc<Hub>, path: &str, peer: &str, header: (&str, &str), body: &str) -> (u16, Value) {
    let request = Request::post(path).header("content-type", "application/json").header(header.0, header.1);
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
    let answer = router(Arc::clone(hub), Limits::default()).call(request).await.unwrap();
    let (status, body) = (answer.status().as_u16(), answer.into_body().collect().await.unwrap().to_bytes());
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// T19, C24: the same peers, hosts and pages are let in, and the same are not. T23: what is wrong with a body is said
/// in plain words.
#[rstest]
#[case::here("127.0.0.1:1", ("host", "127.0.0.1:7070"), None, 202, "")]
#[case::elsewhere("198.51.100.1:1", ("host", "127.0.0.1"), None, 403, "is another machine")]
#[case::a_page("127.0.0.1:1", ("origin", "https://evil.example"), None, 403, "a page in a browser")]
#[case::a_name("127.0.0.1:1", ("host", "evil.example"), None, 403, "by a name of somebody else")]
#[case::elsewhere_first("198.51.100.1:1", ("host", "127.0.0.1"), Some("{"), 403, "is another machine")]
#[case::no_json("127.0.0.1:1", ("host", "localhost"), Some("{"), 400, "")]
#[case::a_field("127.0.0.1:1", ("host", "[::1]"), Some(r#"{"flagg": "a"}"#), 422, "field (did you mean flag?)")]
#[case::nothing("127.0.0.1:1", ("host", "[::1]"), Some("{}"), 422, "flag is missing")]
#[case::a_number("127.0.0.1:1", ("host", "[::1]"), Some(r#"{"flag": 1}"#), 422, "flag is read as the number 1")]
#[tokio::test]
async fn an_order_is_taken_like_a_request(
    #[case] peer: &str,
    #[case] header: (&str, &str),
    #[case] body: Option<&str>,
    #[case] status: u16,
    #[case] says: &str,
) {
    let hub = Arc::new(hub());
    for (path, good) in [("/v1/orders", RESTART), ("/v1/requests", PROMOTE)] {
        let (found, answer) = post(&hub, path, peer, header, body.unwrap_or(good)).await;
        assert_eq!(found, status, "{path}: {answer}");
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(says), "{path}: {error}");
        assert!(!error.contains("expected") && !error.contains("variant"), "{path}: {error}");
    }
}

#[tokio::test]
async fn orders_wait_until_they_are_answered() {
    let here = ("127.0.0.1:1", ("host", "localhost"));
    let hub = Arc::new(hub());
    let (status, answer) = post(&hub, "/v1/orders", here.0, here.1, RESTART).await;
    assert_eq!((status, answer), (202, json!({ "id": "1" })));
    let orders = hub.orders.as_ref().unwrap();
    let expected = Order {
        id: "1".to_owned(),
        verb: Verb::Restart,
        version: "v2".to_owned(),
        force: false,
        started: Some(UnixMs(7)),
    };
    for _ in 0..2 {
        assert_eq!(orders.next_request("shop/reviews", |_| false), Some(expected.clone()));
    }
    assert_eq!(orders.next_request("shop/reviews", |id| id == "1"), None);
    let start = RESTART.replace("restart", "start");
    let (status, answer) = post(&hub, "/v1/orders", here.0, here.1, &start).await;
    assert!(status == 422 && answer["error"].as_str().unwrap().starts_with("verb is \"start\""), "{answer}");
    let other = RESTART.replace("shop/reviews", "ratings");
    let (status, answer) = post(&hub, "/v1/orders", here.0, here.1, &other).await;
    assert_eq!((status, answer["reason"].as_str()), (404, Some("unknown_flag")), "{answer}");
    // In a cluster the platform does this.
    let cluster = Hub::new(Authenticator::listed());
    cluster.show_flag(view());
    let (status, answer) = post(&Arc::new(cluster), "/v1/orders", here.0, here.1, RESTART).await;
    assert_eq!((status, answer["reason"].as_str()), (501, Some("platform")), "{answer}");
}

/// T22: an Envoy that was forgotten in `local.proxies` is named where people look, whatever name it gives itself.
#[tokio::test]
async fn who_is_not_believed_is_shown() {
    let hub = Arc::new(hub());
    for _ in 0..2 {
        let mut poll = Request::get("/v1/snapshot?proxy=edge-2%1b&waitMs=0").body(Body::empty()).unwrap();
        poll.extensions_mut().insert(ConnectInfo("127.0.0.1:1".parse::<SocketAddr>().unwrap()));
        let answer = router(Arc::clone(&hub), Limits::default()).call(poll).await.unwrap();
        assert_eq!(answer.status(), 403);
    }
    let status = async || -> Value {
        let mut status = Request::get("/v1/status").body(Body::empty()).unwrap();
        status.extensions_mut().insert(ConnectInfo("127.0.0.1:1".parse::<SocketAddr>().unwrap()));
        let answer = router(Arc::clone(&hub), Limits::default()).call(status).await.unwrap();
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    };
    let shown = status().await;
    let refused = shown[0]["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{shown}");
    assert_eq!(refused[0]["proxy"], "\"edge-2?\"");
    let why = refused[0]["why"].as_str().unwrap();
    assert!(why.contains("127.0.0.1:1") && why.contains("add it to local.proxies"), "{why}");
    // Once it is listed it is not spoken of any more.
    hub.show_flag(FlagView { callers: ["edge-2\u{1b}".to_owned()].into(), ..view() });
    assert_eq!(status().await[0]["refused"], Value::Null);
}

/// Whoever asks a controller that has not looked at its flags yet is told to come again, not that there is no such flag.
#[tokio::test]
async fn a_controller_that_begins_denies_no_flag() {
    let hub = Arc::new(Hub::new(Authenticator::listed()).with_orders());
    for (path, body) in [("/v1/requests", PROMOTE), ("/v1/orders", RESTART)] {
        let (status, answer) = post(&hub, path, "127.0.0.1:1", ("x-none", ""), body).await;
        assert_eq!((status, answer["reason"].as_str()), (503, Some("starting")), "{path}: {answer}");
    }
}
