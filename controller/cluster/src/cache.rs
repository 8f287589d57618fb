//! What the cluster holds, kept current by watches. I/O: the Kubernetes API.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use machine::fleet::unmanaged::UnmanagedCaller;
use machine::reason::Problem;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::consent::Consents;
use super::heard::{Heard, WATCH_SECONDS};
use super::index::Index;
use super::liveness;
use super::names::CALLERS;
use super::pods;
use super::proxies;
use super::prune::Trim;
use super::reading::Reading;
use super::workloads::Objects;
use service::Hub;
use service::clock::now;
use service::lock::lock;

/// Objects that are read at a time, whole: only then can what is not needed be dropped.
const PAGE: u32 = 50;

/// No pod yet. They are found by their addresses, too.
pub fn no_pods() -> Shared<Pod> {
    Arc::new(Mutex::new(Index::by(pods::addresses)))
}

/// How long nodes and namespaces may take to be read at the start: the right may be missing.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What is known of one kind, for whoever asks.
pub type Shared<K> = Arc<Mutex<Index<K>>>;

/// Where something has changed since that was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// A VersionFlag came, changed or went.
    pub flags: bool,
    /// Something that any flag may wait for.
    pub all: bool,
    /// Something else did, in these namespaces.
    pub namespaces: BTreeSet<String>,
}

/// What all watches tell, besides the objects.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Where something has changed.
    pub changes: Arc<Mutex<Changes>>,
    /// When each kind was heard of.
    pub heard: Heard,
}

/// The kinds that say what a flag acts on, and who has agreed to it.
const KINDS: [&str; 9] = [
    "versionflags",
    "services",
    "deployments",
    "statefulsets",
    "pods",
    "endpointslices",
    "horizontalpodautoscalers",
    "resourcequotas",
    "namespaces",
];
/// What it is told of nodes is not missed: where they are unknown nothing is proven by them, and nothing is held.
const NODES: &str = "nodes";

/// Every kind that matters. Its watches end with it.
#[derive(Debug)]
pub struct Cache {
    flags: Shared<Reading>,
    services: Shared<Service>,
    deployments: Shared<Deployment>,
    stateful_sets: Shared<StatefulSet>,
    pods: Shared<Pod>,
    slices: Shared<EndpointSlice>,
    quotas: Shared<ResourceQuota>,
    autoscalers: Shared<HorizontalPodAutoscaler>,
    /// Only where the pods are those of all namespaces.
    nodes: Option<Shared<Node>>,
    /// The only namespace that is watched.
    namespace: Option<String>,
    /// Where they are asked for their consent.
    namespaces: Option<Shared<Namespace>>,
    changes: Arc<Mutex<Changes>>,
    heard: Heard,
    _watches: JoinSet<()>,
}

/// Where objects are watched, and who is woken by their changes.
struct Watch<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    hub: &'a Arc<Hub>,
    changes: &'a Arc<Mutex<Changes>>,
    heard: &'a Heard,
    tasks: JoinSet<()>,
    /// Told when everything of a kind was seen once.
    seen: Vec<oneshot::Receiver<()>>,
}

impl Watch<'_> {
    fn of<K>(&mut self, note: fn(&mut Changes, BTreeSet<String>)) -> Shared<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + Trim
            + 'static,
    {
        self.on(self.api(), note, Shared::default())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn on<K>(&mut self, api: Api<K>, note: fn(&mut Changes, BTreeSet<String>), index: Shared<K>) -> Shared<K>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + Trim + 'static,
        K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    {
        let (told, seen) = oneshot::channel();
        self.seen.push(seen);
        let (hub, changes, ours) = (Arc::clone(self.hub), Arc::clone(self.changes), Arc::clone(&index));
        let kind = K::plural(&K::DynamicType::default()).into_owned();
        let heard = self.heard.clone();
        self.tasks.spawn(async move {
            let mut told = Some(told);
            let config = watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
            let mut events = pin!(watcher(api, config).default_backoff().modify(Trim::trim));
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::warn!(kind, %error, "cannot be watched, the last state stays");
                        continue;
                    }
                };
                let complete = matches!(event, Event::InitDone);
                if complete {
                    heard.note(&kind, Instant::now(), now());
                }
                let touched = lock(&ours).apply(event);
                if !touched.is_empty() {
                    note(&mut lock(&changes), touched);
                    hub.wake_driver();
                }
                if let Some(told) = told.take_if(|_| complete) {
                    let _ = told.send(());
                }
            }
        });
        index
    }
}

