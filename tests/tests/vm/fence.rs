//! The fence in a proxy: who waits, who passes, who is refused, and what the proxy says of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use flag::count::Totals;
use flag::fence::{Expiry, Fence, Fenced, Held};
use flag::record::{Gate, Record};
use serde_json::json;

use super::host::lock;
use super::proxy::{Fate, Filter, Proxy, record};

const HOST: [(&str, &str); 1] = [(":authority", "reviews")];
const HOLD_MS: u32 = 2_000;

fn held(epoch: u64, active: &str) -> Record {
    Record { gate: Gate::Hold, ..record(epoch, active) }.seal().expect("a valid record")
}

fn fence(epoch: u64, since: u64) -> Fence {
    Fence {
        flag: "uid".to_owned(),
        epoch,
        since,
        old: "v1".to_owned(),
        max_hold_ms: HOLD_MS,
        expiry: Expiry::Open,
        marked: vec![],
        closed: vec![],
    }
}

/// One that serves v1, and knows that it will be fenced.
fn start(workers: usize) -> Result<Proxy> {
    start_as(workers, json!({}))
}

fn start_as(workers: usize, more: serde_json::Value) -> Result<Proxy> {
    let mut proxy = Proxy::configured(&Filter::load()?, workers, BTreeMap::new(), more, record(10, "v1"))?;
    proxy.fence = Some(fence(10, 0));
    // A plugin that is told a workload calls its own version, and an inbound one chooses none.
    proxy.run(300)?;
    Ok(proxy)
}

fn tell(proxy: &mut Proxy, record: Record, fence: Fence) {
    (proxy.record, proxy.fence) = (record, Some(fence));
}

/// What the last report says of the fence.
fn shown(proxy: &Proxy) -> Result<Fenced> {
    let last = proxy.reports.last().context("a report")?;
    ensure!(last.complete, "{last:?}");
    last.found("uid").and_then(|found| found.fenced.clone()).context("it shows no fence")
}

/// Runs until the proxy shows the fence of this epoch.
fn shows(proxy: &mut Proxy, epoch: u64, held: Held) -> Result<Fenced> {
    for _ in 0..100 {
        proxy.run(10)?;
        if let Ok(shown) = shown(proxy)
            && (shown.epoch, shown.held) == (epoch, held)
        {
            return Ok(shown);
        }
    }
    bail!("not {held:?} at {epoch}: {:?}; log: {:#?}", proxy.reports.last(), lock(&proxy.shared).log)
}

#[test]
fn requests_wait_and_go_in_order_by_the_record_of_then() -> Result<()> {
    let mut proxy = start(2)?;
    let (open, fate) = proxy.meets(0, &HOST, true)?;
    ensure!(fate == Fate::Sent("v1".to_owned()), "{fate:?}");
    tell(&mut proxy, held(11, "v1"), fence(11, 11));
    ensure!(shows(&mut proxy, 11, Held::Holding)?.waiting == 0);
    let mut waiting = vec![];
    for worker in [0, 1, 0, 1, 0] {
        let (request, fate) = proxy.meets(worker, &HOST, true)?;
        ensure!(fate == Fate::Waits, "{fate:?}");
        waiting.push((worker, request));
    }
    proxy.end(0, open)?;
    proxy.run(100)?;
    ensure!(shown(&proxy)?.waiting == 5, "{:?}", shown(&proxy));
    tell(&mut proxy, held(12, "v2"), Fence { closed: vec!["v1".to_owned()], ..fence(12, 11) });
    shows(&mut proxy, 12, Held::Holding)?;
    for (worker, request) in &waiting {
        ensure!(proxy.fate(*worker, *request)? == Fate::Waits);
    }
    // One of them leaves before.
    let (worker, left) = waiting.remove(2);
    proxy.end(worker, left)?;
    tell(&mut proxy, record(13, "v2"), Fence { closed: vec!["v1".to_owned()], ..fence(13, 0) });
    shows(&mut proxy, 13, Held::Open)?;
    for (worker, request) in &waiting {
        let fate = proxy.fate(*worker, *request)?;
        ensure!(fate == Fate::Sent("v2".to_owned()), "{fate:?}");
    }
    for worker in [0, 1] {
        let came: Vec<i32> = waiting.iter().filter(|one| one.0 == worker).map(|one| one.1).collect();
        ensure!(proxy.resumed(worker) == came, "{:?}, not {came:?}", proxy.resumed(worker));
    }
    for (worker, request) in waiting {
        proxy.end(worker, request)?;
    }
    proxy.run(200)?;
    ensure!(shown(&proxy)?.waiting == 0, "{:?}", shown(&proxy));
    let sent = &proxy.reports.last().context("a report")?.flags.get("uid").expect("the flag").sent;
    ensure!(
        sent.get("v1").and_then(|one| one.open()) == Some(0)
            && sent.get("v2") == Some(&Totals { started: 4, finished: 4 }),
        "{sent:?}"
    );
    Ok(())
}

