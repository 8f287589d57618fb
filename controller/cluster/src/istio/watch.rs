//! What the cluster holds of Istio, kept current by watches that begin when somebody wants it and the
//! cluster has it. I/O: the Kubernetes API.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::check::IstioObjects;
use super::object::{
    DestinationRule, GRPCRoute, HTTPRoute, Kind, MeshObject, TrafficExtension, VirtualService, WasmPlugin,
};
use super::plugin::Target;
use super::{keys, routes};
use crate::cache::{Changes, Told};
use crate::domain::Domain;
use crate::heard::{Heard, WATCH_SECONDS};
use crate::index::Index;
use crate::prune::Trim;
use crate::resource::unix_ms;
use machine::reason::{Problem, Reason};
use machine::spec::Provider;
use machine::time::UnixMs;
use service::Hub;
use service::clock::now;
use service::lock::lock;

/// How often it is looked whether the cluster has the kinds now.
const LOOK: Duration = Duration::from_secs(10);

/// What is known of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchState {
    /// Nothing yet.
    Unknown,
    /// The cluster does not have it.
    Absent,
    /// It cannot be read: why.
    Refused(String),
    /// Everything was seen.
    Current,
}

/// One kind of object.
pub struct Watched<K: Kind> {
    index: Mutex<Index<MeshObject<K>>>,
    state: Mutex<WatchState>,
    heard: Heard,
}

impl<K: Kind> Watched<K> {
    fn new(heard: &Heard) -> Arc<Watched<K>> {
        Watched::with(Index::default(), heard)
    }

    /// One in which objects are found by their keys, too.
    fn by(keys: impl Fn(&MeshObject<K>) -> BTreeSet<String> + Send + 'static, heard: &Heard) -> Arc<Watched<K>> {
        Watched::with(Index::by(keys), heard)
    }

    fn with(index: Index<MeshObject<K>>, heard: &Heard) -> Arc<Watched<K>> {
        let (index, state) = (Mutex::new(index), Mutex::new(WatchState::Unknown));
        Arc::new(Watched { index, state, heard: heard.clone() })
    }

    /// What is known of it.
    pub fn state(&self) -> WatchState {
        lock(&self.state).clone()
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<MeshObject<K>>> {
        lock(&self.index).get(namespace, name).cloned()
    }

    /// Those that have a key.
    pub fn by_key(&self, key: &str) -> Vec<Arc<MeshObject<K>>> {
        lock(&self.index).by_key(key).cloned().collect()
    }
}

/// Everything of Istio that matters. Its watches end with it.
pub struct IstioCache {
    /// Routes.
    pub services: Arc<Watched<VirtualService>>,
    /// Subsets.
    pub rules: Arc<Watched<DestinationRule>>,
    /// Plugins.
    pub plugins: Arc<Watched<WasmPlugin>>,
    /// Plugins of an Istio that has these.
    pub extensions: Arc<Watched<TrafficExtension>>,
    /// Routes of the Gateway API.
    pub http_routes: Arc<Watched<HTTPRoute>>,
    /// The same for gRPC.
    pub grpc_routes: Arc<Watched<GRPCRoute>>,
    wanted: watch::Sender<bool>,
    gateway_wanted: watch::Sender<bool>,
    _watches: JoinSet<()>,
}

impl std::fmt::Debug for IstioCache {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Istio")
    }
}

/// Where objects are watched, and who is told.
#[derive(Clone)]
struct WatchScope {
    client: Client,
    namespace: Option<String>,
    hub: Arc<Hub>,
    changes: Arc<Mutex<Changes>>,
    wanted: watch::Receiver<bool>,
}