impl Cache {
    /// Watches one namespace, or all of them, and waits until everything was seen once. The pods are put
    /// where others look too, and so is what has changed. `asks` says whether namespaces are asked for their consent;
    /// where only one is watched, no other has anything of its flags.
    pub async fn start(
        client: &Client,
        (namespace, asks): (Option<&str>, bool),
        hub: &Arc<Hub>,
        pods: Shared<Pod>,
        told: Told,
    ) -> Cache {
        let Told { changes, heard } = told;
        let (tasks, seen) = (JoinSet::new(), vec![]);
        let mut watch = Watch { client, namespace, hub, changes: &changes, heard: &heard, tasks, seen };
        let of_flags = |changes: &mut Changes, _| changes.flags = true;
        let elsewhere = |changes: &mut Changes, touched| changes.namespaces.extend(touched as BTreeSet<String>);
        // Where they have room is asked only for a version that has to be started, and then again and again.
        let of_nodes = |_: &mut Changes, _| {};
        let flags = watch.of(of_flags);
        let services = watch.of(elsewhere);
        let deployments = watch.of(elsewhere);
        let stateful_sets = watch.of(elsewhere);
        let pods = watch.on(watch.api(), elsewhere, pods);
        let slices = watch.of(elsewhere);
        let quotas = watch.of(elsewhere);
        let autoscalers = watch.of(elsewhere);
        let seen = std::mem::take(&mut watch.seen);
        let nodes = namespace.is_none().then(|| watch.on(Api::all(client.clone()), of_nodes, Shared::default()));
        // Any flag may wait for it.
        let of_namespaces = |changes: &mut Changes, _| changes.all = true;
        let asked = asks && namespace.is_none();
        let namespaces = asked.then(|| watch.on(Api::all(client.clone()), of_namespaces, Shared::default()));
        let Watch { tasks, seen: more, .. } = watch;
        // Who tells it is dropped only with its watch, at the end.
        join_all(seen).await;
        let _ = tokio::time::timeout(READ_WITHIN, join_all(more)).await;
        Cache {
            flags,
            services,
            deployments,
            stateful_sets,
            pods,
            slices,
            quotas,
            autoscalers,
            nodes,
            namespace: namespace.map(str::to_owned),
            namespaces,
            changes,
            heard,
            _watches: tasks,
        }
    }

    /// What has changed since this was asked last.
    pub fn changes(&self) -> Changes {
        std::mem::take(&mut lock(&self.changes))
    }

    /// Why what is known of the cluster may be out of date.
    pub fn problem(&self, now: Instant) -> Option<Problem> {
        self.heard.problem(&KINDS, now)
    }

    /// Every VersionFlag, whether it can be read or not.
    pub fn flags(&self) -> Vec<Arc<Reading>> {
        all(&self.flags)
    }

    /// Those of one namespace.
    pub fn flags_of(&self, namespace: &str) -> Vec<Arc<Reading>> {
        of(&self.flags, namespace)
    }

    /// The only namespace that is watched; `None`: all of them are.
    pub fn watched(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// What is in one namespace, and the pods of some others, with the nodes of those that may not run any more.
    pub fn near<'a>(&self, namespace: &str, others: impl IntoIterator<Item = &'a String>, now: Instant) -> Objects {
        let mut pods = of(&self.pods, namespace);
        for other in others.into_iter().filter(|other| *other != namespace) {
            pods.extend(of(&self.pods, other));
        }
        let nodes = self.current_nodes(now).map(|nodes| {
            let names: BTreeSet<&str> = pods.iter().filter_map(|pod| liveness::asks_for_node(pod)).collect();
            let nodes = lock(nodes);
            names.into_iter().filter_map(|name| nodes.get("", name)).cloned().collect()
        });
        Objects {
            services: of(&self.services, namespace),
            deployments: of(&self.deployments, namespace),
            stateful_sets: of(&self.stateful_sets, namespace),
            pods,
            slices: of(&self.slices, namespace),
            quotas: of(&self.quotas, namespace),
            autoscalers: of(&self.autoscalers, namespace),
            nodes,
        }
    }

    /// The nodes, as long as what is known of them is current: one that is missing is proof that its pods are gone.
    fn current_nodes(&self, now: Instant) -> Option<&Shared<Node>> {
        self.nodes.as_ref().filter(|_| self.heard.is_current(NODES, now))
    }

    /// The Services of one namespace.
    pub fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        of(&self.services, namespace)
    }

    /// Their endpoints.
    pub fn slices(&self, namespace: &str) -> Vec<Arc<EndpointSlice>> {
        of(&self.slices, namespace)
    }

    /// What the namespaces have agreed to.
    pub fn consents(&self) -> Consents {
        let Some(namespaces) = &self.namespaces else { return Consents::NotAsked };
        let word = |one: &Arc<Namespace>| one.metadata.labels.as_ref().and_then(|labels| labels.get(CALLERS).cloned());
        let all = lock(namespaces).all().filter_map(|one| Some((one.metadata.name.clone()?, word(one)))).collect();
        Consents::of(all)
    }

    /// Says of each address which pod has it.
    pub fn name_callers(&self, callers: &mut [UnmanagedCaller]) {
        proxies::name_callers(callers, |address| lock(&self.pods).by_key(address).cloned().collect());
    }

    /// What decides whether there is room: the nodes, the pods on them, and the quotas of a namespace.
    pub fn room(&self, namespace: &str, now: Instant) -> Objects {
        Objects {
            pods: all(&self.pods),
            quotas: of(&self.quotas, namespace),
            nodes: self.current_nodes(now).map(all),
            ..Objects::default()
        }
    }
}

fn of<K: Resource>(index: &Shared<K>, namespace: &str) -> Vec<Arc<K>> {
    lock(index).of(namespace).cloned().collect()
}

fn all<K: Resource>(index: &Shared<K>) -> Vec<Arc<K>> {
    lock(index).all().cloned().collect()
}

#[cfg(test)]
#[path = "tests/cache.rs"]
mod tests;
