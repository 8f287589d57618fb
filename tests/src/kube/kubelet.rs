//! Plays the part of a kubelet that kwok leaves out: a backend process behind each pod's address,
//! and the files of Envoy that a ConfigMap holds; and the part of kube-proxy: where the Service of
//! the flag service leads. I/O: asks the API, runs backends, writes files.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

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
    slices: Api<EndpointSlice>,
    /// By pod; `None` once it was told to end.
    running: BTreeMap<String, (Backend, bool)>,
    files: BTreeMap<String, String>,
}

impl<'a> Kubelet<'a> {
    /// One that has looked at nothing yet.
    pub fn new(dir: &'a TestDir, client: Client) -> Kubelet<'a> {
        let (pods, maps) = (Api::namespaced(client.clone(), "default"), Api::namespaced(client.clone(), "default"));
        let slices = Api::namespaced(client, "versionflag");
        Kubelet { dir, pods, maps, slices, running: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Goes on until an error. While the API does not answer, all stays as it is.
    pub async fn run(&mut self) -> Result<Infallible> {
        loop {
            if let Err(error) = self.look().await
                && !error.is::<kube::Error>()
            {
                return Err(error);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let pods = self.pods.list(&ListParams::default().labels("app=reviews")).await?.items;
        for pod in &pods {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
            let Some(ip) = ip.filter(|_| pod.metadata.deletion_timestamp.is_none()) else { continue };
            // A pod that ends has its address until it is gone, which may be the next one's already.
            let free = |(backend, _): &(Backend, bool)| backend.addr().ip().to_string() != *ip;
            if !self.running.contains_key(&pod.name_any()) && self.running.values().all(free) {
                let options = BackendOptions {
                    version: pod.labels().get("version").context("a pod without a version")?.clone(),
                    name: Some(pod.name_any()),
                    listen: SocketAddr::new(ip.parse::<IpAddr>()?, PORT),
                    notes: true,
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
        if let Some(slice) = self.slices.get_opt("versionflag").await? {
            files.insert("versionflag-endpoints.json".to_owned(), flag_service(&slice)?);
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
            assignment(&format!("reviews-{version}"), endpoints.collect())
        };
        ["v1", "v2", "v3"].map(|version| (format!("{version}-endpoints.json"), of_version(version))).into()
    }
}

/// Where an EndpointSlice leads, as Envoy reads it.
fn flag_service(slice: &EndpointSlice) -> Result<String> {
    let port = slice.ports.iter().flatten().find_map(|port| port.port).context("a slice without a port")?;
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let endpoint = |address: &String| {
        let address = SocketAddr::new(address.parse()?, u16::try_from(port)?);
        Ok(json!({ "endpoint": { "address": crate::config::address(address) } }))
    };
    Ok(assignment("versionflag", addresses.map(endpoint).collect::<Result<_>>()?))
}

fn assignment(cluster: &str, endpoints: Vec<Value>) -> String {
    let assignment = json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{ "lb_endpoints": endpoints }],
    });
    json!({ "resources": [assignment] }).to_string()
}