impl IstioCache {
    /// Watches one namespace, or all of them, as soon as somebody wants it. In the `domain` of the cluster Services are
    /// found by their names.
    pub fn new(client: &Client, namespace: Option<&str>, hub: &Arc<Hub>, told: &Told, domain: &Domain) -> IstioCache {
        let Told { changes, heard } = told;
        let (of_routes, of_rules) = (domain.clone(), domain.clone());
        let services = Watched::by(move |routes| keys::of_routes(&of_routes, routes), heard);
        let rules = Watched::by(move |rule| keys::of_rule(&of_rules, rule), heard);
        let (plugins, extensions) = (Watched::new(heard), Watched::new(heard));
        let mut watches = JoinSet::new();
        let (http_routes, grpc_routes) = (Watched::by(keys::of_route, heard), Watched::by(keys::of_route, heard));
        let (wanted, wants) = watch::channel(false);
        let (gateway_wanted, gateway_wants) = watch::channel(false);
        let place = WatchScope {
            client: client.clone(),
            namespace: namespace.map(str::to_owned),
            hub: Arc::clone(hub),
            changes: Arc::clone(changes),
            wanted: wants,
        };
        watches.spawn(follow(place.clone(), Arc::clone(&services)));
        watches.spawn(follow(place.clone(), Arc::clone(&rules)));
        watches.spawn(follow(place.clone(), Arc::clone(&plugins)));
        watches.spawn(follow(place.clone(), Arc::clone(&extensions)));
        let place = WatchScope { wanted: gateway_wants, ..place };
        watches.spawn(follow(place.clone(), Arc::clone(&http_routes)));
        watches.spawn(follow(place, Arc::clone(&grpc_routes)));
        IstioCache {
            services,
            rules,
            plugins,
            extensions,
            http_routes,
            grpc_routes,
            wanted,
            gateway_wanted,
            _watches: watches,
        }
    }

    /// Somebody wants it, with these routes. A cluster where nobody does is never asked for it.
    pub fn want(&self, provider: Provider) {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        if provider == Provider::GatewayAPI {
            self.gateway_wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        }
    }

