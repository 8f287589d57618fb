//! Pieces of Envoy configuration, as the JSON that Envoy reads. Pure.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

/// The type of a Wasm HTTP filter's configuration.
pub const WASM_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const HCM_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const LUA_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
const HEADER_MUTATION_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const EARLY_MUTATION_TYPE: &str =
    "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How Envoy talks to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 without TLS.
    H2,
    /// What the client speaks.
    Same,
}

/// A whole configuration. [`crate::Envoy`] adds the admin interface.
pub fn bootstrap(listeners: impl IntoIterator<Item = Value>, clusters: impl IntoIterator<Item = Value>) -> Value {
    json!({
        "static_resources": {
            "listeners": listeners.into_iter().collect::<Vec<_>>(),
            "clusters": clusters.into_iter().collect::<Vec<_>>(),
        },
    })
}

/// A listener on a free port of loopback that speaks HTTP/1.1 and HTTP/2. The router comes after
/// the filters; the statistics are under `http.NAME.`.
pub fn listener(name: &str, filters: impl IntoIterator<Item = Value>, routes: Value) -> Value {
    let mut listener = listener_without_routes(name, filters);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"] = routes;
    listener
}

/// A listener as [`listener`] makes it, whose routes come from a file.
pub fn listener_with_route_file(
    name: &str,
    filters: impl IntoIterator<Item = Value>,
    table: &str,
    file: &Path,
) -> Value {
    let mut listener = listener_without_routes(name, filters);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"] = json!({
        "route_config_name": table,
        "config_source": { "path_config_source": { "path": file }, "resource_api_version": "V3" },
    });
    listener
}

fn listener_without_routes(name: &str, filters: impl IntoIterator<Item = Value>) -> Value {
    let filters: Vec<Value> = filters.into_iter().chain([filter("router", json!({ "@type": ROUTER_TYPE }))]).collect();
    json!({
        "name": name,
        "address": address(SocketAddr::from(([127, 0, 0, 1], 0))),
        "filter_chains": [{
            "filters": [filter("hcm", json!({
                "@type": HCM_TYPE,
                "upgrade_configs": [{ "upgrade_type": "websocket" }],
                "stat_prefix": name,
                "codec_type": "AUTO",
                "http_filters": filters,
            }))],
        }],
    })
}

/// A listener as [`listener`] makes it, that Envoy takes for one of this direction.
pub fn with_direction(mut listener: Value, direction: Direction) -> Value {
    listener["traffic_direction"] = json!(match direction {
        Direction::Inbound => "INBOUND",
        Direction::Outbound => "OUTBOUND",
    });
    listener
}

/// Which way a listener's traffic goes, seen from the workload beside the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// Routes for every host, in order.
pub fn routes(routes: impl IntoIterator<Item = Value>) -> Value {
    virtual_hosts([virtual_host("any", ["*"], routes)])
}

/// A route table.
pub fn virtual_hosts(hosts: impl IntoIterator<Item = Value>) -> Value {
    json!({ "name": "routes", "virtual_hosts": hosts.into_iter().collect::<Vec<_>>() })
}

/// The routes for some hosts, in order.
pub fn virtual_host<'a>(
    name: &str,
    domains: impl IntoIterator<Item = &'a str>,
    routes: impl IntoIterator<Item = Value>,
) -> Value {
    json!({
        "name": name,
        "domains": domains.into_iter().collect::<Vec<_>>(),
        "routes": routes.into_iter().collect::<Vec<_>>(),
    })
}

/// Everything goes to the cluster.
pub fn route_to(cluster: &str) -> Value {
    // Without a timeout: the default of 15 s would end long streams.
    json!({ "match": { "prefix": "/" }, "route": { "cluster": cluster, "timeout": "0s" } })
}

/// What has the header with exactly this value goes to the cluster.
pub fn route_when(header: &str, value: &str, cluster: &str) -> Value {
    let mut route = route_to(cluster);
    route["match"]["headers"] = json!([{ "name": header, "string_match": { "exact": value } }]);
    route
}

/// Everything is answered by Envoy itself.
pub fn direct_response(status: u16, body: &str) -> Value {
    json!({
        "match": { "prefix": "/" },
        "direct_response": { "status": status, "body": { "inline_string": body } },
    })
}

/// What is marked for the version, and asks for the path, is answered by Envoy with the version.
pub fn route_of_version(path: &str, version: &str) -> Value {
    let mut route = direct_response(200, version);
    route["match"] = route_when("x-versionflag", version, "")["match"].take();
    route["match"]["prefix"] = json!(path);
    route
}

