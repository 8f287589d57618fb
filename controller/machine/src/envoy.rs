//! What Envoy reads from files: the filter with its flag, and the routes. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use flag::PROTOCOL;
use flag::config::{Config, FlagService, Role, Workload};
use flag::record::Record;
use flag::route;
use serde_json::{Value, json};

/// Name of the route table in the file of routes.
pub const ROUTES: &str = "versionflag";

/// What a filter is told besides the record.
#[derive(Debug, Clone)]
pub struct Filter<'a> {
    /// The filter's file, as Envoy finds it.
    pub wasm: &'a Path,
    /// The Envoy cluster of the flag service.
    pub cluster: &'a str,
    /// Where the filter stands.
    pub role: Role,
    /// The workload beside the proxy.
    pub workload: Option<Workload>,
    /// The routing header.
    pub header: &'a str,
}

/// The file with the filter.
pub fn filter(filter: Filter<'_>, record: &Record) -> Result<String, serde_json::Error> {
    let config = Config {
        protocol: PROTOCOL,
        role: filter.role,
        header: filter.header.to_owned(),
        workload: filter.workload,
        service: Some(FlagService { cluster: filter.cluster.to_owned(), authority: "versionflag".to_owned() }),
        first_answer_ms: 500,
        flags: vec![record.clone()],
    };
    // By its name the filter knows whose a request is, where one Envoy has several roles.
    let name = match filter.role {
        Role::Auto => "versionflag",
        Role::Caller => "versionflag-caller",
        Role::Edge => "versionflag-edge",
        Role::Inbound => "versionflag-inbound",
    };
    let resource = json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "versionflag",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": "versionflag",
                "failure_policy": "FAIL_OPEN",
                "vm_config": {
                    "vm_id": "versionflag",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": filter.wasm } },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": serde_json::to_string(&config)?,
                },
            },
        },
    });
    discovery(record, resource)
}

/// The file with the routes: one a version, and the active version for what has none.
pub fn routes(header: &str, record: &Record) -> Result<String, serde_json::Error> {
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
    let table = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": hosts.collect::<Vec<_>>(),
    });
    discovery(record, table)
}

/// Every spelling of a host that Envoy tells apart. It ignores case by itself.
pub fn domains(host: &str) -> [String; 4] {
    [host.to_owned(), format!("{host}:*"), format!("{host}."), format!("{host}.:*")]
}

fn discovery(record: &Record, resource: Value) -> Result<String, serde_json::Error> {
    let version = format!("{}-{}", record.epoch, record.hash);
    serde_json::to_string_pretty(&json!({ "version_info": version, "resources": [resource] }))
}
