//! What an answer to a check means. Pure.

use flag::answers::Answers;
use http::StatusCode;
use serde::Deserialize;

use super::Verdict;
use crate::spec::{Builtin, Percent, Prometheus, number};

/// The share of answers that has to stay below the bound of a latency.
const SHARE: f64 = 0.99;

/// What the proxies measured, against its bounds.
pub fn builtin(check: &Builtin, answers: Option<&Answers>) -> (Verdict, String) {
    let none = Answers::default();
    let answers = answers.unwrap_or(&none);
    let count = answers.count();
    if count < u64::from(check.min_requests) {
        return (
            Verdict::Inconclusive,
            format!("{count} answers were measured, at least {} are needed", check.min_requests),
        );
    }
    let (mut failed, mut words) = (false, vec![]);
    if let Some(max) = check.max_error_rate {
        // In millionths, rounded up: the bound itself passes, anything above does not.
        let rate = (u128::from(answers.failed) * 1_000_000).div_ceil(u128::from(count.max(1)));
        failed |= rate > u128::from(max.0);
        let rate = Percent(u32::try_from(rate).unwrap_or(u32::MAX));
        words.push(format!("{rate} of {count} answers failed, at most {max} may"));
    }
    if let (Some(max), Some(ms)) = (check.max_latency, answers.quantile_ms(SHARE)) {
        failed |= ms > max.0 as f64;
        words.push(format!("99% of {count} answers took less than {ms:.0} ms, at most {max} is allowed"));
    }
    (if failed { Verdict::Failed } else { Verdict::Passed }, words.join("; "))
}

#[derive(Deserialize)]
struct QueryAnswer {
    data: QueryData,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", tag = "resultType", content = "result")]
enum QueryData {
    Vector(Vec<Sample>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

/// What a Prometheus answered, against its bounds.
pub fn prometheus(check: &Prometheus, status: StatusCode, body: &[u8]) -> (Verdict, String) {
    let inconclusive = |message: String| (Verdict::Inconclusive, message);
    if !status.is_success() {
        return inconclusive(format!("Prometheus answered {status}: is the query right?"));
    }
    let value = match serde_json::from_slice::<QueryAnswer>(body).map(|answer| answer.data) {
        Err(_) => return inconclusive("the answer is not that of a Prometheus query for one number".to_owned()),
        Ok(QueryData::Scalar((_, value))) => value,
        Ok(QueryData::Vector(samples)) => match <[Sample; 1]>::try_from(samples) {
            Ok([sample]) => sample.value.1,
            Err(samples) if samples.is_empty() => return inconclusive("the query gives no data".to_owned()),
            Err(samples) => {
                let count = samples.len();
                return inconclusive(format!("the query gives {count} series, one is needed: aggregate them"));
            }
        },
    };
    let Some(value) = number(&value) else {
        return inconclusive("the query gives no number".to_owned());
    };
    let (min, max) = (check.min.as_deref().and_then(number), check.max.as_deref().and_then(number));
    if let Some(min) = min.filter(|min| value < *min) {
        return (Verdict::Failed, format!("the query gives {value}, at least {min} is needed"));
    }
    if let Some(max) = max.filter(|max| value > *max) {
        return (Verdict::Failed, format!("the query gives {value}, at most {max} is allowed"));
    }
    (Verdict::Passed, format!("the query gives {value}"))
}

/// What a webhook answered. Only its status counts: what it says is not shown to others.
pub fn webhook(status: StatusCode) -> (Verdict, String) {
    let away = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    let message = format!("the webhook answered {status}");
    match status {
        _ if status.is_success() => (Verdict::Passed, message),
        _ if away.contains(&status) => (Verdict::Inconclusive, message),
        _ => (Verdict::Failed, message),
    }
}
