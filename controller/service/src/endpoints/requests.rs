//! `POST /v1/requests` and `/v1/orders`: what people ask for by hand, of a flag and of one version. I/O: HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use machine::action::{Action, Asked, ID_BYTES, Request};
use machine::mismatch;
use machine::order::{Order, Verb};
use machine::time::UnixMs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Refusal;
use crate::authenticator::is_this_machine;
use crate::hub::Hub;
use crate::requests::RequestQueue;

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

/// Body of `POST /v1/orders`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBody {
    /// The name of the flag whose version it is.
    pub flag: String,
    /// What is to be done.
    pub verb: Verb,
    /// With which version.
    pub version: String,
    /// It is done even where requests may be lost by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Chosen by who asks, so that asking again does nothing; without it one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `versions.VERSION.started` as who asks has seen it, in Unix milliseconds: after another start it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<UnixMs>,
}

/// Answer of both.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestAccepted {
    /// `status.lastRequest.id`, or that of one of `status.orders`, as soon as it is answered.
    pub id: String,
}

pub(super) async fn submit(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<(StatusCode, Json<RequestAccepted>), Refusal> {
    let body: RequestBody = read(peer, body)?;
    let id = id(body.id)?;
    queue(&hub, &hub.requests, &body.flag, Request { id, action: body.action, switch: body.switch })
}

pub(super) async fn order(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<(StatusCode, Json<RequestAccepted>), Refusal> {
    let OrderBody { flag, verb, version, force, id: given, started } = read(peer, body)?;
    let Some(orders) = &hub.orders else {
        let error = "versions are started anew and stopped here by their platform: ask that";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "platform", error));
    };
    queue(&hub, orders, &flag, Order { id: id(given)?, verb, version, force, started })
}

/// The body of somebody on this machine. What has another form than is asked for is said in plain words.
fn read<T: DeserializeOwned>(peer: SocketAddr, body: Result<Json<Value>, JsonRejection>) -> Result<T, Refusal> {
    if !is_this_machine(peer) {
        let error = format!("{peer} is another machine: requests are taken from this one only");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "sender", error));
    }
    let Json(body) = body.map_err(|error| Refusal::new(error.status(), "malformed", error.body_text()))?;
    serde_path_to_error::deserialize(body).map_err(|error| {
        let sentence = mismatch::sentence(&error.path().to_string(), &error.inner().to_string());
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "malformed", sentence)
    })
}

fn id(given: Option<String>) -> Result<String, Refusal> {
    let id = given.unwrap_or_else(crate::id::unique);
    if id.is_empty() || id.len() > ID_BYTES {
        let error = format!("id has to have 1 to {ID_BYTES} bytes");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "malformed", error));
    }
    Ok(id)
}

fn queue<T: Asked>(
    hub: &Hub,
    queue: &RequestQueue<T>,
    flag: &str,
    request: T,
) -> Result<(StatusCode, Json<RequestAccepted>), Refusal> {
    if !hub.views.has(flag) && hub.readiness.is_starting() {
        let error = "not every flag has been looked at yet: try again";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "starting", error));
    }
    if !hub.views.has(flag) {
        let error = format!("there is no flag {:?} here", flag::shortened(flag));
        return Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_flag", error));
    }
    let id = request.id().to_owned();
    if !hub.submit(queue, flag, request) {
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too many requests wait for an answer"));
    }
    Ok((StatusCode::ACCEPTED, Json(RequestAccepted { id })))
}
