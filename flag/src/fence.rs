//! The fence: two versions never handle requests at once. Callers outside the group hold new requests back while the
//! version that is left drains, and proxies beside workloads refuse what may not arrive there. Pure.
//!
//! A fence belongs to one record, by its epoch: without that record in effect nothing is held by it.

use std::cell::{Cell, RefCell};

use serde::Serialize;

use crate::record::{Gate, Record, RecordError, check_name, check_version};
use crate::{limits, read_fields, read_words};

/// What becomes of requests when a hold has run out in a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expiry {
    /// They go back to the version that was to be left.
    #[default]
    Open,
    /// They are refused until a record with a higher epoch comes.
    Reject,
}

read_words! { Expiry { "open": Open, "reject": Reject } }

/// What the fence of one flag asks of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// Uid of the flag.
    pub flag: String,
    /// Epoch of the record that this belongs to.
    pub epoch: u64,
    /// Epoch of the record with which the hold began; 0: nothing is held. A hold that has run out stays so for every
    /// record of it.
    pub since: u64,
    /// The version that is left.
    pub old: String,
    /// How long a proxy holds requests at most, from when the first record of the hold is in effect there.
    pub max_hold_ms: u32,
    /// What becomes of requests after that.
    pub expiry: Expiry,
    /// The versions whose workloads take only what a filter has sent to them.
    pub marked: Vec<String>,
    /// The versions whose workloads take nothing.
    pub closed: Vec<String>,
}

read_fields! { Fence {
    flag: "flag",
    epoch: "epoch",
    since: "since",
    old: "old",
    max_hold_ms: "maxHoldMs",
    expiry: "expiry" or Expiry::Open,
    marked: "marked" or vec![],
    closed: "closed" or vec![],
    ..
} }

impl Fence {
    /// Whether the names and the time in it are such as a fence may have.
    pub fn check(&self) -> Result<(), RecordError> {
        check_name("flag", &self.flag)?;
        let mut versions = [&self.old].into_iter().chain(&self.marked).chain(&self.closed);
        versions.try_for_each(|version| check_version("fence", version))?;
        let count = self.max_hold_ms as usize;
        let max = limits::MAX_HOLD_MS as usize;
        if (1..=max).contains(&count) { Ok(()) } else { Err(RecordError::Count { field: "maxHoldMs", count, max }) }
    }
}

/// What becomes of a request of a caller outside the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It goes by the record.
    Go,
    /// It waits.
    Wait,
    /// It goes to the version that is left, whatever the record says.
    Old,
    /// It is refused.
    Refuse,
}

/// What a header `grpc-timeout` says, in milliseconds.
pub fn grpc_timeout_ms(timeout: &str) -> Option<u64> {
    let (number, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => number.saturating_mul(3_600_000),
        "M" => number.saturating_mul(60_000),
        "S" => number.saturating_mul(1_000),
        "m" => number,
        "u" => number / 1_000,
        "n" => number / 1_000_000,
        _ => return None,
    })
}

/// What a proxy shows of a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// Requests are held, without a break since the hold began.
    Holding,
    /// Nothing is held.
    #[default]
    Open,
    /// The hold has run out.
    Expired,
}

read_words! { Held { "holding": Holding, "open": Open, "expired": Expired } }

/// What one VM instance, or a whole proxy, shows of the fence of one flag.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fenced {
    /// Epoch of the fence and of the record, both of which are in effect; 0: one of both is not, or the instances do not
    /// agree.
    pub epoch: u64,
    /// Whether requests are held.
    pub held: Held,
    /// Requests that wait now.
    pub waiting: u64,
    /// Requests that went through a hold because they belong to something that had begun before it, since it began.
    pub passed: u64,
    /// Requests that were refused, since the proxy started.
    pub refused: u64,
    /// For how long the oldest request that is open on the version that is left is known, in milliseconds.
    pub oldest_ms: u64,
    /// For how long that has been looked at, in milliseconds.
    pub watched_ms: u64,
}

read_fields! { Fenced {
    epoch: "epoch",
    held: "held" or Held::Open,
    waiting: "waiting" or 0,
    passed: "passed" or 0,
    refused: "refused" or 0,
    oldest_ms: "oldestMs" or 0,
    watched_ms: "watchedMs" or 0,
    ..
} }

impl Fenced {
    /// What two instances show together.
    pub fn with(&self, other: &Fenced) -> Fenced {
        let held = match (self.held, other.held) {
            (Held::Expired, _) | (_, Held::Expired) => Held::Expired,
            (Held::Open, _) | (_, Held::Open) => Held::Open,
            (Held::Holding, Held::Holding) => Held::Holding,
        };
        Fenced {
            epoch: if self.epoch == other.epoch { self.epoch } else { 0 },
            held,
            waiting: self.waiting.saturating_add(other.waiting),
            passed: self.passed.saturating_add(other.passed),
            refused: self.refused.saturating_add(other.refused),
            oldest_ms: self.oldest_ms.max(other.oldest_ms),
            watched_ms: self.watched_ms.min(other.watched_ms),
        }
    }
}

