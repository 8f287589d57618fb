//! A controller that ends, or stands still, while requests wait.

use anyhow::ensure;
use harness::fences::Fences;
use harness::points::STOP;
use harness::talk::{Kind, Talk};
use harness::{Load, Signal, clock, story, wait_for};

use super::{LIMIT, calls};

/// Who waits is answered by the old version when the controller is told to end, long before the hold runs out; the next
/// controller goes on with the switch.
#[test]
fn a_controller_that_is_told_to_end_leaves_nobody_waiting() {
    story("fence-end", async |dir| {
        let settings = |file: &mut serde_json::Value| file["spec"]["switch"]["fence"]["maxHold"] = "20s".into();
        let mut fences = Fences::start_with(dir, 2, settings).await?;
        fences.prepare("v2").await?;
        let talk = Talk::open(Kind::Grpc, fences.envoys[0].listener("ingress"), "reviews").await?;
        fences.hold().await?;
        let [one, other] = [0, 1].map(|edge| calls(fences.envoys[edge].listener("ingress"), 20));
        fences.waiting(40).await?;
        let held_at = fences.local.view().await?["status"]["switch"]["fence"]["heldAt"].as_u64();
        let controller = fences.local.controller();
        controller.signal(Signal::SIGTERM)?;
        ensure!(controller.wait_exit(LIMIT).await?.success(), "it ended with an error");
        for answer in one.join_all().await.into_iter().chain(other.join_all().await) {
            let answer = answer?;
            ensure!((answer.status, answer.version()) == (200, "v1"), "{answer:?}");
        }
        // The old version has half of the longest hold to drain: until then nothing else would have ended it.
        let given_up_by = held_at.unwrap_or_default() + 10_000;
        ensure!(clock::unix_ms(clock::now_us()) < given_up_by, "they waited until the hold was over by itself");
        fences.local.start().await?;
        let history = fences.local.view().await?["status"]["history"].to_string();
        ensure!(history.contains("this controller ends"), "{history}");
        talk.end().await?;
        let fence = fences.opened("v2").await?;
        ensure!(fence["attempts"] == 2, "{fence}");
        fences.assert_apart()
    });
}

/// The last decision is on disk, and the controller stands still until all holds have run out: nobody hears of it.
#[test]
fn a_decision_that_takes_too_long_to_write_is_taken_back_unheard() {
    story("fence-late", async |dir| {
        let mut fences = Fences::start_with(dir, 2, |_| ()).await?;
        fences.local.controller().kill();
        fences.local.start_with(&[(STOP, "after a fence was opened")]).await?;
        fences.prepare("v2").await?;
        let loads = fences.load(200);
        loads[0].goes_on(50, LIMIT).await?;
        fences.local.request("promote").await?;
        let controller = fences.local.controller();
        wait_for("the last decision", LIMIT, async || {
            ensure!(controller.is_stopped()?, "it is not written");
            Ok(())
        })
        .await?;
        for load in &loads {
            // More than may be answered before: by then the holds are over.
            load.goes_on(300, LIMIT).await?;
        }
        ensure!(loads.iter().all(|load| load.live().answered_by("v2") == 0), "v2 serves already");
        controller.signal(Signal::SIGCONT)?;
        let fence = fences.opened("v2").await?;
        let why = fence["aborted"].as_str().unwrap_or_default();
        ensure!(fence["attempts"] == 2 && why.contains("to be written"), "{fence}");
        for load in &loads {
            load.goes_on(50, LIMIT).await?;
        }
        let results = Load::stop_all(loads).await?;
        results.assert_no_failures();
        fences.assert_apart()
    });
}
