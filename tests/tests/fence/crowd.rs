//! Ten thousand requests that wait at one proxy.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use harness::fences::Fences;
use harness::talk::{Kind, Talk};
use harness::{Load, LoadPlan, story, wait_for};

use super::LIMIT;

/// Requests that wait at once.
const CROWD: u64 = 10_000;
/// Memory of Envoy and of the filter for each of them, at most.
const KIB_EACH: u64 = 40;

/// Of HTTP/1.1, HTTP/2 and gRPC; and such as leave all the time.
fn plans() -> [LoadPlan; 4] {
    let one = |rate_per_s, h1_connections, h2_connections| LoadPlan {
        rate_per_s,
        h1_connections,
        h2_connections,
        timeout: Duration::from_secs(60),
        ..LoadPlan::default()
    };
    let grpc = ("content-type".to_owned(), "application/grpc".to_owned());
    [
        one(400, 3_000, 0),
        one(1_000, 0, 128),
        LoadPlan { headers: vec![grpc], path: "/grpc?status=0".to_owned(), ..one(400, 0, 64) },
        LoadPlan { timeout: Duration::from_millis(800), ..one(200, 0, 32) },
    ]
}

#[test]
fn ten_thousand_requests_wait_and_each_is_answered_once() {
    story("fence-crowd", async |dir| {
        let patient = |file: &mut serde_json::Value| {
            file["spec"]["switch"]["fence"]["maxHold"] = "30s".into();
            file["local"]["proxies"] = serde_json::json!([{ "id": "edge-a" }]);
        };
        let mut fences = Fences::without_proxies(dir, patient).await?;
        let mut envoy = fences.local.envoy("edge-a", 4).await?;
        let to = envoy.listener("ingress");
        fences.prepare("v2").await?;
        // What keeps v1 from being drained.
        let talk = Talk::open(Kind::Grpc, to, "reviews").await?;
        fences.hold().await?;
        let before_kib = envoy.process().memory_kib()?;
        let [h1, h2, grpc, leaving] = plans().map(|plan| Load::start(to, plan));
        fences.waiting(CROWD).await?;
        let full_kib = envoy.process().memory_kib()?;
        let answered = [&h1, &h2, &grpc].map(|load| load.live().done);
        ensure!(answered == [0; 3], "not all wait: {answered:?}");
        ensure!(leaving.live().done > 0, "nobody has left");
        // No more of them: what is tried is that those who wait are let go, not how much the machine can do.
        let opens = async {
            talk.end().await?;
            fences.opened("v2").await
        };
        let (h1, h2, grpc, fence) = tokio::try_join!(h1.stop(), h2.stop(), grpc.stop(), opens)?;
        println!("{fence}; {before_kib} KiB before, {full_kib} KiB with all of them");
        let stayed = h1.and(h2).and(grpc);
        stayed.assert_no_failures();
        assert_eq!(stayed.by_version().keys().collect::<Vec<_>>(), ["v2"]);
        let left = leaving.stop().await?;
        ensure!(fence["attempts"] == 1 && fence["mostWaiting"].as_u64() >= Some(CROWD), "{fence}");
        ensure!((full_kib.saturating_sub(before_kib)) / CROWD <= KIB_EACH, "{before_kib} KiB, then {full_kib} KiB");

        // Everything is over at the versions too, those that left included.
        wait_for("nothing is open in Envoy", LIMIT, async || {
            let open = envoy.stats("cluster.reviews-v").await?;
            let open: u64 = open.iter().filter(|(name, _)| name.ends_with("upstream_rq_active")).map(|(_, n)| n).sum();
            ensure!(open == 0, "{open} requests");
            Ok(())
        })
        .await?;
        fences.assert_apart()?;
        let ids = fences.local.request_ids("v2")?;
        let once: BTreeSet<&String> = ids.iter().collect();
        ensure!(once.len() == ids.len(), "{} of {} requests arrived again", ids.len() - once.len(), ids.len());
        let most = stayed.len() + left.len();
        ensure!((stayed.len()..=most).contains(&ids.len()), "{} of {} to {most} arrived", ids.len(), stayed.len());
        let log = std::fs::read_to_string(dir.file("edge-a.log"))?;
        ensure!(!log.contains("wasm log"), "the filter complains: {log}");
        Ok(())
    });
}
