//! When to try the flag service again. Pure.

const FIRST_MS: u64 = 50;
const MAX_MS: u64 = 5_000;

/// Milliseconds to wait after `failures` failures in a row: doubling, and somewhere in the upper
/// half of the step as `seed` says, so that many proxies do not come back at once.
pub fn wait_ms(failures: u32, seed: u64) -> u64 {
    let step = FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX_MS);
    // Any mixing will do: this spreads, it does not hide.
    let mixed = (seed ^ u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    step / 2 + mixed % (step / 2 + 1)
}
