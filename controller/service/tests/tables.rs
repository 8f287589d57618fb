//! The tables of docs/reference/http-api.md name what is served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::{ApiRequests, Authenticator, Hub, Limits, router, routes};
use tower::Service as _;

mod running;
#[path = "../../../docs/table.rs"]
mod table;
mod view;

const PAGE: &str = include_str!("../../../docs/reference/http-api.md");

/// Status and text of an answer to somebody on this machine.
async fn answer(hub: Hub, method: &str, path: &str) -> (StatusCode, String) {
    let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    let answer = router(Arc::new(hub), Limits::default()).call(request).await.unwrap();
    let status = answer.status();
    // Events have no end.
    if answer.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        return (status, String::new());
    }
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_route_has_a_row_and_is_served_by_that_method_only() {
    let rows = table::rows(PAGE, "http-api");
    let documented: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| row[0].split_once(' ').unwrap())
        .map(|(method, path)| (method, path.split('?').next().unwrap()))
        .collect();
    assert_eq!(documented, routes());
    for (method, path) in documented {
        let other = if method == "GET" { "POST" } else { "GET" };
        for (method, served) in [(method, true), (other, false)] {
            let (status, text) = answer(Hub::new(Authenticator::listed()), method, path).await;
            let found = status != StatusCode::NOT_FOUND && status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(found, served, "{method} {path}: {status} {text}");
            assert!(served || text.contains("is served"), "{text}");
        }
    }
    let (status, text) = answer(Hub::new(Authenticator::listed()), "GET", "/v1/flags").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("there is no such path: GET /v1/flags"), "{text}");
}

/// What the service exposes after something of every kind has happened.
async fn exposed() -> String {
    let requests = ApiRequests::default();
    requests.count("get", "pods".to_owned());
    let hub = Hub::new(Authenticator::listed()).with_api_requests(&requests);
    hub.show_flag(view::at_work());
    let published = running::publication("reviews", 100);
    let flips = running::flips(&published);
    let before = Status { record: None, switch: None, ..flips.clone() };
    hub.stopwatch.decided(&before, &flips, &BTreeSet::new(), UnixMs(0), Instant::now());
    hub.publish(published);
    hub.observe_flip(&flips.uid, 0.1);
    hub.observe_hold(true, 0.1);
    hub.count_write_failures("state", 1);
    let hub = Arc::new(hub);
    let mut router = router(hub, Limits::default());
    let mut text = String::new();
    for request in [Request::post("/v1/report"), Request::get("/metrics")] {
        let mut request = request.body(Body::from("{}")).unwrap();
        request.extensions_mut().insert(ConnectInfo("127.0.0.1:1".parse::<SocketAddr>().unwrap()));
        let body = router.call(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        text = String::from_utf8(body.to_vec()).unwrap();
    }
    text
}

/// Name and kind of every family: a counter's samples end in `_total`.
fn families(text: &str) -> BTreeMap<String, &str> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    kinds.map(|(name, kind)| (format!("{name}{}", if kind == "counter" { "_total" } else { "" }), kind)).collect()
}

/// The labels of a family's first sample, but for the bounds of a histogram.
fn labels(text: &str, family: &str) -> BTreeSet<String> {
    let sample =
        text.lines().find(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', '_', ' '])));
    let sample = sample.unwrap_or_else(|| panic!("no sample of {family} in\n{text}"));
    let inner = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
    let names = inner.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
    names.filter(|name| name != "le").collect()
}

#[tokio::test]
async fn every_metric_has_a_row_with_its_labels_and_its_kind() {
    let (rows, text) = (table::rows(PAGE, "metrics"), exposed().await);
    let families = families(&text);
    let documented: BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(documented, families.keys().map(String::as_str).collect());
    for row in &rows {
        let said: BTreeSet<String> = row[1].split(", ").filter(|one| !one.is_empty()).map(str::to_owned).collect();
        assert_eq!(said, labels(&text, &row[0]), "{}", row[0]);
        assert_eq!(row[2].starts_with("histogram: "), families[&row[0]] == "histogram", "{}", row[0]);
        assert_eq!(row[0].ends_with("_total"), families[&row[0]] == "counter", "{}", row[0]);
    }
}

#[tokio::test]
async fn every_phase_is_a_line_of_its_metric() {
    let text = exposed().await;
    let lines = text.lines().filter(|line| line.starts_with("versionflag_phase{")).count();
    assert_eq!(lines, Phase::ALL.len());
}
