//! `GET /v1/snapshot`: the long poll of the proxies. I/O: HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::sender::Sender;
use super::{Hub, Refusal};

const MAX_WAIT_MS: u64 = 30_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Poll {
    #[serde(default)]
    proxy: String,
    #[serde(default)]
    revision: String,
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn snapshot(
    State(hub): State<Arc<Hub>>,
    sender: Sender,
    Query(poll): Query<Poll>,
) -> Result<Response, Refusal> {
    hub.senders.check(&sender, &poll.proxy).await.map_err(|sender| {
        let shown = flag::shortened(&poll.proxy);
        let error = format!("the poll is of {shown:?}, but its sender is {sender}");
        Refusal::new(StatusCode::FORBIDDEN, "sender", error)
    })?;
    let mut changes = hub.changes();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(poll.wait_ms.min(MAX_WAIT_MS));
    loop {
        // What changes from here on is seen below.
        changes.mark_unchanged();
        if let Some(snapshot) = hub.snapshot(&poll.proxy).filter(|snapshot| snapshot.revision != poll.revision) {
            return Ok(Json(snapshot).into_response());
        }
        if !matches!(tokio::time::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}
