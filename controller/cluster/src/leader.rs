//! Where proxies find the one of several controllers that leads. Pure.

use crate::names::MANAGER;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::core::ObjectMeta;

/// What the port in plain text is called.
pub const NAME: &str = "http";
/// That of mutual TLS.
pub const MTLS_NAME: &str = "http-mtls";

/// The one endpoint of the Service of the flag service. The Service selects no pods: all replicas
/// are ready, but only the leader hears what proxies report. Who leads applies this, and by that
/// takes the place of who led before. With `mtls` there is that port too.
pub fn endpoints(namespace: &str, pod: &str, address: IpAddr, http: u16, mtls: Option<u16>) -> EndpointSlice {
    let labels = [("kubernetes.io/service-name", MANAGER), ("endpointslice.kubernetes.io/managed-by", MANAGER)];
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(MANAGER.to_owned()),
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
        ports: Some([Some((NAME, http)), mtls.map(|port| (MTLS_NAME, port))].into_iter().flatten().map(port).collect()),
    }
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
