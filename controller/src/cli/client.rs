//! A small client of the flag service. I/O: HTTP, reads the address file.

use std::path::PathBuf;
use std::time::Duration;

use super::sources::LocalFlags;
use anyhow::{Context, anyhow, bail};
use local::sources::find;
use local::store::beside;
use machine::action::Action;
use machine::time::UnixMs;
use service::http::{Bytes, ExchangeLimits, HttpClient, Method, OutgoingRequest, header};
use service::{FlagView, OrderBody, RequestAccepted, RequestBody};

const LIMITS: ExchangeLimits = ExchangeLimits { bytes: 16 << 20, time: Duration::from_secs(10) };

/// The names of flags, for people.
pub(super) fn names(views: &[FlagView]) -> String {
    views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What a controller has noted of where it listens, beside the states of its flags: the newest note is that of the one
/// that ran last.
fn address(at: &LocalFlags) -> anyhow::Result<String> {
    let notes: Vec<PathBuf> = find(&at.paths())?.iter().map(|one| beside(&one.state, ".address")).collect();
    let missing = notes.first().map(|path| path.display().to_string()).unwrap_or_default();
    let newest = notes.into_iter().max_by_key(|note| note.metadata().and_then(|found| found.modified()).ok());
    newest
        .and_then(|note| std::fs::read_to_string(note).ok())
        .with_context(|| format!("no controller has run with {} yet: {missing} is missing", at.named()))
}

fn not_yet(at: &LocalFlags) -> anyhow::Error {
    anyhow!("the controller of {} has not looked at its flags yet: try again", at.named())
}

pub(super) struct Client {
    base: String,
    http: HttpClient,
}

impl Client {
    /// By URL, or by the files that the controller runs with.
    pub(super) fn at(at: &LocalFlags) -> anyhow::Result<Client> {
        let base = match at.url() {
            Some(url) if url.starts_with("http://") => url.trim_end_matches('/').to_owned(),
            Some(_) => bail!("the flag service speaks http, not https"),
            None => format!("http://{}", address(at)?.trim()),
        };
        Ok(Client { base, http: HttpClient::plain(LIMITS)? })
    }

    /// The URL of the flag service, without a slash at its end.
    pub(super) fn base(&self) -> &str {
        &self.base
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

    /// The flags that a command is about.
    pub(super) async fn views(&self, at: &LocalFlags) -> anyhow::Result<Vec<FlagView>> {
        let mut views = self.status().await?;
        let Some(flag) = &at.flag else {
            // A controller may run with more files than one is asked about.
            let found = find(&at.paths()).unwrap_or_default();
            let named = |view: &FlagView| found.iter().any(|one| one.flag.as_ref() == Some(&view.name));
            if views.iter().any(named) {
                views.retain(named);
            }
            return Ok(views);
        };
        let names = names(&views);
        views.retain(|view| view.name == *flag);
        if views.is_empty() && (names.is_empty() || self.call(Method::GET, "/readyz", Bytes::new()).await.is_err()) {
            return Err(not_yet(at));
        }
        if views.is_empty() {
            bail!("{flag} is no flag of the controller of {}, which has: {names}", at.named());
        }
        Ok(views)
    }

    /// The flag that a command is about, which is about one.
    pub(super) async fn only(&self, at: &LocalFlags) -> anyhow::Result<FlagView> {
        match <[FlagView; 1]>::try_from(self.views(at).await?) {
            Ok([view]) => Ok(view),
            Err(none) if none.is_empty() => Err(not_yet(at)),
            Err(several) => Err(at.ambiguous(&names(&several))),
        }
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
