//! What the cluster holds, kept current by watches. I/O: the Kubernetes API.

use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::reading::Reading;
use super::workloads::Objects;
use crate::service::Hub;

/// A store of every kind that matters. Its watches end with it.
#[derive(Debug)]
pub struct Cache {
    flags: Store<Reading>,
    services: Store<Service>,
    deployments: Store<Deployment>,
    stateful_sets: Store<StatefulSet>,
    pods: Store<Pod>,
    slices: Store<EndpointSlice>,
    quotas: Store<ResourceQuota>,
    /// Only where the pods are those of all namespaces.
    nodes: Option<Store<Node>>,
    _watches: JoinSet<()>,
}

/// Where objects are watched, and who is woken by their changes.
struct Watch<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    hub: &'a Arc<Hub>,
    tasks: JoinSet<()>,
}

impl Watch<'_> {
    fn of<K>(&mut self) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        self.on(api)
    }

    fn on<K>(&mut self, api: Api<K>) -> Store<K>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    {
        let (store, writer) = reflector::store();
        let (hub, kind) = (Arc::clone(self.hub), K::plural(&K::DynamicType::default()).into_owned());
        self.tasks.spawn(async move {
            let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff().reflect(writer));
            while let Some(event) = events.next().await {
                match event {
                    Ok(_) => hub.wake.notify_one(),
                    Err(error) => tracing::warn!(kind, %error, "cannot be watched, the last state stays"),
                }
            }
        });
        store
    }
}

impl Cache {
    /// Watches one namespace, or all of them, and waits until everything was seen once.
    pub async fn start(client: &Client, namespace: Option<&str>, hub: &Arc<Hub>) -> Cache {
        let mut watch = Watch { client, namespace, hub, tasks: JoinSet::new() };
        let cache = Cache {
            flags: watch.of(),
            services: watch.of(),
            deployments: watch.of(),
            stateful_sets: watch.of(),
            pods: watch.of(),
            slices: watch.of(),
            quotas: watch.of(),
            nodes: namespace.is_none().then(|| watch.on(Api::all(client.clone()))),
            _watches: watch.tasks,
        };
        // A writer is dropped only with its watch, at the end.
        let _ = cache.flags.wait_until_ready().await;
        let _ = cache.services.wait_until_ready().await;
        let _ = cache.deployments.wait_until_ready().await;
        let _ = cache.stateful_sets.wait_until_ready().await;
        let _ = cache.pods.wait_until_ready().await;
        let _ = cache.slices.wait_until_ready().await;
        let _ = cache.quotas.wait_until_ready().await;
        if let Some(nodes) = &cache.nodes {
            let _ = nodes.wait_until_ready().await;
        }
        cache
    }

    /// Every VersionFlag, whether it can be read or not.
    pub fn flags(&self) -> Vec<Arc<Reading>> {
        self.flags.state()
    }

    /// Everything else.
    pub fn objects(&self) -> Objects {
        Objects {
            services: self.services.state(),
            deployments: self.deployments.state(),
            stateful_sets: self.stateful_sets.state(),
            pods: self.pods.state(),
            slices: self.slices.state(),
            quotas: self.quotas.state(),
            nodes: self.nodes.as_ref().map(Store::state),
        }
    }
}
