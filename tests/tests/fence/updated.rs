//! What changes in the proxies while they hold requests: their configuration, the filter's binary, and a listener that
//! is about to end.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use harness::fences::Fences;
use harness::local::wasm;
use harness::talk::{Kind, Talk};
use harness::{Call, Envoy, Load, TestDir, story, wait_for};
use serde_json::Value;

use super::{LIMIT, calls};

const WORKERS: u32 = 8;

/// The same filter, as other bytes: its functions have names.
fn another_binary() -> Result<PathBuf> {
    let path = wasm()?.with_extension("debug.wasm");
    ensure!(path.exists(), "{} is not built", path.display());
    Ok(path)
}

/// How many VMs of the filter were ever made.
async fn made(envoy: &Envoy) -> Result<u64> {
    let all = envoy.stats("wasm.").await?;
    all.into_iter().find(|(name, _)| name.ends_with(".created")).map(|(_, count)| count).context("no VM was made")
}

/// v2 is ready to be let in.
async fn prepared<'a>(dir: &'a TestDir, max_hold: &str) -> Result<Fences<'a>> {
    let patient = |file: &mut Value| file["spec"]["switch"]["fence"]["maxHold"] = max_hold.into();
    let mut fences = Fences::start_with(dir, WORKERS, patient).await?;
    fences.prepare("v2").await?;
    Ok(fences)
}

#[test]
fn configuration_and_binary_change_while_requests_wait() {
    story("fence-updated", async |dir| {
        let fences = prepared(dir, "24s").await?;
        let loads = fences.load(200);
        loads[0].goes_on(100, LIMIT).await?;
        // Younger than requests are held at most: v1 is expected to drain.
        let (edge, host) = (fences.envoys[0].listener("ingress"), "reviews");
        let long = [Talk::open(Kind::WebSocket, edge, host).await?, Talk::open(Kind::Grpc, edge, host).await?];
        fences.hold().await?;
        fences.waiting(50).await?;

        // By whoever else writes that: the controller itself does not while requests are held.
        let (filter, now) = ("filter.json", std::fs::read_to_string(dir.file("filter.json"))?);
        let configured = now.replace(r#"\"firstAnswerMs\":500"#, r#"\"firstAnswerMs\":501"#);
        ensure!(configured != now, "nothing to change: {now}");
        dir.write(filter, &configured);
        fences.waiting(100).await?;
        fences.holds().await?;
        let before = [made(&fences.envoys[0]).await?, made(&fences.envoys[1]).await?];
        let [old, new] = [wasm()?, another_binary()?].map(|path| path.to_string_lossy().into_owned());
        dir.write(filter, configured.replace(&old, &new));
        for (envoy, before) in fences.envoys.iter().zip(before) {
            wait_for("a VM of the other binary in every worker", LIMIT, async || {
                let made = made(envoy).await?;
                ensure!(made >= before + u64::from(WORKERS), "{made} after {before}");
                Ok(())
            })
            .await?;
        }
        fences.holds().await?;
        for talk in &long {
            talk.goes_on().await?;
        }
        let answered = loads[0].live().by_version.get("v2").copied();
        ensure!(answered.is_none(), "v2 has answered {answered:?}");
        for talk in long {
            ensure!(talk.version() == "v1", "a stream on {}", talk.version());
            talk.end().await?;
        }
        let fence = fences.opened("v2").await?;
        println!("{fence}");
        loads[1].goes_on(200, LIMIT).await?;
        let results = Load::stop_all(loads).await?;
        results.assert_no_failures();
        results.assert_last_by("v2");
        fences.assert_apart()
    });
}

#[test]
fn what_waits_at_a_listener_that_drains_is_answered() {
    story("fence-drained", async |dir| {
        let fences = prepared(dir, "6s").await?;
        let talk = Talk::open(Kind::WebSocket, fences.envoys[0].listener("ingress"), "reviews").await?;
        fences.hold().await?;
        let waiting = calls(fences.envoys[1].listener("ingress"), 64);
        fences.waiting(64).await?;
        let drains = Call::post(fences.envoys[1].admin(), "/drain_listeners", "").send().await?;
        ensure!(drains.status == 200, "{drains:?}");
        talk.end().await?;
        let fence = fences.opened("v2").await?;
        ensure!(fence["attempts"] == 1 && fence["mostWaiting"] == 64, "{fence}");
        for answer in waiting.join_all().await {
            let answer = answer?;
            ensure!((answer.status, answer.version()) == (200, "v2"), "{answer:?}");
        }
        fences.assert_apart()
    });
}
