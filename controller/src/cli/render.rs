//! A complete Envoy configuration for one flag. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::local::file::File;
use crate::spec::Service;

/// A quoted YAML scalar: JSON strings are YAML.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The clusters of a service by version: the configured ones, otherwise SERVICE-VERSION.
fn clusters(file: &File, service: &Service) -> BTreeMap<String, Vec<String>> {
    let versions = file.local.versions.keys();
    let name = |version: &String| match service.clusters.get(version) {
        Some(names) if !names.is_empty() => names.iter().cloned().collect(),
        _ => vec![format!("{}-{version}", service.name)],
    };
    versions.map(|version| (version.clone(), name(version))).collect()
}

pub(super) fn envoy(file: &File) -> String {
    let local = &file.local;
    let node = local.proxies.first().map(|proxy| proxy.id.as_str()).unwrap_or_default();
    let (filter_path, flag_cluster) = match &local.filter_config {
        Some(filter) => (filter.path.display().to_string(), filter.cluster.as_str()),
        None => ("filter.json".to_owned(), "versionflag"),
    };
    let mut text = format!(
        r#"# Envoy for the flag {name}, rendered by `versionflag render envoy`.
# The parts that matter in an existing configuration are marked with [versionflag].
node:
  # [versionflag] Has to be one of local.proxies: reports are matched by it.
  id: {node}
  cluster: {name}
admin:
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9901 }} }}
static_resources:
  listeners:
  - name: ingress
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 10000 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          http_filters:
          # [versionflag] The filter comes from a file that the controller writes. It has to stand
          # before the router. A proxy that starts reads the flag there, without any controller.
          - name: versionflag
            config_discovery:
              config_source:
                path_config_source: {{ path: {filter} }}
                resource_api_version: V3
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm]
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: local
            virtual_hosts:
"#,
        name = file.metadata.name,
        node = quote(node),
        filter = quote(&filter_path),
    );
    for service in &file.spec.services {
        routes(&mut text, file, service);
    }
    text.push_str("  clusters:\n");
    for service in &file.spec.services {
        for (version, names) in clusters(file, service) {
            if let Some(how) = local.versions.get(&version) {
                for name in names {
                    let (address, port) = (how.address.ip().to_string(), how.address.port());
                    cluster(&mut text, &name, &address, port, "");
                }
            }
        }
    }
    let (address, port) = (local.listen.ip().to_string(), local.listen.port());
    let comment = "  # [versionflag] The flag service: the controller itself.\n";
    cluster(&mut text, flag_cluster, &address, port, comment);
    text
}

fn routes(text: &mut String, file: &File, service: &Service) {
    let clusters = clusters(file, service);
    let versions: Vec<&str> = clusters.keys().map(String::as_str).collect();
    // The route's name tells the filter which versions its routes resolve.
    let route_name = quote(&format!("versionflag:{}:{}", file.metadata.name, versions.join(",")));
    let header = quote(&file.spec.routing.header);
    let hosts = service.hosts();
    let domains: Vec<String> = hosts.iter().flat_map(|host| [quote(host), quote(&format!("{host}:*"))]).collect();
    // Writing to a String does not fail.
    let _ = writeln!(text, "            - name: {}", quote(&service.name));
    let _ = writeln!(text, "              domains: [{}]", domains.join(", "));
    let _ = writeln!(text, "              routes:");
    let _ = writeln!(
        text,
        "              # [versionflag] One route a version, matched by the header that the filter sets."
    );
    for (version, names) in &clusters {
        let Some(cluster) = names.first() else {
            continue;
        };
        let _ = writeln!(text, "              - name: {route_name}");
        let _ = writeln!(text, "                match:");
        let _ = writeln!(text, "                  prefix: /");
        let _ = writeln!(
            text,
            "                  headers: [{{ name: {header}, string_match: {{ exact: {} }} }}]",
            quote(version)
        );
        let _ = writeln!(text, "                route: {{ cluster: {}, timeout: 0s }}", quote(cluster));
    }
    let active = clusters.get(&file.spec.version).and_then(|names| names.first());
    if let Some(cluster) = active {
        let _ = writeln!(
            text,
            "              # [versionflag] Without the filter, requests go to the version that the file asks for."
        );
        let _ = writeln!(text, "              - name: {route_name}");
        let _ = writeln!(text, "                match: {{ prefix: / }}");
        let _ = writeln!(text, "                route: {{ cluster: {}, timeout: 0s }}", quote(cluster));
    }
}

fn cluster(text: &mut String, name: &str, address: &str, port: u16, comment: &str) {
    let name = quote(name);
    let address = quote(address);
    let _ = write!(
        text,
        r"{comment}  - name: {name}
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {address}, port_value: {port} }} }} }}
"
    );
}
