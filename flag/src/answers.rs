//! How a version answers: its failures and its latencies. Counted only while a check asks for them,
//! because it costs three hostcalls a request. Pure.
//!
//! A proxy reports them as totals by `VERSION/BUCKET`, because that adds nothing to the filter that
//! it does not have already: `started` are the answers in the bucket, `finished` those of them that
//! did not fail.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::count::Totals;
use crate::named::Named;

/// Buckets of latencies: the first holds less than 1 ms, each next one less than twice as much, the
/// last whatever took longer.
pub const BUCKETS: usize = 18;

/// Statuses of gRPC that say that the server failed: those that HTTP has from 500 on. Unknown, deadline exceeded,
/// unimplemented, internal, unavailable, data loss.
const GRPC_FAILURES: [&str; 6] = ["2", "4", "12", "13", "14", "15"];

/// How a stream says what came of it, beside its status of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does not.
    Http,
    /// By gRPC, in its trailers, which have not come.
    Awaited,
    /// It was said there.
    Grpc {
        /// It is one of the server's failures.
        failed: bool,
    },
}

impl Outcome {
    /// What to wait for, by the content type of the request.
    pub fn of_request(content_type: Option<&str>) -> Outcome {
        let rest = content_type.and_then(|kind| kind.strip_prefix("application/grpc"));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+')) { Outcome::Awaited } else { Outcome::Http }
    }

    /// The trailers have come, with this status of gRPC.
    pub fn said(self, status: Option<&str>) -> Outcome {
        match (self, status) {
            (Outcome::Awaited, Some(status)) => Outcome::Grpc { failed: GRPC_FAILURES.contains(&status) },
            _ => self,
        }
    }

    /// Whether the answer has failed; `details`: what Envoy says of how the stream ended. A gRPC status that comes with
    /// the headers cannot be seen: as the protocol has that for immediate errors, it is taken for one.
    pub fn failed(self, status: i64, details: &str) -> bool {
        let client = ["downstream", "http1.", "http2.", "http3."].iter().any(|who| details.starts_with(who));
        // What Envoy says of an answer that came whole.
        let cut_off = details.starts_with("upstream_");
        let said = match self {
            Outcome::Http => false,
            Outcome::Awaited => !client,
            Outcome::Grpc { failed } => failed,
        };
        status >= 500 || cut_off || said
    }
}

/// The bucket of a latency.
pub fn bucket(ms: u64) -> usize {
    ((u64::BITS - ms.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// Answers of one version since the record in effect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Answers {
    /// Those that failed: see [`Outcome::failed`].
    pub failed: u64,
    /// All of them, by how long they took until their stream ended. Shorter where none took longer.
    pub by_ms: Vec<u64>,
}

impl Answers {
    /// Adds what one proxy reported to the sums by version.
    pub fn add(sums: &mut BTreeMap<String, Answers>, reported: &Named<Totals>) {
        for (key, totals) in reported {
            let Some((version, bucket)) = split(key) else { continue };
            let sum = sums.entry(version.to_owned()).or_default();
            if sum.by_ms.len() <= bucket {
                sum.by_ms.resize(bucket + 1, 0);
            }
            if let Some(count) = sum.by_ms.get_mut(bucket) {
                *count = count.saturating_add(totals.started);
            }
            sum.failed = sum.failed.saturating_add(totals.open().unwrap_or(0));
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.by_ms.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency, in milliseconds, that this share of the answers (0 to 1) stayed below; within a
    /// bucket they are taken to be spread evenly. `None`: there are no answers.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let wanted = share * count as f64;
        let (mut below, mut floor) = (0.0, 0.0);
        for (bucket, inside) in self.by_ms.iter().enumerate() {
            let (inside, ceiling) = (*inside as f64, (1_u64 << bucket.min(63)) as f64);
            if inside > 0.0 && below + inside >= wanted {
                return Some(floor + (ceiling - floor) * ((wanted - below) / inside).clamp(0.0, 1.0));
            }
            (below, floor) = (below + inside, ceiling);
        }
        None
    }
}

/// Version and bucket of a key.
pub fn split(key: &str) -> Option<(&str, usize)> {
    let (version, bucket) = key.rsplit_once('/')?;
    Some((version, bucket.parse().ok().filter(|bucket| *bucket < BUCKETS)?))
}