    /// Waits until something is known of every kind that somebody wants.
    pub async fn known(&self) {
        let unknown = || {
            let wanted = |wanted: &watch::Sender<bool>| *wanted.borrow();
            let kinds = [self.services.state(), self.rules.state(), self.plugins.state(), self.extensions.state()];
            wanted(&self.wanted) && kinds.contains(&WatchState::Unknown)
                || wanted(&self.gateway_wanted)
                    && [self.http_routes.state(), self.grpc_routes.state()].contains(&WatchState::Unknown)
        };
        while unknown() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Why the routes of this provider cannot be looked at.
    pub fn routes_problem(&self, provider: Provider) -> Option<Problem> {
        let istio = problem(&self.services).or_else(|| problem(&self.rules));
        if provider != Provider::GatewayAPI {
            return istio;
        }
        let routes = problem(&self.http_routes).or_else(|| problem_unless_absent(&self.grpc_routes));
        istio.or(routes)
    }

    /// Why no plugin can be written. One of both kinds suffices.
    pub fn plugins_problem(&self) -> Option<Problem> {
        match self.extensions.state() {
            WatchState::Current => problem_unless_absent(&self.plugins),
            WatchState::Absent => problem(&self.plugins),
            _ => problem(&self.extensions),
        }
    }

    /// Where the controller has a plugin.
    pub fn plugin_targets(&self) -> BTreeSet<Target> {
        fn of<K: Kind>(watched: &Watched<K>) -> Vec<Target> {
            lock(&watched.index).all().filter_map(|found| Target::of(found)).collect()
        }
        of(&self.plugins).into_iter().chain(of(&self.extensions)).collect()
    }

    /// When the last of these plugins was made, of those that there are.
    pub fn plugins_since(&self, targets: &BTreeSet<Target>) -> Option<UnixMs> {
        fn made<K: Kind>(found: &MeshObject<K>) -> Option<UnixMs> {
            Some(unix_ms(found.metadata.creation_timestamp.as_ref()?.0))
        }
        let made = targets.iter().flat_map(|target| {
            let (namespace, name) = (&target.namespace, target.name());
            let old = self.plugins.get(namespace, &name).as_deref().and_then(made);
            [old, self.extensions.get(namespace, &name).as_deref().and_then(made)]
        });
        made.flatten().max()
    }

    /// The routes and rules that are about a Service, or have a name that is the controller's.
    pub fn about(&self, service: &str, namespace: &str) -> IstioObjects {
        let key = keys::service(service, namespace);
        let delegate = routes::delegate_name(service);
        let mut services = self.services.by_key(&key);
        services.extend(self.services.by_key(&keys::delegate(&delegate, namespace)));
        for name in [routes::name(service), delegate] {
            let named = self.services.get(namespace, &name);
            services.extend(named.filter(|named| !services.iter().any(|one| Arc::ptr_eq(one, named))));
        }
        let mut rules = self.rules.by_key(&key);
        rules.extend(self.rules.by_key(keys::ANY));
        let named = self.rules.get(namespace, &routes::name(service));
        rules.extend(named.filter(|named| !rules.iter().any(|one| Arc::ptr_eq(one, named))));
        IstioObjects { services, rules }
    }
}

fn problem_unless_absent<K: Kind>(watched: &Watched<K>) -> Option<Problem> {
    problem(watched).filter(|_| watched.state() != WatchState::Absent)
}

fn problem<K: Kind>(watched: &Watched<K>) -> Option<Problem> {
    let (plural, kind) = (K::PLURAL, format!("{} of {}/{}", K::KIND, K::GROUP, K::VERSION));
    let (reason, message) = match watched.state() {
        WatchState::Current => return watched.heard.problem(&[plural], Instant::now()),
        WatchState::Unknown => (Reason::IstioUnknown, format!("the {plural} of the cluster are not read yet")),
        WatchState::Absent if K::GROUP == HTTPRoute::GROUP => (
            Reason::GatewayApiMissing,
            format!(
                "the cluster has no {kind}: install the CRDs of the Gateway API, or set spec.routing.provider to Istio"
            ),
        ),
        WatchState::Absent => (
            Reason::IstioMissing,
            format!("the cluster has no {kind}: install Istio, or set spec.routing.provider to External"),
        ),
        WatchState::Refused(why) => (
            Reason::IstioForbidden,
            format!("the controller cannot read {plural} ({why}): apply manifests/kubernetes/istio"),
        ),
    };
    Some(Problem::new(reason, message))
}

/// Whether the cluster has the kind.
async fn exists<K: Kind>(client: &Client) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(&format!("{}/{}", K::GROUP, K::VERSION)).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == K::KIND)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn follow<K: Kind>(mut place: WatchScope, watched: Arc<Watched<K>>)
where
    MeshObject<K>: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    if place.wanted.wait_for(|wanted| *wanted).await.is_err() {
        return;
    }
    let become_ = |state: WatchState| {
        let changed = std::mem::replace(&mut *lock(&watched.state), state.clone()) != state;
        if changed {
            tracing::info!(kind = K::KIND, ?state, "Istio");
            // Any flag may wait for it.
            lock(&place.changes).all = true;
            place.hub.wake_driver();
        }
    };
    loop {
        match exists::<K>(&place.client).await {
            Ok(true) => break,
            Ok(false) => become_(WatchState::Absent),
            Err(error) => become_(WatchState::Refused(error.to_string())),
        }
        tokio::time::sleep(LOOK).await;
    }
    let api: Api<MeshObject<K>> = match &place.namespace {
        Some(namespace) => Api::namespaced(place.client.clone(), namespace),
        None => Api::all(place.client.clone()),
    };
    let mut events =
        pin!(watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)).default_backoff().modify(Trim::trim));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let complete = matches!(event, Event::InitDone);
                let touched = lock(&watched.index).apply(event);
                if complete {
                    watched.heard.note(K::PLURAL, Instant::now(), now());
                    become_(WatchState::Current);
                }
                if !touched.is_empty() {
                    lock(&place.changes).namespaces.extend(touched);
                    place.hub.wake_driver();
                }
            }
            Err(error) => {
                tracing::warn!(kind = K::KIND, %error, "cannot be watched, the last state stays");
                // What was seen once goes on being believed for a while, as with every other kind.
                if watched.state() != WatchState::Current {
                    become_(WatchState::Refused(error.to_string()));
                }
            }
        }
    }
}
