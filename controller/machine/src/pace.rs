//! How often proxies report: as often as their flags need, and no more than a controller can take in of all of them. Pure.
//!
//! An ack, and news of a fence, come at once whatever the pace is. What a larger fleet takes longer for is to prove that
//! a version is quiet.

use crate::duration::Millis;

/// Between two reports of a proxy of which nothing is awaited.
pub const STEADY: Millis = Millis(1_000);
/// The slowest pace: more than it, and the grace of [`stale`], would leave people without news of a proxy that is gone.
const SLOWEST: Millis = Millis(40_000);
/// Reports in a second that a core takes in beside everything else, while something is awaited.
const AWAITED_PER_CORE: u64 = 2_000;
/// Reports in a second of a fleet at rest: some hundredths of a core.
const AT_REST: u64 = 250;
/// Beyond two reports, until one that does not come is missed; and how long that is at least, for one that is slow to
/// send or to be taken in.
const GRACE: Millis = Millis(3_000);
const PATIENCE: Millis = Millis(5_000);

/// The time between two reports of each of so many proxies, where their flags need this one. Doubled until it fits, so
/// that it seldom changes while proxies come and go.
pub fn pace(needed: Millis, proxies: usize, cores: usize) -> Millis {
    let cores = u64::try_from(cores.max(1)).unwrap_or(u64::MAX);
    let per_second = if needed < STEADY { AWAITED_PER_CORE.saturating_mul(cores) } else { AT_REST };
    let proxies = u64::try_from(proxies).unwrap_or(u64::MAX);
    let least = proxies.saturating_mul(1_000).div_ceil(per_second);
    let mut pace = needed.0.max(1);
    while pace < least && pace < SLOWEST.0 {
        pace = pace.saturating_mul(2);
    }
    Millis(pace.min(SLOWEST.0).max(needed.0))
}

/// For how long a report says what is so, where the next one comes at this pace.
pub fn stale(pace: Millis) -> Millis {
    Millis(pace.0.saturating_mul(2).saturating_add(GRACE.0)).max(PATIENCE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::few_at_rest(1_000, 250, 1_000)]
    #[case::more(1_000, 251, 2_000)]
    #[case::thousands(1_000, 4_000, 16_000)]
    #[case::never_slower(1_000, 25_000, 40_000)]
    #[case::a_hold_of_few(20, 80, 20)]
    #[case::awaited(100, 400, 100)]
    #[case::awaited_of_more(100, 401, 200)]
    #[case::awaited_of_thousands(100, 10_000, 3_200)]
    #[case::nobody(100, 0, 100)]
    fn the_pace_follows_from_how_many_there_are(#[case] needed: u64, #[case] proxies: usize, #[case] paced: u64) {
        assert_eq!(pace(Millis(needed), proxies, 2), Millis(paced));
    }

    proptest! {
        /// A fleet of any size is taken in, up to the slowest pace, and is never asked more often than its flags need.
        #[test]
        fn a_fleet_stays_within_its_budget(needed in 1_u64..2_000, proxies in 0_usize..100_000, cores in 0_usize..64) {
            let paced = pace(Millis(needed), proxies, cores);
            prop_assert!(paced.0 >= needed);
            let budget = if needed < STEADY.0 { AWAITED_PER_CORE * cores.max(1) as u64 } else { AT_REST };
            prop_assert!(paced >= SLOWEST || proxies as u64 * 1_000 / paced.0 <= budget);
            prop_assert!(stale(paced).0 > 2 * paced.0);
            prop_assert!(pace(Millis(needed), proxies + 1, cores) >= paced);
        }
    }
}
