//! A complete Envoy configuration for one proxy of a flag. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;

use flag::config::Role;
use flag::route;

use local::file::{ExpectedProxy, File, Local, Sidecar};
use machine::envoy::{ROUTES, domains};
use machine::spec::Service;

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

const EARLY: &str = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";

/// The smallest filter in every build of Envoy: without values to set it does nothing.
const NOTHING: &str = "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config";

/// A quoted YAML scalar: JSON strings are YAML.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The configuration of the proxy with this id, for all of these flags that list it; the first one's of the first flag
/// without.
pub(super) fn envoy(files: &[File], proxy: Option<&str>) -> Result<String, String> {
    let listed = || files.iter().flat_map(|file| file.local.proxies.iter().map(move |proxy| (file, proxy)));
    let chosen = match proxy {
        Some(id) => listed().find(|(_, proxy)| proxy.id == id),
        None => listed().next(),
    };
    let ids = || listed().map(|(_, proxy)| proxy.id.as_str()).collect::<BTreeSet<_>>();
    let ids = || ids().into_iter().collect::<Vec<_>>().join(", ");
    let (file, proxy) = chosen.ok_or_else(|| format!("no such proxy in local.proxies, which has: {}", ids()))?;
    let local = &file.local;
    let is_caller = |one: &&File| one.local.proxies.iter().any(|one| one.id == proxy.id && one.sidecar.is_none());
    let filter = local.filter_config.as_ref();
    let mut text = String::new();
    let mut clusters = None;
    // Writing to a String does not fail, here and below.
    match &proxy.sidecar {
        // What is in front of a version leads to that version alone.
        Some(sidecar) => {
            head(&mut text, &[file], proxy, "inbound", sidecar.listen, &sidecar.filter.display().to_string());
            inbound_routes(&mut text, sidecar);
            text.push_str("  clusters:\n");
            if let Some(version) = local.versions.get(&sidecar.version) {
                cluster(&mut text, &sidecar.version, version.address, version.http2, "");
            }
        }
        None => {
            let those: Vec<&File> = files.iter().filter(is_caller).collect();
            same_envoy(&those)?;
            let listen = SocketAddr::from(([127, 0, 0, 1], 10_000));
            let caller_filter = filter.map_or("filter.json".to_owned(), |filter| filter.path.display().to_string());
            head(&mut text, &those, proxy, "ingress", listen, &caller_filter);
            clusters = filter.and_then(|filter| filter.clusters.as_ref());
            match filter.and_then(|filter| filter.routes.as_ref()) {
                Some(path) => managed_routes(&mut text, &path.display().to_string()),
                None => static_routes(&mut text, &those, clusters.is_some()),
            }
            text.push_str("  clusters:\n");
            if clusters.is_none() {
                those.iter().for_each(|file| static_clusters(&mut text, file));
            }
        }
    }
    let comment = "  # [versionflag] The flag service: the controller itself.\n";
    cluster(&mut text, filter.map_or("versionflag", |filter| &filter.cluster), local.listen, true, comment);
    if let Some(path) = clusters {
        managed_clusters(&mut text, &path.display().to_string());
    }
    Ok(text)
}

/// Refuses flags that one Envoy cannot have together: it reads one filter for all of them.
pub(super) fn same_envoy(files: &[&File]) -> Result<(), String> {
    let filter = |file: &File| file.local.filter_config.as_ref().map(|filter| filter.path.clone());
    let Some((first, others)) = files.split_first() else { return Ok(()) };
    match others.iter().find(|file| filter(file) != filter(first)) {
        Some(other) => Err(format!(
            "{} and {} have different files in local.filterConfig.path, and an Envoy has one filter for all flags: \
             write the same in both, or name those of one Envoy only",
            first.metadata.name, other.metadata.name
        )),
        None => Ok(()),
    }
}

/// Where callers reach a version: its sidecar, if it has one.
fn address(local: &Local, service: &Service, version: &str) -> Option<SocketAddr> {
    let in_front = local.in_front(&service.name, version).map(|sidecar| sidecar.listen);
    in_front.or_else(|| Some(local.versions.get(version)?.address))
}

/// The clusters of the versions that the file has now.
pub(super) fn static_clusters(text: &mut String, file: &File) {
    for service in &file.spec.services {
        for (version, names) in &file.clusters(service) {
            for (name, address) in names.iter().zip(std::iter::repeat(address(&file.local, service, version))) {
                if let Some(address) = address {
                    let http2 = file.local.versions.get(version).is_some_and(|version| version.http2);
                    cluster(text, name, address, http2, "");
                }
            }
        }
    }
}

fn managed_clusters(text: &mut String, path: &str) {
    let _ = writeln!(
        text,
        r"# [versionflag] The clusters of the versions come from a file that the controller writes: the next version needs
# no change here, and no restart.
dynamic_resources:
  cds_config:
    path_config_source: {{ path: {} }}
    resource_api_version: V3",
        quote(path)
    );
}

