//! `GET /v1/snapshot`: the long poll of the proxies. I/O: HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

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
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Query(poll): Query<Poll>,
) -> Result<Response, Refusal> {
    hub.senders.check(peer, &headers, &poll.proxy).await.map_err(|sender| {
        let shown = flag::shortened(&poll.proxy);
        let error = format!("the poll is of {shown:?}, but its sender is {sender}");
        Refusal::new(StatusCode::FORBIDDEN, "sender", error)
    })?;
    let mut snapshots = hub.snapshots();
    let wait = Duration::from_millis(poll.wait_ms.min(MAX_WAIT_MS));
    let other = snapshots.wait_for(|current| current.as_ref().is_some_and(|one| one.revision != poll.revision));
    let found = match tokio::time::timeout(wait, other).await {
        Ok(Ok(current)) => current.clone(),
        Ok(Err(_)) | Err(_) => None,
    };
    Ok(match found {
        Some(snapshot) => Json(snapshot.as_ref()).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}
