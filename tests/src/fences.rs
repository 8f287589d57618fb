//! Fenced flips under load, measured at the backends: for how long both versions had requests open, and for how long
//! requests waited. I/O: through the harness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::load::{Load, Results};
use crate::local::Local;
use crate::overlap::{self, Span, steady_us};
use crate::talk::{Kind as TalkKind, Talk};
use crate::wait::wait_for;
use crate::{Envoy, Kind, LoadPlan, TestDir, clock, config};

const LIMIT: Duration = Duration::from_secs(60);
/// Streams of the load that take longer than all others.
pub const SLOW: Duration = Duration::from_millis(200);
const PROXIES: [&str; 2] = ["edge-a", "edge-b"];

/// Two versions that note every request, and two Envoys in front of them.
pub struct Fences<'a> {
    /// The controller, and its file.
    pub local: Local<'a>,
    /// Four workers each.
    pub envoys: Vec<Envoy>,
}

/// One flip.
#[derive(Debug, Clone, Serialize)]
pub struct Flip {
    /// `Fenced` or `Immediate`.
    pub mode: &'static str,
    /// The version that was left.
    pub from: String,
    /// How often requests were held for it and given back.
    pub aborted: u64,
    /// For how long requests were held, by the controller's clock, in milliseconds.
    pub held_ms: Option<u64>,
    /// For how long both versions had requests open, in milliseconds.
    pub overlap_ms: f64,
    /// Requests that failed from when it was asked for until the next one was.
    pub failed: usize,
    /// How long fast requests waited that came while some were held, in milliseconds.
    pub waits_ms: Vec<f64>,
    /// When it was asked for, in [`clock::now_us`].
    #[serde(skip)]
    asked_us: u64,
    /// The same by the clock of the backends.
    #[serde(skip)]
    began_us: u64,
    /// When requests were held, in [`clock::now_us`].
    #[serde(skip)]
    hold: Option<Span>,
}

