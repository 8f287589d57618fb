//! Observe, step, persist, act, for every VersionFlag: again and again. I/O: the Kubernetes API, the
//! flag service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};
use kube::{Client, Resource, ResourceExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::cache::{Cache, Changes, Shared};
use super::context::Context;
use super::context::Headers;
use super::domain::Domain;
use super::hosts::{Taken, claims, taken};
use super::istio::mesh::Mesh;
use super::istio::plugin::{Image, namespaces};
use super::istio::watch::IstioCache;
use super::lease::{Election, Leadership};
use super::reading::Reading;
use super::resource::VersionFlag;
use super::work_queue::{Kept, News, TICK};
use super::writer::Writer;
use super::{api_requests, identity, leader};
use service::audit::Audit;
use service::check_runner::CheckRunner;
use service::tls::Tls;
use service::{ApiRequests, Hub, Limits, Server};

/// Flags that are looked at before anything else is taken in.
const AT_A_TURN: usize = 128;
/// Flags that are written at the same time.
const AT_ONCE: usize = 16;
/// The Lease by which one replica acts, in the controller's namespace.
pub const LEASE: &str = "versionflag";
/// The longest wait for one answer, watches excepted: less than another replica waits before it acts.
const ANSWER: Duration = Duration::from_secs(5);

/// How the controller is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The only namespace that it looks after; `None`: all of them.
    pub namespace: Option<String>,
    /// Where the flag service listens.
    pub listen: SocketAddr,
    /// Where proxies are served by mutual TLS.
    pub mtls: Option<Mtls>,
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
    /// Where Istio finds the filter, and how it reaches the flag service there.
    pub image: Image,
    /// How the cluster names its Services.
    pub domain: Domain,
    /// What is told of everything that happens.
    pub audit: Audit,
}

/// A second listener of the flag service, where proxies show the certificates of their workloads.
#[derive(Debug, Clone)]
pub struct Mtls {
    /// Where Istio's agent writes those of this pod.
    pub certs: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
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
    /// Of the machine, for checks.
    #[error("the certificates that this machine trusts cannot be read: {0}")]
    Certificates(std::io::Error),
    /// What was read does not hold any more.
    #[error(
        "the Kubernetes API remembers less than it did, because etcd was restored: start this program again, so that \
         it reads everything anew"
    )]
    Restored,
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
    let requests = ApiRequests::default();
    let (client, watching) = clients(&requests).await?;
    let (pods, changes) = (Shared::default(), Arc::default());
    let authenticator = identity::authenticator(client.clone(), Arc::clone(&pods), options.mtls.is_some());
    let hub = Arc::new(Hub::new(authenticator).with_api_requests(&requests));
    let checks = CheckRunner::new(Arc::clone(&hub)).map_err(DriverError::Certificates)?;
    let (listener, port) = listen(options.listen).await?;
    bound(SocketAddr::new(options.listen.ip(), port));
    let service = Server::new(Limits::default(), Arc::clone(&hub));
    let mut servers = JoinSet::new();
    servers.spawn(service.clone().serve(listener, None, std::future::pending()));
    tokio::pin!(stop);
    let mut mtls_port = None;
    if let Some(mtls) = &options.mtls {
        let (port, tls) = serve_mtls(mtls, service, &hub, &mut servers).await?;
        mtls_port = Some(port);
        // A replica that no proxy can reach must not lead.
        tokio::select! {
            () = tls.ready() => {}
            () = &mut stop => return Ok(()),
        }
    }
    let (election, leadership) = Election::new(client.clone(), &options.home, LEASE, &options.identity);
    let (stop_election, stopped) = tokio::sync::oneshot::channel::<()>();
    let (wake, stopped) = (Arc::clone(&hub), stopped.map(drop));
    let mut election = tokio::spawn(election.run(move || wake.wake_driver(), stopped));
    let cache = tokio::select! {
        cache = Cache::start(&watching, options.namespace.as_deref(), &hub, pods, Arc::clone(&changes)) => Some(cache),
        () = &mut stop => None,
    };
    if let Some(cache) = cache {
        let istio = IstioCache::new(&watching, options.namespace.as_deref(), &hub, &changes);
        know_wanted(&istio, &cache).await;
        hub.readiness.mark_flags_observed();
        let mut driver = Driver {
            writer: Writer::new(client.clone(), &options.identity),
            mesh: Mesh::new(client, istio, options.image.clone()),
            options,
            port,
            mtls_port,
            cache,
            headers: Headers::new(),
            taken: Taken::new(),
            hub: Arc::clone(&hub),
            checks,
            leadership,
            leads: false,
            flags: BTreeMap::new(),
        };
        driver.turns(&mut election, stop.as_mut()).await?;
    }
    let _ = stop_election.send(());
    let _ = election.await;
    Ok(())
}

