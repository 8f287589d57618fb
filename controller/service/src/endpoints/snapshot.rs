//! `GET /v1/snapshot`: the long poll of the proxies. I/O: HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::Refusal;
use crate::authenticator::Credentials;
use crate::hub::Hub;

/// The longest wait for a change, in milliseconds, whatever the proxy asks for.
const MAX_WAIT_MS: u64 = 30_000;

/// Query of `GET /v1/snapshot`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotQuery {
    /// The name of the proxy that polls.
    #[serde(default)]
    proxy: String,
    /// The revision of the snapshot that it has.
    #[serde(default)]
    revision: String,
    /// How long it waits for another one, in milliseconds.
    #[serde(default)]
    wait_ms: u64,
    /// What it understands: see [`flag::level`].
    #[serde(default = "first_level")]
    level: u32,
}

fn first_level() -> u32 {
    1
}

pub(super) async fn poll(
    State(hub): State<Arc<Hub>>,
    credentials: Credentials,
    Query(query): Query<SnapshotQuery>,
) -> Result<Response, Refusal> {
    hub.authenticator.authenticate(&credentials, &query.proxy).await.map_err(|sender| {
        hub.note_refused(&query.proxy, &sender);
        let shown = flag::shortened(&query.proxy);
        let error = format!("the poll is of {shown:?}, but its sender is {sender}");
        Refusal::new(StatusCode::FORBIDDEN, "sender", error)
    })?;
    let poll = hub.publications.pollers.begin(&query.proxy);
    let deadline = Instant::now() + Duration::from_millis(query.wait_ms.min(MAX_WAIT_MS));
    loop {
        // What changes from here on is seen below.
        let changed = poll.changed();
        if hub.publications.are_withheld() {
            return Err(Refusal::not_leading());
        }
        let snapshot = hub.publications.snapshot_for(&query.proxy, query.level);
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.revision != query.revision) {
            hub.stopwatch.sent(&query.proxy, &snapshot.epochs);
            let json = [(header::CONTENT_TYPE, "application/json")];
            return Ok((json, snapshot.bytes.clone()).into_response());
        }
        let waits = timeout_at(deadline, changed);
        let is_over = tokio::select! {
            changed = waits => changed.is_err(),
            () = poll.ends() => true,
        };
        if is_over {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}
