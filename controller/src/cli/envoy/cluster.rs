//! The clusters of versions. Pure.

use machine::envoy::HTTP_OPTIONS;

use super::config::Config;
use super::node::Node;

const EXTENSION_OPTIONS: &str = "typed_extension_protocol_options";
/// What is about where the endpoints of a cluster come from, or about its name.
const OF_ITS_OWN: [&str; 6] = [
    "eds_cluster_config",
    "alt_stat_name",
    "dns_resolvers",
    "load_assignment",
    "original_dst_lb_config",
    // It goes by metadata of endpoints, which a version has none of.
    "lb_subset_config",
];

/// The addresses of a cluster's endpoints, as `IP:PORT` or `NAME:PORT`, as far as they are written down.
pub(in crate::cli) fn addresses(cluster: &Node) -> Vec<String> {
    let endpoints = cluster.list_at("load_assignment/endpoints").iter().flat_map(|one| one.list_at("lb_endpoints"));
    let sockets = endpoints.filter_map(|one| one.find("endpoint/address/socket_address"));
    let written = |socket: &Node| {
        let (host, port) = (socket.text_at("address")?, socket.number_at("port_value")?);
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    };
    sockets.filter_map(written).collect()
}

/// Whether Envoy speaks HTTP/2 to a cluster.
pub(in crate::cli) fn speaks_http2(cluster: &Node) -> bool {
    cluster.find("http2_protocol_options").is_some() || http2(cluster).is_some()
}

fn http2(cluster: &Node) -> Option<&Node> {
    let (_, options) = cluster.find(EXTENSION_OPTIONS)?.entries().iter().find(|(key, _)| key == HTTP_OPTIONS)?;
    let fields = ["explicit_http_config", "use_downstream_protocol_config", "auto_config"];
    fields.iter().find_map(|field| options.find(field)?.find("http2_protocol_options"))
}

/// Whether a WebSocket gets through to a cluster: over HTTP/2 only where that is allowed.
pub(in crate::cli) fn takes_websocket(cluster: &Node) -> bool {
    !speaks_http2(cluster) || http2(cluster).is_some_and(|options| options.is_true("allow_connect"))
}

/// What of a cluster does not fit the version that it is of. `plain` is the cluster that would be rendered.
pub(in crate::cli) fn mismatches(found: &Node, plain: &Node, version: &str) -> Vec<String> {
    let name = found.text_at("name").unwrap_or_default();
    let (leads, listens) = (addresses(found), addresses(plain));
    let mut all = vec![];
    if !leads.is_empty() && !listens.is_empty() && leads != listens {
        let (leads, listens) = (leads.join(", "), listens.join(", "));
        all.push(format!("cluster {name} leads to {leads}, and {version} listens on {listens} (local.versions)"));
    }
    if speaks_http2(plain) && !speaks_http2(found) {
        all.push(format!("cluster {name} does not speak HTTP/2, and {version} nothing else (http2: true)"));
    }
    all
}

/// The cluster of a version as that of another version is: its settings, with the endpoints of `plain`.
pub(super) fn like(sibling: &Node, plain: &Node) -> Node {
    let mut cluster = sibling.fresh();
    OF_ITS_OWN.iter().for_each(|field| cluster.remove(field));
    if cluster.text_at("lb_policy") == Some("CLUSTER_PROVIDED") {
        // By its type, which is another one.
        cluster.remove("lb_policy");
    }
    for field in ["name", "type", "load_assignment"] {
        if let Some(value) = plain.find(field) {
            cluster.set(field, value.clone());
        }
    }
    if let Some(options) = plain.find(EXTENSION_OPTIONS).filter(|_| !speaks_http2(sibling)) {
        cluster.set(EXTENSION_OPTIONS, options.clone());
    }
    cluster
}

/// Adds a cluster, where Envoy reads it while it runs if there is such a file. Whether it could.
pub(super) fn add(config: &mut Config, cluster: Node) -> bool {
    let file = config.cluster_file();
    let Some(source) = config.files.get_mut(file.unwrap_or_default()) else { return false };
    let (list, cluster) = match file {
        Some(_) => {
            let mut typed = Node::map([("@type", "type.googleapis.com/envoy.config.cluster.v3.Cluster".into())]);
            cluster
                .entries()
                .iter()
                .filter(|(key, _)| key != "@type")
                .for_each(|(key, one)| typed.set(key, one.clone()));
            (source.tree.list_mut("resources"), typed)
        }
        None => (source.tree.map_mut("static_resources").and_then(|all| all.list_mut("clusters")), cluster),
    };
    list.map(|list| list.push(cluster)).is_some()
}
