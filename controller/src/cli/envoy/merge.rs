//! Puts what a flag needs into a configuration of somebody's, and leaves all else as it is. Pure.

use std::collections::BTreeSet;

use local::file::File;
use machine::spec::Service;

use super::cluster;
use super::config::{Config, Spot, Table};
use super::flag::{Pieces, Served, past, pieces, served, unserved, wanted};
use super::manager::{add_filter, allows_websocket, remove_header, rewriting_behind};
use super::routes::{Told, UNFILTERED, Wanted, switched_off};

/// What somebody may say besides the two files.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Choice {
    /// Which of local.proxies the configuration is of.
    pub(in crate::cli) proxy: Option<String>,
    /// Names of the listeners that are changed, where several serve the hosts.
    pub(in crate::cli) listeners: Vec<String>,
    /// Whether routes of the flag let WebSockets through.
    pub(in crate::cli) websocket: bool,
}

/// A sentence about what was done, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Note {
    Done(String),
    /// Left as it is, which is right as far as can be seen.
    Left(String),
    /// Somebody has to look at it.
    Look(String),
}

/// The configuration with all that the flag needs, and what is to be said of it; or why it cannot be, and what to do.
pub(in crate::cli) fn merge(
    file: &File,
    mut config: Config,
    choice: &Choice,
) -> Result<(Config, Vec<Note>), Vec<String>> {
    let one = |why: String| vec![why];
    let mut notes = vec![];
    check_file(file).map_err(one)?;
    let pieces = pieces(file, proxy(file, &config, choice).map_err(one)?.as_deref()).map_err(one)?;
    let mut targets = vec![];
    let mut refused = vec![];
    for service in &file.spec.services {
        let wanted = wanted(file, service, choice.websocket).map_err(one)?;
        match chosen(&config, &wanted, service, choice) {
            Ok(found) => targets.push((service, wanted, found)),
            Err(why) => refused.push(why),
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    add_node(file, &mut config, &pieces, &mut notes);
    for (service, wanted, found) in &targets {
        notes.extend(
            past(&config, wanted, service, found)
                .into_iter()
                .chain(unserved(&config, service, found))
                .map(|(what, fix)| Note::Look(format!("{what}: {fix}"))),
        );
        for one in found {
            add_to_manager(&mut config, one, wanted, &pieces, &mut notes).map_err(|why| vec![why])?;
        }
        let mut tables: Vec<&Served> = vec![];
        found.iter().for_each(|one| {
            if !tables.iter().any(|known| known.table == one.table) {
                tables.push(one);
            }
        });
        for one in tables {
            by_version(&mut config, one, wanted, &mut notes);
        }
        for (version, name) in &wanted.clusters {
            add_cluster(&mut config, wanted, (version, name), &pieces, &mut notes);
        }
    }
    add_flag_service(file, &mut config, &pieces, &mut notes);
    add_cluster_source(&mut config, &pieces, &mut notes);
    let mut said: Vec<Note> = vec![];
    notes.into_iter().for_each(|note| {
        if !said.contains(&note) {
            said.push(note);
        }
    });
    Ok((config, said))
}

fn check_file(file: &File) -> Result<(), String> {
    match &file.local.filter_config {
        None => Err("local.filterConfig is missing: without it the controller writes no filter for Envoy to read".to_owned()),
        Some(filter) if filter.routes.is_some() => Err(
            "local.filterConfig.routes is a route table that the controller writes for a listener of the flag alone: leave \
             it out, because the routes are those of your configuration"
                .to_owned(),
        ),
        Some(_) => Ok(()),
    }
}

/// Whose configuration it is: the one that was named, or the one that has the node id.
fn proxy(file: &File, config: &Config, choice: &Choice) -> Result<Option<String>, String> {
    let id = config.bootstrap().and_then(|tree| tree.text_at("node/id"));
    let listed = |id: &str| file.local.proxies.iter().find(|proxy| proxy.id == id);
    let chosen = choice.proxy.as_deref().or(id.filter(|id| listed(id).is_some()));
    let proxy = match chosen {
        Some(id) => listed(id),
        None => file.local.proxies.first(),
    };
    if let Some(proxy) = proxy.filter(|proxy| proxy.sidecar.is_some()) {
        let id = &proxy.id;
        return Err(format!(
            "{id} stands in front of one version: print its whole configuration with `versionflag render envoy --proxy \
             {id}`, or name another one of local.proxies with --proxy"
        ));
    }
    Ok(chosen.map(str::to_owned).or_else(|| proxy.map(|proxy| proxy.id.clone())))
}

/// The connection managers that are changed for a service.
fn chosen(config: &Config, wanted: &Wanted, service: &Service, choice: &Choice) -> Result<Vec<Served>, String> {
    let hosts = service.hosts().into_iter().collect::<Vec<_>>().join(", ");
    let clusters = wanted.all.iter().cloned().collect::<Vec<_>>().join(", ");
    let all = served(config, wanted, service);
    let names: BTreeSet<String> = all.iter().map(|one| one.manager.listener.clone()).collect();
    if let Some(unknown) =
        choice.listeners.iter().find(|name| !config.managers().iter().any(|one| one.listener == **name))
    {
        return Err(format!("--listener {unknown}: no listener of that name speaks HTTP"));
    }
    if all.is_empty() {
        let elsewhere = config.managers().into_iter().find_map(|one| match one.table {
            Table::Elsewhere(why) => Some(format!("listener {}: {why}: its routes cannot be merged", one.listener)),
            Table::Here(_) => None,
        });
        let why = elsewhere.map(|why| format!("; {why}")).unwrap_or_default();
        return Err(format!(
            "no virtual host that serves {hosts} leads to one of {clusters}{why}. Name the cluster that serves now in \
             spec.services[].clusters.{}, or give the host a route to it",
            wanted.clusters.iter().find(|(_, name)| **name == wanted.default).map_or("VERSION", |(version, _)| version)
        ));
    }
    let is_chosen = |one: &Served| choice.listeners.is_empty() || choice.listeners.contains(&one.manager.listener);
    let listed = names.iter().cloned().collect::<Vec<_>>().join(", ");
    if choice.listeners.is_empty() && names.len() > 1 {
        let options: Vec<String> = names.iter().map(|name| format!("--listener {name}")).collect();
        return Err(format!(
            "several listeners serve {hosts}: {listed}. Say which ones are to go by the flag: {}",
            options.join(" ")
        ));
    }
    let found: Vec<Served> = all.into_iter().filter(is_chosen).collect();
    if found.is_empty() {
        return Err(format!("no listener that was named serves {hosts}: {listed} does"));
    }
    Ok(found)
}

fn add_node(file: &File, config: &mut Config, pieces: &Pieces, notes: &mut Vec<Note>) {
    let Some(source) = config.files.first_mut() else { return };
    let Some(node) = source.tree.map_mut("node") else { return };
    match node.text_at("id").map(str::to_owned) {
        Some(id) if file.local.proxies.iter().any(|proxy| proxy.id == id) => {}
        Some(id) => notes.push(Note::Look(format!(
            "node id {id} is none of local.proxies: list it there, because what it reports is refused otherwise"
        ))),
        None => {
            for (field, value) in pieces.node.entries() {
                if node.find(field).is_none() {
                    node.set(field, value.clone());
                }
            }
            let id = node.text_at("id").unwrap_or_default();
            notes.push(Note::Done(format!("node id {id}, unless Envoy is started with --service-node")));
        }
    }
}

fn add_to_manager(
    config: &mut Config,
    one: &Served,
    wanted: &Wanted,
    pieces: &Pieces,
    notes: &mut Vec<Note>,
) -> Result<(), String> {
    let listener = &one.manager.listener;
    let Some(manager) = config.at_mut(&one.manager.spot) else { return Ok(()) };
    add_filter(manager, &pieces.filter).map_err(|why| format!("listener {listener}: {why}"))?;
    remove_header(manager, &pieces.header, &wanted.header);
    let behind = rewriting_behind(manager.list_at("http_filters")).join(", ");
    if !behind.is_empty() {
        notes.push(Note::Look(format!(
            "listener {listener}: {behind} is behind the filter: if it changes :authority or {}, put versionflag behind it",
            wanted.header
        )));
    }
    if !wanted.websocket && !allows_websocket(manager.list_at("upgrade_configs")) {
        notes.push(Note::Left(format!(
            "listener {listener} lets no WebSockets through (upgrade_configs): --websocket has the routes of the flag do so"
        )));
    }
    Ok(())
}

fn by_version(config: &mut Config, one: &Served, wanted: &Wanted, notes: &mut Vec<Note>) {
    let hosts = one.virtual_hosts.iter().flat_map(|index| {
        let spot = Spot::below(&one.table, &format!("virtual_hosts/{index}"));
        config.at_mut(&spot).map(|host| wanted.by_version(host)).unwrap_or_default()
    });
    let mut told: Vec<Told> = hosts.collect();
    told.extend(config.at(&one.table).and_then(switched_off));
    notes.extend(told.into_iter().map(|told| match told {
        Told::ByVersion { route, cluster } => {
            Note::Done(format!("{route}, which leads to {cluster}, goes by the version"))
        }
        Told::Renewed { route } => Note::Done(format!(
            "{route} is brought up to date for each version: what differed in a route for one version is as in the one \
                 without"
        )),
        Told::Default { route, from, to } => {
            Note::Done(format!("{route} leads to {to} without a version, where it led to {from}"))
        }
        Told::Mirror { route, cluster } => {
            Note::Look(format!("{route} is mirrored to {cluster} whatever the flag says"))
        }
        Told::Unfiltered { place } => Note::Look(format!("the filter is switched off for {place}: {UNFILTERED}")),
        Told::Orphan { route } => Note::Look(format!(
            "{route} is for one version, and takes requests before the routes behind it: take it away if it was \
                 pasted here"
        )),
        Told::Left { route, why } => Note::Left(format!("{route}: {why}")),
    }));
}

/// Adds the cluster of a version where there is none: as that of another version is, where there is one.
fn add_cluster(
    config: &mut Config,
    wanted: &Wanted,
    (version, name): (&String, &String),
    pieces: &Pieces,
    notes: &mut Vec<Note>,
) {
    let plain = pieces.clusters.iter().find(|one| one.text_at("name") == Some(name));
    if let Some(found) = config.cluster(name) {
        let wrong = plain.map(|plain| cluster::mismatches(found, plain, version)).unwrap_or_default();
        notes.extend(wrong.into_iter().map(Note::Look));
        return;
    }
    let by_file = pieces.cluster_source.is_some() && !has_other_source(config, pieces);
    // What the controller's file has needs no place here.
    let Some(plain) = plain.filter(|_| !by_file) else { return };
    let siblings = [&wanted.default].into_iter().chain(&wanted.all);
    let sibling = siblings.filter_map(|name| config.cluster(name)).find(|one| one.find("cluster_type").is_none());
    let note = match sibling.and_then(|one| one.text_at("name")) {
        Some(other) => format!("cluster {name}, with the settings of {other} and the address of {version}"),
        None => format!("cluster {name}"),
    };
    let made = sibling.map_or_else(|| plain.clone(), |sibling| cluster::like(sibling, plain));
    notes.push(if cluster::add(config, made) {
        Note::Done(note)
    } else {
        Note::Look(format!("{note} cannot be added: the clusters are no list"))
    });
}

fn add_flag_service(file: &File, config: &mut Config, pieces: &Pieces, notes: &mut Vec<Note>) {
    let name = file.local.filter_config.as_ref().map_or("versionflag", |filter| filter.cluster.as_str());
    let Some(piece) = pieces.clusters.iter().find(|one| one.text_at("name") == Some(name)) else { return };
    match config.cluster(name) {
        Some(found) if cluster::addresses(found) != cluster::addresses(piece) => notes.push(Note::Look(format!(
            "cluster {name} leads to {}, and not to the flag service on {} (local.listen)",
            cluster::addresses(found).join(", "),
            file.local.listen
        ))),
        Some(_) => {}
        None => {
            if cluster::add(config, piece.clone()) {
                notes.push(Note::Done(format!("cluster {name}, the flag service")));
            }
        }
    }
}

/// Whether clusters come from somewhere else than the controller's file while Envoy runs.
fn has_other_source(config: &Config, pieces: &Pieces) -> bool {
    let found = config.bootstrap().and_then(|tree| tree.find("dynamic_resources/cds_config"));
    found.is_some() && found != pieces.cluster_source.as_ref()
}

/// Where clusters come from a file of the controller's, Envoy is told so.
fn add_cluster_source(config: &mut Config, pieces: &Pieces, notes: &mut Vec<Note>) {
    let Some(source) = &pieces.cluster_source else { return };
    if has_other_source(config, pieces) {
        return notes.push(Note::Left(
            "clusters come from elsewhere (cds_config): run this again for a version that is added later".to_owned(),
        ));
    }
    let Some(tree) = config.files.first_mut().map(|file| &mut file.tree) else { return };
    if tree.find("dynamic_resources/cds_config").is_none()
        && let Some(dynamic) = tree.map_mut("dynamic_resources")
    {
        dynamic.set("cds_config", source.clone());
        notes.push(Note::Done("clusters of versions from the file of the controller (cds_config)".to_owned()));
    }
}
