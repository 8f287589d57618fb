//! Where proxies find the one of several controllers that leads. Pure.

use crate::names::MANAGER;
use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::core::ObjectMeta;

/// What the port in plain text is called.
pub const NAME: &str = "http";
/// That of mutual TLS.
pub const MTLS_NAME: &str = "http-mtls";

/// What the slice of the second family of addresses is called. The first one has the name of the Service: it is that
/// of the cluster, and a slice keeps its family.
pub const SECOND: &str = "versionflag-second";

/// The endpoint of the Service of the flag service, in one slice for each family of the pod's addresses. The Service
/// selects no pods: all replicas are ready, but only the leader hears what proxies report. Who leads applies this, and
/// by that takes the place of who led before. With `mtls` there is that port too.
pub fn endpoints(namespace: &str, pod: &str, addresses: &[IpAddr], http: u16, mtls: Option<u16>) -> Vec<EndpointSlice> {
    let first = addresses.first();
    let second = addresses.iter().find(|other| first.is_some_and(|first| first.is_ipv4() != other.is_ipv4()));
    let named = first.map(|first| (MANAGER, *first)).into_iter().chain(second.map(|second| (SECOND, *second)));
    named.map(|(name, address)| slice(name, namespace, pod, address, &ports(http, mtls))).collect()
}

fn ports(http: u16, mtls: Option<u16>) -> Vec<EndpointPort> {
    [Some((NAME, http)), mtls.map(|port| (MTLS_NAME, port))].into_iter().flatten().map(port).collect()
}

fn slice(name: &str, namespace: &str, pod: &str, address: IpAddr, ports: &[EndpointPort]) -> EndpointSlice {
    let labels = [("kubernetes.io/service-name", MANAGER), ("endpointslice.kubernetes.io/managed-by", MANAGER)];
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            ..ObjectMeta::default()
        },
        address_type: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(pod.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }],
        ports: Some(ports.to_vec()),
    }
}

/// Whether what was found leads there, and nowhere else. What the API server adds does not count.
pub fn is_led(found: &EndpointSlice, here: &EndpointSlice) -> bool {
    let at = |slice: &EndpointSlice| {
        let endpoints = slice.endpoints.iter();
        let ready = |one: &Endpoint| one.conditions.as_ref().and_then(|conditions| conditions.ready);
        endpoints.map(|one| (one.addresses.clone(), ready(one))).collect::<Vec<_>>()
    };
    let ports = |slice: &EndpointSlice| {
        let ports = slice.ports.iter().flatten();
        ports.map(|port| (port.name.clone(), port.port, port.app_protocol.clone())).collect::<BTreeSet<_>>()
    };
    let labels = here.metadata.labels.iter().flatten();
    let found_labels = found.metadata.labels.as_ref();
    at(found) == at(here)
        && ports(found) == ports(here)
        && labels.clone().all(|(key, value)| found_labels.and_then(|all| all.get(key)) == Some(value))
}

/// As the Service calls it.
fn port((name, port): (&str, u16)) -> EndpointPort {
    EndpointPort {
        name: Some(name.to_owned()),
        port: Some(i32::from(port)),
        app_protocol: Some("http".to_owned()),
        ..EndpointPort::default()
    }
}
