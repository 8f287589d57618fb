//! `GET /v1/status`, `/readyz` and `/metrics`: what people and monitoring look at. I/O: HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;

use super::Refusal;
use crate::hub::Hub;
use crate::views::FlagView;

/// Query of `GET /v1/status`.
#[derive(Debug, Deserialize)]
pub(super) struct StatusQuery {
    /// The name of the only flag that is asked about; without it, all are.
    flag: Option<String>,
}

pub(super) async fn show_flags(State(hub): State<Arc<Hub>>, Query(query): Query<StatusQuery>) -> Json<Vec<FlagView>> {
    Json(hub.current_views(query.flag.as_deref()))
}

pub(super) async fn show_readiness(State(hub): State<Arc<Hub>>) -> Result<&'static str, Refusal> {
    match hub.readiness.problem() {
        Some((reason, problem)) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason, problem)),
        None => Ok("ok\n"),
    }
}

pub(super) async fn show_metrics(State(hub): State<Arc<Hub>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], hub.metrics_text())
}
