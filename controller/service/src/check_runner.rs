//! Asks the checks' questions, and remembers the last answers. I/O: HTTP, reads the clock.
//!
//! What is remembered is of one switch only, and lost with the process: then it is asked again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use machine::fleet::ledger::Fleet;

use crate::Hub;
use crate::clock::now;
use crate::lock::lock;
use machine::checks::{Answer, Answers, Questions, Verdict, verdict};
use machine::spec::Check;
use machine::time::UnixMs;

/// No answer after this is none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer is not read.
const MAX_BYTES: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the address is not valid: {0}")]
    Address(#[from] hyper::http::Error),
    #[error("it cannot be reached: {0}")]
    Connect(#[from] hyper_util::client::legacy::Error),
    #[error("its answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("there is no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// What is remembered of one flag.
#[derive(Debug)]
struct Memory {
    questions: Questions,
    answers: Answers,
    /// When each check was asked last.
    asked: BTreeMap<String, UnixMs>,
}

/// Asks for all flags.
#[derive(Debug)]
pub struct Runner {
    /// Woken by answers.
    hub: Arc<Hub>,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// By name of the flag.
    flags: Mutex<BTreeMap<String, Memory>>,
}

impl Runner {
    /// Trusts the certificates that the machine trusts.
    pub fn new(hub: Arc<Hub>) -> std::io::Result<Arc<Runner>> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Arc::new(Runner { hub, http, flags: Mutex::default() }))
    }

    /// The last answers to what is asked now. Asks what is due, and wakes the hub with the answer.
    pub fn look(self: &Arc<Self>, now: UnixMs, flag: &str, questions: Option<Questions>, fleet: &Fleet) -> Answers {
        let mut flags = lock(&self.flags);
        let Some(questions) = questions else {
            flags.remove(flag);
            return Answers::new();
        };
        if flags.get(flag).is_none_or(|memory| memory.questions != questions) {
            let fresh = Memory { questions, answers: Answers::new(), asked: BTreeMap::new() };
            flags.insert(flag.to_owned(), fresh);
        }
        let Some(memory) = flags.get_mut(flag) else {
            return Answers::new();
        };
        for check in &memory.questions.checks {
            if let Some(builtin) = &check.builtin {
                let measured = fleet.answers.get(&memory.questions.to);
                note(&mut memory.answers, now, &check.name, verdict::builtin(builtin, measured));
            } else if memory.asked.get(&check.name).is_none_or(|at| now.since(*at) >= check.interval) {
                memory.asked.insert(check.name.clone(), now);
                let (runner, flag) = (Arc::clone(self), flag.to_owned());
                tokio::spawn(runner.ask(flag, memory.questions.clone(), check.clone()));
            }
        }
        memory.answers.clone()
    }

    async fn ask(self: Arc<Self>, flag: String, questions: Questions, check: Check) {
        let answer = match (&check.prometheus, &check.webhook) {
            (Some(prometheus), _) => {
                let query = prometheus.query.replace("{{from}}", &questions.from).replace("{{to}}", &questions.to);
                let address = prometheus.address.trim_end_matches('/');
                let body = format!("query={}", percent_encode(&query));
                let form = "application/x-www-form-urlencoded";
                let answer = self.post(&format!("{address}/api/v1/query"), form, body).await;
                answer.map(|(status, body)| verdict::prometheus(prometheus, status, &body))
            }
            (None, Some(webhook)) => {
                let body = serde_json::json!({
                    "flag": flag, "check": check.name, "when": questions.when, "epoch": questions.epoch,
                    "from": questions.from, "to": questions.to,
                });
                let answer = self.post(&webhook.url, "application/json", body.to_string()).await;
                answer.map(|(status, _)| verdict::webhook(status))
            }
            (None, None) => return,
        };
        let answer = answer.unwrap_or_else(|error| (Verdict::Inconclusive, error.to_string()));
        let mut flags = lock(&self.flags);
        if let Some(memory) = flags.get_mut(&flag).filter(|memory| memory.questions == questions) {
            note(&mut memory.answers, now(), &check.name, answer);
            self.hub.wake.notify_one();
        }
    }

    async fn post(&self, url: &str, content: &str, body: String) -> Result<(StatusCode, Bytes), AskError> {
        let uri: Uri = url.parse().map_err(hyper::http::Error::from)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::CONTENT_TYPE, content)
            .body(Full::new(Bytes::from(body)))?;
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(AskError::Body)?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| AskError::Timeout).flatten()
    }
}

fn note(answers: &mut Answers, now: UnixMs, name: &str, (verdict, message): (Verdict, String)) {
    let since = answers.get(name).filter(|old| old.verdict == verdict).map_or(now, |old| old.since);
    answers.insert(name.to_owned(), Answer { verdict, message, since });
}

/// As in a form.
fn percent_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
