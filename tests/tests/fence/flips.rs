//! Fenced flips under load, there and back.

use anyhow::{Context, Result, ensure};
use harness::fences::Fences;
use harness::talk::{self, Talk};
use harness::{Load, story};

use super::LIMIT;

#[test]
fn two_versions_never_have_a_request_open_at_once() {
    story("fence", async |dir| {
        let mut fences = Fences::start(dir).await?;
        let (loads, talks) = (fences.load(600), fences.talks());
        let mut flips = vec![];
        for _ in 0..6 {
            loads[0].goes_on(200, LIMIT).await?;
            flips.push(fences.flip("Fenced").await?);
        }
        let results = Load::stop_all(loads).await?;
        results.assert_no_failures();
        for talk in talks {
            ensure!(talk.stop()? > 0, "no stream");
        }
        fences.measure(&mut flips, &results)?;
        for flip in &flips {
            println!("{flip:?}");
            ensure!(flip.overlap_ms == 0.0, "{flip:?}");
            ensure!(flip.held_ms.is_some() && !flip.waits_ms.is_empty(), "nothing was held: {flip:?}");
        }
        for version in ["v1", "v2"] {
            ensure!(fences.local.spans(version)?.len() > 500, "too few requests to {version}");
        }
        Ok(())
    });
}

/// A stream on the version that a rollback leaves is older than that may drain: nothing is held in vain.
#[test]
fn a_long_stream_holds_up_a_way_back_too() {
    story("fence-back", async |dir| {
        let mut fences = Fences::start(dir).await?;
        fences.flip("Fenced").await?;
        // A hold may have been given up on the way there.
        let before = held(&fences).await?;
        let talk = Talk::open(talk::Kind::WebSocket, fences.envoys[0].listener("ingress"), "reviews").await?;
        ensure!(talk.version() == "v2", "the stream is with {}", talk.version());
        fences.local.request("rollback").await?;
        fences.local.blocks(&["v2 would not drain within 1s", "edge-a", "open on v2 for at least"]).await?;
        let after = held(&fences).await?;
        ensure!(after == before, "it was held {} times in vain", after - before);
        talk.end().await?;
        fences.opened("v1").await?;
        ensure!(held(&fences).await? > after, "nothing was held on the way back");
        fences.assert_apart()
    });
}

/// How often requests were held so far.
async fn held(fences: &Fences<'_>) -> Result<usize> {
    let history = &fences.local.view().await?["status"]["history"];
    let entries = history.as_array().context("no history")?;
    Ok(entries.iter().filter(|entry| entry["event"] == "Held").count())
}

/// What the test measures by would show an overlap: without a fence there is one.
#[test]
fn without_a_fence_both_have_requests_open() {
    story("no-fence", async |dir| {
        let mut fences = Fences::start(dir).await?;
        let loads = fences.load(600);
        // One that is open on v1 while v2 serves already.
        let talk = Talk::open(talk::Kind::Grpc, fences.envoys[0].listener("ingress"), "reviews").await?;
        let mut flips = [fences.flip("Immediate").await?];
        talk.end().await?;
        let results = Load::stop_all(loads).await?;
        results.assert_no_failures();
        fences.measure(&mut flips, &results)?;
        ensure!(flips[0].overlap_ms > 0.0 && flips[0].held_ms.is_none(), "{:?}", flips[0]);
        Ok(())
    });
}
