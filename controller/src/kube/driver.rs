//! Observe, step, persist, act, for every VersionFlag: again and again. I/O: the Kubernetes API, the
//! flag service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::{Client, ResourceExt};
use tokio::net::TcpListener;

use super::cache::Cache;
use super::flag::{Flag, Surroundings};
use super::lease::{Election, Leadership};
use super::resource::VersionFlag;
use super::write::Writer;
use super::{identity, leader};
use crate::audit::Audit;
use crate::service::{Hub, now_ms};

/// The longest time without a look at everything.
const TICK_MS: u64 = 1_000;
const LEASE: &str = "versionflag";

/// How the controller is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The only namespace that it looks after; `None`: all of them.
    pub namespace: Option<String>,
    /// Where the flag service listens.
    pub listen: SocketAddr,
    /// Name of this replica.
    pub identity: String,
    /// Namespace of the Lease, and of the Service of the flag service.
    pub home: String,
    /// Address of this replica, to which that Service leads while it acts; `None`: nothing leads here.
    pub address: Option<IpAddr>,
    /// Where the proxies find the filter.
    pub filter_path: PathBuf,
    /// Their cluster of the flag service.
    pub flag_service_cluster: String,
    /// What is told of everything that happens.
    pub audit: Audit,
}

/// Why the controller ends.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No cluster to talk to.
    #[error("the Kubernetes API cannot be reached: {0}")]
    Client(#[from] kube::Error),
    /// No way to talk to a cluster.
    #[error("no configuration for the Kubernetes API: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The flag service.
    #[error("the flag service cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

/// Runs until `stop` ends. `bound` is told the flag service's address.
pub async fn run(
    options: Options,
    bound: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), DriverError> {
    let client = Client::try_from(kube::Config::infer().await?)?;
    let hub = Arc::new(Hub::new(identity::senders(client.clone())));
    let listen = |error| DriverError::Listen { address: options.listen, error };
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();
    bound(SocketAddr::new(options.listen.ip(), port));
    let server = tokio::spawn(crate::service::serve(listener, Arc::clone(&hub), std::future::pending()));
    let (election, leadership) = Election::new(client.clone(), &options.home, LEASE, &options.identity);
    let (stop_election, stopped) = tokio::sync::oneshot::channel::<()>();
    let wake = Arc::clone(&hub);
    let election = tokio::spawn(election.run(move || wake.wake.notify_one(), async {
        let _ = stopped.await;
    }));
    tokio::pin!(stop);
    let cache = tokio::select! {
        cache = Cache::start(&client, options.namespace.as_deref(), &hub) => Some(cache),
        () = &mut stop => None,
    };
    if let Some(cache) = cache {
        let writer = Writer::new(client, &options.identity);
        hub.looked.store(true, Ordering::Relaxed);
        let hub = Arc::clone(&hub);
        let mut driver = Driver { options, port, cache, writer, hub, leadership, leads: false, flags: BTreeMap::new() };
        loop {
            let wait_ms = driver.turn().await;
            tokio::select! {
                () = driver.hub.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = &mut stop => break,
            }
        }
    }
    let _ = stop_election.send(());
    let _ = election.await;
    server.abort();
    Ok(())
}

struct Driver {
    options: Options,
    /// Of the flag service.
    port: u16,
    cache: Cache,
    writer: Writer,
    hub: Arc<Hub>,
    leadership: Leadership,
    /// Whether proxies are led here.
    leads: bool,
    /// By uid.
    flags: BTreeMap<String, Flag>,
}

impl Driver {
    /// One look at every flag. In how many milliseconds the next one is due.
    async fn turn(&mut self) -> u64 {
        if !self.leadership.holds() {
            // What was remembered may be out of date when this replica acts again.
            for (_, flag) in std::mem::take(&mut self.flags) {
                self.hub.forget(flag.name());
            }
            self.leads = false;
            return TICK_MS;
        }
        self.lead().await;
        let (resources, objects) = (self.cache.flags(), self.cache.objects());
        self.forget_deleted(&resources);
        let mut wait_ms = TICK_MS;
        for resource in &resources {
            let Some(uid) = resource.uid() else { continue };
            let claimed = claimed_by_older(resource, &resources);
            let flag = self.flags.entry(uid).or_insert_with(|| Flag::new(resource, now_ms()));
            let around = Surroundings {
                objects: &objects,
                hub: &self.hub,
                writer: &self.writer,
                leadership: &self.leadership,
                filter_path: &self.options.filter_path,
                flag_service_cluster: &self.options.flag_service_cluster,
                claimed: claimed.as_deref(),
                audit: &self.options.audit,
            };
            match flag.turn(resource, &around).await {
                Ok(due) => wait_ms = wait_ms.min(due),
                Err(error) => tracing::warn!(flag = flag.name(), %error, "is tried again"),
            }
        }
        wait_ms
    }

    /// Leads the proxies here. Until that has worked they keep what they have.
    async fn lead(&mut self) {
        let Some(address) = self.options.address.filter(|_| !self.leads) else { return };
        let here = leader::endpoints(&self.options.home, &self.options.identity, address, self.port);
        match self.writer.lead(&here).await {
            Ok(()) => self.leads = true,
            Err(error) => tracing::warn!(%error, "the proxies are not led here yet"),
        }
    }

    fn forget_deleted(&mut self, resources: &[Arc<VersionFlag>]) {
        let hub = &self.hub;
        self.flags.retain(|uid, flag| {
            let there = resources.iter().any(|resource| resource.uid().as_ref() == Some(uid));
            if !there {
                hub.forget(flag.name());
            }
            there
        });
    }
}

/// Which service another, older VersionFlag of the namespace has already, in a sentence.
fn claimed_by_older(resource: &VersionFlag, all: &[Arc<VersionFlag>]) -> Option<String> {
    let age = |one: &VersionFlag| (one.creation_timestamp().map(|time| time.0), one.uid());
    let others = all.iter().filter(|other| other.namespace() == resource.namespace() && age(other) < age(resource));
    let mut shared = others.flat_map(|other| {
        let ours = resource.spec.services.iter().filter(|one| other.spec.services.iter().any(|it| it.name == one.name));
        ours.map(move |service| (other, service))
    });
    shared.next().map(|(other, service)| {
        format!(
            "Service {} belongs to VersionFlag {} already: take it out of one of both",
            service.name,
            other.name_any()
        )
    })
}
