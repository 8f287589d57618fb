//! What people and monitoring ask. I/O: HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::sender::is_here;
use super::{FlagView, Hub, Refusal};
use machine::action::{Action, Request};

/// Body of `POST /v1/requests`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The flag's name.
    pub flag: String,
    /// What is asked for.
    pub action: Action,
    /// Chosen by who asks, so that asking again does nothing; without it one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Answer of `POST /v1/requests`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// `status.lastRequest.id`, as soon as the request is answered.
    pub id: String,
}

/// Query of `GET /v1/status`.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// The only flag that is asked about.
    flag: Option<String>,
}

pub(super) async fn status(State(hub): State<Arc<Hub>>, Query(wanted): Query<Wanted>) -> Json<Vec<FlagView>> {
    Json(hub.views(wanted.flag.as_deref()))
}

pub(super) async fn ready(State(hub): State<Arc<Hub>>) -> Result<&'static str, Refusal> {
    if let Some(problem) = hub.tls.get().and_then(|tls| tls.problem()) {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "certificates", problem));
    }
    if hub.looked.load(Ordering::Relaxed) {
        return Ok("ok\n");
    }
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "no flag has been looked at yet"))
}

pub(super) async fn metrics(State(hub): State<Arc<Hub>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], hub.metrics.text())
}

pub(super) async fn request(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Result<Json<Ask>, JsonRejection>,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    if !is_here(peer) {
        let error = format!("{peer} is another machine: requests are taken from this one only");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "sender", error));
    }
    let Json(ask) = body.map_err(|error| Refusal::new(error.status(), "malformed", error.body_text()))?;
    if !hub.has(&ask.flag) {
        let error = format!("there is no flag {:?} here", flag::shortened(&ask.flag));
        return Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_flag", error));
    }
    let id = ask.id.unwrap_or_else(crate::id::unique);
    if id.is_empty() || id.len() > 64 {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "malformed", "id has to have 1 to 64 bytes"));
    }
    if !hub.ask(&ask.flag, Request { id: id.clone(), action: ask.action }) {
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many requests wait for an answer"));
    }
    hub.wake.notify_one();
    Ok((StatusCode::ACCEPTED, Json(Accepted { id })))
}
