//! What a flag asks of an Envoy: the pieces that `render envoy` prints, and where they belong. Pure.

use flag::config::Role;
use local::file::File;
use machine::spec::Service;

use super::config::{Config, Manager, Spot, Table};
use super::hosts::{domains, is_host, serving};
use super::manager::is_ours;
use super::node::Node;
use super::routes::Wanted;
use crate::cli::render;

/// Parts of what `render envoy` prints for one proxy.
#[derive(Debug)]
pub(in crate::cli) struct Pieces {
    /// Its node.
    pub(super) node: Node,
    /// The HTTP filter.
    pub(super) filter: Node,
    /// What takes the routing header of clients away; empty unless the filter is one of an edge.
    pub(super) header: Vec<Node>,
    /// The clusters of the versions and of the flag service.
    pub(in crate::cli) clusters: Vec<Node>,
    /// Where the clusters of versions come from while Envoy runs, if not from its configuration.
    pub(super) cluster_source: Option<Node>,
}

/// The pieces for a proxy; for the first one without.
pub(in crate::cli) fn pieces(file: &File, proxy: Option<&str>) -> Result<Pieces, String> {
    let rendered = Node::parse(&render::envoy(std::slice::from_ref(file), proxy)?)?.fresh();
    let manager = rendered.find("static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
    let filter = manager.and_then(|manager| manager.list_at("http_filters").iter().find(|one| is_ours(one)));
    Ok(Pieces {
        node: rendered.find("node").cloned().ok_or("no node was rendered")?,
        filter: filter.cloned().ok_or("no filter was rendered")?,
        header: manager.map(|manager| manager.list_at("early_header_mutation_extensions").to_vec()).unwrap_or_default(),
        clusters: with_versions(file, rendered.list_at("static_resources/clusters").to_vec())?,
        cluster_source: rendered.find("dynamic_resources/cds_config").cloned(),
    })
}

/// These clusters, and that of each version which is not among them because Envoy would find it elsewhere.
fn with_versions(file: &File, mut clusters: Vec<Node>) -> Result<Vec<Node>, String> {
    let mut text = "clusters:\n".to_owned();
    render::static_clusters(&mut text, file);
    let all = Node::parse(&text)?;
    let is_missing = |one: &&Node| clusters.iter().all(|known| known.text_at("name") != one.text_at("name"));
    let missing: Vec<Node> = all.list_at("clusters").iter().filter(is_missing).map(Node::fresh).collect();
    clusters.extend(missing);
    Ok(clusters)
}

/// Whether clients are strangers, whose routing header is taken away.
pub(in crate::cli) fn is_edge(file: &File) -> bool {
    file.local.filter_config.as_ref().is_some_and(|filter| filter.role == Role::Edge)
}

/// What the routes of a service are to say.
pub(in crate::cli) fn wanted(file: &File, service: &Service, websocket: bool) -> Result<Wanted, String> {
    let by_version = file.clusters(service);
    let first = by_version.iter().filter_map(|(version, names)| Some((version.clone(), names.first()?.clone())));
    let clusters: std::collections::BTreeMap<String, String> = first.collect();
    let default = clusters.get(&file.spec.version).cloned();
    Ok(Wanted {
        flag: file.metadata.name.clone(),
        header: file.spec.routing.header.clone(),
        all: by_version.values().flatten().cloned().collect(),
        default: default.ok_or_else(|| format!("spec.version {:?} has no cluster", file.spec.version))?,
        clusters,
        websocket,
    })
}

/// A connection manager that serves hosts of a service by routes to its versions.
#[derive(Debug)]
pub(in crate::cli) struct Served {
    pub(in crate::cli) manager: Manager,
    pub(in crate::cli) table: Spot,
    /// The numbers of the virtual hosts.
    pub(in crate::cli) virtual_hosts: Vec<usize>,
}

/// Every connection manager that serves these hosts by routes to clusters of the flag.
pub(in crate::cli) fn served(config: &Config, wanted: &Wanted, service: &Service) -> Vec<Served> {
    let found = config.managers().into_iter().filter_map(|manager| {
        let Table::Here(table) = manager.table.clone() else { return None };
        let all = config.virtual_hosts(&table);
        let mut virtual_hosts: Vec<usize> = service.hosts().iter().flat_map(|host| serving(all, host)).collect();
        virtual_hosts.sort_unstable();
        virtual_hosts.dedup();
        virtual_hosts.retain(|index| {
            let routes = all.get(*index).map_or(&[][..], |one| one.list_at("routes"));
            routes.iter().any(|route| wanted.leads_here(route))
        });
        (!virtual_hosts.is_empty()).then_some(Served { manager, table, virtual_hosts })
    });
    found.collect()
}

/// Which requests reach the clusters of the flag without it, and what to do about each.
pub(in crate::cli) fn past(
    config: &Config,
    wanted: &Wanted,
    service: &Service,
    found: &[Served],
) -> Vec<(String, &'static str)> {
    let hosts = service.hosts();
    let is_ours = |domain: &str| hosts.iter().any(|host| is_host(domain, host));
    let mut all: Vec<(String, &'static str)> =
        config.streams(|cluster| wanted.all.contains(cluster)).map(uncounted).collect();
    for manager in config.managers() {
        let Table::Here(table) = &manager.table else { continue };
        let by_flag = found.iter().find(|one| one.manager.spot == manager.spot);
        for (index, one) in config.virtual_hosts(table).iter().enumerate() {
            if one.find("matcher").is_some() && domains(one).any(is_ours) {
                let (name, listener) = (one.text_at("name").unwrap_or_default(), &manager.listener);
                all.push((format!("virtual host {name} of listener {listener} has a `matcher`, whose routes are left as they are: they go past the flag"), "write its routes as `routes`"));
            }
            let leads = one.list_at("routes").iter().any(|route| wanted.leads_here(route));
            let is_split = by_flag.is_some_and(|one| one.virtual_hosts.contains(&index));
            let others: Vec<&str> = domains(one).filter(|domain| !is_ours(domain)).collect();
            if !leads || is_split && others.is_empty() {
                continue;
            }
            let (name, listener) = (one.text_at("name").unwrap_or_default(), &manager.listener);
            let which = match is_split {
                true => format!("{}, but for hosts of the flag,", others.join(", ")),
                false => domains(one).collect::<Vec<_>>().join(", "),
            };
            all.push((
                format!(
                    "virtual host {name} of listener {listener} leads requests for {which} to a version of the flag, past it"
                ),
                "add each host that is meant to spec.services[].hosts, or lead it elsewhere: one request to it after a flip \
                 keeps the old version",
            ));
        }
    }
    all
}

/// A listener that hands on streams, of which a filter of HTTP sees nothing.
fn uncounted((listener, cluster): (String, String)) -> (String, &'static str) {
    let message = format!(
        "listener {listener} leads streams of TCP to {cluster}, past the flag and uncounted: they are cut off when that \
         version is removed"
    );
    (message, "lead them elsewhere, or through an HTTP connection manager")
}

/// Hosts of a service that none of these connection managers serves, and what to do about each.
pub(in crate::cli) fn unserved(config: &Config, service: &Service, found: &[Served]) -> Vec<(String, &'static str)> {
    let hosts = service
        .hosts()
        .into_iter()
        .filter(|host| !found.iter().any(|one| !serving(config.virtual_hosts(&one.table), host).is_empty()));
    let fix = "add it to the domains of one, or take it out of spec.services[].hosts";
    hosts.map(|host| (format!("no virtual host serves {host}"), fix)).collect()
}
