//! `POST /v1/requests`: what people ask for by hand. I/O: HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use machine::action::{Action, ID_BYTES, Request};
use machine::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::authenticator::is_this_machine;
use crate::hub::Hub;

/// Body of `POST /v1/requests`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestBody {
    /// The name of the flag that something is asked of.
    pub flag: String,
    /// What is asked for.
    pub action: Action,
    /// Chosen by who asks, so that asking again does nothing; without it one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When the switch began that it is about, in Unix milliseconds: another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<UnixMs>,
}

/// Answer of `POST /v1/requests`.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestAccepted {
    /// `status.lastRequest.id`, as soon as the request is answered.
    pub id: String,
}

pub(super) async fn submit(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Result<Json<RequestBody>, JsonRejection>,
) -> Result<(StatusCode, Json<RequestAccepted>), Refusal> {
    if !is_this_machine(peer) {
        let error = format!("{peer} is another machine: requests are taken from this one only");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "sender", error));
    }
    let Json(body) = body.map_err(|error| Refusal::new(error.status(), "malformed", error.body_text()))?;
    if !hub.views.has(&body.flag) {
        let error = format!("there is no flag {:?} here", flag::shortened(&body.flag));
        return Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_flag", error));
    }
    let id = body.id.unwrap_or_else(crate::id::unique);
    if id.is_empty() || id.len() > ID_BYTES {
        let error = format!("id has to have 1 to {ID_BYTES} bytes");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "malformed", error));
    }
    if !hub.submit_request(&body.flag, Request { id: id.clone(), action: body.action, switch: body.switch }) {
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many requests wait for an answer"));
    }
    Ok((StatusCode::ACCEPTED, Json(RequestAccepted { id })))
}