/// The fence of one flag in one VM instance.
#[derive(Debug, Default)]
pub struct Gatekeeper {
    fence: RefCell<Option<Fence>>,
    /// Epoch with which the hold began that is in effect, or was last; 0: there was none.
    since: Cell<u64>,
    until_ms: Cell<u64>,
    expired: Cell<bool>,
    watched_since_ms: Cell<u64>,
    /// Requests that wait.
    pub waiting: Cell<u64>,
    passed: Cell<u64>,
    refused: Cell<u64>,
    /// Since when the oldest request is known that is open on the version that is left.
    pub oldest_since_ms: Cell<Option<u64>>,
}

impl Gatekeeper {
    /// Puts a fence into effect, or takes it away.
    pub fn take(&self, fence: Option<&Fence>, now_ms: u64) {
        if let Some(fence) = fence
            && fence.since > self.since.get()
        {
            self.since.set(fence.since);
            self.until_ms.set(now_ms.saturating_add(fence.max_hold_ms.into()));
            self.expired.set(false);
            self.passed.set(0);
        }
        let mut known = self.fence.borrow_mut();
        // What was looked at for the switch before was the other version.
        if known.as_ref().map(|known| &known.old) != fence.map(|fence| &fence.old) {
            self.watched_since_ms.set(now_ms);
            self.oldest_since_ms.set(None);
        }
        *known = fence.cloned();
    }

    /// Whether anything is asked of this proxy: without it no request is looked at.
    pub fn is_set(&self) -> bool {
        self.fence.borrow().is_some()
    }

    /// Whether requests are held under this record, or its hold has run out.
    pub fn holds(&self, record: &Record) -> bool {
        record.gate == Gate::Hold && self.is_of(record)
    }

    fn is_of(&self, record: &Record) -> bool {
        self.fence.borrow().as_ref().is_some_and(|fence| fence.epoch == record.epoch)
    }

    /// The version that is left.
    pub fn old(&self) -> Option<String> {
        self.fence.borrow().as_ref().map(|fence| fence.old.clone())
    }

    /// What becomes of a request of a caller outside the group; `mark`: the version that it was sent to before, where
    /// that can be believed.
    pub fn passage(&self, record: &Record, now_ms: u64, mark: impl FnOnce() -> Option<String>) -> Passage {
        if !self.holds(record) {
            return Passage::Go;
        }
        let fence = self.fence.borrow();
        let Some(fence) = &*fence else { return Passage::Go };
        // What has begun must come to its end, or nothing ever drains.
        if mark().is_some_and(|mark| mark == fence.old) {
            self.passed.set(self.passed.get().saturating_add(1));
            return Passage::Old;
        }
        if !self.runs_out(now_ms) {
            return Passage::Wait;
        }
        match fence.expiry {
            Expiry::Open => Passage::Old,
            Expiry::Reject => Passage::Refuse,
        }
    }

    /// Whether the hold has run out by now. Once it has, it stays so.
    pub fn runs_out(&self, now_ms: u64) -> bool {
        if now_ms >= self.until_ms.get() {
            self.expired.set(true);
        }
        self.expired.get()
    }

    /// The clock was set back: what would last longer for it ends.
    pub fn expire(&self) {
        self.expired.set(true);
    }

    /// Whether a request may arrive at a workload of this version; `marked`: a filter has sent it there.
    pub fn admits(&self, version: &str, marked: bool) -> bool {
        let fence = self.fence.borrow();
        let Some(fence) = &*fence else { return true };
        let has = |all: &[String]| all.iter().any(|one| one == version);
        !has(&fence.closed) && (marked || !has(&fence.marked))
    }

    /// Counts a request that was refused.
    pub fn refuse(&self) {
        self.refused.set(self.refused.get().saturating_add(1));
    }

    /// What is shown of it.
    pub fn shown(&self, record: &Record, now_ms: u64) -> Option<Fenced> {
        if !self.is_set() {
            return None;
        }
        let held = match self.holds(record) {
            false => Held::Open,
            true if self.runs_out(now_ms) => Held::Expired,
            true => Held::Holding,
        };
        Some(Fenced {
            epoch: if self.is_of(record) { record.epoch } else { 0 },
            held,
            waiting: self.waiting.get(),
            passed: self.passed.get(),
            refused: self.refused.get(),
            oldest_ms: self.oldest_since_ms.get().map_or(0, |since| now_ms.saturating_sub(since)),
            watched_ms: now_ms.saturating_sub(self.watched_since_ms.get()),
        })
    }
}
