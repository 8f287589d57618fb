//! Which pods a Service sends requests to, and on which of its ports. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::services::ports;

/// The ready endpoints of a Service: the names of its ports that lead to each pod. A pod may be in several slices,
/// as with two families of addresses.
#[derive(Debug, Default)]
pub(super) struct Endpoints<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Endpoints<'a> {
    /// Those of a Service, by the slices of its namespace.
    pub(super) fn of(service: &Service, slices: &'a [Arc<EndpointSlice>]) -> Endpoints<'a> {
        let mut found = Endpoints::default();
        let of_service = slices.iter().filter(|slice| {
            slice.metadata.namespace == service.metadata.namespace
                && slice.labels().get("kubernetes.io/service-name") == service.metadata.name.as_ref()
        });
        for slice in of_service {
            let names = slice.ports.iter().flatten().map(|port| port.name.as_deref().unwrap_or_default());
            // No word on readiness means ready, says the API.
            let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
            for one in slice.endpoints.iter().filter(|one| is_ready(one.conditions.as_ref().and_then(|is| is.ready))) {
                let pod = one.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
                if let Some(pod) = pod.and_then(|target| target.name.as_deref()) {
                    found.0.entry(pod).or_default().extend(names.clone());
                }
            }
        }
        found
    }

    /// How many of these pods all ports of the Service lead to, and a port that does not lead to all that are ready.
    pub(super) fn serving(&self, service: &Service, pods: &[Arc<Pod>]) -> (usize, Option<String>) {
        let ready: Vec<_> = pods.iter().filter_map(|pod| self.0.get(pod.name_any().as_str())).collect();
        let leads = |port: &ServicePort, to: &BTreeSet<&str>| to.contains(port.name.as_deref().unwrap_or_default());
        let whole = ready.iter().filter(|names| ports(service).all(|port| leads(port, names))).count();
        let missing = ports(service).find_map(|port| {
            let without = ready.iter().filter(|names| !leads(port, names)).count();
            (without > 0).then(|| unserved(port, &format!("{without} of {} ready pods", ready.len())))
        });
        (whole, missing)
    }
}

/// A port of a Service that does not lead to these pods, in words.
fn unserved(port: &ServicePort, pods: &str) -> String {
    match &port.target_port {
        Some(IntOrString::String(name)) => {
            format!("port {} of the Service leads to the port {name}, which {pods} do not name", port.port)
        }
        _ => format!("port {} of the Service does not lead to {pods}", port.port),
    }
}
