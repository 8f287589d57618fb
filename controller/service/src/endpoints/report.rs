//! `POST /v1/report`: what proxies report. I/O: HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use flag::report::{Report, ReportError};

use super::Refusal;
use crate::authenticator::Credentials;
use crate::hub::Hub;
use crate::peers::Admission;

/// The place of one report among those of its address. Taken before its body is read: who never ends one holds up no
/// other.
pub(super) struct Place {
    _admission: Admission,
}

impl FromRequestParts<Arc<Hub>> for Place {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Place, Refusal> {
        let peer = ConnectInfo::<SocketAddr>::from_request_parts(parts, hub).await;
        let peer =
            peer.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "sender", error.body_text()))?;
        let admission = hub.reporting.admit(peer.0.ip());
        admission.map(|admission| Place { _admission: admission }).ok_or_else(|| {
            let error = "so many reports from this address are under way: send one after the other";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "full", error)
        })
    }
}

pub(super) async fn take_in(
    State(hub): State<Arc<Hub>>,
    _place: Place,
    credentials: Credentials,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let taken = match body {
        Ok(_) if hub.publications.are_withheld() => Err(Refusal::not_leading()),
        Ok(body) => authenticate_and_take_in(&hub, &credentials, &body).await.map_err(refusal),
        Err(error) => Err(Refusal::new(error.status(), "too_large", error.body_text())),
    };
    hub.metrics.count_report(taken.as_ref().map_or_else(|refusal| refusal.reason, |()| "accepted"));
    taken.map(|()| Json(serde_json::json!({})))
}

async fn authenticate_and_take_in(hub: &Hub, credentials: &Credentials, body: &[u8]) -> Result<(), ReportError> {
    let report = Report::parse(body)?;
    let known = hub.authenticator.authenticate(credentials, &report.proxy).await;
    known.map_err(|sender| {
        hub.note_refused(&report.proxy, &sender);
        ReportError::Sender { claimed: report.proxy.clone(), sender }
    })?;
    hub.take_in_report(report)
}

fn refusal(error: ReportError) -> Refusal {
    let status = match error {
        ReportError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        ReportError::Sender { .. } => StatusCode::FORBIDDEN,
        ReportError::Stale { .. } => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, error.reason(), error.to_string())
}
