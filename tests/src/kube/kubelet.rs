//! Plays the part of a kubelet that kwok leaves out: a backend process behind each pod's address,
//! and the files of Envoy that a ConfigMap holds. I/O: asks the API, runs backends, writes files.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::Signal;
use crate::backend::{Backend, BackendOptions};
use crate::dir::TestDir;

/// Where the pods listen.
const PORT: u16 = 8080;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the pods of one service, `reviews` of the namespace `default`, and no others.
pub struct Kubelet<'a> {
    dir: &'a TestDir,
    pods: Api<Pod>,
    maps: Api<ConfigMap>,
    /// By pod; `None` once it was told to end.
    running: BTreeMap<String, (Backend, bool)>,
    files: BTreeMap<String, String>,
}

impl<'a> Kubelet<'a> {
    /// One that has looked at nothing yet.
    pub fn new(dir: &'a TestDir, client: Client) -> Kubelet<'a> {
        let (pods, maps) = (Api::namespaced(client.clone(), "default"), Api::namespaced(client, "default"));
        Kubelet { dir, pods, maps, running: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Goes on until an error, such as the API server's end.
    pub async fn run(&mut self) -> Result<Infallible> {
        loop {
            self.look().await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let pods = self.pods.list(&ListParams::default().labels("app=reviews")).await?.items;
        for pod in &pods {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
            let Some(ip) = ip.filter(|_| pod.metadata.deletion_timestamp.is_none()) else { continue };
            if !self.running.contains_key(&pod.name_any()) {
                let options = BackendOptions {
                    version: pod.labels().get("version").context("a pod without a version")?.clone(),
                    name: Some(pod.name_any()),
                    listen: SocketAddr::new(ip.parse::<IpAddr>()?, PORT),
                    ..BackendOptions::default()
                };
                self.running.insert(pod.name_any(), (Backend::start_with(self.dir, options).await?, true));
            }
        }
        let stays =
            |name: &String| pods.iter().any(|pod| pod.name_any() == *name && pod.metadata.deletion_timestamp.is_none());
        for (_, (backend, serves)) in self.running.iter_mut().filter(|(name, (_, serves))| *serves && !stays(name)) {
            backend.process().signal(Signal::SIGTERM)?;
            *serves = false;
        }
        self.running.retain(|_, (backend, serves)| *serves || backend.process().is_running());
        let mut files = self.endpoints();
        for (name, text) in self.maps.get_opt("versionflag-reviews").await?.and_then(|map| map.data).unwrap_or_default()
        {
            files.insert(name, text);
        }
        for (name, text) in files {
            if self.files.get(&name) != Some(&text) {
                self.dir.write(&name, &text);
                self.files.insert(name, text);
            }
        }
        Ok(())
    }

    /// The endpoints of each version, as Envoy reads them from `VERSION-endpoints.json`.
    fn endpoints(&self) -> BTreeMap<String, String> {
        let of_version = |version: &str| {
            let serving = self.running.values().filter(|(backend, serves)| *serves && backend.version() == version);
            let endpoints = serving
                .map(|(backend, _)| json!({ "endpoint": { "address": crate::config::address(backend.addr()) } }));
            let assignment = json!({
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": format!("reviews-{version}"),
                "endpoints": [{ "lb_endpoints": endpoints.collect::<Vec<_>>() }],
            });
            json!({ "resources": [assignment] }).to_string()
        };
        ["v1", "v2"].map(|version| (format!("{version}-endpoints.json"), of_version(version))).into()
    }
}
