//! `POST /v1/report`: what proxies report. I/O: HTTP.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use flag::report::{Report, ReportError};

use super::sender::Sender;
use super::{Hub, Refusal};

pub(super) async fn report(
    State(hub): State<Arc<Hub>>,
    sender: Sender,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let accepted = match body {
        Ok(body) => take(&hub, &sender, &body).await,
        Err(error) => Err(Refusal::new(error.status(), "too_large", error.body_text())),
    };
    hub.metrics.report(accepted.as_ref().map_or_else(|refusal| refusal.reason, |_| "accepted"));
    hub.reported(accepted?);
    Ok(Json(serde_json::json!({})))
}

/// The proxy whose report it is.
async fn take(hub: &Hub, sender: &Sender, body: &[u8]) -> Result<String, Refusal> {
    let report = Report::parse(body).map_err(refuse)?;
    let known = hub.senders.check(sender, &report.proxy).await;
    known.map_err(|sender| refuse(ReportError::Sender { claimed: report.proxy.clone(), sender }))?;
    let proxy = report.proxy.clone();
    hub.accept(report).map_err(refuse)?;
    Ok(proxy)
}

fn refuse(error: ReportError) -> Refusal {
    let status = match error {
        ReportError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        ReportError::Sender { .. } => StatusCode::FORBIDDEN,
        ReportError::Stale { .. } => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, error.reason(), error.to_string())
}
