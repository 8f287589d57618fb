//! Open-loop load in which every request is recorded. I/O: the requests, on a thread of its own.
//!
//! Open loop: requests fall due at a fixed rate whatever becomes of the ones before, so a proxy
//! that stalls is seen as it would be by its users. A request that finds its connection closed
//! before it was written goes to a new one, as any client does; anything else is a failure.

mod connection;
mod generator;
mod results;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::oneshot;

pub use results::{Kind, Live, Protocol, Request, Results};

use crate::wait::wait_for;

/// What load to make.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Fast requests a second, spread over the protocols evenly.
    pub rate_per_s: u32,
    /// Keep-alive HTTP/1.1 connections for fast requests.
    pub h1_connections: usize,
    /// Multiplexed HTTP/2 connections.
    pub h2_connections: usize,
    /// Slow requests a second, on HTTP/1.1 connections of their own and on the HTTP/2 ones.
    pub slow_per_s: u32,
    /// How long a slow request takes.
    pub slow: Duration,
    /// Keeps one stream of this length open: when it ends, the next one begins.
    pub stream: Option<Duration>,
    /// The host that is asked for.
    pub authority: String,
    /// The path of fast requests.
    pub path: String,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// How much longer than its kind takes anyway a request may take.
    pub timeout: Duration,
}

impl Default for LoadPlan {
    fn default() -> LoadPlan {
        LoadPlan {
            rate_per_s: 500,
            h1_connections: 8,
            h2_connections: 2,
            slow_per_s: 0,
            slow: Duration::from_secs(2),
            stream: None,
            authority: "reviews".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }
}

impl LoadPlan {
    /// How long a request of this kind takes when all is well.
    fn expected(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Fast => Duration::ZERO,
            Kind::Slow => self.slow,
            Kind::Stream => self.stream.unwrap_or_default(),
        }
    }

    /// The path of a request of this kind.
    fn path(&self, kind: Kind) -> String {
        let ms = self.expected(kind).as_millis();
        match kind {
            Kind::Fast => self.path.clone(),
            Kind::Slow => format!("/slow?ms={ms}"),
            Kind::Stream => format!("/stream?ms={ms}&every=100"),
        }
    }

    /// No request is open for longer than this.
    fn longest(&self) -> Duration {
        self.timeout + [Kind::Fast, Kind::Slow, Kind::Stream].map(|kind| self.expected(kind)).into_iter().max().unwrap()
    }
}

/// Load that is being made. Dropped without [`Load::stop`], it is cut off where it stands.
#[derive(Debug)]
pub struct Load {
    recorder: Arc<results::Recorder>,
    stop: Option<oneshot::Sender<()>>,
    cut: Option<oneshot::Sender<()>>,
    done: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
    longest: Duration,
}

impl Load {
    /// Starts to make load.
    pub fn start(target: SocketAddr, plan: LoadPlan) -> Load {
        Load::start_with(target, plan, || {})
    }

    /// The same from within a network namespace.
    #[cfg(feature = "kube")]
    pub fn start_in(network: &crate::netns::Network, target: SocketAddr, plan: LoadPlan) -> Load {
        let network = network.clone();
        Load::start_with(target, plan, move || network.enter().expect("the network namespace can be entered"))
    }

    /// The same on a thread that has done this first.
    fn start_with(target: SocketAddr, plan: LoadPlan, prepare: impl FnOnce() + Send + 'static) -> Load {
        assert!(plan.h1_connections + plan.h2_connections > 0, "load needs a connection");
        let recorder = Arc::new(results::Recorder::default());
        let longest = plan.longest();
        let (stop, stopped) = oneshot::channel();
        let (cut, cut_off) = oneshot::channel::<()>();
        let (finish, done) = oneshot::channel();
        let work = generator::run(target, plan, recorder.clone(), stopped);
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            prepare();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = work => drop(finish.send(())),
                    _ = cut_off => {}
                }
            });
            runtime.shutdown_background();
        });
        let thread = Some(thread.expect("a thread for the load"));
        Load { recorder, stop: Some(stop), cut: Some(cut), done, thread, longest }
    }

    /// Its counters now.
    pub fn live(&self) -> Live {
        self.recorder.live()
    }

    /// Waits until so many more requests were answered.
    pub async fn goes_on(&self, more: u64, limit: Duration) -> Result<()> {
        let before = self.live().done;
        wait_for("more answers", limit, async || self.live().done >= before + more).await
    }

    /// Makes no new requests, waits for the open ones, and gives all of them.
    pub async fn stop(mut self) -> Result<Results> {
        drop(self.stop.take());
        let waited = tokio::time::timeout(self.longest, &mut self.done).await;
        waited
            .with_context(|| format!("requests are open {:?} after the load was stopped", self.longest))?
            .context("the load's thread ended early")?;
        let (results, sent) = (self.recorder.take(), self.recorder.live().sent);
        ensure!(results.len() as u64 == sent, "{sent} requests were made and {} recorded", results.len());
        Ok(results)
    }

    /// Stops all of them, and gives the requests of each.
    pub async fn stop_each(loads: impl IntoIterator<Item = Load>) -> Result<Vec<Results>> {
        let mut all = Vec::new();
        for load in loads {
            all.push(load.stop().await?);
        }
        Ok(all)
    }

    /// Stops all of them, and gives the requests of all.
    pub async fn stop_all(loads: Vec<Load>) -> Result<Results> {
        Ok(Load::stop_each(loads).await?.into_iter().fold(Results::default(), Results::and))
    }

    /// Stops it. No request failed, and these versions have answered, no others.
    pub async fn stop_served_by(self, versions: &[&str]) -> Result<Results> {
        let results = self.stop().await?;
        results.assert_no_failures();
        assert_eq!(results.by_version().keys().collect::<Vec<_>>(), versions);
        Ok(results)
    }

    /// Goes on for so long, then stops.
    pub async fn run_for(self, time: Duration) -> Result<Results> {
        // Not a wait for anything: the time is the measurement.
        tokio::time::sleep(time).await;
        self.stop().await
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.cut.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