#[test]
fn whoever_gets_to_zero_says_so_at_once() -> Result<()> {
    for worker in [0, 1, 2] {
        let mut proxy = start(3)?;
        let (open, _) = proxy.meets(worker, &HOST, true)?;
        proxy.send(worker, open, "reviews-v1");
        tell(&mut proxy, held(11, "v1"), fence(11, 11));
        shows(&mut proxy, 11, Held::Holding)?;
        let before = proxy.reports.len();
        proxy.run(40)?;
        ensure!(proxy.reports.len() <= before + 1, "reports come faster than they are asked for");
        // The one before has just been answered: the next would come after 50 ms.
        while proxy.reports.len() == before {
            proxy.run(10)?;
        }
        let before = proxy.reports.len();
        proxy.end(worker, open)?;
        // One that is under way is answered first.
        proxy.run(20)?;
        let zero = proxy.reports.iter().skip(before).any(|report| {
            report.complete
                && report.flags.get("uid").expect("the flag").sent.get("v1").expect("counted").open() == Some(0)
        });
        ensure!(zero, "worker {worker}: {:?}", proxy.reports.last());
    }
    Ok(())
}

#[test]
fn a_hold_that_ran_out_never_counts_again() -> Result<()> {
    let expired = |expiry: Expiry| match expiry {
        Expiry::Open => Fate::Sent("v1".to_owned()),
        Expiry::Reject => Fate::Refused("503 expired".to_owned()),
    };
    for expiry in [Expiry::Open, Expiry::Reject] {
        let mut proxy = start(2)?;
        tell(&mut proxy, held(11, "v1"), Fence { expiry, ..fence(11, 11) });
        shows(&mut proxy, 11, Held::Holding)?;
        let (early, _) = proxy.meets(0, &HOST, true)?;
        proxy.run(u64::from(HOLD_MS))?;
        ensure!(proxy.fate(0, early)? == expired(expiry), "{:?}", proxy.fate(0, early));
        ensure!(proxy.meets(1, &HOST, true)?.1 == expired(expiry));
        ensure!(shown(&proxy)?.held == Held::Expired, "{:?}", shown(&proxy));
        // The next record of the same hold holds nothing, and still leads nobody to v2.
        tell(&mut proxy, held(12, "v2"), Fence { expiry, ..fence(12, 11) });
        shows(&mut proxy, 12, Held::Expired)?;
        ensure!(proxy.meets(0, &HOST, true)?.1 == expired(expiry));
        // Another hold does.
        tell(&mut proxy, held(13, "v1"), Fence { expiry, ..fence(13, 13) });
        shows(&mut proxy, 13, Held::Holding)?;
        ensure!(proxy.meets(0, &HOST, true)?.1 == Fate::Waits);
    }
    Ok(())
}

