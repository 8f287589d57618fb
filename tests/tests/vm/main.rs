//! The shipped filter in a host of this test's own, which plays the faults that a real Envoy cannot
//! be made to show: whatever the host does, no instance traps and none loses its flag.

mod builds;
mod fence;
mod host;
mod istio;
mod open;
mod order;
mod plugins;
mod poller;
mod proxy;
mod requests;
#[path = "../../../docs/table.rs"]
mod table;
mod turns;

use anyhow::{Context, Result, ensure};
use host::lock;
use proxy::{Filter, Proxy, record};
use serde_json::json;

/// An ack comes within this, on the proxy's own clock: longer than any of its time-outs.
const ACK_MS: u64 = 8_000;
const PREFIX: &str = "versionflag.1/";
/// What every instance writes, under its id.
const INSTANCES: &str = "instance/";

/// Two workers at v2, then at v1, with requests at every step.
fn switch(proxy: &mut Proxy) -> Result<()> {
    proxy.run(600)?;
    proxy.requests_go_to(&["v1", "v2"])?;
    proxy.record = record(proxy.record.epoch + 1, "v1");
    proxy.run(300)?;
    proxy.requests_go_to(&["v1", "v2"])
}

#[test]
fn a_flip_comes_to_every_instance() -> Result<()> {
    let filter = Filter::load()?;
    for workers in [1, 2, 5] {
        let mut proxy = Proxy::start(&filter, workers)?;
        proxy.settles(1_000)?;
        proxy.record = record(11, "v1");
        proxy.settles(200)?;
        let totals = &proxy
            .reports
            .last()
            .context("a report")?
            .flags
            .get("uid")
            .expect("the flag")
            .sent
            .get("v2")
            .expect("counted");
        ensure!(totals.open() == Some(0) && totals.started == workers as u64, "{totals:?}");
    }
    Ok(())
}

#[test]
fn workers_start_and_switch_side_by_side() -> Result<()> {
    let filter = Filter::load()?;
    for seed in 0..400 {
        let workers = 2 + seed as usize % 4;
        let told = || format!("{workers} workers in the order of seed {seed}");
        let mut proxy = Proxy::start(&filter, workers)?;
        proxy.side_by_side(seed);
        proxy.settles(1_000).with_context(told)?;
        proxy.record = record(11, "v1");
        proxy.settles(200).with_context(told)?;
        proxy.replace_plugins().with_context(told)?;
        proxy.record = record(12, "v2");
        proxy.settles(ACK_MS).with_context(told)?;
        proxy.replace_instances(&filter).with_context(told)?;
        proxy.record = record(13, "v1");
        proxy.settles(ACK_MS).with_context(told)?;
    }
    Ok(())
}

#[test]
fn every_call_of_the_host_may_fail() -> Result<()> {
    let filter = Filter::load()?;
    let mut failed = std::collections::BTreeMap::<String, u64>::new();
    for nth in 1.. {
        let mut proxy = Proxy::start(&filter, 2)?;
        lock(&proxy.shared).faults.nth = nth;
        switch(&mut proxy).with_context(|| format!("call {nth} fails"))?;
        let Some(name) = lock(&proxy.shared).faults.failed.take() else { break };
        proxy.settles(ACK_MS).with_context(|| format!("after call {nth}, {name}, failed"))?;
        *failed.entry(name).or_default() += 1;
    }
    println!("{failed:?}");
    for name in ["get_shared_data", "set_shared_data", "http_call", "get_buffer_bytes", "dequeue_shared_queue"] {
        ensure!(failed.contains_key(&format!("proxy_{name}")), "{name} never failed: {failed:?}");
    }
    Ok(())
}

#[test]
fn writes_of_shared_data_may_conflict() -> Result<()> {
    let filter = Filter::load()?;
    for key in ["registry", "lease"] {
        for conflicts in [1, 63, 64, 1_000, u64::MAX] {
            let mut proxy = Proxy::start(&filter, 2)?;
            lock(&proxy.shared).faults.conflicts = Some((key, conflicts));
            proxy.run(1_000)?;
            // Without the flag service they go by their configuration.
            proxy.requests_go_to(&["v1", "v2"])?;
            lock(&proxy.shared).faults.conflicts = None;
            let told = || format!("{conflicts} conflicts at {key}");
            proxy.settles(ACK_MS).with_context(told)?;
            // A flip that comes when the poller cannot renew its lease.
            lock(&proxy.shared).faults.conflicts = Some((key, conflicts));
            for epoch in 11..31 {
                proxy.record = record(epoch, if epoch % 2 == 1 { "v1" } else { "v2" });
                proxy.run(70).with_context(told)?;
                proxy.requests_go_to(&["v1", "v2"]).with_context(told)?;
            }
            lock(&proxy.shared).faults.conflicts = None;
            proxy.settles(ACK_MS).with_context(told)?;
        }
    }
    Ok(())
}

/// What another filter of the proxy, or another version of this one, could have written.
fn garbage() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let far = u64::MAX;
    let crowd: Vec<_> = (1..600).map(|id: u32| json!({ "id": id, "queue": id })).collect();
    let mut garbage = vec![
        ("a lease for ever", "lease", json!({ "holder": 99, "until_ms": far }).to_string().into_bytes()),
        ("a lease of nobody", "lease", json!({ "holder": 0, "until_ms": 0 }).to_string().into_bytes()),
        ("the last instance id", "registry", json!({ "boot": "b", "next": u32::MAX, "live": [] }).to_string().into()),
        ("a crowd", "registry", json!({ "boot": "b", "next": 600, "live": crowd }).to_string().into()),
        ("the last round", "round", far.to_string().into_bytes()),
        ("another revision", "revision", b"\"none\"".to_vec()),
    ];
    for key in ["registry", "lease", "snapshot", "snapshot/2", "revision", "round", INSTANCES] {
        garbage.push(("nothing", key, vec![]));
        garbage.push(("bytes", key, b"\0\xff\xfe".to_vec()));
        garbage.push(("another type", key, b"[1, {\"a\": null}]".to_vec()));
        garbage.push(("2 MiB", key, vec![b'1'; 2 << 20]));
    }
    garbage
}

