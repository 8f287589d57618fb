//! The controller of a cluster that leads, asked through the API server. I/O: the Kubernetes API.

use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::{Body, to_bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::header::{HeaderMap, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::cli::ANSWER;
use crate::cli::kube_api::Cluster;

/// Bytes of an answer but for events: status of every flag of a cluster.
pub(super) const BYTES: usize = 64 << 20;
/// Between two looks at who leads, while events come.
const LOOK: Duration = Duration::from_secs(5);
/// What the controller is told of who asks.
const ASKED: [HeaderName; 2] = [ACCEPT, IF_NONE_MATCH];
/// What a browser is told of an answer.
const ANSWERED: [HeaderName; 6] =
    [CONTENT_TYPE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS];

/// Who leads, whichever pod that is.
#[derive(Clone)]
pub(super) struct Leader {
    cluster: std::sync::Arc<Cluster>,
}

impl Leader {
    pub(super) fn new(cluster: Cluster) -> Leader {
        Leader { cluster: cluster.into() }
    }

    /// Whether the page is there, or what to do.
    pub(super) async fn reach(&self) -> anyhow::Result<()> {
        let answer = self.get("/", &HeaderMap::new()).await?;
        if !answer.status().is_success() {
            return Err(anyhow!("the controller answers {}: is it older than this program?", answer.status()));
        }
        Ok(())
    }

    /// Asks for a path of the flag service. An answer that is not a success is that of the flag service itself.
    pub(super) async fn get(&self, path: &str, headers: &HeaderMap) -> anyhow::Result<Response<Body>> {
        let pod = self.pod().await?;
        let home = self.cluster.home();
        let mut request = Request::get(format!("/api/v1/namespaces/{home}/pods/{pod}/proxy{path}"));
        for name in &ASKED {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value);
            }
        }
        let client = self.cluster.client();
        let sent = timeout(ANSWER, client.send(request.body(kube::client::Body::empty())?)).await;
        let asked = Asked { right: "pods/proxy", pod: Some(&pod), home };
        let late = |_| anyhow!(refused(&asked, 504, &format!("no answer within {} s", ANSWER.as_secs())));
        let answer = sent.map_err(late)?.with_context(|| self.silent())?;
        let (head, body) = answer.into_parts();
        let mut told = Response::new(Body::empty());
        *told.status_mut() = head.status;
        for name in &ANSWERED {
            if let Some(value) = head.headers.get(name) {
                told.headers_mut().insert(name, value.clone());
            }
        }
        if head.status.is_success() {
            return Ok(told.map(|_| Body::new(body)));
        }
        let bytes = timeout(ANSWER, to_bytes(Body::new(body), BYTES)).await.map_err(late)??;
        if head.status != StatusCode::NOT_MODIFIED
            && let Some(message) = of_api_server(&bytes)
        {
            return Err(anyhow!(refused(&asked, head.status.as_u16(), &message)));
        }
        Ok(told.map(|_| Body::from(bytes)))
    }

    /// The pod of the controller that leads.
    async fn pod(&self) -> anyhow::Result<String> {
        let home = self.cluster.home();
        let found = timeout(ANSWER, self.cluster.leader()).await.with_context(|| self.silent())?;
        let found = found.map_err(|error| match error {
            kube::Error::Api(status) => {
                let right = "leases.coordination.k8s.io/versionflag";
                anyhow!(refused(&Asked { right, pod: None, home }, status.code, &status.message))
            }
            error => anyhow!(error).context(self.silent()),
        })?;
        found.with_context(|| {
            format!("no controller leads in namespace {home}: `kubectl -n {home} get pods` shows whether one runs")
        })
    }

    /// Ends when another pod leads than did at first: what the one before says is of the past.
    pub(super) async fn moves(self) {
        let Ok(first) = self.pod().await else { return };
        loop {
            tokio::time::sleep(LOOK).await;
            if self.pod().await.is_ok_and(|pod| pod != first) {
                return;
            }
        }
    }

    fn silent(&self) -> String {
        self.cluster.silent()
    }
}

/// What was asked of the API server.
struct Asked<'a> {
    /// What one has to have the right to `get`.
    right: &'a str,
    /// The pod that leads, if it was asked for.
    pod: Option<&'a str>,
    /// The controller's namespace.
    home: &'a str,
}

/// What the API server says itself: the flag service's sentences are JSON with an `error`.
fn of_api_server(body: &[u8]) -> Option<String> {
    let text = || String::from_utf8_lossy(body).trim().to_owned();
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Some(text()) };
    if value.get("error").is_some() {
        return None;
    }
    Some(value.get("message").and_then(Value::as_str).map_or_else(text, str::to_owned))
}

/// A refusal of the API server, with what helps.
fn refused(asked: &Asked<'_>, code: u16, message: &str) -> String {
    let Asked { right, pod, home } = asked;
    match (code, pod) {
        (401, _) => format!("the cluster does not know you ({message}): log in, or name another --context"),
        (403, _) => format!(
            "you may not `get` {right} in namespace {home}: whoever administers the cluster grants it with `kubectl apply \
             -k manifests/kubernetes/live` and `kubectl -n {home} create rolebinding NAME --role=versionflag-live \
             --user=YOU` ({message})"
        ),
        (404, None) => format!(
            "no controller has run in namespace {home}: install it with `kubectl apply -k manifests/kubernetes`, or name \
             its namespace with --home"
        ),
        (404, Some(pod)) => format!(
            "the controller that led last, pod {pod}, is gone, and none leads yet: `kubectl -n {home} get pods` shows \
             whether one runs"
        ),
        (502..=504, Some(pod)) => format!(
            "the API server does not reach the controller, pod {pod} in namespace {home}: check that it runs, and that \
             the network policy lets the API server in ({message})"
        ),
        _ => format!("the cluster refuses ({code}): {message}"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::flag_service(br#"{"error":"it is full","reason":"full"}"#, None)]
    #[case::api_server(br#"{"kind":"Status","message":"is forbidden","code":403}"#, Some("is forbidden"))]
    #[case::text(b"Forbidden\n", Some("Forbidden"))]
    #[case::other_json(b"[]", Some("[]"))]
    fn what_the_api_server_says_is_told_from_what_the_controller_says(
        #[case] body: &[u8],
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(of_api_server(body).as_deref(), expected);
    }

    #[rstest]
    #[case::lease(403, None, "you may not `get` leases in namespace home: ")]
    #[case::pod(403, Some("one"), "you may not `get` leases in namespace home: ")]
    #[case::stranger(401, None, "the cluster does not know you (because)")]
    #[case::never(404, None, "no controller has run in namespace home: ")]
    #[case::gone(404, Some("one"), "the controller that led last, pod one, is gone")]
    #[case::apart(503, Some("one"), "the API server does not reach the controller, pod one in namespace home")]
    #[case::other(500, Some("one"), "the cluster refuses (500): because")]
    fn a_refusal_says_what_helps(#[case] code: u16, #[case] pod: Option<&str>, #[case] expected: &str) {
        let said = refused(&Asked { right: "leases", pod, home: "home" }, code, "because");
        assert!(said.starts_with(expected), "{said}");
    }
}
