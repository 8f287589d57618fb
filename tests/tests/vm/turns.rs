//! Two flags whose requests wait at one worker.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use flag::fence::{Expiry, Fence};
use flag::limits::{RELEASED, RELEASED_MS};
use flag::record::{Gate, Record};
use serde_json::json;

use super::proxy::{Fate, Filter, Proxy, record};

/// What one flag says, and its fence: held since epoch 11, opened with 12.
fn told(name: &str, epoch: u64) -> (Record, Fence) {
    let mut one = record(epoch, if epoch == 12 { "v2" } else { "v1" });
    one.gate = if epoch == 11 { Gate::Hold } else { Gate::Open };
    (one.uid, one.name) = (name.to_owned(), name.to_owned());
    let member = &mut one.members[0];
    (member.service, member.hosts) = (name.to_owned(), BTreeSet::from([name.to_owned()]));
    member.clusters = ["v1", "v2"].map(|version| (version.to_owned(), [format!("{name}-{version}")].into())).into();
    let fence = Fence {
        flag: name.to_owned(),
        epoch,
        since: if epoch == 11 { 11 } else { 0 },
        old: "v1".to_owned(),
        max_hold_ms: 10_000,
        expiry: Expiry::Open,
        marked: vec![],
        closed: vec![],
    };
    (one.seal().expect("a valid record"), fence)
}

fn tell(proxy: &mut Proxy, epoch: u64) -> Result<()> {
    let (one, fence) = told("reviews", epoch);
    (proxy.record, proxy.fence) = (one, Some(fence));
    proxy.beside = Some(told("ratings", epoch));
    proxy.run(200)
}

/// A crowd of one flag that waits keeps those of the other waiting for a moment only, whichever of them came first.
#[test]
fn a_crowd_of_one_flag_does_not_keep_the_other_waiting() -> Result<()> {
    for [crowded, other] in [["reviews", "ratings"], ["ratings", "reviews"]] {
        for crowd_first in [true, false] {
            let configured = record(10, "v1");
            let mut proxy = Proxy::configured(&Filter::load()?, 1, BTreeMap::new(), json!({}), configured)?;
            tell(&mut proxy, 10)?;
            tell(&mut proxy, 11)?;
            let mut all = |host: &str, count: usize| -> Result<Vec<i32>> {
                let mut waiting = vec![];
                for _ in 0..count {
                    let (request, fate) = proxy.meets(0, &[(":authority", host)], true)?;
                    ensure!(fate == Fate::Waits, "{host}: {fate:?}");
                    waiting.push(request);
                }
                Ok(waiting)
            };
            let few = if crowd_first { vec![] } else { all(other, 8)? };
            let crowd = all(crowded, 10 * RELEASED as usize)?;
            let few = if crowd_first { all(other, 8)? } else { few };
            tell(&mut proxy, 12)?;
            // None of them ends: room comes with time alone.
            proxy.run(3 * RELEASED_MS)?;
            let gone = proxy.resumed(0);
            ensure!(few.iter().all(|one| gone.contains(one)), "{other} waits for {crowded}: {} went", gone.len());
            ensure!(!crowd.iter().all(|one| gone.contains(one)), "there was no crowd any more");
        }
    }
    Ok(())
}
