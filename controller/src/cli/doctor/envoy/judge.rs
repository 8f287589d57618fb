//! What an Envoy lacks for a flag, or has otherwise than the flag needs it, and what to do about it. Pure.

use std::collections::BTreeSet;
use std::path::Path;

use local::file::{File, FilterConfig};
use local::files::plain;
use machine::envoy::ROUTES;
use machine::spec::Service;

use super::super::judge::{Finding, error, warning};
use super::facts::Facts;
use crate::cli::envoy::cluster::{addresses, mismatches, takes_websocket};
use crate::cli::envoy::config::{Spot, Table};
use crate::cli::envoy::flag::{Served, is_edge, past, pieces, served, unserved, wanted};
use crate::cli::envoy::hosts::is_host;
use crate::cli::envoy::manager::{FILTER, allows_websocket, is_ours, kind, removes_header, rewriting_behind};
use crate::cli::envoy::node::Node;
use crate::cli::envoy::routes::{Told, UNFILTERED, Wanted, switched_off};

const WASM: &str = "http.wasm.v3.Wasm";
/// What puts most of it right.
const MERGE: &str = "versionflag render envoy -f FILE --into ENVOYFILE --write, and have Envoy read it";

/// Everything that was found, the worst first.
pub(super) fn judge(file: &File, facts: &Facts) -> Result<Vec<Finding>, String> {
    let filter = file.local.filter_config.as_ref();
    let Some(filter) = filter else {
        let message = "local.filterConfig is missing: the controller writes no filter for Envoy to read".to_owned();
        return Ok(vec![error("filter", message, "add it to the file")]);
    };
    let rendered = pieces(file, None)?.clusters;
    let mut all: Vec<Finding> = node(file, facts).into_iter().chain(refused(facts)).collect();
    let mut has_filter = false;
    for service in &file.spec.services {
        let wanted = wanted(file, service, false)?;
        let found = served(&facts.config, &wanted, service);
        all.extend(hosts(facts, service, &wanted, &found));
        for one in &found {
            let Some(manager) = facts.config.at(&one.manager.spot) else { continue };
            has_filter |= manager.list_at("http_filters").iter().any(is_ours);
            all.extend(filters(file, filter, manager, &one.manager.listener));
            if !is_managed(filter, manager) {
                all.extend(routes(facts, one, &wanted));
            }
            all.extend(websockets(file, facts, &wanted, manager, &one.manager.listener));
        }
        let others = past(&facts.config, &wanted, service, &found);
        all.extend(others.into_iter().map(|(message, fix)| warning("routes", message, fix)));
        all.extend(clusters(file, facts, &wanted, &rendered));
        all.extend(flags(file, facts, service));
    }
    all.extend(flag_service(file, filter, facts, &rendered));
    if has_filter {
        all.extend(loaded(filter, facts));
    }
    all.dedup();
    all.sort_by_key(|finding| finding.severity);
    Ok(all)
}

fn node(file: &File, facts: &Facts) -> Vec<Finding> {
    let ids: Vec<&str> = file.local.proxies.iter().map(|proxy| proxy.id.as_str()).collect();
    let listed = ids.join(", ");
    if !ids.contains(&facts.id.as_str()) {
        let message =
            format!("its node id is {:?}, and local.proxies has {listed}: what it reports is refused", facts.id);
        return vec![error("node", message, "list it, or start Envoy with --service-node and an id that is listed")];
    }
    let sidecar = file.local.proxies.iter().find(|proxy| proxy.id == facts.id && proxy.sidecar.is_some());
    let finding = sidecar.map(|proxy| {
        let message = format!("{} stands in front of a version, and is looked at as a caller here", proxy.id);
        warning("node", message, "compare it with `versionflag render envoy --proxy ID`")
    });
    finding.into_iter().collect()
}

fn refused(facts: &Facts) -> Vec<Finding> {
    let refused = |(name, why): &(String, String)| {
        error("listener", format!("the last update of listener {name} was refused: {why}"), "mend its file")
    };
    facts.refused.iter().map(refused).collect()
}

fn hosts(facts: &Facts, service: &Service, wanted: &Wanted, found: &[Served]) -> Vec<Finding> {
    if !found.is_empty() {
        let missing = unserved(&facts.config, service, found);
        return missing.into_iter().map(|(message, fix)| error("hosts", message, fix)).collect();
    }
    let hosts = service.hosts().into_iter().collect::<Vec<_>>().join(", ");
    let clusters = wanted.all.iter().cloned().collect::<Vec<_>>().join(", ");
    let elsewhere = facts.config.managers().into_iter().find_map(|one| match one.table {
        Table::Elsewhere(why) => Some(format!("; listener {}: {why}", one.listener)),
        Table::Here(_) => None,
    });
    let message =
        format!("no virtual host that serves {hosts} leads to one of {clusters}{}", elsewhere.unwrap_or_default());
    vec![error(
        "hosts",
        message,
        "name the cluster that serves now in spec.services[].clusters, or give the host a route",
    )]
}

