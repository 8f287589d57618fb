//! Plays the part of the filters in the sidecars of a namespace as far as the controller hears of them:
//! each polls and reports from the address of its pod, and has the configuration and the routes that the
//! API holds. I/O: asks the API and the flag service.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flag::config::Config;
use flag::instance::{Findings, FlagState};
use flag::level::{self, LEVEL};
use flag::probe::{Outcome, Place, Probe, Probed, REACHED};
use flag::report::Report;
use flag::snapshot::Snapshot;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};

use crate::client::Call;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All of them.
pub struct Sidecars {
    client: Client,
    namespace: String,
    service: SocketAddr,
    /// By pod: what it has, and how often it has reported.
    known: BTreeMap<String, (Snapshot, u64)>,
}

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl Sidecars {
    /// Those of a namespace, which reach the flag service there.
    pub fn new(client: Client, namespace: &str, service: SocketAddr) -> Sidecars {
        Sidecars { client, namespace: namespace.to_owned(), service, known: BTreeMap::new() }
    }

    /// Goes on until an error. While the controller does not answer, all stays as it is.
    pub async fn run(&mut self) -> Result<Infallible> {
        loop {
            let (configured, routes) = (self.configured().await?, self.routes().await?);
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
            for pod in pods.list(&ListParams::default()).await?.items {
                let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
                if let Some(address) = address {
                    // A controller that is away answers nothing.
                    let _ = self.report(&pod.name_any(), address.parse()?, &configured, &routes).await;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The epochs of the flags in the plugin, by uid.
    async fn configured(&self) -> Result<BTreeMap<String, u64>> {
        let resource = kind("extensions.istio.io", "v1alpha1", "TrafficExtension");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let Some(plugin) = api.get_opt("versionflag").await? else { return Ok(BTreeMap::new()) };
        let config = Config::parse(plugin.data["spec"]["wasm"]["pluginConfig"].to_string().as_bytes())?;
        Ok(config.flags.into_iter().map(|flag| (flag.uid, flag.epoch)).collect())
    }

    /// The names of all routes.
    async fn routes(&self) -> Result<Vec<String>> {
        let resource = kind("networking.istio.io", "v1", "VirtualService");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let services = api.list(&ListParams::default()).await?.items;
        let routes = services.iter().filter_map(|service| service.data["spec"]["http"].as_array()).flatten();
        Ok(routes.filter_map(|route| route["name"].as_str().map(str::to_owned)).collect())
    }

    async fn report(
        &mut self,
        pod: &str,
        address: IpAddr,
        configured: &BTreeMap<String, u64>,
        routes: &[String],
    ) -> Result<()> {
        let proxy = format!("{pod}.{}", self.namespace);
        let revision = self.known.get(pod).map(|(snapshot, _)| snapshot.revision.clone()).unwrap_or_default();
        let path = format!("/v1/snapshot?proxy={proxy}&revision={revision}&waitMs=0&level={LEVEL}");
        let answer = Call::get(self.service, &path).from(address).send().await?;
        if answer.status == 200 {
            let snapshot = Snapshot::parse(answer.body.as_bytes())?;
            let seq = self.known.get(pod).map_or(0, |(_, seq)| *seq);
            self.known.insert(pod.to_owned(), (snapshot, seq));
        }
        let (snapshot, seq) = self.known.get_mut(pod).context("nothing is known yet")?;
        *seq += 1;
        let flags = snapshot.flags.iter().map(|flag| {
            let ours = |name: &&String| name.starts_with(&format!("versionflag:{}:", flag.name));
            let state = FlagState {
                epoch: flag.epoch,
                hash: flag.hash.clone(),
                gate: flag.gate,
                config_epoch: configured.get(&flag.uid).copied(),
                routes: routes.iter().find(ours).cloned().into_iter().collect(),
                ..FlagState::default()
            };
            (flag.uid.clone(), state)
        });
        let report = Report {
            protocol: flag::PROTOCOL,
            proxy,
            boot: "1".to_owned(),
            seq: *seq,
            revision: snapshot.revision.clone(),
            instances: vec![1],
            complete: true,
            flags: flags.collect(),
            findings: vec![],
        };
        // Whoever plays here reaches every version.
        let reached = |place: &Place| Outcome { cluster: place.cluster.clone(), outcome: REACHED.to_owned() };
        let found = |probe: &Probe| {
            let clusters = probe.clusters.iter().map(reached).collect();
            let probed = Some(Probed { id: probe.id.clone(), clusters });
            Findings { flag: probe.flag.clone(), probed, ..Findings::default() }
        };
        let probes = snapshot.asks.iter().flat_map(|asks| &asks.probes);
        let findings = serde_json::to_vec(&probes.map(found).collect::<Vec<_>>())?;
        let body = String::from_utf8(level::joined(serde_json::to_vec(&report)?, &findings))?;
        let answer = Call::post(self.service, "/v1/report", &body)
            .header("content-type", "application/json")
            .from(address)
            .send()
            .await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(())
    }
}
