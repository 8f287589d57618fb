//! Requests that are open while a switch is under way, and of which it is not known yet who serves them.

use anyhow::{Context, Result, ensure};
use flag::count::Totals;
use flag::instance::Findings;

use super::proxy::{Filter, Proxy};

const HOST: [(&str, &str); 1] = [(":authority", "reviews")];

/// What level 2 says of the flag in the last report.
fn found(proxy: &Proxy) -> Result<Findings> {
    let last = proxy.reports.last().context("a report")?;
    ensure!(last.complete, "{last:?}");
    Ok(last.found("uid").cloned().unwrap_or_default())
}

fn open_at(proxy: &Proxy, version: &str) -> Option<u64> {
    proxy.reports.last()?.flags.get("uid").expect("the flag").sent.get(version).copied().and_then(Totals::open)
}

/// L3: a request that an older route leads to v1 is unknown until it has left, and v1's as soon as it has, although
/// nobody answers it for long.
#[test]
fn a_request_is_unknown_until_it_has_left() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 2)?;
    proxy.settles(1_000)?;
    // At one place a right one would take away what a stray one showed.
    let stray = proxy.begin(0, &[HOST[0], (":path", "/long-poll")])?;
    let other = proxy.begin(0, &HOST)?;
    proxy.run(200)?;
    ensure!(found(&proxy)?.unplaced == 2, "{:?}", found(&proxy));
    proxy.send(0, stray, "reviews-v1");
    proxy.send(0, other, "reviews-v2");
    proxy.run(1_000)?;
    let found = found(&proxy)?;
    ensure!(found.unplaced == 0 && found.strays.len() == 1, "{found:?}");
    ensure!((open_at(&proxy, "v1"), open_at(&proxy, "v2")) == (Some(1), Some(1)), "{:?}", proxy.reports.last());
    proxy.end(0, stray)?;
    proxy.end(0, other)?;
    proxy.run(200)?;
    ensure!((open_at(&proxy, "v1"), open_at(&proxy, "v2")) == (Some(0), Some(0)), "{:?}", proxy.reports.last());
    Ok(())
}

/// One that has left by the time of the first round is never unknown, whatever is sent meanwhile.
#[test]
fn what_leaves_at_once_is_never_unknown() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 1)?;
    proxy.settles(1_000)?;
    for _ in 0..50 {
        let late = proxy.begin(0, &HOST)?;
        proxy.send(0, late, "reviews-v2");
        // This one has just begun when the round comes.
        let new = proxy.begin(0, &HOST)?;
        proxy.run(40)?;
        ensure!(found(&proxy)?.unplaced == 0, "{:?}", found(&proxy));
        proxy.end(0, new)?;
        proxy.end(0, late)?;
    }
    Ok(())
}

/// L2: however many requests wait for their responses, what a round looks at is bounded, and nothing is looked at for ever.
#[test]
fn ten_thousand_open_requests_cost_little() -> Result<()> {
    const OPEN: u64 = 10_000;
    let mut proxy = Proxy::start(&Filter::load()?, 1)?;
    proxy.settles(1_000)?;
    let requests = (0..OPEN).map(|_| proxy.begin(0, &HOST)).collect::<Result<Vec<_>>>()?;
    let mut most = 0;
    let mut total = 0;
    for _ in 0..100 {
        proxy.watch(0);
        // One round, or two.
        proxy.run(50)?;
        let calls = proxy.watch(0).out.len();
        (most, total) = (most.max(calls), total + calls);
    }
    ensure!(most < 2 * (1_024 * 2 + 100), "{most} calls in 50 ms");
    ensure!(total < 200_000, "{total} calls in 5 s");
    ensure!(found(&proxy)?.unplaced == OPEN, "{:?}", found(&proxy));
    for request in &requests {
        proxy.send(0, *request, "reviews-v2");
    }
    proxy.run(5_000)?;
    ensure!(found(&proxy)?.unplaced == 0, "{:?}", found(&proxy));
    proxy.watch(0);
    proxy.run(50)?;
    let calls = proxy.watch(0).out.len();
    ensure!(calls < 100, "{calls} calls, although all is known");
    ensure!(open_at(&proxy, "v2") == Some(OPEN), "{:?}", proxy.reports.last());
    Ok(())
}
