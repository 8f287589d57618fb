//! Questions that the new version has to answer before or after the flip. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use http::Uri;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::choice::{OnFail, When};
use crate::duration::Millis;
use crate::schema::text_rule;

const ONE_KIND: &str = "a check has to ask exactly one of builtin, prometheus and webhook";
const BOUNDED: &str = "a check without a bound cannot fail: set";

/// One question. It has to name exactly one of `builtin`, `prometheus` and `webhook`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.builtin), has(self.prometheus), has(self.webhook)].filter(one, one).size() == 1",
    "message": ONE_KIND,
}]))]
pub struct Check {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// When it is asked.
    #[serde(default)]
    pub when: When,
    /// What the proxies measured of the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// A query to a Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// A POST to a service of yours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// What to do when it fails. Without an answer it neither passes nor fails.
    #[serde(default)]
    pub on_fail: OnFail,
    /// How often a Prometheus or a webhook is asked.
    #[serde(default = "ten_seconds")]
    pub interval: Millis,
}

fn ten_seconds() -> Millis {
    Millis(10_000)
}

/// What the proxies measured of the new version since the record in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.maxErrorRate) || has(self.maxLatency)",
    "message": format!("{BOUNDED} maxErrorRate, maxLatency or both"),
}]))]
pub struct Builtin {
    /// The largest share of answers that failed: with a status of 500 or above, or one of gRPC that stands for these, or
    /// cut off by the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_error_rate: Option<Percent>,
    /// What 99 of 100 answers have to stay below, until the end of their stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_latency: Option<Millis>,
    /// Fewer answers say nothing.
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    pub min_requests: u32,
}

impl Default for Builtin {
    fn default() -> Self {
        Builtin { max_error_rate: None, max_latency: None, min_requests: 100 }
    }
}

/// A query to a Prometheus that gives one number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.min) || has(self.max)",
    "message": format!("{BOUNDED} min, max or both"),
}]))]
pub struct Prometheus {
    /// Where it is, such as `http://prometheus.monitoring:9090`.
    #[schemars(length(max = 1_024), extend("x-kubernetes-validations" = text_rule(URL, NO_URL)))]
    pub address: String,
    /// The query. `{{from}}` and `{{to}}` stand for the two versions.
    #[schemars(length(min = 1, max = 4_096))]
    pub query: String,
    /// The lowest value that passes, such as `"0.99"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = text_rule(NUMBER, NO_NUMBER)))]
    pub min: Option<String>,
    /// The highest value that passes, such as `"0.01"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = text_rule(NUMBER, NO_NUMBER)))]
    pub max: Option<String>,
}

/// A POST to a service of yours: it passes with a status of 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Webhook {
    /// Where.
    #[schemars(length(max = 1_024), extend("x-kubernetes-validations" = text_rule(URL, NO_URL)))]
    pub url: String,
}

const URL: &str = "self.matches('^https?://[^/]+')";
const NO_URL: &str = "is not a URL: write it as http://HOST[:PORT][/PATH]";
const NUMBER: &str = "self.matches('^-?[0-9]{1,15}([.][0-9]{1,9})?$')";
const NO_NUMBER: &str = "is not a number: write it as 0.99";

/// A share as people write it: `1%`, `0.25%`. In millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u32);

impl Percent {
    /// All of it.
    pub const WHOLE: Percent = Percent(1_000_000);

    /// What the API server asks of one. 100% is the most, or a stored object could not be read.
    fn rules() -> Value {
        let rule = format!(
            "self.matches('^(100%|100[.]0{{1,4}}%|[0-9]{{1,2}}([.][0-9]{{1,4}})?%)$') && self.matches('^{PERCENT}$')"
        );
        text_rule(&rule, NO_PERCENT)
    }

    /// The same of one that is not nothing.
    pub(crate) fn rules_of_some() -> Value {
        let (Value::Array(mut rules), Value::Array(some)) =
            (Percent::rules(), text_rule("self.matches('[1-9]')", NO_SHARE))
        else {
            return Value::Null;
        };
        rules.extend(some);
        Value::Array(rules)
    }

