//! Where listeners, route tables and clusters are in a configuration of one or several files. Pure.

use std::path::PathBuf;

use super::node::Node;

/// One file of a configuration; or, without a path, a part of what Envoy says of itself.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Source {
    /// As whoever refers to it spells it.
    pub(super) name: String,
    /// As others spell it.
    pub(super) others: Vec<String>,
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(in crate::cli) tree: Node,
}

/// A place in a configuration: the number of the file, and the path in its tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Spot {
    pub(super) file: usize,
    pub(super) path: String,
}

impl Spot {
    /// A place below another one.
    pub(in crate::cli) fn below(above: &Spot, path: &str) -> Spot {
        Spot { file: above.file, path: format!("{}/{path}", above.path) }
    }
}

impl Source {
    /// Whether a name is that of this file.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name || self.others.iter().any(|other| other == name)
    }

    /// What was never in a file.
    pub(in crate::cli) fn of(tree: Node) -> Source {
        Source { name: String::new(), others: vec![], path: PathBuf::new(), text: String::new(), tree }
    }
}

/// Where the routes of a connection manager are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Table {
    Here(Spot),
    /// Not in what is known, with the reason.
    Elsewhere(String),
}

/// An HTTP connection manager, and where its routes are.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Manager {
    /// Name of its listener, or its address.
    pub(in crate::cli) listener: String,
    /// Its `typed_config`.
    pub(in crate::cli) spot: Spot,
    pub(in crate::cli) table: Table,
}

const MANAGER: &str = "http_connection_manager.v3.HttpConnectionManager";
const STREAMS: &str = "tcp_proxy.v3.TcpProxy";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

/// The file that a config source reads, if it reads one.
pub(super) fn file_of(source: &Node) -> Option<&str> {
    source.text_at("path_config_source/path").or_else(|| source.text_at("path"))
}

/// The files that a file refers to: for listeners, clusters and routes.
pub(super) fn references(tree: &Node) -> Vec<String> {
    let mut found = vec![];
    collect_references(tree, &mut found);
    found
}

fn collect_references(node: &Node, found: &mut Vec<String>) {
    for (key, value) in node.entries() {
        let source = match key.as_str() {
            "lds_config" | "ldsConfig" | "cds_config" | "cdsConfig" => Some(value),
            "rds" => value.find("config_source"),
            _ => None,
        };
        if let Some(file) = source.and_then(file_of)
            && !found.iter().any(|known| known == file)
        {
            found.push(file.to_owned());
        }
        collect_references(value, found);
    }
    node.items().iter().for_each(|one| collect_references(one, found));
}

/// A whole configuration. The first file is what Envoy is started with.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Config {
    pub(in crate::cli) files: Vec<Source>,
    /// Routes are known by the name of their table alone: Envoy has read them already.
    pub(in crate::cli) running: bool,
}

impl Config {
    pub(in crate::cli) fn at(&self, spot: &Spot) -> Option<&Node> {
        self.files.get(spot.file)?.tree.find(&spot.path)
    }

    pub(super) fn at_mut(&mut self, spot: &Spot) -> Option<&mut Node> {
        self.files.get_mut(spot.file)?.tree.find_mut(&spot.path)
    }

    /// What Envoy is started with.
    pub(super) fn bootstrap(&self) -> Option<&Node> {
        self.files.first().map(|file| &file.tree)
    }

    /// Resources of a type in all files, and those of the bootstrap in this list.
    fn resources(&self, of_type: &str, listed: &str) -> Vec<Spot> {
        let mut found = vec![];
        for (file, source) in self.files.iter().enumerate() {
            for (index, _) in source.tree.list_at(listed).iter().enumerate() {
                found.push(Spot { file, path: format!("{listed}/{index}") });
            }
            for (index, one) in source.tree.list_at("resources").iter().enumerate() {
                if one.text_at("@type").is_some_and(|name| name.ends_with(of_type)) {
                    found.push(Spot { file, path: format!("resources/{index}") });
                }
            }
        }
        found
    }

    /// Every cluster that is written down somewhere.
    pub(in crate::cli) fn clusters(&self) -> impl Iterator<Item = &Node> {
        self.resources(CLUSTER, "static_resources/clusters").into_iter().filter_map(|spot| self.at(&spot))
    }

