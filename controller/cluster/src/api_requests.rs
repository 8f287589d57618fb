//! What is asked of the API server, by verb and kind of object, and which watches it answers. Pure, but for the
//! counting and the clock.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::Service;
use tower::layer::layer_fn;

use super::heard::Heard;
use service::ApiRequests;
use service::clock::now;

/// A client whose requests are counted, and whose watches are heard of.
pub fn client(config: Config, requests: &ApiRequests, heard: &Heard) -> Result<Client, kube::Error> {
    let layer = layer_fn(|inner| Counted { inner, requests: requests.clone(), heard: heard.clone() });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// A connection to the API server that is listened to.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    requests: ApiRequests,
    heard: Heard,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Future<Output = Result<Response<B>, S::Error>> + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<B>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, kind) = name(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        let watched = (verb == "watch").then(|| kind.clone());
        self.requests.count(verb, kind);
        let (answer, heard) = (self.inner.call(request), self.heard.clone());
        async move {
            let answer = answer.await?;
            if let Some(kind) = watched.filter(|_| answer.status().is_success()) {
                heard.note(&kind, Instant::now(), now());
            }
            Ok(answer)
        }
        .boxed()
    }
}

/// The verb as RBAC has it, and the kind of object with its subresource.
pub fn name(method: &Method, path: &str, query: &str) -> (&'static str, String) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (kind, named) = match rest {
        [] => ("other".to_owned(), true),
        [kind] => ((*kind).to_owned(), false),
        [kind, _] => ((*kind).to_owned(), true),
        [kind, _, part, ..] => (format!("{kind}/{part}"), true),
    };
    let watches = query.split('&').any(|one| matches!(one, "watch=true" | "watch=1"));
    let verb = match (method.as_str(), named) {
        ("GET", _) if watches => "watch",
        ("GET", false) => "list",
        ("GET", true) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        _ => "other",
    };
    (verb, kind)
}