#[test]
fn shared_data_may_be_anything() -> Result<()> {
    let filter = Filter::load()?;
    for (what, key, value) in garbage() {
        for early in [true, false] {
            let when = if early { "before the start" } else { "while it runs" };
            let told = || format!("{what} in {key} {when}");
            let mut proxy = Proxy::start(&filter, 2)?;
            if !early {
                proxy.settles(1_000).with_context(told)?;
            }
            let mut keys = vec![format!("{PREFIX}{key}")];
            if key == INSTANCES {
                keys = lock(&proxy.shared).data.keys().filter(|known| known.starts_with(&keys[0])).cloned().collect();
                // Each has one for each level.
                ensure!(keys.len() == if early { 0 } else { 4 }, "{keys:?}");
            }
            for key in keys {
                lock(&proxy.shared).scribble(&key, &value);
            }
            switch(&mut proxy).with_context(told)?;
            proxy.settles(ACK_MS).with_context(told)?;
        }
    }
    Ok(())
}

#[test]
fn an_instance_that_does_not_answer_is_unknown() -> Result<()> {
    let filter = Filter::load()?;
    for frozen in [0, 1] {
        let mut proxy = Proxy::start(&filter, 2)?;
        proxy.settles(1_000)?;
        proxy.frozen = Some(frozen);
        proxy.record = record(11, "v1");
        // The frozen one may have been the one that talks: its lease ends first.
        proxy.run(5_000)?;
        let other = proxy.request(1 - frozen)?;
        ensure!(other.as_deref() == Some("v1"), "the other one sends to {other:?}");
        ensure!(proxy.request(frozen)?.as_deref() == Some("v2"), "a frozen one heard of the flip");
        let last = proxy.reports.last().context("a report")?;
        ensure!(!last.complete && last.flags.is_empty(), "believed without worker {frozen}: {last:?}");
        proxy.frozen = None;
        proxy.settles(ACK_MS)?;
    }
    Ok(())
}

#[test]
fn a_lost_wake_up_costs_only_time() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 3)?;
    lock(&proxy.shared).faults.deaf = true;
    proxy.settles(2_000)?;
    proxy.record = record(11, "v1");
    // Two ticks of those who only follow: one to hear of it, one for a round begun too early.
    proxy.settles(1_100)
}

#[test]
fn the_clock_may_jump() -> Result<()> {
    const DAY_MS: u64 = 86_400_000;
    let filter = Filter::load()?;
    type Jump = fn(u64) -> u64;
    let jumps: [(&str, Jump); 4] = [
        ("a day back", |now| now - DAY_MS),
        ("a minute back", |now| now - 60_000),
        ("to the beginning", |_| 1_000),
        ("a day ahead", |now| now + DAY_MS),
    ];
    for (what, jump) in jumps {
        // At the start, while requests are held, and later in every part of a round.
        for at_ms in [0, 10, 20, 50, 310, 620, 640, 650, 660, 670, 680, 690] {
            for away in [false, true] {
                let told = || format!("{what} after {at_ms} ms, the service away: {away}");
                let mut proxy = Proxy::start(&filter, 2)?;
                proxy.away = away;
                proxy.run(at_ms)?;
                let now_ms = jump(proxy.now_ms());
                lock(&proxy.shared).now_ms = now_ms;
                // None is held for longer than it would have been anyway.
                proxy.run(600)?;
                proxy.requests_go_to(&["v1", "v2"]).with_context(told)?;
                proxy.away = false;
                proxy.settles(ACK_MS).with_context(told)?;
                proxy.record = record(11, "v1");
                proxy.settles(ACK_MS).with_context(told)?;
            }
        }
    }
    Ok(())
}

/// P13: a service that answers at once, with nothing, is not asked more than once a second.
#[test]
fn answers_that_bring_nothing_are_not_asked_for_at_once() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 2)?;
    proxy.settles(1_000)?;
    proxy.hasty = true;
    // The poll that is open is answered only when there is something.
    proxy.record = record(11, "v1");
    proxy.run(100)?;
    let before = proxy.polls;
    proxy.run(10_000)?;
    ensure!((9..=11).contains(&(proxy.polls - before)), "{} polls in 10 s", proxy.polls - before);
    proxy.hasty = false;
    proxy.settles(1_500)
}

/// P9: whoever has waited for the first answer in vain does not wait again with each configuration.
#[test]
fn requests_wait_for_a_first_answer_once() -> Result<()> {
    let mut proxy = Proxy::start(&Filter::load()?, 2)?;
    proxy.away = true;
    ensure!(proxy.request(0)?.is_none(), "it is held");
    // Before anything else has happened in this VM.
    let (first, _) = proxy.meets(1, &[(":authority", "reviews")], true)?;
    proxy.run(600)?;
    ensure!(proxy.resumed(1) == [first], "it has to go, too: {:?}", proxy.resumed(1));
    proxy.requests_go_to(&["v1"])?;
    proxy.replace_plugins()?;
    proxy.requests_go_to(&["v1"])
}
