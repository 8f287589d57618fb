//! The HTTP API of the flag service: its routes, and what a refusal looks like. I/O: HTTP.

mod report;
mod requests;
mod snapshot;
mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;

pub use requests::{RequestAccepted, RequestBody};

use crate::hub::Hub;

/// Long polls at a time.
const POLLS: usize = 8_192;
/// Other requests at a time.
const REQUESTS: usize = 256;
/// Bytes of the body of `POST /v1/requests`.
const REQUEST_BYTES: usize = 4_096;

/// The answer to a request that is not granted: an HTTP status, one word and a sentence.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    error: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, error: impl Into<String>) -> Refusal {
        Refusal { status, reason, error: error.into() }
    }

    /// Another controller leads. The connection is closed with it.
    fn not_leading() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_leading", "another controller leads: connect anew")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.error, "reason": self.reason });
        let close = (self.status == StatusCode::SERVICE_UNAVAILABLE).then_some([(header::CONNECTION, "close")]);
        (self.status, close, Json(body)).into_response()
    }
}

/// The route of the long poll.
const POLL: &str = "/v1/snapshot";

/// A route: method and path, and who answers.
type Route = (&'static str, &'static str, fn() -> MethodRouter<Arc<Hub>>);

/// All routes.
const ROUTES: [Route; 7] = [
    ("GET", POLL, || get(snapshot::poll)),
    ("POST", "/v1/report", || post(report::take_in).layer(DefaultBodyLimit::max(flag::limits::REPORT_BYTES))),
    ("GET", "/v1/status", || get(status::show_flags)),
    ("POST", "/v1/requests", || post(requests::submit).layer(DefaultBodyLimit::max(REQUEST_BYTES))),
    ("GET", "/healthz", || get(|| async { "ok\n" })),
    ("GET", "/readyz", || get(status::show_readiness)),
    ("GET", "/metrics", || get(status::show_metrics)),
];

/// Method and path of every route.
pub fn routes() -> [(&'static str, &'static str); 7] {
    ROUTES.map(|(method, path, _)| (method, path))
}

/// The router of all routes. A request takes no longer than `timeout`, a long poll excepted.
pub fn router(hub: Arc<Hub>, timeout: Duration) -> Router {
    let of = |polls: bool| {
        let some = ROUTES.into_iter().filter(|(_, path, _)| (*path == POLL) == polls);
        some.fold(Router::new(), |router, (_, path, handler)| router.route(path, handler()))
    };
    let polls = of(true).layer(GlobalConcurrencyLimitLayer::new(POLLS));
    let others = of(false)
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, timeout))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS));
    polls.merge(others).layer(from_fn(refuse_pages)).with_state(hub)
}

/// No page in a browser changes anything here, whatever name it knows this service by: a browser says where a page that
/// posts is from.
async fn refuse_pages(request: Request, next: Next) -> Response {
    if request.method() == Method::POST && request.headers().contains_key(header::ORIGIN) {
        let error = "a page in a browser asks for this: only proxies and the commands of versionflag may";
        return Refusal::new(StatusCode::FORBIDDEN, "sender", error).into_response();
    }
    next.run(request).await
}
