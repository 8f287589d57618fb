//! The HTTP API of the flag service: its routes, and what a refusal looks like. I/O: HTTP.

mod report;
mod requests;
mod snapshot;
mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
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
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.error, "reason": self.reason });
        (self.status, Json(body)).into_response()
    }
}

/// All routes. A request takes no longer than `timeout`, a long poll excepted.
pub fn router(hub: Arc<Hub>, timeout: Duration) -> Router {
    let polls = Router::new().route("/v1/snapshot", get(snapshot::poll)).layer(GlobalConcurrencyLimitLayer::new(POLLS));
    let others = Router::new()
        .route("/v1/report", post(report::take_in).layer(DefaultBodyLimit::max(flag::limits::REPORT_BYTES)))
        .route("/v1/status", get(status::show_flags))
        .route("/v1/requests", post(requests::submit).layer(DefaultBodyLimit::max(REQUEST_BYTES)))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::show_readiness))
        .route("/metrics", get(status::show_metrics))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, timeout))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS));
    polls.merge(others).with_state(hub)
}
