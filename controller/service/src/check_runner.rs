//! Asks the checks' questions, and remembers the last answers. I/O: HTTP, reads the clock.
//!
//! What is remembered is of one switch only, and lost with the process: then it is asked again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use machine::checks::{CheckAnswer, CheckAnswers, Questions, Verdict, verdict};
use machine::fleet::ledger::Fleet;
use machine::spec::Check;
use machine::time::UnixMs;

use crate::check_hosts::{CheckHost, may_ask};
use crate::clock::now;
use crate::http::{Bytes, ExchangeLimits, HttpClient, Method, OutgoingRequest, StatusCode, header};
use crate::hub::Hub;
use crate::lock::lock;

/// No answer after this is none, and more of an answer is not read.
const LIMITS: ExchangeLimits = ExchangeLimits { bytes: 1 << 20, time: Duration::from_secs(5) };

/// The checks of one flag, in one switch.
#[derive(Debug)]
struct FlagChecks {
    questions: Questions,
    answers: CheckAnswers,
    /// When each check was asked last, by the check's name.
    asked: BTreeMap<String, UnixMs>,
}

/// Runs the checks of all flags.
#[derive(Debug)]
pub struct CheckRunner {
    /// Its driver is woken by answers.
    hub: Arc<Hub>,
    http: HttpClient,
    /// Which hosts may be asked; `None`: all.
    hosts: Option<Vec<CheckHost>>,
    /// By the flag's name.
    flags: Mutex<BTreeMap<String, FlagChecks>>,
}

impl CheckRunner {
    /// A runner that believes the servers whose certificates this machine trusts. Fails where it trusts none.
    pub fn new(hub: Arc<Hub>) -> std::io::Result<Arc<CheckRunner>> {
        CheckRunner::asking(hub, None)
    }

    /// The same, which asks only some hosts; `None`: all.
    pub fn asking(hub: Arc<Hub>, hosts: Option<Vec<CheckHost>>) -> std::io::Result<Arc<CheckRunner>> {
        let http = HttpClient::with_trust_of_machine(LIMITS)?;
        Ok(Arc::new(CheckRunner { hub, http, hosts, flags: Mutex::default() }))
    }

    /// Asks those questions of a flag that are due, and gives the last answers to all of them. A question that is
    /// asked now is answered later, which wakes the driver.
    pub fn run_due_checks(
        self: &Arc<Self>,
        now: UnixMs,
        flag: &str,
        questions: Option<Questions>,
        fleet: &Fleet,
    ) -> CheckAnswers {
        let mut flags = lock(&self.flags);
        let Some(questions) = questions else {
            flags.remove(flag);
            return CheckAnswers::new();
        };
        if flags.get(flag).is_none_or(|checks| checks.questions != questions) {
            let fresh = FlagChecks { questions, answers: CheckAnswers::new(), asked: BTreeMap::new() };
            flags.insert(flag.to_owned(), fresh);
        }
        let Some(checks) = flags.get_mut(flag) else {
            return CheckAnswers::new();
        };
        for check in &checks.questions.checks {
            if let Some(builtin) = &check.builtin {
                let measured = fleet.answers.get(&checks.questions.to);
                record_answer(&mut checks.answers, now, &check.name, verdict::builtin(builtin, measured));
            } else if checks.asked.get(&check.name).is_none_or(|at| now.since(*at) >= check.interval) {
                checks.asked.insert(check.name.clone(), now);
                let (runner, flag) = (Arc::clone(self), flag.to_owned());
                tokio::spawn(runner.run_check(flag, checks.questions.clone(), check.clone()));
            }
        }
        checks.answers.clone()
    }

    async fn run_check(self: Arc<Self>, flag: String, questions: Questions, check: Check) {
        let answer = match (&check.prometheus, &check.webhook) {
            (Some(prometheus), _) => {
                let query = prometheus.query.replace("{{from}}", &questions.from).replace("{{to}}", &questions.to);
                let url = format!("{}/api/v1/query", prometheus.address.trim_end_matches('/'));
                let body = format!("query={}", percent_encode(&query));
                let answer = self.post(&url, "application/x-www-form-urlencoded", body).await;
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
        let answer = answer.unwrap_or_else(|error| (Verdict::Inconclusive, error));
        let mut flags = lock(&self.flags);
        if let Some(checks) = flags.get_mut(&flag).filter(|checks| checks.questions == questions) {
            record_answer(&mut checks.answers, now(), &check.name, answer);
            self.hub.wake_driver();
        }
    }

    /// Status and body of an answer. The error says why there is none.
    async fn post(&self, url: &str, content: &str, body: String) -> Result<(StatusCode, Bytes), String> {
        may_ask(self.hosts.as_deref(), url)?;
        let headers = &[(header::CONTENT_TYPE, content)];
        let request = OutgoingRequest { method: Method::POST, url, headers, body: body.into() };
        self.http.exchange(request).await.map_err(|error| error.to_string())
    }
}

/// Replaces the answer of a check, which is as old as its verdict.
fn record_answer(answers: &mut CheckAnswers, now: UnixMs, check: &str, (verdict, message): (Verdict, String)) {
    let since = answers.get(check).filter(|old| old.verdict == verdict).map_or(now, |old| old.since);
    answers.insert(check.to_owned(), CheckAnswer { verdict, message, since });
}

/// As in a form.
fn percent_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
