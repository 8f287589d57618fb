//! The HTTP API of the flag service: its routes, and what a refusal looks like. I/O: HTTP.

mod page;
mod report;
mod requests;
mod snapshot;
mod status;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;

pub use requests::{OrderBody, RequestAccepted, RequestBody};

use crate::authenticator::is_this_machine;
use crate::hub::Hub;
use crate::server::Limits;

/// Reports at a time.
const REPORTS: usize = 1_024;
/// Other requests at a time.
const REQUESTS: usize = 64;
/// Probes at a time, metrics among them.
const PROBES: usize = 32;
/// Bytes of the body of `POST /v1/requests`, and of `POST /v1/orders`.
const REQUEST_BYTES: usize = 4_096;

/// The answer to a request that is not granted: an HTTP status, one word and a sentence.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    error: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, error: impl Into<String>) -> Refusal {
        Refusal { status, reason, error: error.into() }
    }

    /// Another controller leads. The connection is closed with it.
    fn not_leading() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_leading", "another controller leads: connect anew")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.error, "reason": self.reason });
        let close = (self.status == StatusCode::SERVICE_UNAVAILABLE).then_some([(header::CONNECTION, "close")]);
        (self.status, close, Json(body)).into_response()
    }
}

/// What a request waits for: those of another kind take no place of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For a change.
    Poll,
    /// For its body to be read and taken in.
    Report,
    /// For whatever it asks.
    Request,
    /// For news, for as long as a browser shows them.
    Page,
    /// For nothing: who asks decides whether this process lives.
    Probe,
}

/// A route: method and path, its kind, and who answers.
type Route = (&'static str, &'static str, Kind, fn() -> MethodRouter<Arc<Hub>>);

/// All routes.
const ROUTES: [Route; 12] = [
    ("GET", "/v1/snapshot", Kind::Poll, || get(snapshot::poll)),
    ("POST", "/v1/report", Kind::Report, || {
        post(report::take_in).layer(DefaultBodyLimit::max(flag::limits::REPORT_BYTES))
    }),
    ("GET", "/v1/status", Kind::Request, || get(status::show_flags)),
    ("POST", "/v1/requests", Kind::Request, || post(requests::submit).layer(DefaultBodyLimit::max(REQUEST_BYTES))),
    ("POST", "/v1/orders", Kind::Request, || post(requests::order).layer(DefaultBodyLimit::max(REQUEST_BYTES))),
    ("GET", "/", Kind::Request, || get(page::html)),
    ("GET", "/page.css", Kind::Request, || get(page::style)),
    ("GET", "/page.js", Kind::Request, || get(page::script)),
    ("GET", "/v1/events", Kind::Page, || get(page::events)),
    ("GET", "/healthz", Kind::Probe, || get(|| async { "ok\n" })),
    ("GET", "/readyz", Kind::Probe, || get(status::show_readiness)),
    ("GET", "/metrics", Kind::Probe, || get(status::show_metrics)),
];

/// Method and path of every route.
pub fn routes() -> [(&'static str, &'static str); 12] {
    ROUTES.map(|(method, path, ..)| (method, path))
}

fn of(kind: Kind) -> Router<Arc<Hub>> {
    let some = ROUTES.into_iter().filter(|(_, _, its, _)| *its == kind);
    some.fold(Router::new(), |router, (_, path, _, handler)| router.route(path, handler()))
}

fn bounded(kind: Kind, timeout: Duration, at_a_time: usize) -> Router<Arc<Hub>> {
    of(kind)
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, timeout))
        .layer(GlobalConcurrencyLimitLayer::new(at_a_time))
}

/// The router of all routes. A request takes no longer than the limits say, a long poll excepted.
pub fn router(hub: Arc<Hub>, limits: Limits) -> Router {
    // A proxy has one at a time.
    let polls = of(Kind::Poll).layer(GlobalConcurrencyLimitLayer::new(limits.connections));
    let reports = bounded(Kind::Report, limits.request, REPORTS);
    let requests = bounded(Kind::Request, limits.request, REQUESTS);
    let probes = bounded(Kind::Probe, limits.request, PROBES);
    let all = polls.merge(reports).merge(requests).merge(probes).merge(of(Kind::Page));
    answering_all(all).layer(from_fn(refuse_pages)).with_state(hub)
}

/// The router of probes and metrics alone.
pub(crate) fn probes(hub: Arc<Hub>, timeout: Duration) -> Router {
    answering_all(bounded(Kind::Probe, timeout, PROBES)).with_state(hub)
}

/// With a sentence for what is not served.
fn answering_all(router: Router<Arc<Hub>>) -> Router<Arc<Hub>> {
    let refused = |status, what: &str, request: &Request| {
        let (method, path) = (request.method(), flag::shortened(request.uri().path()));
        Refusal::new(
            status,
            "unknown",
            format!("{what}: {method} {path}; docs/reference/http-api.md has what is served"),
        )
    };
    router
        .fallback(async move |request: Request| refused(StatusCode::NOT_FOUND, "there is no such path", &request))
        .method_not_allowed_fallback(async move |request: Request| {
            refused(StatusCode::METHOD_NOT_ALLOWED, "another method is served there", &request)
        })
}

/// What people and their commands ask for. Proxies ask by whatever name their cluster has.
const OF_PEOPLE: [&str; 5] = ["/", "/v1/status", "/v1/events", "/v1/requests", "/v1/orders"];

/// No page in a browser changes anything here, whatever name it knows this service by: a browser says where a page that
/// posts is from. Nor does one read anything by a name of its own that was made to lead to this machine.
async fn refuse_pages(request: Request, next: Next) -> Response {
    let refused = |error: &str| Refusal::new(StatusCode::FORBIDDEN, "sender", error).into_response();
    if request.method() == Method::POST && request.headers().contains_key(header::ORIGIN) {
        return refused("a page in a browser asks for this: only proxies and the commands of versionflag may");
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let is_here = peer.is_some_and(|ConnectInfo(peer)| is_this_machine(*peer));
    if is_here && OF_PEOPLE.contains(&request.uri().path()) && !is_asked_by_own_name(&request) {
        return refused("it is asked for by a name of somebody else: ask by 127.0.0.1, [::1] or localhost");
    }
    next.run(request).await
}

/// Whether nobody else can have the name lead here that a request has: HTTP/2 has it in the request itself.
pub fn is_asked_by_own_name(request: &Request) -> bool {
    let is_own = |host: &Authority| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    };
    let header = request.headers().get(header::HOST).map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    request.uri().authority().is_none_or(is_own) && header.is_none_or(|host| host.as_ref().is_some_and(is_own))
}
