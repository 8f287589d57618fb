//! The part of kube-proxy: where the addresses of Services lead for pods without a sidecar. I/O:
//! watches Services and EndpointSlices, writes iptables.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};

use super::network::replace_nat_chain;

const CHAIN: &str = "SERVICES";

#[derive(Default)]
struct Known {
    /// By namespace and name.
    services: BTreeMap<(String, String), Service>,
    slices: BTreeMap<(String, String), EndpointSlice>,
}

/// Goes on until an error.
pub(super) async fn run(client: Client) -> Result<Infallible> {
    replace_nat_chain(CHAIN, &format!("-A PREROUTING -j {CHAIN}\n"))?;
    let mut services =
        watcher(Api::<Service>::all(client.clone()), watcher::Config::default()).default_backoff().boxed_local();
    let mut slices =
        watcher(Api::<EndpointSlice>::all(client), watcher::Config::default()).default_backoff().boxed_local();
    let mut known = Known::default();
    let mut written = String::new();
    loop {
        tokio::select! {
            event = services.next() => take(&mut known.services, event.context("the watch of services has ended")?),
            event = slices.next() => take(&mut known.slices, event.context("the watch of endpoints has ended")?),
        }
        let rules = rules(&known)?;
        if rules != written {
            replace_nat_chain(CHAIN, &rules)?;
            written = rules;
        }
    }
}

fn take<K: ResourceExt>(known: &mut BTreeMap<(String, String), K>, event: Result<Event<K>, watcher::Error>) {
    let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
    match event {
        Ok(Event::Apply(object) | Event::InitApply(object)) => drop(known.insert(key(&object), object)),
        Ok(Event::Delete(object)) => drop(known.remove(&key(&object))),
        // The watcher begins again by itself.
        Ok(Event::Init | Event::InitDone) | Err(_) => {}
    }
}

fn rules(known: &Known) -> Result<String> {
    let mut rules = String::new();
    for ((namespace, name), service) in &known.services {
        let spec = service.spec.as_ref().context("a service without a spec")?;
        let Some(address) = spec.cluster_ip.as_ref().filter(|address| *address != "None") else { continue };
        for port in spec.ports.iter().flatten() {
            let ends = endpoints(known, namespace, name, port.name.as_deref().unwrap_or_default());
            for (index, end) in ends.iter().enumerate() {
                // The first takes its share of all, the second of the rest.
                let share = 1.0 / (ends.len() - index) as f64;
                writeln!(
                    rules,
                    "-A {CHAIN} -d {address} -p tcp --dport {} -m statistic --mode random --probability {share:.6} \
                     -j DNAT --to-destination {end}",
                    port.port
                )?;
            }
        }
    }
    Ok(rules)
}

fn endpoints(known: &Known, namespace: &str, service: &str, port: &str) -> Vec<String> {
    let of_service = |slice: &&EndpointSlice| {
        slice.namespace().as_deref() == Some(namespace)
            && slice.labels().get("kubernetes.io/service-name").is_some_and(|name| name == service)
    };
    let mut ends = Vec::new();
    for slice in known.slices.values().filter(of_service) {
        let number = slice.ports.iter().flatten().find(|it| it.name.as_deref().unwrap_or_default() == port);
        let Some(number) = number.and_then(|port| port.port) else { continue };
        for endpoint in &slice.endpoints {
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false) {
                ends.extend(endpoint.addresses.iter().map(|address| format!("{address}:{number}")));
            }
        }
    }
    ends
}
