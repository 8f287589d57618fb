//! What two flags of one controller may not share. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flag::host::normalize;

use super::file::{File, FilterConfig};

/// Everything that flags claim of one another, as they stand in files: the number of the later flag, and a sentence
/// about it.
pub(crate) fn clashes(all: &[(&Path, &File)]) -> Vec<(usize, String)> {
    let mut found = vec![];
    for (index, (_, about)) in all.iter().enumerate() {
        for (path, other) in all.iter().take(index) {
            found.extend(between(about, other, path).into_iter().map(|sentence| (index, sentence)));
        }
    }
    found
}

/// What a flag claims of another one, which stands in the file at `path`, in sentences about the first.
pub(crate) fn between(about: &File, other: &File, path: &Path) -> Vec<String> {
    let (name, who) = (&about.metadata.name, format!("{} ({})", other.metadata.name, path.display()));
    if *name == other.metadata.name {
        return vec![format!("metadata.name {name:?} is that of another flag in {}: rename one", path.display())];
    }
    let mut wrong = vec![];
    let (local, others) = (&about.local, &other.local);
    if local.state_file == others.state_file {
        let state = local.state_file.display();
        wrong.push(format!("local.stateFile is {state} for {who} too: each flag needs its own"));
    }
    if local.listen != others.listen {
        let (this, that) = (local.listen, others.listen);
        wrong.push(format!(
            "local.listen is {this}, and {that} for {who}: one controller has one flag service, so write the same \
             in both"
        ));
    }
    let hosts = about.spec.services.iter().flat_map(|service| service.hosts());
    // As Envoy and the filter tell them apart.
    let theirs: Vec<String> = other.spec.services.iter().flat_map(|service| service.hosts()).collect();
    let taken = |host: &String| theirs.iter().any(|one| normalize(one) == normalize(host));
    wrong.extend(
        hosts.filter(taken).map(|host| format!("spec.services.hosts {host:?} is a host of {who} too: leave it to one")),
    );
    for (version, how) in &local.versions {
        if let Some((that, _)) = others.versions.iter().find(|(_, that)| that.address == how.address) {
            let address = how.address;
            wrong.push(format!(
                "local.versions.{version}.address {address} is that of version {that} of {who}: give one another port"
            ));
        }
    }
    for proxy in &local.proxies {
        if others.proxies.iter().any(|one| one.id == proxy.id && one.token != proxy.token) {
            let id = &proxy.id;
            wrong.push(format!(
                "local.proxies.id {id:?} has another token in {who}: a proxy shows one, so write the same"
            ));
        }
    }
    wrong.extend(files(about, other, &who));
    wrong
}

/// What a file is to proxies: for an Envoy that reads it, two of these never look the same.
fn kinds(file: &File) -> BTreeMap<&PathBuf, &'static str> {
    let filter = file.local.filter_config.as_ref();
    let named = filter.map(|filter| (&filter.path, "filterConfig.path"));
    let routes = filter.and_then(|filter| Some((filter.routes.as_ref()?, "filterConfig.routes")));
    let clusters = filter.and_then(|filter| Some((filter.clusters.as_ref()?, "filterConfig.clusters")));
    let sidecars = file.local.sidecars().map(|sidecar| (&sidecar.filter, "proxies.sidecar.filter"));
    named.into_iter().chain(routes).chain(clusters).chain(sidecars).collect()
}

/// The files of proxies that both write, and what has to be the same, or different, for that.
fn files(about: &File, other: &File, who: &str) -> Vec<String> {
    let (ours, theirs) = (kinds(about), kinds(other));
    let shared: Vec<_> = ours.iter().filter_map(|(path, kind)| Some((path, *kind, *theirs.get(*path)?))).collect();
    let mut wrong = vec![];
    for (path, kind, that) in &shared {
        if kind != that || *kind == "proxies.sidecar.filter" {
            let path = path.display();
            wrong.push(format!("local.{kind} is {path}, which is local.{that} of {who}: give one another file"));
        }
    }
    if shared.is_empty() {
        return wrong;
    }
    // What Envoy, and the filter, tell apart by name.
    let names = |file: &File| -> Vec<String> { file.spec.services.iter().map(|one| one.name.clone()).collect() };
    let (services, clusters) = (names(other), cluster_names(other));
    let sharing = |what: &str| format!("spec.services.{what} of {who} too, which has the same Envoy: rename one");
    let twice = names(about).into_iter().filter(|name| services.contains(name));
    let named: Vec<String> = twice.map(|name| sharing(&format!("name {name:?} is a service"))).collect();
    // Clusters have the names of services by default.
    let twice = cluster_names(about).into_iter().filter(|name| named.is_empty() && clusters.contains(name));
    let clusters: Vec<String> = twice.map(|name| sharing(&format!("clusters {name:?} is a cluster"))).collect();
    wrong.extend(named.into_iter().chain(clusters));
    if let (Some(ours), Some(theirs)) = (&about.local.filter_config, &other.local.filter_config)
        && ours.path == theirs.path
    {
        wrong.extend(filters(ours, theirs, who));
        let (header, that) = (&about.spec.routing.header, &other.spec.routing.header);
        if header != that {
            wrong.push(format!(
                "spec.routing.header is {header}, and {that} for {who}, which has the same filter: write the same in \
                 both"
            ));
        }
    }
    wrong
}

fn cluster_names(file: &File) -> Vec<String> {
    let services = file.spec.services.iter();
    services.flat_map(|service| file.clusters(service).into_values().flatten().collect::<Vec<_>>()).collect()
}

/// One file of a filter has one content.
fn filters(ours: &FilterConfig, theirs: &FilterConfig, who: &str) -> Vec<String> {
    let fields = [
        ("wasm", ours.wasm != theirs.wasm),
        ("cluster", ours.cluster != theirs.cluster),
        ("role", ours.role != theirs.role),
        ("routes", ours.routes != theirs.routes),
        ("clusters", ours.clusters != theirs.clusters),
    ];
    let differ = fields.iter().filter(|(_, differs)| *differs);
    let sentence = |(field, _): &(&str, bool)| {
        format!(
            "local.filterConfig.{field} is another one for {who}, which has the same filterConfig.path: write the same \
             in both"
        )
    };
    differ.map(sentence).collect()
}

#[cfg(test)]
mod tests;
