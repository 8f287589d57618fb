//! Requests whose tree of calls leaves the group and comes back while new ones wait.

use anyhow::{Result, ensure};
use harness::backend::BackendStats;
use harness::config::{self, Direction};
use harness::fences::Fences;
use harness::{Call, Envoy, TestDir, story, wait_for};
use serde_json::Value;

use super::LIMIT;

/// One proxy for requests from outside, and one beside an app that is called by the group and calls it.
struct Trees<'a> {
    fences: Fences<'a>,
    front: Envoy,
    outsider: Envoy,
}

async fn start(dir: &TestDir) -> Result<Trees<'_>> {
    let settings = |file: &mut Value| {
        file["spec"]["switch"]["fence"]["maxHold"] = "4s".into();
        // An edge would believe no header.
        file["local"]["filterConfig"]["role"] = "auto".into();
    };
    let mut fences = Fences::without_proxies(dir, settings).await?;
    let mut outbound = fences.local.envoy_config();
    for listener in outbound["static_resources"]["listeners"].as_array_mut().into_iter().flatten() {
        *listener = config::with_direction(listener.take(), Direction::Outbound);
    }
    let front = fences.local.envoy("edge-a", 1).await?;
    let outsider = fences.local.envoy_of("edge-b", 1, outbound).await?;
    fences.prepare("v2").await?;
    Ok(Trees { fences, front, outsider })
}

impl Trees<'_> {
    /// A request that calls the group again while the requests of others wait. What it is answered, and the fence.
    async fn meets(&mut self, dir: &TestDir, more: &str) -> Result<(String, Value)> {
        let (to, go) = (self.outsider.listener("ingress"), dir.file("go"));
        let path = format!("/call?to={to}&host=reviews&after={}{more}", go.display());
        let call = Call::get(self.front.listener("ingress"), &path).host("reviews").limit(LIMIT);
        let tree = tokio::spawn(async move { call.send().await });
        let v1 = self.fences.local.address("v1");
        wait_for("the tree has begun", LIMIT, async || {
            let stats: BackendStats = Call::get(v1, "/stats").send().await?.json()?;
            ensure!(stats.open == 1, "{stats:?}");
            Ok(())
        })
        .await?;
        self.fences.hold().await?;
        std::fs::write(go, "")?;
        let answer = tree.await??;
        ensure!(answer.status == 200, "{answer:?}");
        let fence = self.fences.opened("v2").await?;
        self.fences.assert_apart()?;
        Ok((answer.version().to_owned(), fence))
    }
}

#[test]
fn a_tree_that_passes_the_mark_on_ends_before_the_switch() {
    story("fence-tree", async |dir| {
        let (versions, fence) = start(dir).await?.meets(dir, "&pass=x-versionflag").await?;
        ensure!(versions == "v1+v1" && fence["attempts"] == 1, "{versions}: {fence}");
        Ok(())
    });
}

/// It waits for itself, until that is given up by name.
#[test]
fn a_tree_that_does_not_is_given_its_way_and_the_switch_comes_later() {
    story("fence-tree-without", async |dir| {
        let mut trees = start(dir).await?;
        let (versions, fence) = trees.meets(dir, "").await?;
        ensure!(versions == "v1+v1" && fence["attempts"] == 2, "{versions}: {fence}");
        let why = fence["aborted"].as_str().unwrap_or_default().to_owned();
        ensure!(why.contains("v1 has to drain: requests are open on it at") && why.contains("edge-a"), "{why}");
        Ok(())
    });
}