impl<'a> Fences<'a> {
    /// At v1, both versions kept for good.
    pub async fn start(dir: &'a TestDir) -> Result<Fences<'a>> {
        Fences::start_with(dir, 4, |_| {}).await
    }

    /// The same with so many workers, and with more in the file.
    pub async fn start_with(dir: &'a TestDir, workers: u32, edit: impl FnOnce(&mut Value)) -> Result<Fences<'a>> {
        let mut fences = Fences::without_proxies(dir, edit).await?;
        for id in PROXIES {
            fences.envoys.push(fences.local.envoy(id, workers).await?);
        }
        fences.local.reaches("Stable", "v1").await?;
        Ok(fences)
    }

    /// The controller alone.
    pub async fn without_proxies(dir: &'a TestDir, edit: impl FnOnce(&mut Value)) -> Result<Fences<'a>> {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["cleanup"]["retainFor"] = "24h".into();
        local.file()["spec"]["settle"]["quietPeriod"] = "0s".into();
        local.file()["spec"]["coexistence"]["minReady"] = "0s".into();
        local.file()["local"]["proxies"] = PROXIES.map(|id| json!({ "id": id })).into_iter().collect();
        edit(local.file());
        local.note_requests();
        // gRPC ends with trailers.
        local.upstream = config::Upstream::Same;
        local.start().await?;
        Ok(Fences { local, envoys: vec![] })
    }

    /// Asks for a version, fenced, and waits until it may be let in by hand: it is ready, and every proxy has been watched
    /// for long enough that the age of its streams is known.
    pub async fn prepare(&mut self, to: &str) -> Result<()> {
        let spec = &mut self.local.file()["spec"];
        spec["switch"]["mode"] = "Fenced".into();
        spec["promotion"]["mode"] = "Manual".into();
        self.local.ask(to);
        wait_for("every proxy was watched for long enough", LIMIT, async || {
            let view = self.local.view().await?;
            let (phase, fence) = (&view["status"]["phase"], &view["fleet"]["fence"]);
            let watched = fence.is_object() && fence["unwatched"].is_null() && fence["unable"].is_null();
            ensure!(phase == "AwaitingPromotion" && watched, "{phase}: {fence}");
            Ok(())
        })
        .await
    }

    /// Lets it in, and waits until every worker of every proxy holds requests.
    pub async fn hold(&self) -> Result<()> {
        self.local.request("promote").await?;
        self.holds().await
    }

    /// Waits until every worker of every proxy holds requests.
    pub async fn holds(&self) -> Result<()> {
        wait_for("every proxy holds requests", LIMIT, async || {
            let view = self.local.view().await?;
            let (phase, fleet) = (&view["status"]["phase"], &view["fleet"]);
            // Who does not hold is listed, if there is one.
            let all = fleet["acked"] == fleet["expected"] && fleet["fence"]["notHolding"].is_null();
            ensure!(phase == "Holding" && all, "{}; {}; {}", view["status"], view["waiting"], fleet);
            Ok(())
        })
        .await
    }

    /// Waits until at least so many requests are held.
    pub async fn waiting(&self, count: u64) -> Result<()> {
        wait_for(&format!("{count} requests that wait"), LIMIT, async || {
            let view = self.local.view().await?;
            let waiting = view["fleet"]["fence"]["waiting"].as_u64();
            ensure!(waiting.is_some_and(|waiting| waiting >= count), "{waiting:?}: {}", view["waiting"]);
            Ok(())
        })
        .await
    }

    /// How the fence of the switch has come out, once all proxies have acked its flip.
    pub async fn opened(&self, to: &str) -> Result<Value> {
        wait_for(&format!("all acks for {to}"), LIMIT, async || {
            let view = self.local.view().await?;
            let switch = &view["status"]["switch"];
            ensure!(switch["to"] == to && switch["ackedAt"].is_u64(), "{}; {switch}", view["waiting"]);
            Ok(switch["fence"].clone())
        })
        .await
    }

    /// That no request was open on both versions at once, of those that are over.
    pub fn assert_apart(&self) -> Result<()> {
        let both = overlap::both(&self.local.spans("v1")?, &self.local.spans("v2")?);
        ensure!(both.is_empty(), "requests were open on both versions: {both:?}");
        Ok(())
    }

    /// Load on both Envoys, one in a hundred requests of which is slow.
    pub fn load(&self, rate_per_s: u32) -> Vec<Load> {
        let plan = LoadPlan {
            rate_per_s: rate_per_s / 2,
            slow_per_s: rate_per_s / 200,
            slow: SLOW,
            // One for each request that waits at once, or they would wait in the client.
            h1_connections: 512,
            ..LoadPlan::default()
        };
        self.envoys.iter().map(|envoy| Load::start(envoy.listener("ingress"), plan.clone())).collect()
    }

    /// Short streams of gRPC and WebSockets, one after the other, at both Envoys.
    pub fn talks(&self) -> Vec<Talks> {
        let kinds = [TalkKind::Grpc, TalkKind::WebSocket];
        self.envoys.iter().zip(kinds).map(|(envoy, kind)| Talks::start(kind, envoy.listener("ingress"))).collect()
    }

    /// Flips to the version that is not active, and waits until all proxies have acked.
    pub async fn flip(&mut self, mode: &'static str) -> Result<Flip> {
        let from = self.settled().await?;
        let to = if from == "v1" { "v2" } else { "v1" };
        self.local.file()["spec"]["switch"]["mode"] = mode.into();
        let (asked_us, began_us) = (clock::now_us(), steady_us());
        self.local.ask(to);
        let fence = self.opened(to).await?;
        let held_ms = fence["heldMs"].as_u64();
        let hold = fence["heldAt"].as_u64().zip(held_ms).map(|(at, ms)| {
            let begin_us = clock::from_unix_ms(at);
            Span { begin_us, end_us: begin_us + 1_000 * ms }
        });
        Ok(Flip {
            mode,
            from,
            aborted: fence["attempts"].as_u64().unwrap_or(1).saturating_sub(1),
            held_ms,
            overlap_ms: 0.0,
            waits_ms: vec![],
            failed: 0,
            asked_us,
            began_us,
            hold,
        })
    }

    /// Waits until nothing is left of the flip before, whose requests would be taken for those of the next one. The version
    /// that serves.
    async fn settled(&self) -> Result<String> {
        wait_for("the flip before has settled", LIMIT, async || {
            let (phase, active) = self.local.phase().await?;
            ensure!(phase == "Retaining" || phase == "Stable", "{phase}");
            Ok(active)
        })
        .await
    }

    /// Puts down what the backends and the clients have seen of each flip. Every request has to be over.
    pub fn measure(&self, flips: &mut [Flip], results: &Results) -> Result<()> {
        let both = overlap::both(&self.local.spans("v1")?, &self.local.spans("v2")?);
        for place in 0..flips.len() {
            let next = flips.get(place + 1).map_or((u64::MAX, u64::MAX), |next| (next.asked_us, next.began_us));
            let flip = &mut flips[place];
            let its = both.iter().filter(|one| (flip.began_us..next.1).contains(&one.begin_us));
            flip.overlap_ms = overlap::total_ms(its);
            let its = results.requests().iter().filter(|one| (flip.asked_us..next.0).contains(&one.due_us));
            flip.failed = its.filter(|one| one.failed()).count();
            let Some(hold) = flip.hold else { continue };
            let due = |us: u64| (hold.begin_us..hold.end_us).contains(&us);
            let held = results.requests().iter().filter(|one| one.kind == Kind::Fast && due(one.due_us));
            flip.waits_ms = held.map(|one| one.head_us.saturating_sub(one.due_us) as f64 / 1_000.0).collect();
        }
        Ok(())
    }
}

/// Short streams, one after the other, until it is stopped.
pub struct Talks {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Talks {
    fn start(kind: TalkKind, to: SocketAddr) -> Talks {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, ended) = (stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                while !stopped.load(Ordering::Relaxed) {
                    Talk::open(kind, to, "reviews").await?.end().await?;
                    ended.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Talks { stop, count, thread }
    }

    /// How many streams there were; an error if one was cut.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic while it talks")?;
        Ok(self.count.load(Ordering::Relaxed))
    }
}
