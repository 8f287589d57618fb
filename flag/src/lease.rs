//! Which VM instance of a proxy talks to the flag service: a lease in shared data. Pure.

use serde::Serialize;

use crate::read_fields;

/// How long a lease lasts without renewal.
pub const LEASE_MS: u64 = 2_000;

/// The lease as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// Instance id.
    pub holder: u32,
    /// Milliseconds of the proxy's clock.
    pub until_ms: u64,
}

read_fields! { Lease { holder: "holder", until_ms: "until_ms" } }

/// What an instance does about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It holds the lease, and writes this to keep or take it. The write is compare-and-swap:
    /// who loses it looks again at its next tick.
    Write(Lease),
    /// It holds the lease, and renewal is not due yet.
    Hold,
    /// Another one holds it.
    Follow,
}

/// Decides for instance `me`. A lease that runs longer than any is ever written for comes from
/// a clock that was set back: it counts as expired.
pub fn claim(current: Option<Lease>, me: u32, now_ms: u64) -> Claim {
    let mine = Claim::Write(Lease { holder: me, until_ms: now_ms.saturating_add(LEASE_MS) });
    match current {
        None => mine,
        Some(lease) if lease.until_ms <= now_ms || lease.until_ms > now_ms.saturating_add(LEASE_MS) => mine,
        Some(lease) if lease.holder != me => Claim::Follow,
        Some(lease) if lease.until_ms - now_ms < LEASE_MS / 2 => mine,
        Some(_) => Claim::Hold,
    }
}
