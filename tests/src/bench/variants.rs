//! What is measured: filters and what they are given. I/O: reads which filters were built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use flag::PROTOCOL;
use flag::config::{Config, HEADER, Role};
use flag::record::{Gate, Member, Record};
use serde_json::Value;

use crate::config::{self, Wasm};

/// A route to this path exists only for requests that are marked for v1.
pub const PROOF_PATH: &str = "/proof";

/// The host that has a flag.
const HOST: &str = "reviews";

/// One way to run Envoy.
#[derive(Debug)]
pub struct Variant {
    /// As in the results.
    pub name: &'static str,
    /// Before the router.
    pub filters: Vec<Value>,
    /// The host that is asked for.
    pub host: &'static str,
    /// What a request for [`PROOF_PATH`] is answered with: `v1` where the filter makes Envoy
    /// choose the route again.
    pub proof: &'static str,
}

/// Does what ours does per request, at its best: the host's version in a header, over whatever
/// values came, the route chosen again, requests in flight counted by version. It does not see
/// requests that are reset, and its flags cannot change.
const LUA: &str = r#"
local flags = { ["reviews"] = "v1" }
local in_flight = {}

local function normalized(host)
  return (host:lower():gsub(":%d+$", ""):gsub("%.$", ""))
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local host = headers:get(":authority")
  local version = flags[host] or flags[normalized(host)]
  if version == nil then
    return
  end
  headers:replace("x-versionflag", version)
  handle:clearRouteCache()
  in_flight[version] = (in_flight[version] or 0) + 1
end

function envoy_on_response(handle)
  -- The route says which version it leads to: the cheapest way to know it here.
  local version = handle:metadata():get("version")
  if version ~= nil and in_flight[version] ~= nil then
    in_flight[version] = in_flight[version] - 1
  end
end
"#;

/// All variants whose filters are built; says which are left out.
pub fn variants() -> Vec<Variant> {
    let mut variants = vec![
        Variant { name: "none", filters: vec![], host: HOST, proof: "none" },
        // Does not clear the route cache, so it is a lower bound and not an alternative.
        Variant {
            name: "native",
            filters: vec![config::header_mutation_filter(HEADER, "v1")],
            host: HOST,
            proof: "none",
        },
        Variant { name: "lua", filters: vec![config::lua_filter(LUA)], host: HOST, proof: "v1" },
    ];
    let mut wasm = |name, variable, configuration, host, proof| {
        let Some(code) = built(variable) else {
            println!("{name} is left out: ${variable} is not set to a file");
            return;
        };
        variants.push(Variant { name, filters: vec![Wasm::new(&code, configuration).filter()], host, proof });
    };
    wasm("empty-sdk", "VERSIONFLAG_EMPTY_WASM", Value::from(""), HOST, "none");
    wasm("empty-sdk-trimmed", "VERSIONFLAG_EMPTY_TRIMMED_WASM", Value::from(""), HOST, "none");
    wasm("ours", "VERSIONFLAG_WASM", ours_config(1, &["v1"]), HOST, "v1");
    wasm("ours-switching", "VERSIONFLAG_WASM", ours_config(1, &["v1", "v2"]), HOST, "v1");
    wasm("ours-no-flag", "VERSIONFLAG_WASM", ours_config(1, &["v1"]), "ratings", "none");
    wasm("ours-100-flags", "VERSIONFLAG_WASM", ours_config(100, &["v1"]), HOST, "v1");
    // The build of before there was a fence, which the tests keep.
    let before = crate::root().join("tests/filters/level-1/versionflag.wasm");
    for (name, versions) in [("before-fence", &["v1"][..]), ("before-fence-switching", &["v1", "v2"])] {
        let filters = vec![Wasm::new(&before, ours_config(1, versions)).filter()];
        variants.push(Variant { name, filters, host: HOST, proof: "v1" });
    }
    variants
}

fn built(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file())
}

/// The plugin configuration of our filter with so many flags, of which one is for [`HOST`]. With
/// several versions a switch is under way, and the cluster that served is read of every response.
pub fn ours_config(flags: usize, versions: &[&str]) -> Value {
    let flags = (0..flags).map(|number| match number {
        0 => record(HOST.to_owned(), versions),
        _ => record(format!("service-{number}"), versions),
    });
    let config = Config {
        protocol: PROTOCOL,
        role: Role::Caller,
        header: HEADER.to_owned(),
        workload: None,
        service: None,
        first_answer_ms: 500,
        flags: flags.collect(),
    };
    serde_json::to_value(config).expect("a configuration is JSON")
}

fn record(service: String, versions: &[&str]) -> Record {
    let hosts = BTreeSet::from([service.clone(), format!("{service}.shop.svc.cluster.local")]);
    let record = Record {
        uid: format!("uid-{service}"),
        name: format!("shop/{service}"),
        namespace: String::new(),
        version_label: String::new(),
        epoch: 1,
        active: "v1".to_owned(),
        gate: Gate::Open,
        members: vec![Member { service, hosts, selector: BTreeSet::new(), clusters: BTreeMap::new() }],
        versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        preview: None,
        hash: String::new(),
    };
    record.seal().expect("a valid flag")
}
