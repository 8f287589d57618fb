//! `GET /`: a page for people, with all that it needs, and the events that it is drawn from. I/O: HTTP.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Refusal;
use crate::hub::Hub;
use crate::in_use::InUse;
use crate::pages::{AT_A_TIME, Pages};

/// Nothing from elsewhere, and nothing that stands in the page itself; no other page frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn html(asked: HeaderMap) -> Response {
    part("text/html; charset=utf-8", include_str!("../page/index.html"), &asked)
}

pub(super) async fn style(asked: HeaderMap) -> Response {
    part("text/css; charset=utf-8", include_str!("../page/page.css"), &asked)
}

pub(super) async fn script(asked: HeaderMap) -> Response {
    part("text/javascript; charset=utf-8", include_str!("../page/page.js"), &asked)
}

/// A part of the page; only that it has not changed, where the browser has it.
fn part(kind: &'static str, text: &'static str, asked: &HeaderMap) -> Response {
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    let tag = format!("\"{:016x}\"", hash.finish());
    // A proxy that compresses makes it a weak one.
    let known = asked.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok()).unwrap_or_default();
    let is_known = known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag);
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    (status, headers, [(header::ETAG, tag)], if is_known { "" } else { text }).into_response()
}

pub(super) async fn events(
    State(hub): State<Arc<Hub>>,
    connection: Option<Extension<Arc<InUse>>>,
) -> Result<Response, Refusal> {
    // The answer goes on after its head, and its connection is in use until then.
    let using = connection.map(|Extension(connection)| InUse::begin(&connection));
    let Some(events) = Pages::open(&hub, using) else {
        let error = format!("{AT_A_TIME} pages are open already: close one; `versionflag status` shows the same");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "full", error));
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Some proxies would collect it first.
        (HeaderName::from_static("x-accel-buffering"), "no"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}
