//! What Envoy reads from files: the filter with its flag, the routes, and the clusters. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use flag::PROTOCOL;
use flag::config::{Config, FlagService, Role, Workload};
use flag::digest::hex_prefix;
use flag::record::Record;
use flag::route;
use serde_json::{Value, json};

/// Name of the route table in the file of routes.
pub const ROUTES: &str = "versionflag";

const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
/// Under which name a cluster has the options of HTTP.
pub const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What a filter is told besides the record.
#[derive(Debug, Clone)]
pub struct Filter<'a> {
    /// The filter's file, as Envoy finds it.
    pub wasm: &'a Path,
    /// What tells this file from what was there before; empty: nobody knows.
    pub build: &'a str,
    /// The Envoy cluster of the flag service.
    pub cluster: &'a str,
    /// Where the filter stands.
    pub role: Role,
    /// The workload beside the proxy.
    pub workload: Option<Workload>,
    /// The routing header.
    pub header: &'a str,
}

/// The file with the filter, which begins with these records: one of each flag.
pub fn filter(filter: Filter<'_>, records: &[&Record]) -> Result<String, serde_json::Error> {
    let config = Config {
        protocol: PROTOCOL,
        role: filter.role,
        header: filter.header.to_owned(),
        workload: filter.workload,
        service: Some(FlagService { cluster: filter.cluster.to_owned(), authority: "versionflag".to_owned() }),
        first_answer_ms: 500,
        flags: records.iter().copied().cloned().collect(),
    };
    // By its name the filter knows whose a request is, where one Envoy has several roles.
    let name = match filter.role {
        Role::Auto => "versionflag",
        Role::Caller => "versionflag-caller",
        Role::Edge => "versionflag-edge",
        Role::Inbound => "versionflag-inbound",
    };
    let mut vm_config = json!({
        "vm_id": "versionflag",
        "runtime": "envoy.wasm.runtime.v8",
        "code": { "local": { "filename": filter.wasm } },
    });
    // Envoy reads the file anew for a configuration that it has not tried yet, and for no other. The filter reads none
    // of its VM.
    if !filter.build.is_empty()
        && let Some(fields) = vm_config.as_object_mut()
    {
        fields.insert("configuration".to_owned(), json!({ "@type": STRING, "value": filter.build }));
    }
    let resource = json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "versionflag",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": "versionflag",
                // Not `failure_policy: FAIL_OPEN`: where that is said, the streams that are open when the filter fails end.
                "fail_open": true,
                "vm_config": vm_config,
                "configuration": {
                    "@type": STRING,
                    "value": serde_json::to_string(&config)?,
                },
            },
        },
    });
    discovery(&version_of(records), vec![resource])
}

/// A cluster of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster<'a> {
    /// The name by which routes and the record have it.
    pub name: &'a str,
    /// Where callers reach the version.
    pub address: SocketAddr,
    /// It speaks HTTP/2 without TLS, and nothing else.
    pub http2: bool,
}

/// The file with the clusters. Where one is taken out, or is other than before, Envoy lets the requests end that are
/// open on its connections.
pub fn clusters<'a>(clusters: impl IntoIterator<Item = Cluster<'a>>) -> Result<String, serde_json::Error> {
    let resources: Vec<Value> = clusters.into_iter().map(cluster).collect();
    let version = hex_prefix(&serde_json::to_vec(&resources)?, 8);
    discovery(&version, resources)
}

fn cluster(cluster: Cluster<'_>) -> Value {
    let Cluster { name, address, http2 } = cluster;
    let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
    let mut resource = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": socket } } }] }],
        },
    });
    if http2 && let Some(fields) = resource.as_object_mut() {
        let options = json!({ HTTP_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": { "http2_protocol_options": {} },
        } });
        fields.insert("typed_extension_protocol_options".to_owned(), options);
    }
    resource
}

/// The file with the routes of these records, each with its routing header: one a version, and the active version for
/// what has none.
pub fn routes(records: &[(&str, &Record)]) -> Result<String, serde_json::Error> {
    let table = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": records.iter().flat_map(|(header, record)| virtual_hosts(header, record)).collect::<Vec<_>>(),
    });
    let records: Vec<&Record> = records.iter().map(|(_, record)| *record).collect();
    discovery(&version_of(&records), vec![table])
}

fn virtual_hosts(header: &str, record: &Record) -> Vec<Value> {
    let name = route::name(record);
    let to = |version: &str, clusters: &BTreeMap<String, std::collections::BTreeSet<String>>, condition: Value| {
        let cluster = clusters.get(version)?.first()?;
        // Without a timeout: Envoy's default of 15 s would end long streams.
        Some(json!({ "name": name, "match": condition, "route": { "cluster": cluster, "timeout": "0s" } }))
    };
    let hosts = record.members.iter().map(|member| {
        let marked = |version: &String| {
            let condition = json!({
                "prefix": "/",
                "headers": [{ "name": header, "string_match": { "exact": version } }],
            });
            to(version, &member.clusters, condition)
        };
        let routes = record.versions.iter().filter_map(marked);
        let default = to(&record.active, &member.clusters, json!({ "prefix": "/" }));
        json!({
            "name": member.service,
            "domains": member.hosts.iter().flat_map(|host| domains(host)).collect::<Vec<_>>(),
            "routes": routes.chain(default).collect::<Vec<_>>(),
        })
    });
    hosts.collect()
}

/// Every spelling of a host that Envoy tells apart. It ignores case by itself.
pub fn domains(host: &str) -> [String; 4] {
    [host.to_owned(), format!("{host}:*"), format!("{host}."), format!("{host}.:*")]
}

fn version_of(records: &[&Record]) -> String {
    let all: Vec<String> = records.iter().map(|record| format!("{}-{}", record.epoch, record.hash)).collect();
    match all.as_slice() {
        [one] => one.clone(),
        // The names of a thousand flags are no name of a version.
        several => hex_prefix(several.join(" ").as_bytes(), 8),
    }
}

fn discovery(version: &str, resources: Vec<Value>) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&json!({ "version_info": version, "resources": resources }))
}
