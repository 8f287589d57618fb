//! A mesh that is busy with other things: Services and VirtualServices of other teams that change
//! all the time. I/O: writes to the API.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Mesh;

const NAMESPACE: &str = "churn";

/// How much changes.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// So many Services, and as many VirtualServices.
    pub services: usize,
    /// Changes in a second.
    pub per_second: u32,
}

/// Goes on until it is dropped.
pub struct Churning {
    changes: JoinHandle<Result<()>>,
}

impl Churn {
    /// Makes the objects.
    pub async fn create(&self, mesh: &Mesh<'_>) -> Result<()> {
        let client = mesh.cluster.client();
        mesh.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })).await?;
        let (services, routes) = apis(&client);
        for number in 0..self.services {
            let service: Service = serde_json::from_value(service(number, 0))?;
            services.create(&PostParams::default(), &service).await?;
            let route: DynamicObject = serde_json::from_value(route(number, 0))?;
            routes.create(&PostParams::default(), &route).await?;
        }
        Ok(())
    }

    /// Begins to change them, one after the other.
    pub fn start(&self, mesh: &Mesh<'_>) -> Churning {
        let (churn, client) = (*self, mesh.cluster.client());
        Churning { changes: tokio::spawn(async move { churn.run(&client).await }) }
    }

    async fn run(self, client: &Client) -> Result<()> {
        let (services, routes) = apis(client);
        let mut tick = interval(Duration::from_secs(1) / self.per_second);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let merge = PatchParams::default();
        for change in 1.. {
            tick.tick().await;
            let number = change % self.services;
            let name = name(number);
            if change % 2 == 0 {
                services.patch(&name, &merge, &Patch::Merge(service(number, change))).await.context("a service")?;
            } else {
                routes.patch(&name, &merge, &Patch::Merge(route(number, change))).await.context("a route")?;
            }
        }
        Ok(())
    }
}

impl Churning {
    /// Ends it; an error if it could not change things until now.
    pub async fn stop(mut self) -> Result<()> {
        if self.changes.is_finished() { (&mut self.changes).await? } else { Ok(()) }
    }
}

impl Drop for Churning {
    fn drop(&mut self) {
        self.changes.abort();
    }
}

fn apis(client: &Client) -> (Api<Service>, Api<DynamicObject>) {
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService");
    let routes = Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind));
    (Api::namespaced(client.clone(), NAMESPACE), routes)
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

/// Each change is one that proxies have to be told of.
fn service(number: usize, change: usize) -> Value {
    let port = 8000 + change % 1000;
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name(number), "namespace": NAMESPACE },
        "spec": { "selector": { "app": name(number) }, "ports": [{ "name": "http", "port": 80, "targetPort": port }] },
    })
}

fn route(number: usize, change: usize) -> Value {
    let host = format!("{}.{NAMESPACE}.svc.cluster.local", name(number));
    let timeout = format!("{}s", 1 + change % 1000);
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": name(number), "namespace": NAMESPACE },
        "spec": { "hosts": [host], "http": [{ "route": [{ "destination": { "host": host } }], "timeout": timeout }] },
    })
}
