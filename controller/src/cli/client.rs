//! A small client of the flag service. I/O: HTTP, reads the address file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use local::file::find_state;
use local::store::beside;
use machine::action::Action;
use service::{Accepted, Ask, FlagView};

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 16 << 20;

pub(super) struct Client {
    base: String,
    http: Http<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// By URL, or by the file that the controller runs with.
    pub(super) fn at(at: &str) -> anyhow::Result<Client> {
        let base = if at.starts_with("http://") {
            at.trim_end_matches('/').to_owned()
        } else if at.starts_with("https://") {
            bail!("the flag service speaks http, not https");
        } else {
            let path = beside(&find_state(Path::new(at))?, ".address");
            let address = std::fs::read_to_string(&path)
                .with_context(|| format!("no controller has run with {at} yet: {} is missing", path.display()))?;
            format!("http://{}", address.trim())
        };
        Ok(Client { base, http: Http::builder(TokioExecutor::new()).build_http() })
    }

    pub(super) async fn status(&self) -> anyhow::Result<Vec<FlagView>> {
        let body = self.call(Method::GET, "/v1/status", Bytes::new()).await?;
        serde_json::from_slice(&body).context("the answer is not that of a flag service")
    }

    /// The id of the request.
    pub(super) async fn ask(&self, flag: &str, action: Action) -> anyhow::Result<String> {
        let ask = Ask { flag: flag.to_owned(), action, id: None };
        let body = self.call(Method::POST, "/v1/requests", serde_json::to_vec(&ask)?.into()).await?;
        let accepted: Accepted = serde_json::from_slice(&body).context("the answer is not that of a flag service")?;
        Ok(accepted.id)
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(anyhow::Error::from_boxed)?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await.context("no answer within 10 s").flatten();
        let (status, body) =
            answer.with_context(|| format!("the controller does not answer on {}: is it running?", self.base))?;
        if !status.is_success() {
            let error: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = error.get("error").and_then(|error| error.as_str()).unwrap_or("no reason given");
            bail!("{status}: {text}");
        }
        Ok(body)
    }
}