#[test]
fn what_has_begun_passes() -> Result<()> {
    let marked = [HOST[0], ("x-versionflag", "v1")];
    let claims = [HOST[0], ("x-versionflag", "v2")];
    for (role, passes) in [("caller", true), ("edge", false)] {
        let mut proxy = start_as(1, json!({ "role": role }))?;
        tell(&mut proxy, held(11, "v1"), fence(11, 11));
        shows(&mut proxy, 11, Held::Holding)?;
        let fate = proxy.meets(0, &marked, true)?.1;
        ensure!(fate == if passes { Fate::Sent("v1".to_owned()) } else { Fate::Waits }, "{role}: {fate:?}");
        ensure!(proxy.meets(0, &claims, true)?.1 == Fate::Waits, "{role}");
        proxy.run(100)?;
        ensure!(shown(&proxy)?.passed == u64::from(passes), "{role}: {:?}", shown(&proxy));
    }
    // Inside the group calls go on in their own version.
    for own in ["v1", "v2"] {
        let mut proxy = start_as(1, json!({ "workload": { "service": "reviews", "version": own } }))?;
        tell(&mut proxy, held(11, "v1"), fence(11, 11));
        shows(&mut proxy, 11, Held::Holding)?;
        ensure!(proxy.meets(0, &HOST, true)?.1 == Fate::Sent(own.to_owned()), "{own}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_kept_is_refused() -> Result<()> {
    let mut proxy = start(1)?;
    tell(&mut proxy, held(11, "v1"), fence(11, 11));
    shows(&mut proxy, 11, Held::Holding)?;
    let body = Fate::Refused("503 body".to_owned());
    for (name, value, fate) in [
        ("content-length", "65536", Fate::Waits),
        ("content-length", "65537", body.clone()),
        ("content-length", "many", body.clone()),
        ("x-unknown-length", "1", body),
        ("content-type", "application/grpc+proto", Fate::Waits),
        ("upgrade", "websocket", Fate::Waits),
        (":protocol", "websocket", Fate::Waits),
    ] {
        let met = proxy.meets(0, &[HOST[0], (name, value)], false)?;
        ensure!(met.1 == fate, "{name}: {value}: {met:?}");
        proxy.end(0, met.0)?;
    }
    for (name, value) in [("grpc-timeout", "100m"), ("x-envoy-expected-rq-timeout-ms", "100")] {
        let (request, fate) = proxy.meets(0, &[HOST[0], (name, value)], true)?;
        ensure!(fate == Fate::Waits);
        proxy.run(50)?;
        ensure!(proxy.fate(0, request)? == Fate::Waits);
        proxy.run(60)?;
        ensure!(proxy.fate(0, request)? == Fate::Refused("503 deadline".to_owned()), "{name}");
        proxy.end(0, request)?;
    }
    proxy.run(100)?;
    ensure!(shown(&proxy)?.waiting == 0 && shown(&proxy)?.refused >= 2, "{:?}", shown(&proxy));
    let mut waiting = vec![];
    for _ in 0..flag::limits::HELD_OF_FLAG {
        let (request, fate) = proxy.meets(0, &HOST, true)?;
        ensure!(fate == Fate::Waits);
        waiting.push(request);
    }
    let (over, fate) = proxy.meets(0, &HOST, true)?;
    ensure!(fate == Fate::Refused("503 full".to_owned()), "{fate:?}");
    proxy.end(0, over)?;
    // Whoever leaves makes room.
    proxy.end(0, waiting.swap_remove(7))?;
    ensure!(proxy.meets(0, &HOST, true)?.1 == Fate::Waits);
    Ok(())
}

/// Those that end make room at once, those that go on do after a moment: a stream may last for ever.
#[test]
fn release_is_paced() -> Result<()> {
    let mut proxy = start(1)?;
    tell(&mut proxy, held(11, "v1"), fence(11, 11));
    shows(&mut proxy, 11, Held::Holding)?;
    let mut waiting = vec![];
    for _ in 0..1_024 {
        waiting.push(proxy.meets(0, &HOST, true)?.0);
    }
    tell(&mut proxy, record(12, "v2"), fence(12, 0));
    for _ in 0..50 {
        if proxy.resumed(0).is_empty() {
            proxy.run(10)?;
        }
    }
    let (first, most) = (flag::limits::RELEASED_FIRST as usize, flag::limits::RELEASED as usize);
    ensure!(proxy.resumed(0) == &waiting[..first], "{} go at once", proxy.resumed(0).len());
    // Each leaves its place to another one, and makes one more.
    for request in &waiting[..first / 2] {
        proxy.end(0, *request)?;
    }
    proxy.run(20)?;
    ensure!(proxy.resumed(0).len() == 2 * first, "{} went", proxy.resumed(0).len());
    // What goes on is not counted after a moment: twice as many at a time, up to the most.
    proxy.run(flag::limits::RELEASED_MS)?;
    let (open, more) = (first + first / 2, proxy.resumed(0).len() - 2 * first);
    ensure!(more == 2 * open, "{more} more went beside {open}");
    proxy.run(flag::limits::RELEASED_MS)?;
    let more = proxy.resumed(0).len() - 2 * first - 2 * open;
    ensure!(more == most.min(4 * open), "{more} more went");
    proxy.run(flag::limits::RELEASED_MS * (1_024 / most as u64 + 2))?;
    ensure!(proxy.resumed(0) == waiting, "not all, or not in their order: {}", proxy.resumed(0).len());
    Ok(())
}

#[test]
fn a_workload_takes_what_the_gate_lets_in() -> Result<()> {
    const PLAIN: &[(&str, &str)] = &HOST;
    let marked = [HOST[0], ("x-versionflag", "v1")];
    let check = [HOST[0], ("user-agent", "Prometheus/3.0")];
    let inbound = json!({ "role": "inbound", "workload": { "service": "reviews", "version": "v1" } });
    let mut proxy = start_as(1, inbound)?;
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let sent = |fate: &Fate| matches!(fate, Fate::Sent(_));
    for (epoch, marks, closes, takes) in [
        (11, all(&[]), all(&[]), [true, true]),
        (12, all(&["v1", "v2"]), all(&[]), [false, true]),
        (13, all(&["v2"]), all(&["v1"]), [false, false]),
        (14, all(&["v2"]), all(&[]), [true, true]),
    ] {
        let fence = Fence { marked: marks, closed: closes, ..fence(epoch, 0) };
        tell(&mut proxy, record(epoch, "v1"), fence);
        shows(&mut proxy, epoch, Held::Open)?;
        for (headers, takes) in [(PLAIN, takes[0]), (&marked, takes[1]), (&check, true)] {
            let (request, fate) = proxy.meets(0, headers, true)?;
            ensure!(sent(&fate) == takes, "{epoch}, {headers:?}: {fate:?}");
            ensure!(takes || fate == Fate::Refused("503 closed".to_owned()), "{fate:?}");
            proxy.end(0, request)?;
        }
    }
    Ok(())
}

#[test]
fn whoever_joins_in_a_hold_holds() -> Result<()> {
    let mut proxy = start(1)?;
    tell(&mut proxy, held(11, "v1"), fence(11, 11));
    shows(&mut proxy, 11, Held::Holding)?;
    proxy.add(&Filter::load()?)?;
    // Before its first tick.
    let (request, fate) = proxy.meets(1, &HOST, true)?;
    ensure!(fate == Fate::Waits, "{fate:?}");
    proxy.run(700)?;
    ensure!(proxy.fate(1, request)? == Fate::Waits, "the first answer let it go");
    let last = proxy.reports.last().context("a report")?;
    ensure!(last.instances.len() == 2 && shown(&proxy)?.held == Held::Holding, "{last:?}");
    Ok(())
}

/// A hold does not end with the first answer that brings it.
#[test]
fn the_first_answer_may_be_a_hold() -> Result<()> {
    let mut proxy = Proxy::configured(&Filter::load()?, 2, BTreeMap::new(), json!({}), held(11, "v1"))?;
    proxy.fence = Some(fence(11, 11));
    // Without a flag nothing waits: its configuration has it.
    let (request, fate) = proxy.meets(0, &HOST, true)?;
    ensure!(fate != Fate::Waits, "{fate:?}");
    proxy.end(0, request)?;
    let configured = json!({ "flags": [record(5, "v1")] });
    let mut proxy = Proxy::configured(&Filter::load()?, 2, BTreeMap::new(), configured, held(11, "v1"))?;
    proxy.fence = Some(fence(11, 11));
    let (request, fate) = proxy.meets(0, &HOST, true)?;
    ensure!(fate == Fate::Waits, "{fate:?}");
    shows(&mut proxy, 11, Held::Holding)?;
    ensure!(proxy.fate(0, request)? == Fate::Waits && shown(&proxy)?.waiting == 1, "{:?}", shown(&proxy));
    tell(&mut proxy, record(12, "v2"), fence(12, 0));
    shows(&mut proxy, 12, Held::Open)?;
    ensure!(proxy.fate(0, request)? == Fate::Sent("v2".to_owned()), "{:?}", proxy.fate(0, request));
    Ok(())
}

/// Without its fence a record with a held gate holds nothing, and says so.
#[test]
fn a_gate_without_its_fence_holds_nothing() -> Result<()> {
    for fence in [None, Some(fence(10, 10))] {
        let mut proxy = start(1)?;
        proxy.record = held(11, "v1");
        proxy.fence.clone_from(&fence);
        proxy.run(300)?;
        let fate = proxy.meets(0, &HOST, true)?.1;
        ensure!(fate == Fate::Sent("v1".to_owned()), "{fence:?}: {fate:?}");
        let shown = shown(&proxy).unwrap_or_default();
        ensure!((shown.epoch, shown.held) == (0, Held::Open), "{shown:?}");
    }
    Ok(())
}

#[test]
fn every_fault_ends_a_hold() -> Result<()> {
    type Damage = fn(&mut Proxy) -> Result<()>;
    let damages: [(&str, Damage); 5] = [
        ("the service is away", |proxy| {
            proxy.away = true;
            Ok(())
        }),
        ("the poller stands still", |proxy| {
            proxy.frozen = Some(proxy.poller()?);
            Ok(())
        }),
        ("the clock is set back", |proxy| {
            lock(&proxy.shared).now_ms -= 60_000;
            Ok(())
        }),
        ("the clock is set ahead", |proxy| {
            lock(&proxy.shared).now_ms += 60_000;
            Ok(())
        }),
        ("the plugins are replaced", Proxy::replace_plugins),
    ];
    for (what, damage) in damages {
        let mut proxy = start(3)?;
        tell(&mut proxy, held(11, "v1"), fence(11, 11));
        shows(&mut proxy, 11, Held::Holding)?;
        let poller = proxy.poller()?;
        let worker = (poller + 1) % 3;
        let (request, _) = proxy.meets(worker, &HOST, true)?;
        damage(&mut proxy)?;
        proxy.run(u64::from(HOLD_MS) + 100)?;
        let fate = proxy.fate(worker, request)?;
        ensure!(fate == Fate::Sent("v1".to_owned()), "{what}: {fate:?}; {:#?}", lock(&proxy.shared).log);
        ensure!(proxy.meets(worker, &HOST, true)?.1 == Fate::Sent("v1".to_owned()), "{what}");
        (proxy.away, proxy.frozen) = (false, None);
        tell(&mut proxy, record(12, "v2"), fence(12, 0));
        proxy.settles(8_000).with_context(|| what.to_owned())?;
    }
    Ok(())
}
