//! The flag service: what proxies and people talk to. I/O: HTTP, with TLS or without.

mod admin;
pub mod audit;
pub mod check_runner;
pub mod clock;
pub mod failpoint;
mod hub;
pub mod id;
pub mod lock;
mod metrics;
mod poll;
mod report;
mod sender;
mod server;
pub mod spiffe;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;

pub use admin::{Accepted, Ask};
pub use hub::{FlagView, Hub};
pub use metrics::ApiRequests;
pub use sender::{Addressed, Review, Senders};
pub use server::{Limits, Server, serve_within};

/// Long polls at a time.
const POLLS: usize = 8_192;
/// Other requests at a time.
const REQUESTS: usize = 256;

/// An answer that says what was wrong.
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
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.error, "reason": self.reason });
        (self.status, Json(body)).into_response()
    }
}

/// The route of the long poll.
const POLL: &str = "/v1/snapshot";

type Answers = fn() -> MethodRouter<Arc<Hub>>;

/// All routes, as method and path, and who answers.
const ROUTES: [(&str, &str, Answers); 7] = [
    ("GET", POLL, || get(poll::snapshot)),
    ("POST", "/v1/report", || post(report::report).layer(DefaultBodyLimit::max(flag::limits::REPORT_BYTES))),
    ("GET", "/v1/status", || get(admin::status)),
    ("POST", "/v1/requests", || post(admin::request).layer(DefaultBodyLimit::max(4_096))),
    ("GET", "/healthz", || get(|| async { "ok\n" })),
    ("GET", "/readyz", || get(admin::ready)),
    ("GET", "/metrics", || get(admin::metrics)),
];

/// Method and path of every route.
pub fn routes() -> [(&'static str, &'static str); 7] {
    ROUTES.map(|(method, path, _)| (method, path))
}

/// The router of all routes. A request takes no longer than this, a long poll excepted.
pub fn router(hub: Arc<Hub>, timeout: Duration) -> Router {
    let of = |polls: bool| {
        let some = ROUTES.into_iter().filter(|(_, path, _)| (*path == POLL) == polls);
        some.fold(Router::new(), |router, (_, path, handler)| router.route(path, handler()))
    };
    let polls = of(true).layer(GlobalConcurrencyLimitLayer::new(POLLS));
    let others = of(false)
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, timeout))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS));
    polls.merge(others).with_state(hub)
}

/// Serves until `stop` ends.
pub async fn serve(listener: tokio::net::TcpListener, hub: Arc<Hub>, stop: impl Future<Output = ()>) {
    serve_within(Limits::default(), listener, hub, stop).await;
}
