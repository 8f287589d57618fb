//! What is asked of the API server, by verb and kind of object. Pure, but for the counting.

use hyper::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::util::MapRequestLayer;

use service::ApiRequests;

/// A client whose requests are counted.
pub fn client(config: Config, requests: &ApiRequests) -> Result<Client, kube::Error> {
    let requests = requests.clone();
    let layer = MapRequestLayer::new(move |request: Request<Body>| {
        let (verb, kind) = name(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        requests.count(verb, kind);
        request
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
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
