//! What the node id of an Envoy says of it. Pure.

/// The name of a proxy: its node id, or `POD.NAMESPACE` where that is one of Istio's, which are
/// `sidecar~IP~POD.NAMESPACE~DOMAIN`.
pub fn name(node_id: &str) -> &str {
    istio(node_id).map_or(node_id, |(_, name)| name)
}

/// Whether it is a gateway of Istio's: its clients are not trusted.
pub fn is_gateway(node_id: &str) -> bool {
    istio(node_id).is_some_and(|(kind, _)| kind == "router")
}

fn istio(node_id: &str) -> Option<(&str, &str)> {
    let mut parts = node_id.split('~');
    let (kind, _ip, name, _domain) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && !name.is_empty()).then_some((kind, name))
}
