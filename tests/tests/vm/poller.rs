//! Which instance polls for the proxy, and what the others go by.

use anyhow::{Context, Result, ensure};

use super::host::lock;
use super::proxy::{Filter, Proxy, record};

const HOST: [(&str, &str); 1] = [(":authority", "reviews")];

/// P10: a worker that gets a request before its first tick goes by what the others know, and answers for it.
#[test]
fn a_worker_goes_by_what_the_others_know() -> Result<()> {
    let filter = Filter::load()?;
    let mut proxy = Proxy::start(&filter, 2)?;
    proxy.settles(1_000)?;
    proxy.add(&filter)?;
    ensure!(proxy.request(2)?.as_deref() == Some("v2"), "it does not go by its configuration");
    proxy.frozen = Some(2);
    proxy.run(2_000)?;
    let last = proxy.reports.last().context("a report")?;
    ensure!(last.instances.len() == 3 && !last.complete, "its requests are known: {last:?}");
    Ok(())
}

/// P10: what is held goes by shared data, however late the first tick comes.
#[test]
fn a_late_tick_releases_to_what_the_others_know() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 2)?;
    proxy.frozen = Some(1);
    let held = proxy.begin(1, &HOST)?;
    ensure!(!proxy.headers(1, held).contains_key("x-versionflag"), "it waits for the first answer");
    proxy.run(900)?;
    proxy.frozen = None;
    proxy.run(500)?;
    let version = proxy.headers(1, held).get("x-versionflag").cloned();
    ensure!(version.as_deref() == Some("v2"), "{version:?}");
    proxy.end(1, held)
}

/// P11: the main thread's instance, which no request comes to and which stands still at times, does not poll.
#[test]
fn an_instance_that_serves_polls() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 3)?;
    proxy.run(700)?;
    ensure!(!proxy.reports.is_empty(), "the first one polls as long as nobody has requests");
    for worker in [1, 2] {
        ensure!(proxy.request(worker)?.as_deref() == Some("v2"), "it has the flag");
    }
    proxy.run(1_500)?;
    proxy.frozen = Some(0);
    proxy.record = record(11, "v1");
    proxy.run(100)?;
    for worker in [1, 2] {
        let version = proxy.request(worker)?;
        ensure!(version.as_deref() == Some("v1"), "worker {worker} has not heard of it: {version:?}");
    }
    proxy.frozen = None;
    proxy.settles(1_000)?;
    // Nobody hands it back and forth.
    let before = proxy.reports.len();
    proxy.run(1_000)?;
    ensure!(proxy.reports.len() > before + 10, "{} reports in a second", proxy.reports.len() - before);
    Ok(())
}

/// A poller that stood still, and has an older answer than the one that polls by now, publishes nothing.
#[test]
fn a_late_answer_does_not_undo_a_newer_one() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 2)?;
    proxy.settles(1_000)?;
    // Whoever polls is frozen with an answer on its way: the record is another one by the time it can read it.
    let poller = proxy.poller()?;
    proxy.frozen = Some(poller);
    proxy.record = record(12, "v2");
    proxy.run(4_000)?;
    ensure!(proxy.poller()? == poller, "its poll is still open");
    let revision = |proxy: &Proxy| lock(&proxy.shared).data["versionflag.1/revision"].0.clone();
    let before = revision(&proxy);
    ensure!(before.starts_with(b"\"12-"), "the other one polls: {}", String::from_utf8_lossy(&before));
    proxy.frozen = None;
    proxy.answer_poll_of(poller, record(11, "v1"))?;
    ensure!(revision(&proxy) == before, "an older snapshot was published over a newer one");
    proxy.settles(2_000)
}

/// A number of a round that no proxy lives for, in shared data, does not end all reports.
#[test]
fn a_scribbled_round_ends_no_reports() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 2)?;
    proxy.settles(1_000)?;
    proxy.run(3_000)?;
    lock(&proxy.shared).scribble("versionflag.1/round", u64::MAX.to_string().as_bytes());
    let before = proxy.reports.len();
    proxy.run(1_000)?;
    ensure!(proxy.reports.len() > before + 10, "{} reports since", proxy.reports.len() - before);
    Ok(())
}