/// What is wrong with the filter in one connection manager.
fn filters(file: &File, config: &FilterConfig, manager: &Node, listener: &str) -> Vec<Finding> {
    let filters = manager.list_at("http_filters");
    let name = |filter: &Node| filter.text_at("name").unwrap_or_default().to_owned();
    let source = |filter: &Node| {
        let source = filter.find("config_discovery/config_source")?;
        source.text_at("path_config_source/path").or_else(|| source.text_at("path")).map(str::to_owned)
    };
    // Envoy may name the file from where it was started.
    let ours = plain(&config.path);
    let reads_ours = |filter: &Node| source(filter).is_some_and(|path| ours.ends_with(plain(Path::new(&path))));
    let path = config.path.display();
    let mut all = vec![];
    let Some(ours) = filters.iter().find(|one| is_ours(one)) else {
        let other = filters.iter().find(|one| kind(one).ends_with(WASM) && reads_ours(one));
        return vec![match other.map(name) {
            Some(other) => error(
                "filter",
                format!(
                    "listener {listener} has the filter as {other}, and {path} as {FILTER}: Envoy does not find it"
                ),
                format!("name it {FILTER}"),
            ),
            None => error(
                "filter",
                format!("listener {listener} has no filter {FILTER}: nothing there goes by the flag"),
                MERGE,
            ),
        }];
    };
    if !reads_ours(ours) {
        let from = source(ours).map_or("its own configuration".to_owned(), |path| path);
        let message = format!("the filter of listener {listener} reads {from}, and the controller writes {path}");
        all.push(error("filter", message, MERGE));
    }
    if ours.is_true("disabled") {
        let message = format!("the filter of listener {listener} is disabled");
        all.push(error("filter", message, "take `disabled: true` away"));
    }
    let behind = rewriting_behind(filters).join(", ");
    if !behind.is_empty() {
        let header = &file.spec.routing.header;
        let message =
            format!("{behind} is behind the filter of listener {listener}, and may change :authority or {header}");
        all.push(warning("filter", message, format!("put {FILTER} directly before the router")));
    }
    if is_edge(file) && !removes_header(manager, &file.spec.routing.header) {
        let header = &file.spec.routing.header;
        let message =
            format!("listener {listener} takes {header} from clients, who choose a version where the filter fails");
        all.push(error("filter", message, MERGE));
    }
    all
}

/// Whether the routes are the controller's.
fn is_managed(config: &FilterConfig, manager: &Node) -> bool {
    config.routes.is_some() && manager.text_at("rds/route_config_name") == Some(ROUTES)
}

fn routes(facts: &Facts, one: &Served, wanted: &Wanted) -> Vec<Finding> {
    let listener = &one.manager.listener;
    let told = one.virtual_hosts.iter().flat_map(|index| {
        let spot = Spot::below(&one.table, &format!("virtual_hosts/{index}"));
        facts.config.at(&spot).map(|host| wanted.by_version(&mut host.clone())).unwrap_or_default()
    });
    let finding = |told: Told| match told {
        Told::ByVersion { route, cluster } => {
            let message = format!(
                "{route} in listener {listener} leads to {cluster} past the flag: it has no route for each version"
            );
            Some(error("routes", message, MERGE))
        }
        Told::Renewed { route } => {
            let versions = wanted.clusters.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("{route} in listener {listener} does not lead to {versions} as the file has them");
            Some(error("routes", message, MERGE))
        }
        Told::Default { route, from, to } if from.split(", ").any(|one| facts.gone.contains(one)) => {
            let message = format!(
                "{route} in listener {listener} leads to {from} without a version, of a version that does not run: \
                 whatever the filter does not decide fails"
            );
            Some(error("default", format!("{message}; {to} is that of the version that serves"), MERGE))
        }
        Told::Default { route, from, to } => {
            let message = format!(
                "{route} in listener {listener} leads to {from} without a version, and {to} is that of the version that \
                 serves: that counts when the filter fails"
            );
            Some(warning("default", message, format!("after a switch: {MERGE}, before the old version is removed")))
        }
        Told::Unfiltered { place } => {
            let message = format!("the filter is switched off for {place} in listener {listener}: {UNFILTERED}");
            Some(error("filter", message, "take `disabled` out of its typed_per_filter_config"))
        }
        Told::Mirror { route, cluster } => {
            let message = format!("{route} in listener {listener} is mirrored to {cluster} whatever the flag says");
            Some(warning("routes", message, "mirror to a cluster that is none of the flag"))
        }
        Told::Orphan { route } => {
            let message = format!("{route} in listener {listener} is for one version, before routes of other settings");
            Some(warning("routes", message, "take it away if it was pasted there"))
        }
        Told::Left { .. } => None,
    };
    told.chain(facts.config.at(&one.table).and_then(switched_off)).filter_map(finding).collect()
}

