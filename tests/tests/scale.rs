//! Some hundred simulated proxies: everyone gets every flip and acks it, nobody is lost over a restart of the controller,
//! and bad ones among them delay nobody. What is said of time is said by `make bench-scale`.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::load::Protocol;
use harness::scale::{Kind, ScalePlan, Site};
use harness::{TestDir, story, wait_for};
use serde_json::json;

const PROXIES: usize = 300;
const LIMIT: Duration = Duration::from_secs(120);
/// What a controller may occupy, in MiB, and for each proxy, in KiB. It is there to find what grows without a bound.
const MEMORY_MIB: u64 = 256;
const MEMORY_OF_PROXY_KIB: u64 = 256;

/// Flips there and back, kills the controller, and flips again.
async fn flips_and_a_restart(dir: &TestDir, protocol: Protocol, bad: usize) -> Result<()> {
    let plan = ScalePlan { proxies: PROXIES, bad, protocol, limit: LIMIT };
    let mut site = Site::start(dir, plan, |word| println!("{word}")).await?;
    for version in ["v2", "v1", "v2"] {
        everyone(&mut site, version).await?;
    }
    // Who waits for longer than the filter does asks again, which a machine that stands still brings about.
    println!("before the controller was killed: {:?}", site.good.counts().await?);
    site.restart().await?;
    site.rests("v2").await?;
    everyone(&mut site, "v1").await?;
    everyone(&mut site, "v2").await?;
    let memory_kib = site.controller().memory_kib()?;
    let most_kib = MEMORY_MIB * 1_024 + (PROXIES + bad) as u64 * MEMORY_OF_PROXY_KIB;
    ensure!(memory_kib <= most_kib, "the controller occupies {memory_kib} KiB, which is more than {most_kib}");
    if let Some(bad) = &mut site.bad {
        let misdeeds = bad.counts().await?.misdeeds;
        println!("what became of misdeeds: {misdeeds:?}");
        for deed in ["oversized: 413", "impersonation: 403", "forged-epoch: 400"] {
            ensure!(misdeeds.contains_key(deed), "no {deed}: {misdeeds:?}");
        }
    }
    Ok(())
}

/// Flips, and looks whether everybody took part once.
async fn everyone(site: &mut Site<'_>, version: &str) -> Result<()> {
    let flip = site.flip(version).await?;
    assert_eq!((flip.got_us.len(), flip.acked_us.len()), (PROXIES, PROXIES), "{version}");
    assert_eq!(site.good.counts().await?.set_back, 0, "{version}");
    // What the controller shows is of its last look, which may be the one before the acks.
    wait_for("all acks in the status", LIMIT, async || {
        let view = site.view().await?;
        let fleet = &view["fleet"];
        ensure!(fleet["acked"] == fleet["expected"] && fleet["laggards"] == json!([]), "{fleet}");
        Ok(())
    })
    .await
}

#[test]
fn everyone_acks_every_flip_over_http1() {
    story("scale-http1", async |dir| flips_and_a_restart(dir, Protocol::H1, 0).await);
}

#[test]
fn everyone_acks_every_flip_over_http2() {
    story("scale-http2", async |dir| flips_and_a_restart(dir, Protocol::H2, 0).await);
}

/// They are listed, too: the flip waits for their acks as for those of the others.
#[test]
fn bad_proxies_delay_nobody_over_http1() {
    story("scale-bad-http1", async |dir| flips_and_a_restart(dir, Protocol::H1, 30).await);
}

#[test]
fn bad_proxies_delay_nobody_over_http2() {
    story("scale-bad-http2", async |dir| flips_and_a_restart(dir, Protocol::H2, 30).await);
}

#[test]
fn names_of_proxies_are_in_the_order_of_their_numbers() {
    assert_eq!((Kind::Good.name(7).as_str(), Kind::Bad.name(12).as_str()), ("proxy-00007", "bad-00012"));
}
