//! What the readiness check of a workload asks for, and the ports of a Service that lead there. Pure.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::scaled_object::ScaledObject;
use super::services::ports;

/// The path of a readiness check by HTTP, and the ports of the Service that lead where it asks.
pub(super) fn asked(service: &Service, object: &ScaledObject) -> Option<(String, Vec<i32>)> {
    let containers = &object.template()?.spec.as_ref()?.containers;
    containers.iter().find_map(|container| {
        let check = container.readiness_probe.as_ref()?.http_get.as_ref()?;
        // What has to be asked in another way is not asked for by itself.
        let plain = check.scheme.as_deref().is_none_or(|scheme| scheme == "HTTP") && check.host.is_none();
        let asked = plain.then(|| number(container, &check.port)).flatten()?;
        let leads = |port: &&ServicePort| target(container, port) == Some(asked);
        let leading: Vec<i32> = ports(service).filter(leads).map(|port| port.port).collect();
        (!leading.is_empty() && check.http_headers.as_ref().is_none_or(Vec::is_empty)).then(|| (path(check), leading))
    })
}

fn path(check: &HTTPGetAction) -> String {
    let path = check.path.as_deref().unwrap_or("/");
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The port of the container that a port of a Service leads to.
fn target(container: &Container, port: &ServicePort) -> Option<i32> {
    port.target_port.as_ref().map_or(Some(port.port), |target| number(container, target))
}

/// The number of a port of a container, by number or name.
fn number(container: &Container, port: &IntOrString) -> Option<i32> {
    match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|one| one.name.as_deref() == Some(name));
            named.map(|one| one.container_port)
        }
    }
}