/// Gives a route a name.
pub fn named(name: &str, mut route: Value) -> Value {
    route["name"] = json!(name);
    route
}

/// Gives a route metadata that the filter of that name can read.
pub fn with_metadata(mut route: Value, filter: &str, metadata: Value) -> Value {
    route["metadata"] = json!({ "filter_metadata": { filter: metadata } });
    route
}

/// A cluster of one fixed address, with no limits that load could meet.
pub fn cluster(name: &str, endpoint: SocketAddr, upstream: Upstream) -> Value {
    let [http1, http2] = ["http_protocol_options", "http2_protocol_options"];
    let mut protocol = match upstream {
        Upstream::H1 => json!({ "explicit_http_config": { http1: {} } }),
        Upstream::H2 => json!({ "explicit_http_config": { http2: {} } }),
        Upstream::Same => json!({ "use_downstream_protocol_config": { http1: {}, http2: {} } }),
    };
    protocol["@type"] = json!(format!("type.googleapis.com/{HTTP_OPTIONS}"));
    let unlimited = 1_000_000;
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(endpoint) } }] }],
        },
        "circuit_breakers": { "thresholds": [{
            "max_connections": unlimited,
            "max_pending_requests": unlimited,
            "max_requests": unlimited,
        }]},
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: protocol,
        },
    })
}

/// Any HTTP filter.
pub fn filter(name: &str, typed_config: Value) -> Value {
    json!({ "name": name, "typed_config": typed_config })
}

/// A Wasm HTTP filter from a local file.
#[derive(Debug, Clone)]
pub struct Wasm<'a> {
    /// The filter's code.
    pub code: &'a Path,
    /// Its plugin configuration.
    pub configuration: Value,
    /// By which requests of filters in one VM are told apart.
    pub name: &'a str,
    /// Filters of one id and the same code share a VM and shared data.
    pub vm_id: &'a str,
    /// Whether requests pass when the VM has failed.
    pub fail_open: bool,
}

impl<'a> Wasm<'a> {
    /// One that fails open, in the VM without an id, as Istio sets it up.
    pub fn new(code: &'a Path, configuration: Value) -> Wasm<'a> {
        Wasm { code, configuration, name: "versionflag", vm_id: "", fail_open: true }
    }

    /// Its configuration alone, as a file for [`ecds_filter`] needs it.
    pub fn typed_config(&self) -> Value {
        let text = match &self.configuration {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        json!({
            "@type": WASM_TYPE,
            "config": {
                "name": self.name,
                "root_id": "versionflag",
                // As the controller writes it.
                "fail_open": self.fail_open,
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": text,
                },
                "vm_config": {
                    "vm_id": self.vm_id,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": self.code } },
                },
            },
        })
    }

    /// The filter.
    pub fn filter(&self) -> Value {
        filter("versionflag", self.typed_config())
    }
}

/// A Lua HTTP filter.
pub fn lua_filter(code: &str) -> Value {
    filter("lua", json!({ "@type": LUA_TYPE, "default_source_code": { "inline_string": code } }))
}

/// Envoy's own filter that sets a request header, over whatever values came.
pub fn header_mutation_filter(header: &str, value: &str) -> Value {
    filter(
        "header-mutation",
        json!({
            "@type": HEADER_MUTATION_TYPE,
            "mutations": { "request_mutations": [{ "append": {
                "header": { "key": header, "value": value },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }}]},
        }),
    )
}

/// A listener as [`listener`] makes it, where Envoy itself takes a request header away before it looks for a route.
pub fn without_header(mut listener: Value, header: &str) -> Value {
    listener["filter_chains"][0]["filters"][0]["typed_config"]["early_header_mutation_extensions"] = json!([{
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": { "@type": EARLY_MUTATION_TYPE, "mutations": [{ "remove": header }] },
    }]);
    listener
}

/// A filter whose configuration comes from a file; see [`ecds_file`].
pub fn ecds_filter(name: &str, file: &Path, type_url: &str) -> Value {
    json!({
        "name": name,
        "config_discovery": {
            "config_source": { "path_config_source": { "path": file }, "resource_api_version": "V3" },
            "type_urls": [type_url],
        },
    })
}

/// The content of that file. Envoy sees a new one when it is renamed into place, as
/// [`crate::TestDir::write`] does.
pub fn ecds_file(name: &str, typed_config: Value) -> String {
    json!({
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": name,
            "typed_config": typed_config,
        }],
    })
    .to_string()
}

/// An address as Envoy writes it.
pub fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