/// A client whose answers do not take long, and one whose watches may.
async fn clients(requests: &ApiRequests) -> Result<(Client, Client), DriverError> {
    let mut config = kube::Config::infer().await?;
    let watching = api_requests::client(config.clone(), requests)?;
    (config.read_timeout, config.write_timeout) = (Some(ANSWER), Some(ANSWER));
    Ok((api_requests::client(config, requests)?, watching))
}

/// Waits until something is known of every kind of Istio's that a flag wants, or each of them would say for a moment
/// that nothing is.
async fn know_wanted(istio: &IstioCache, cache: &Cache) {
    for routing in cache.flags().iter().filter_map(|reading| Some(&reading.flag()?.spec.routing)) {
        if routing.in_mesh() {
            istio.want(routing.provider);
        }
    }
    let _ = tokio::time::timeout(ANSWER, istio.known()).await;
}

/// Serves proxies by mutual TLS. The port, and what it waits for.
async fn serve_mtls(
    mtls: &Mtls,
    service: Server,
    hub: &Hub,
    servers: &mut JoinSet<()>,
) -> Result<(u16, Arc<Tls>), DriverError> {
    let (listener, port) = listen(mtls.listen).await?;
    let tls = hub.readiness.require_tls(&mtls.certs);
    servers.spawn(service.serve(listener, Some(Arc::clone(&tls)), std::future::pending()));
    Ok((port, tls))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, u16), DriverError> {
    let failed = |error| DriverError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

struct Driver {
    options: Options,
    /// Of the flag service.
    port: u16,
    mtls_port: Option<u16>,
    cache: Cache,
    writer: Writer,
    mesh: Mesh,
    headers: Headers,
    taken: Taken,
    hub: Arc<Hub>,
    checks: Arc<CheckRunner>,
    leadership: Leadership,
    /// Whether proxies are led here.
    leads: bool,
    /// By uid.
    flags: BTreeMap<String, Kept>,
}

impl Driver {
    /// One turn after the other, until `stop` ends, or `election` does by itself.
    async fn turns(
        &mut self,
        election: &mut JoinHandle<()>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), DriverError> {
        loop {
            let wait = self.turn().await;
            tokio::select! {
                () = self.hub.driver_woken() => {}
                () = tokio::time::sleep(wait) => {}
                _ = &mut *election => return Err(DriverError::Restored),
                () = &mut stop => return Ok(()),
            }
        }
    }

    /// One look at every flag that may have changed. How long to wait for the next.
    async fn turn(&mut self) -> Duration {
        let leads = self.leadership.holds();
        self.hub.set_leads(leads);
        if !leads {
            // What was remembered may be out of date when this replica acts again.
            for (_, kept) in std::mem::take(&mut self.flags) {
                self.hub.forget_flag(&kept.name);
            }
            self.leads = false;
            self.mesh.forget();
            return TICK;
        }
        self.lead().await;
        let Changes { flags, all, mut namespaces } = self.cache.changes();
        let now = Instant::now();
        if flags || self.flags.is_empty() {
            self.refresh(now, &mut namespaces);
        }
        let (reported, asked) = (self.hub.reports.take_reporters(), self.hub.requests.waiting_flags());
        let news = News { now, all, namespaces: &namespaces, reported: &reported, asked: &asked };
        let mut due: Vec<&mut Kept> =
            self.flags.values_mut().filter_map(|kept| kept.is_due(&news).then_some(kept)).collect();
        due.sort_by_key(|kept| kept.order());
        let more = due.len() > AT_A_TURN;
        due.truncate(AT_A_TURN);
        let around = Context {
            cache: &self.cache,
            hub: &self.hub,
            writer: &self.writer,
            leadership: &self.leadership,
            checks: &self.checks,
            audit: &self.options.audit,
            filter_path: &self.options.filter_path,
            flag_service_cluster: &self.options.flag_service_cluster,
            mesh: &self.mesh,
            domain: &self.options.domain,
            headers: &self.headers,
            taken: &self.taken,
        };
        stream::iter(due).for_each_concurrent(AT_ONCE, |kept| kept.turn(&around)).await;
        self.hub.wake_on_reports(self.flags.values().any(Kept::awaits_reports));
        if more {
            return Duration::ZERO;
        }
        let pause = self.flush().await.unwrap_or(TICK);
        let next = self.flags.values().filter_map(Kept::wakes).min();
        next.map_or(TICK, |next| next.saturating_duration_since(Instant::now()).min(TICK)).min(pause)
    }

    /// Writes the plugins of all flags, when all of them have said what has to be in there.
    async fn flush(&self) -> Option<Duration> {
        if !self.leadership.holds() || !self.flags.values().all(Kept::was_looked_at) {
            return None;
        }
        let flags = self.flags.iter().map(|(uid, kept)| (uid.clone(), kept.name.clone())).collect();
        self.mesh.flush(&flags).await
    }

    /// Takes in which flags there are. Where one was edited, came or went its neighbours are told:
    /// they may have the same Service.
    fn refresh(&mut self, now: Instant, told: &mut BTreeSet<String>) {
        let found = self.cache.flags();
        let found: BTreeMap<&str, &Arc<Reading>> =
            found.iter().filter_map(|reading| Some((reading.meta().uid.as_deref()?, reading))).collect();
        let mut other = self.flags.len() != found.len();
        self.flags.retain(|uid, kept| {
            let there = found.contains_key(uid.as_str());
            if !there {
                self.hub.forget_flag(&kept.name);
                told.insert(kept.namespace());
            }
            there
        });
        self.headers = headers(found.values().filter_map(|reading| reading.flag()));
        let known = |uid: &str| self.flags.get(uid).map(|kept| claims(kept.reading()));
        other |= found.iter().any(|(uid, reading)| known(uid) != Some(claims(reading)));
        if other {
            self.taken = taken(&self.options.domain, found.values().map(|reading| reading.as_ref()));
        }
        for (uid, reading) in found {
            match self.flags.get_mut(uid) {
                Some(kept) => {
                    if kept.update(reading, now) {
                        told.insert(kept.namespace());
                    }
                }
                None => {
                    let kept = Kept::new(Arc::clone(reading), now);
                    told.insert(kept.namespace());
                    self.flags.insert(uid.to_owned(), kept);
                }
            }
        }
    }

    /// Leads the proxies here. Until that has worked they keep what they have.
    async fn lead(&mut self) {
        let Some(address) = self.options.address.filter(|_| !self.leads) else { return };
        let (home, identity) = (&self.options.home, &self.options.identity);
        let here = leader::endpoints(home, identity, address, self.port, self.mtls_port);
        match self.writer.lead(&here).await {
            Ok(()) => self.leads = true,
            Err(error) => tracing::warn!(%error, "the proxies are not led here yet"),
        }
    }
}

/// The routing header of the oldest flag in each namespace that has Istio's filter, and its name.
fn headers<'a>(flags: impl Iterator<Item = &'a VersionFlag>) -> Headers {
    let mut flags: Vec<&VersionFlag> = flags.filter(|flag| flag.spec.routing.in_mesh()).collect();
    let age =
        |flag: &VersionFlag| (flag.metadata.creation_timestamp.as_ref().map(|time| time.0), flag.metadata.uid.clone());
    flags.sort_by_key(|flag| age(flag));
    let mut headers = Headers::new();
    for flag in flags {
        let namespace = flag.namespace().unwrap_or_default();
        let name = format!("{namespace}/{}", flag.name_any());
        for place in namespaces(&namespace, &flag.spec.callers) {
            headers.entry(place).or_insert_with(|| (flag.spec.routing.header.clone(), name.clone()));
        }
    }
    headers
}
