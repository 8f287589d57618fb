//! `POST /v1/report`: what proxies report. I/O: HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use flag::report::{Report, ReportError};
use sha2::{Digest, Sha256};

use super::{Hub, Refusal};

pub(super) async fn report(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let accepted = body
        .map_err(|error| Refusal::new(error.status(), "too_large", error.body_text()))
        .and_then(|body| take(&hub, peer, &headers, &body));
    hub.metrics.report(accepted.as_ref().map_or_else(|refusal| refusal.reason, |()| "accepted"));
    accepted?;
    hub.wake.notify_one();
    Ok(Json(serde_json::json!({})))
}

fn take(hub: &Hub, peer: SocketAddr, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let report = Report::parse(body).map_err(refuse)?;
    let claimed = report.proxy.clone();
    let sender = |sender: String| refuse(ReportError::Sender { claimed: claimed.clone(), sender });
    match hub.token_of(&report.proxy) {
        None => return Err(sender(format!("{peer}, and no proxy of that name is expected"))),
        Some(Some(token)) if !bears(headers, &token) => {
            return Err(sender(format!("{peer}, without that proxy's token")));
        }
        Some(None) if !peer.ip().to_canonical().is_loopback() => {
            return Err(sender(format!("{peer}, which is another machine, and the proxy has no token configured")));
        }
        Some(_) => {}
    }
    hub.accept(report).map_err(refuse)
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

/// Compares digests, so that the time taken says nothing about the token.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let (one, other) = (Sha256::digest(given.as_bytes()), Sha256::digest(token.as_bytes()));
    one.iter().zip(other.iter()).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}
