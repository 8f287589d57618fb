//! The page of another machine's flag service on a port of this one: what it is made of, and nothing else. I/O: HTTP.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::leader::{BYTES, Leader};
use crate::cli::ANSWER;

const EVENTS: &str = "/v1/events";

/// What serves it.
pub(super) fn router(leader: Leader) -> Router {
    Router::new().fallback(relay).with_state(leader)
}

async fn relay(State(leader): State<Leader>, request: Request) -> Response<Body> {
    // A page of somebody else's could have a name of its own lead here.
    if !service::is_asked_by_own_name(&request) {
        return refusal(StatusCode::FORBIDDEN, "ask by 127.0.0.1 or localhost");
    }
    if request.method() != Method::GET || !is_of_the_page(request.uri().path()) {
        return refusal(StatusCode::NOT_FOUND, "only the page is here");
    }
    match ask(leader, request).await {
        Ok(answer) => answer,
        Err(error) => refusal(StatusCode::BAD_GATEWAY, &format!("{error:#}")),
    }
}

async fn ask(leader: Leader, request: Request) -> anyhow::Result<Response<Body>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let answer = leader.get(path, request.headers()).await?;
    let (head, body) = answer.into_parts();
    let body = if request.uri().path() == EVENTS {
        Body::from_stream(body.into_data_stream().take_until(Box::pin(leader.moves())))
    } else {
        Body::from(timeout(ANSWER, to_bytes(body, BYTES)).await??)
    };
    Ok(Response::from_parts(head, body))
}

fn refusal(status: StatusCode, error: &str) -> Response<Body> {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, serde_json::json!({ "error": error }).to_string()).into_response()
}

/// The page, its parts, and what it is drawn from, also of a controller that is newer than this program. Pure.
fn is_of_the_page(path: &str) -> bool {
    let is_part = |name: &str| {
        let stem = name.strip_suffix(".js").or_else(|| name.strip_suffix(".css"));
        stem.is_some_and(|stem| !stem.is_empty() && stem.chars().all(|one| one.is_ascii_alphanumeric() || one == '-'))
    };
    ["/", "/v1/status", EVENTS].contains(&path) || path.strip_prefix('/').is_some_and(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_relayed_and_nothing_else_is() {
        let gets = service::routes().into_iter().filter(|(method, _)| *method == "GET").map(|(_, path)| path);
        let relayed: Vec<_> = gets.filter(|path| is_of_the_page(path)).collect();
        assert_eq!(relayed, ["/v1/status", "/", "/page.css", "/page.js", "/v1/events"]);
        for other in ["", "//page.js", "/../page.js", "/a/page.js", "/%2e%2e.js", "/..js", "/.js", "/page.js/"] {
            assert!(!is_of_the_page(other), "{other}");
        }
    }
}