/// WebSockets that are let in, and do not get to a version.
fn websockets(file: &File, facts: &Facts, wanted: &Wanted, manager: &Node, listener: &str) -> Vec<Finding> {
    if !allows_websocket(manager.list_at("upgrade_configs")) {
        return vec![];
    }
    let deaf = wanted.clusters.iter().filter(|(version, name)| {
        file.local.versions.contains_key(*version)
            && facts.config.cluster(name).is_some_and(|cluster| !takes_websocket(cluster))
    });
    let finding = |(version, name): (&String, &String)| {
        let message = format!(
            "listener {listener} takes WebSockets, and cluster {name} of {version} speaks HTTP/2, without them"
        );
        warning("websocket", message, "where there are any: allow_connect: true in its http2_protocol_options")
    };
    deaf.map(finding).collect()
}

fn clusters(file: &File, facts: &Facts, wanted: &Wanted, rendered: &[Node]) -> Vec<Finding> {
    let mut all = vec![];
    // Nobody goes to a version that cannot be started.
    let known = |version: &String| file.local.versions.contains_key(version) || *version == file.spec.version;
    for (version, name) in wanted.clusters.iter().filter(|(version, _)| known(version)) {
        let Some(found) = facts.config.cluster(name) else {
            all.push(error("clusters", format!("there is no cluster {name}, of {version}"), MERGE));
            continue;
        };
        let plain = rendered.iter().find(|one| one.text_at("name") == Some(name));
        let wrong = plain.map(|plain| mismatches(found, plain, version)).unwrap_or_default();
        let fix = "mend the cluster, or local.versions; leave it where something stands between";
        all.extend(wrong.into_iter().map(|message| warning("clusters", message, fix)));
    }
    all
}

fn flag_service(file: &File, filter: &FilterConfig, facts: &Facts, rendered: &[Node]) -> Option<Finding> {
    let name = &filter.cluster;
    let Some(found) = facts.config.cluster(name) else {
        let message = format!("there is no cluster {name}: the filter does not reach the flag service");
        return Some(error("clusters", message, MERGE));
    };
    let plain = rendered.iter().find(|one| one.text_at("name") == Some(name))?;
    let (leads, listens) = (addresses(found), addresses(plain));
    // Port 0 is any free one: nobody knows it from the file.
    (leads != listens && file.local.listen.port() != 0).then(|| {
        let (leads, listens) = (leads.join(", "), listens.join(", "));
        let message =
            format!("cluster {name} leads to {leads}, and the flag service listens on {listens} (local.listen)");
        error("clusters", message, "mend one of them")
    })
}

/// Whether Envoy has taken the filter's file, which says nothing of itself when it has not.
fn loaded(filter: &FilterConfig, facts: &Facts) -> Option<Finding> {
    let why = facts.filter_loaded().err()?;
    let (path, wasm) = (filter.path.display(), filter.wasm.display());
    let message = format!("Envoy has not taken the filter from {path}: {why}");
    let fix = format!("Envoy's log says why: the controller has to run, and {wasm} has to be the filter");
    Some(error("filter", message, fix))
}

/// Another flag in the same filter that has a host of this one; or only others.
fn flags(file: &File, facts: &Facts, service: &Service) -> Vec<Finding> {
    let name = &file.metadata.name;
    let own = service.hosts();
    let mut all = vec![];
    if !facts.flags.is_empty() && !facts.flags.contains_key(name) {
        let names = facts.flags.keys().cloned().collect::<Vec<_>>().join(", ");
        let message = format!("the filter has the flag {names}, and not {name}");
        all.push(error("flags", message, "is the file the one that the controller runs with?"));
    }
    for (other, hosts) in facts.flags.iter().filter(|(other, _)| *other != name) {
        let both: BTreeSet<&String> = hosts.iter().filter(|host| own.iter().any(|one| is_host(host, one))).collect();
        if !both.is_empty() {
            let hosts = both.into_iter().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("the flags {name} and {other} both have {hosts}");
            all.push(error("flags", message, "leave each host to one of them"));
        }
    }
    all
}
