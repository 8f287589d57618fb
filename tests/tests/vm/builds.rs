//! L1: builds of the filter of different age in one proxy; and what each worker has reached.

use anyhow::{Context, Result, ensure};
use flag::probe::{Place, Probe, Probed, SILENT};

use super::proxy::{Filter, Proxy, record};

fn probe(id: &str) -> Probe {
    let place = Place { cluster: "reviews-v2".to_owned(), host: "reviews".to_owned(), path: "/ready".to_owned() };
    let (flag, id, version) = ("uid".to_owned(), id.to_owned(), "v2".to_owned());
    Probe { flag, id, version, clusters: vec![place], lowest: 200, highest: 299, timeout_ms: 1_000 }
}

/// What the last report says of the probe.
fn probed(proxy: &Proxy) -> Result<Probed> {
    let found = proxy.reports.last().and_then(|report| report.found("uid")?.probed.clone());
    found.context("nothing is said of the probe")
}

#[test]
fn builds_of_both_levels_share_one_registry() -> Result<()> {
    let (first, filter) = (Filter::first()?, Filter::load()?);
    for seed in 0..60 {
        let told = || format!("in the order of seed {seed}");
        // Whoever comes first is the poller, and the registry is its.
        let begins = if seed % 2 == 0 { &first } else { &filter };
        let mut proxy = Proxy::start(begins, 1)?;
        for number in 0..3 {
            proxy.add(if (seed >> number) % 2 == 0 { &filter } else { &first })?;
        }
        proxy.side_by_side(seed);
        proxy.settles(1_000).with_context(told)?;
        for (epoch, version) in [(11, "v1"), (12, "v2"), (13, "v1")] {
            proxy.probe = Some(probe(version));
            proxy.record = record(epoch, version);
            proxy.settles(1_000).with_context(told)?;
        }
    }
    Ok(())
}

#[test]
fn a_worker_of_an_earlier_build_is_not_taken_for_one_that_reached() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 1)?;
    proxy.add(&Filter::first()?)?;
    proxy.probe = Some(probe("p"));
    proxy.settles(1_000)?;
    proxy.run(500)?;
    let lacks = probed(&proxy)?.lacks(&probe("p"));
    ensure!(lacks.as_deref().is_some_and(|why| why.contains(SILENT)), "{lacks:?}");
    Ok(())
}

/// F18.
#[test]
fn every_worker_shows_what_it_reached() -> Result<()> {
    let filter = Filter::load()?;
    for workers in [1, 4] {
        let mut proxy = Proxy::start(&filter, workers)?;
        proxy.settles(1_000)?;
        ensure!(probed(&proxy).is_err(), "nothing was asked");
        proxy.probe = Some(probe("p"));
        proxy.reached = "503";
        proxy.run(700)?;
        let lacks = probed(&proxy)?.lacks(&probe("p"));
        ensure!(lacks.as_deref() == Some("cluster reviews-v2: status 503: words"), "{lacks:?}");
        // It is tried again soon.
        proxy.reached = "204";
        proxy.run(3_000)?;
        ensure!(probed(&proxy)?.lacks(&probe("p")).is_none(), "{:?}", probed(&proxy));
        // And goes on being tried.
        proxy.reached = "500";
        proxy.run(11_000)?;
        ensure!(probed(&proxy)?.lacks(&probe("p")).is_some(), "{:?}", probed(&proxy));
        // Another question is another matter.
        proxy.reached = "200";
        proxy.run(3_000)?;
        ensure!(probed(&proxy)?.lacks(&probe("q")).is_some(), "{:?}", probed(&proxy));
        proxy.probe = None;
        proxy.run(1_000)?;
        ensure!(probed(&proxy).is_err(), "nothing is asked any more");
    }
    Ok(())
}

/// A frozen worker has not reached anything, however often the others have.
#[test]
fn a_worker_that_stands_still_has_not_reached() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 3)?;
    proxy.settles(1_000)?;
    proxy.frozen = Some(1);
    proxy.probe = Some(probe("p"));
    proxy.run(1_500)?;
    let last = proxy.reports.last().context("a report")?;
    let reached = last.complete && probed(&proxy).is_ok_and(|probed| probed.lacks(&probe("p")).is_none());
    ensure!(!reached, "{last:?}");
    proxy.frozen = None;
    proxy.run(2_000)?;
    ensure!(probed(&proxy)?.lacks(&probe("p")).is_none(), "{:?}", probed(&proxy));
    Ok(())
}
