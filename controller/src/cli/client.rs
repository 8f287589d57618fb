//! A small client of the flag service. I/O: HTTP, reads the address file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use local::file::find_state;
use local::store::beside;
use machine::action::Action;
use machine::time::UnixMs;
use service::http::{Bytes, ExchangeLimits, HttpClient, Method, OutgoingRequest, header};
use service::{FlagView, OrderBody, RequestAccepted, RequestBody};

const LIMITS: ExchangeLimits = ExchangeLimits { bytes: 16 << 20, time: Duration::from_secs(10) };

/// The flag of this name, or the only one.
pub(super) fn only<'a>(views: &'a [FlagView], name: Option<&str>, at: &str) -> anyhow::Result<&'a FlagView> {
    let there = || views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, views) {
        (Some(name), _) => views
            .iter()
            .find(|view| view.name == name)
            .with_context(|| format!("there is no flag {name} at {at}; there is: {}", there())),
        (None, [view]) => Ok(view),
        (None, []) => bail!("the controller of {at} has not looked at its flag yet: try again"),
        (None, _) => bail!("{at} has several flags, name one of them: {}", there()),
    }
}

pub(super) struct Client {
    base: String,
    http: HttpClient,
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
        Ok(Client { base, http: HttpClient::plain(LIMITS)? })
    }

    pub(super) async fn status(&self) -> anyhow::Result<Vec<FlagView>> {
        let body = self.call(Method::GET, "/v1/status", Bytes::new()).await?;
        serde_json::from_slice(&body).context("the answer is not that of a flag service")
    }

    /// The id of the request.
    pub(super) async fn ask(&self, flag: &str, action: Action, switch: Option<UnixMs>) -> anyhow::Result<String> {
        let request = RequestBody { flag: flag.to_owned(), action, id: None, switch };
        self.post("/v1/requests", &request).await
    }

    /// The id of the order.
    pub(super) async fn order(&self, order: &OrderBody) -> anyhow::Result<String> {
        self.post("/v1/orders", order).await
    }

    async fn post(&self, path: &str, what: &impl serde::Serialize) -> anyhow::Result<String> {
        let body = self.call(Method::POST, path, serde_json::to_vec(what)?.into()).await?;
        let accepted: RequestAccepted =
            serde_json::from_slice(&body).context("the answer is not that of a flag service")?;
        Ok(accepted.id)
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let (url, headers) = (format!("{}{path}", self.base), &[(header::CONTENT_TYPE, "application/json")]);
        let answer = self.http.exchange(OutgoingRequest { method, url: &url, headers, body }).await;
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
