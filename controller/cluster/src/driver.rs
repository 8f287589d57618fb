//! The controller of a cluster as a process: its servers, its watches, its Lease, and the turns of its flags. I/O: the
//! Kubernetes API, the flag service.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::cache::{Cache, Told, no_pods};
use super::domain::Domain;
use super::heard::{Heard, SILENCE};
use super::istio::mesh::Mesh;
use super::istio::plugin::Image;
use super::istio::watch::IstioCache;
use super::lease::Election;
use super::turns::{Around, Turns};
use super::writer::Writer;
use super::{api_requests, identity, listener};
use service::audit::Audit;
use service::check_hosts::CheckHost;
use service::check_runner::CheckRunner;
use service::tls::Tls;
use service::{ApiRequests, Hub, Limits, Server};

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
    /// Where probes and metrics are served besides, so that they wait for no proxy; `None`: nowhere.
    pub health_listen: Option<SocketAddr>,
    /// Where proxies are served by mutual TLS.
    pub mtls: Option<Mtls>,
    /// Name of this replica.
    pub identity: String,
    /// Namespace of the Lease, and of the Service of the flag service.
    pub home: String,
    /// Addresses of this replica, to which that Service leads while it acts; none: nothing leads here.
    pub addresses: Vec<IpAddr>,
    /// Where the proxies find the filter.
    pub filter_path: PathBuf,
    /// Their cluster of the flag service.
    pub flag_service_cluster: String,
    /// Where Istio finds the filter, and how it reaches the flag service there.
    pub image: Image,
    /// How the cluster names its Services.
    pub domain: Domain,
    /// The hosts that checks may ask; `None`: all.
    pub check_hosts: Option<Vec<CheckHost>>,
    /// Whether other namespaces have to agree before a flag has their callers, gateways or hosts.
    pub asks_consent: bool,
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
    let (pods, told) = (no_pods(), Told::default());
    let (client, watching) = clients(&requests, &told.heard).await?;
    let authenticator = identity::authenticator(client.clone(), Arc::clone(&pods), options.mtls.is_some());
    let hub = Arc::new(Hub::new(authenticator).with_api_requests(&requests));
    let checks =
        CheckRunner::asking(Arc::clone(&hub), options.check_hosts.clone()).map_err(DriverError::Certificates)?;
    let (listener, port) = listen(options.listen).await?;
    bound(SocketAddr::new(options.listen.ip(), port));
    let service = Server::new(Limits::default(), Arc::clone(&hub));
    let mut servers = JoinSet::new();
    servers.spawn(service.clone().serve(listener, None, std::future::pending()));
    if let Some(address) = options.health_listen {
        let (listener, _) = listen(address).await?;
        servers.spawn(Server::probes(Arc::clone(&hub)).serve(listener, None, std::future::pending()));
    }
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
        cache = Cache::start(&watching, (options.namespace.as_deref(), options.asks_consent), &hub, pods, told.clone()) => Some(cache),
        () = &mut stop => None,
    };
    if let Some(cache) = cache {
        let istio = IstioCache::new(&watching, options.namespace.as_deref(), &hub, &told, &options.domain);
        know_wanted(&istio, &cache).await;
        hub.readiness.mark_flags_observed();
        let around = Around {
            writer: Writer::new(client.clone(), &options.identity),
            mesh: Mesh::new(client, istio, options.image.clone()),
            options,
            ports: (port, mtls_port),
            cache,
            hub: Arc::clone(&hub),
            checks,
            leadership,
        };
        Turns::new(around).run(&mut election, stop.as_mut()).await?;
    }
    let _ = stop_election.send(());
    let _ = election.await;
    Ok(())
}

/// A client whose answers do not take long, and one whose watches may.
async fn clients(requests: &ApiRequests, heard: &Heard) -> Result<(Client, Client), DriverError> {
    let mut config = kube::Config::infer().await?;
    config.read_timeout = Some(SILENCE);
    let watching = api_requests::client(config.clone(), requests, heard)?;
    (config.read_timeout, config.write_timeout) = (Some(ANSWER), Some(ANSWER));
    Ok((api_requests::client(config, requests, heard)?, watching))
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
    let listener = listener::listen(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}
