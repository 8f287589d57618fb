//! What an Envoy says of itself. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::cli::envoy::config::{Config, Source};
use crate::cli::envoy::manager::FILTER;
use crate::cli::envoy::node::Node;

/// What is looked at of an Envoy.
#[derive(Debug)]
pub(super) struct Facts {
    /// Its node id.
    pub(super) id: String,
    /// Listeners, routes and clusters as they are in effect.
    pub(super) config: Config,
    /// What was refused: the listener, with the reason.
    pub(super) refused: Vec<(String, String)>,
    /// The flags in the configuration of the filter: name and hosts.
    pub(super) flags: BTreeMap<String, Vec<String>>,
    /// Clusters of versions of the flag that do not run, as its controller says.
    pub(super) gone: BTreeSet<String>,
    /// Counters of the filter's configuration, by the last word of their names.
    counters: BTreeMap<String, u64>,
}

/// All values of a list in all parts of a dump.
fn listed<'a>(dump: &'a Value, list: &'a str) -> impl Iterator<Item = &'a Value> {
    let parts = dump.get("configs").and_then(Value::as_array).into_iter().flatten();
    parts.filter_map(move |part| part.get(list)?.as_array()).flatten()
}

/// What is in these lists under a path.
fn gathered(dump: &Value, lists: &[(&str, &str)]) -> Vec<Value> {
    lists.iter().flat_map(|(list, path)| listed(dump, list).filter_map(|one| one.pointer(path)).cloned()).collect()
}

impl Facts {
    pub(super) fn read(info: &[u8], dump: &[u8], stats: &str) -> Result<Facts, String> {
        let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|error| format!("no JSON: {error}"));
        let (info, dump) = (value(info)?, value(dump)?);
        let id = info.pointer("/node/id").and_then(Value::as_str).ok_or("no node in /server_info")?.to_owned();
        if dump.get("configs").is_none() {
            return Err("no configs in /config_dump".to_owned());
        }
        let tree = json!({
            "static_resources": {
                "listeners": gathered(
                    &dump, &[("static_listeners", "/listener"), ("dynamic_listeners", "/active_state/listener")],
                ),
                "clusters": gathered(
                    &dump, &[("static_clusters", "/cluster"), ("dynamic_active_clusters", "/cluster")],
                ),
            },
            "route_configs": gathered(&dump, &[("dynamic_route_configs", "/route_config")]),
        });
        let file = Source::of(Node::from(tree));
        let refused = listed(&dump, "dynamic_listeners").filter_map(|one| {
            let why = one.pointer("/error_state/details")?.as_str()?;
            Some((one.get("name")?.as_str()?.to_owned(), why.to_owned()))
        });
        let discovery = format!("extension_config_discovery.http_filter.{FILTER}.");
        let counters = stats.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix(&discovery)?.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(Facts {
            id,
            refused: refused.collect(),
            flags: flags(&dump),
            gone: BTreeSet::new(),
            counters: counters.collect(),
            config: Config { files: vec![file], running: true },
        })
    }

    /// Whether the filter is in effect; with what Envoy counted where it is not.
    pub(super) fn filter_loaded(&self) -> Result<(), String> {
        let counted = |name: &str| self.counters.get(name).copied().unwrap_or_default();
        let (taken, refused) = (counted("update_success"), counted("update_rejected") + counted("config_fail"));
        match (taken, refused) {
            (0, 0) => Err("it has not been read yet".to_owned()),
            (0, _) => Err("it was refused".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The flags that are written in the configuration of the filter.
fn flags(dump: &Value) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let filters = listed(dump, "ecds_filters").filter_map(|one| one.get("ecds_filter"));
    for filter in filters.filter(|one| one.get("name").and_then(Value::as_str) == Some(FILTER)) {
        let text = filter.pointer("/typed_config/config/configuration/value").and_then(Value::as_str);
        let config: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        for flag in config.get("flags").and_then(Value::as_array).into_iter().flatten() {
            let members = flag.get("members").and_then(Value::as_array).into_iter().flatten();
            let hosts = members.filter_map(|member| member.get("hosts")?.as_array()).flatten();
            let hosts = hosts.filter_map(Value::as_str).map(str::to_owned).collect();
            if let Some(name) = flag.get("name").and_then(Value::as_str) {
                all.insert(name.to_owned(), hosts);
            }
        }
    }
    all
}