    /// How many of so many it is, rounded up.
    pub fn of(self, count: u32) -> u32 {
        let part = u64::from(count).saturating_mul(u64::from(self.0)).div_ceil(1_000_000);
        u32::try_from(part).unwrap_or(u32::MAX)
    }
}

impl Default for Percent {
    fn default() -> Percent {
        Percent::WHOLE
    }
}

const PERCENT: &str = "[0-9]{1,3}([.][0-9]{1,4})?%";
pub(crate) const NO_SHARE: &str = "would let a version without pods be ready: write more than 0%";
const NO_PERCENT: &str = "is not a share: write it as 1% or 0.25%, at most 100%";

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        let read = || {
            let number = text.strip_suffix('%')?;
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let fits = plain(whole) && plain(part) && whole.len() <= 3 && part.len() <= 4;
            let millionths = whole.parse::<u32>().ok()? * 10_000 + format!("{part:0<4}").parse::<u32>().ok()?;
            (fits && millionths <= 1_000_000).then_some(Percent(millionths))
        };
        read().ok_or_else(|| format!("{:?} {NO_PERCENT}", text.chars().take(40).collect::<String>()))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 10_000, format!("{:04}", self.0 % 10_000));
        match part.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            part => write!(f, "{whole}.{part}%"),
        }
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Percent, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 10, "x-kubernetes-validations": Percent::rules() })
    }
}

/// A bound of a query as a number.
pub fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Everything that is wrong with the checks, in sentences.
pub(crate) fn validate(checks: &[Check]) -> Vec<String> {
    let mut wrong = vec![];
    let mut names = BTreeSet::new();
    for (index, check) in checks.iter().enumerate() {
        let at = format!("spec.checks[{index}] ({})", check.name.chars().take(63).collect::<String>());
        if check.name.is_empty() || check.name.len() > 63 {
            wrong.push(format!("{at}: a check needs a name of at most 63 bytes"));
        }
        if !names.insert(&check.name) {
            wrong.push(format!("{at}: another check has this name: names tell them apart"));
        }
        let kinds = [check.builtin.is_some(), check.prometheus.is_some(), check.webhook.is_some()];
        if kinds.into_iter().filter(|kind| *kind).count() != 1 {
            wrong.push(format!("{at}: {ONE_KIND}"));
        }
        if check.interval.0 < 1_000 {
            wrong.push(format!("{at}: interval {} is too short: at least 1s", check.interval));
        }
        wrong.extend(problems(check).into_iter().map(|problem| format!("{at}: {problem}")));
    }
    wrong
}

fn problems(check: &Check) -> Vec<String> {
    let mut problems = vec![];
    if let Some(builtin) = &check.builtin {
        if builtin.max_error_rate.is_none() && builtin.max_latency.is_none() {
            problems.push(format!("{BOUNDED} maxErrorRate, maxLatency or both"));
        }
        if builtin.min_requests == 0 {
            problems.push("minRequests is 0: no requests say nothing, at least 1".to_owned());
        }
    }
    if let Some(prometheus) = &check.prometheus {
        if prometheus.min.is_none() && prometheus.max.is_none() {
            problems.push(format!("{BOUNDED} min, max or both"));
        }
        let bounds = prometheus.min.iter().chain(&prometheus.max);
        problems.extend(bounds.filter(|text| number(text).is_none()).map(|text| format!("{text:?} {NO_NUMBER}")));
        if prometheus.query.is_empty() {
            problems.push("the query is empty".to_owned());
        }
    }
    let urls = [check.prometheus.as_ref().map(|one| &one.address), check.webhook.as_ref().map(|one| &one.url)];
    problems.extend(urls.into_iter().flatten().filter(|url| !is_url(url)).map(|url| format!("{url:?} {NO_URL}")));
    problems
}

fn is_url(text: &str) -> bool {
    let uri = text.parse::<Uri>().ok();
    uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some())
}