    pub(in crate::cli) fn cluster(&self, name: &str) -> Option<&Node> {
        self.clusters().find(|cluster| cluster.text_at("name") == Some(name))
    }

    /// The file that clusters are read from while Envoy runs, if there is one.
    pub(super) fn cluster_file(&self) -> Option<usize> {
        let name = file_of(self.bootstrap()?.find("dynamic_resources/cds_config")?)?;
        self.files.iter().position(|file| file.is(name))
    }

    /// Every HTTP connection manager of every listener.
    pub(in crate::cli) fn managers(&self) -> Vec<Manager> {
        let mut found = vec![];
        for listener in self.resources(LISTENER, "static_resources/listeners") {
            let Some(node) = self.at(&listener) else { continue };
            let name = name_of(node);
            let chains = (0..node.list_at("filter_chains").len()).map(|index| format!("filter_chains/{index}"));
            for chain in chains.chain(["default_filter_chain".to_owned()]) {
                for (index, filter) in node.list_at(&format!("{chain}/filters")).iter().enumerate() {
                    if !filter.text_at("typed_config/@type").is_some_and(|name| name.ends_with(MANAGER)) {
                        continue;
                    }
                    let path = format!("{}/{chain}/filters/{index}/typed_config", listener.path);
                    let spot = Spot { file: listener.file, path };
                    let table = self.table(&spot);
                    found.push(Manager { listener: name.clone(), spot, table });
                }
            }
        }
        found
    }

    /// Listeners that hand on streams of TCP to clusters like this, each with the cluster.
    pub(super) fn streams(&self, is_one: impl Fn(&str) -> bool) -> impl Iterator<Item = (String, String)> {
        let mut found = vec![];
        for listener in self.resources(LISTENER, "static_resources/listeners") {
            let Some(node) = self.at(&listener) else { continue };
            let chains = node.list_at("filter_chains").iter().chain(node.find("default_filter_chain"));
            for filter in chains.flat_map(|chain| chain.list_at("filters")) {
                let weighted = filter.list_at("typed_config/weighted_clusters/clusters");
                let clusters = filter.text_at("typed_config/cluster").into_iter();
                let clusters = clusters.chain(weighted.iter().filter_map(|one| one.text_at("name")));
                let is_tcp = filter.text_at("typed_config/@type").is_some_and(|name| name.ends_with(STREAMS));
                let all = clusters.filter(|cluster| is_tcp && is_one(cluster));
                found.extend(all.map(|cluster| (name_of(node), cluster.to_owned())));
            }
        }
        found.into_iter()
    }

    fn table(&self, manager: &Spot) -> Table {
        let Some(node) = self.at(manager) else { return Table::Elsewhere("it has no routes".to_owned()) };
        if node.find("route_config").is_some() {
            return Table::Here(Spot::below(manager, "route_config"));
        }
        if node.find("scoped_routes").is_some() {
            return Table::Elsewhere("its routes are chosen by scope (scoped_routes)".to_owned());
        }
        let Some(source) = node.find("rds/config_source") else {
            return Table::Elsewhere("it has no routes".to_owned());
        };
        let name = node.text_at("rds/route_config_name").unwrap_or_default();
        let file = file_of(source);
        let found = self.resources(ROUTES, "route_configs").into_iter().find(|spot| {
            let is_meant = |name| self.files.get(spot.file).is_some_and(|file| file.is(name));
            (self.running || file.is_some_and(is_meant))
                && self.at(spot).and_then(|table| table.text_at("name")) == Some(name)
        });
        match (found, file) {
            (Some(spot), _) => Table::Here(spot),
            (None, Some(file)) => Table::Elsewhere(format!("{file} has no routes {name}")),
            (None, None) => Table::Elsewhere(format!("its routes {name} come from a server (rds)")),
        }
    }

    /// The virtual hosts of a table.
    pub(in crate::cli) fn virtual_hosts(&self, table: &Spot) -> &[Node] {
        self.at(table).map_or(&[], |table| table.list_at("virtual_hosts"))
    }
}

fn name_of(listener: &Node) -> String {
    let address = || {
        let socket = listener.find("address/socket_address")?;
        Some(format!("{}:{}", socket.text_at("address")?, socket.number_at("port_value")?))
    };
    let name = listener.text_at("name").filter(|name| !name.is_empty()).map(str::to_owned);
    name.or_else(address).unwrap_or_else(|| "without a name".to_owned())
}