// Six: all of them are written into one text.
fn head(text: &mut String, files: &[&File], proxy: &ExpectedProxy, listener: &str, listen: SocketAddr, filter: &str) {
    let direction = match proxy.sidecar {
        Some(_) => {
            "\n    # [versionflag] Tells the filter to count what arrives here, from whomever.\n    \
             traffic_direction: INBOUND"
        }
        None => "",
    };
    let admin = match proxy.sidecar {
        Some(_) => "",
        None => "admin:\n  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }\n",
    };
    let is_edge = |file: &&&File| file.local.filter_config.as_ref().is_some_and(|filter| filter.role == Role::Edge);
    let edge = files.iter().find(is_edge).filter(|_| proxy.sidecar.is_none());
    let clients = edge.map(|file| without_mark(&file.spec.routing.header)).unwrap_or_default();
    let names: Vec<&str> = files.iter().map(|file| file.metadata.name.as_str()).collect();
    let _ = write!(
        text,
        r#"# Envoy for the flag{s} {name}, rendered by `versionflag render envoy`.
# The parts that matter in an existing configuration are marked with [versionflag].
node:
  # [versionflag] One of local.proxies: reports are matched by it.
  id: {id}
  cluster: {cluster}
{admin}static_resources:
  listeners:
  - name: {listener}
    address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}{direction}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {HCM}
          stat_prefix: {listener}
{clients}          upgrade_configs: [{{ upgrade_type: websocket }}]
          http_filters:
          # [versionflag] The filter comes from a file that the controller writes. It has to stand
          # before the router. A proxy that starts reads the flag there, without any controller.
          # Where it cannot be loaded, the default stands in, which does nothing: no request fails by that.
          - name: versionflag
            config_discovery:
              config_source:
                path_config_source: {{ path: {filter} }}
                resource_api_version: V3
              default_config: {{ "@type": {NOTHING} }}
              type_urls:
              - type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              - {NOTHING}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#,
        s = if names.len() > 1 { "s" } else { "" },
        name = names.join(", "),
        cluster = names.join("-"),
        id = quote(&proxy.id),
        ip = listen.ip(),
        port = listen.port(),
        filter = quote(filter),
    );
}

/// Envoy itself takes away the routing header of clients, before it looks for a route.
fn without_mark(header: &str) -> String {
    format!(
        r#"          # [versionflag] Clients may not choose a version, not even when the filter has failed. A
          # filter would come too late: the route is chosen by then.
          early_header_mutation_extensions:
          - name: envoy.http.early_header_mutation.header_mutation
            typed_config:
              "@type": {EARLY}
              mutations: [{{ remove: {} }}]
"#,
        quote(header)
    )
}

fn managed_routes(text: &mut String, path: &str) {
    let _ = writeln!(
        text,
        r"          # [versionflag] So do the routes: one a version, and the active version for requests that
          # the filter has not marked.
          rds:
            route_config_name: {ROUTES}
            config_source:
              path_config_source: {{ path: {} }}
              resource_api_version: V3",
        quote(path)
    );
}

fn inbound_routes(text: &mut String, sidecar: &Sidecar) {
    let _ = writeln!(
        text,
        r#"          route_config:
            name: inbound
            virtual_hosts:
            - name: {}
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: {}, timeout: 0s }}"#,
        quote(&sidecar.service),
        quote(&sidecar.version)
    );
}

/// `later`: the clusters come after the routes, from a file.
fn static_routes(text: &mut String, files: &[&File], later: bool) {
    text.push_str("          route_config:\n            name: local\n");
    if later {
        text.push_str("            validate_clusters: false\n");
    }
    text.push_str("            virtual_hosts:\n");
    for (file, service) in files.iter().flat_map(|file| file.spec.services.iter().map(move |one| (file, one))) {
        routes_of(text, file, service);
    }
}

fn routes_of(text: &mut String, file: &File, service: &Service) {
    // The route's name tells the filter which versions its routes resolve.
    let clusters = file.clusters(service);
    let versions = clusters.keys().map(String::as_str);
    let route_name = quote(&route::name_of_versions(&file.metadata.name, versions));
    let header = quote(&file.spec.routing.header);
    let hosts = service.hosts();
    let domains: Vec<String> = hosts.iter().flat_map(|host| domains(host)).map(|domain| quote(&domain)).collect();
    let _ = writeln!(
        text,
        r"            - name: {}
              domains: [{}]
              routes:
              # [versionflag] One route a version, matched by the header that the filter sets.",
        quote(&service.name),
        domains.join(", ")
    );
    let first = |names: &BTreeSet<String>| names.first().map(|name| quote(name));
    for (version, names) in &clusters {
        if let Some(cluster) = first(names) {
            let _ = writeln!(
                text,
                r"              - name: {route_name}
                match:
                  prefix: /
                  headers: [{{ name: {header}, string_match: {{ exact: {} }} }}]
                route: {{ cluster: {cluster}, timeout: 0s }}",
                quote(version)
            );
        }
    }
    if let Some(cluster) = clusters.get(&file.spec.version).and_then(first) {
        let _ = writeln!(
            text,
            r"              # [versionflag] Without the filter, requests go to the version that the file asks for now.
              # Nothing changes that after a switch: with local.filterConfig.routes the controller does.
              - name: {route_name}
                match: {{ prefix: / }}
                route: {{ cluster: {cluster}, timeout: 0s }}"
        );
    }
}

fn cluster(text: &mut String, name: &str, address: SocketAddr, http2: bool, comment: &str) {
    let name = quote(name);
    let _ = write!(
        text,
        r"{comment}  - name: {name}
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}
",
        quote(&address.ip().to_string()),
        address.port()
    );
    if http2 {
        let _ = writeln!(
            text,
            r#"    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}"#
        );
    }
}
