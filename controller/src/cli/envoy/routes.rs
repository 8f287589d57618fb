//! The routes of a virtual host, once for each version of a flag. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flag::route;

use super::manager::FILTER;
use super::node::Node;

/// What the routes of one service of a flag are to say.
#[derive(Debug)]
pub(in crate::cli) struct Wanted {
    /// Name of the flag.
    pub(in crate::cli) flag: String,
    /// The routing header.
    pub(in crate::cli) header: String,
    /// The cluster of each version.
    pub(in crate::cli) clusters: BTreeMap<String, String>,
    /// Every cluster of every version.
    pub(in crate::cli) all: BTreeSet<String>,
    /// Cluster of the version that serves what has no header.
    pub(in crate::cli) default: String,
    /// Whether WebSockets are let through.
    pub(in crate::cli) websocket: bool,
}

/// What became of one route, or why it was left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Told {
    /// It led to this cluster for every request, and goes by the flag now.
    ByVersion { route: String, cluster: String },
    /// It went by the flag before, and what it says was brought up to date.
    Renewed { route: String },
    /// What has no header goes elsewhere now.
    Default { route: String, from: String, to: String },
    /// Its requests are mirrored to this cluster whatever the flag says.
    Mirror { route: String, cluster: String },
    /// The filter is switched off there.
    Unfiltered { place: String },
    /// It is for one version only, and nothing that it was made from follows it.
    Orphan { route: String },
    /// It is left as it is for this reason.
    Left { route: String, why: String },
}

/// What that comes to.
pub(in crate::cli) const UNFILTERED: &str =
    "its requests go to the version of the default route, uncounted, and fail once that is removed";

/// Where a route names a cluster.
const SINGLE: &str = "route/cluster";
const WEIGHTED: &str = "route/weighted_clusters/clusters";

/// The clusters that a route leads to by their names.
pub(in crate::cli) fn destinations(route: &Node) -> Vec<&str> {
    let weighted = route.list_at(WEIGHTED).iter().filter_map(|one| one.text_at("name"));
    route.text_at(SINGLE).into_iter().chain(weighted).collect()
}

impl Wanted {
    /// Whether a route leads to a version.
    pub(in crate::cli) fn leads_here(&self, route: &Node) -> bool {
        destinations(route).iter().any(|cluster| self.all.contains(*cluster))
    }

    /// Puts another cluster in the place of each one of the flag.
    fn lead(&self, route: &mut Node, cluster: &str) {
        let is_other = |name: Option<&str>| name.is_some_and(|name| name != cluster && self.all.contains(name));
        if is_other(route.text_at(SINGLE))
            && let Some(action) = route.find_mut("route")
        {
            action.set("cluster", cluster.into());
        }
        for index in 0..route.list_at(WEIGHTED).len() {
            let one = route.find_mut(&format!("{WEIGHTED}/{index}"));
            if let Some(one) = one.filter(|one| is_other(one.text_at("name"))) {
                one.set("name", cluster.into());
            }
        }
    }

    /// The name by which the filter knows which versions the routes resolve, after a name that it has.
    fn name(&self, route: &Node) -> String {
        let versions = route::name_of_versions(&self.flag, self.clusters.keys().map(String::as_str));
        match self.own_name(route) {
            "" => versions,
            own => format!("{own}.{versions}"),
        }
    }

    /// The name that somebody gave to a route.
    fn own_name<'a>(&self, route: &'a Node) -> &'a str {
        let name = route.text_at("name").unwrap_or_default();
        let own = name.split_once(&self.mark()).map(|(own, _)| own);
        own.map_or(name, |own| own.strip_suffix('.').unwrap_or(own))
    }

    /// What names of routes of this flag have.
    fn mark(&self) -> String {
        format!("{}:", route::name_of_versions(&self.flag, []).trim_end_matches(':'))
    }

    /// Whether a route is for one version only.
    fn has_header(&self, route: &Node) -> bool {
        let headers = route.list_at("match/headers");
        headers.iter().any(|one| one.text_at("name").is_some_and(|name| name.eq_ignore_ascii_case(&self.header)))
    }

    /// Whether a route was made here from the one that comes after it.
    fn is_copy(&self, route: &Node) -> bool {
        self.has_header(route) && route.text_at("name").is_some_and(|name| name.contains(&self.mark()))
    }

    /// The route for one version.
    fn copy(&self, base: &Node, version: &str, cluster: &str) -> Node {
        let mut copy = base.fresh();
        self.lead(&mut copy, cluster);
        let exact = Node::map([("exact", version.into())]);
        let header = Node::map([("name", self.header.as_str().into()), ("string_match", exact)]);
        if let Some(condition) = copy.map_mut("match")
            && let Some(headers) = condition.list_mut("headers")
        {
            headers.push(header);
        }
        copy
    }

    fn allow_websocket(&self, route: &mut Node) {
        let is_one =
            |one: &Node| one.text_at("upgrade_type").is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
        if self.websocket
            && let Some(upgrades) = route.find_mut("route").and_then(|action| action.list_mut("upgrade_configs"))
            && !upgrades.iter().any(is_one)
        {
            upgrades.push(Node::map([("upgrade_type", "websocket".into())]));
        }
    }

    /// Has every route that leads to a version go by the flag: one for each version, with the settings of that route,
    /// before the route itself, which serves requests without a version.
    pub(in crate::cli) fn by_version(&self, virtual_host: &mut Node) -> Vec<Told> {
        let name = virtual_host.text_at("name").unwrap_or("without a name").to_owned();
        let is_off = is_unfiltered(virtual_host);
        let Some(routes) = virtual_host.list_mut("routes") else { return vec![] };
        let (mut made, mut copies, mut told) = (vec![], vec![], vec![]);
        if is_off && routes.iter().any(|route| self.leads_here(route)) {
            told.push(Told::Unfiltered { place: format!("virtual host {name}") });
        }
        for (index, route) in std::mem::take(routes).into_iter().enumerate() {
            let called = called(&route, &name, index);
            if self.is_copy(&route) {
                copies.push(route);
                continue;
            }
            if self.leads_here(&route) && !self.has_header(&route) {
                self.split(route, called, &mut copies, &mut made, &mut told);
                continue;
            }
            // Whose route they were made from is gone.
            told.extend(copies.iter().map(orphan));
            made.append(&mut copies);
            told.extend(self.mirror(&route, &called));
            told.extend(self.why_left(&route).map(|why| left(called, &why)));
            made.push(route);
        }
        told.extend(copies.iter().map(orphan));
        made.append(&mut copies);
        *routes = made;
        told
    }

    /// One route becomes one for each version, and itself. `copies` are those of it that are there already.
    fn split(
        &self,
        mut route: Node,
        called: String,
        copies: &mut Vec<Node>,
        made: &mut Vec<Node>,
        told: &mut Vec<Told>,
    ) {
        let (from, name, found) =
            (destinations(&route).join(", "), route.text_at("name").map(str::to_owned), copies.len());
        self.allow_websocket(&mut route);
        route.set("name", self.name(&route).as_str().into());
        let mut kept = 0;
        for (version, cluster) in &self.clusters {
            let copy = self.copy(&route, version, cluster);
            // What says the same stays, with its comments.
            let old = copies.iter().position(|old| *old == copy).map(|index| copies.remove(index));
            kept += usize::from(old.is_some());
            made.push(old.unwrap_or(copy));
        }
        self.lead(&mut route, &self.default);
        let to = destinations(&route).join(", ");
        if found == 0 {
            told.push(Told::ByVersion { route: called.clone(), cluster: from.clone() });
        } else if kept < self.clusters.len() || !copies.is_empty() || name.as_deref() != route.text_at("name") {
            told.push(Told::Renewed { route: called.clone() });
        }
        if from != to {
            told.push(Told::Default { route: called.clone(), from, to });
        }
        told.extend(self.mirror(&route, &called));
        let parts = route
            .list_at(WEIGHTED)
            .iter()
            .filter(|one| one.text_at("name").is_some_and(|name| self.all.contains(name)));
        if [&route].into_iter().chain(parts).any(is_unfiltered) {
            told.push(Told::Unfiltered { place: called });
        }
        copies.clear();
        made.push(route);
    }

    /// Whether requests of a route are mirrored to a version.
    fn mirror(&self, route: &Node, called: &str) -> Option<Told> {
        let mut mirrors =
            route.list_at("route/request_mirror_policies").iter().filter_map(|one| one.text_at("cluster"));
        let cluster = mirrors.find(|cluster| self.all.contains(*cluster))?.to_owned();
        Some(Told::Mirror { route: called.to_owned(), cluster })
    }

    /// Why a route that could matter is not changed.
    fn why_left(&self, route: &Node) -> Option<String> {
        if self.leads_here(route) {
            return Some(format!("it looks at {} by itself", self.header));
        }
        let why = |field: &str, why: &str| route.find(field).is_some().then(|| why.to_owned());
        why("redirect", "it redirects")
            .or_else(|| why("direct_response", "it answers by itself"))
            .or_else(|| why("route/cluster_header", "a header names its cluster (cluster_header)"))
            .or_else(|| why("route/cluster_specifier_plugin", "a plugin chooses its cluster"))
            .or_else(|| why("route/inline_cluster_specifier_plugin", "a plugin chooses its cluster"))
            .or_else(|| match destinations(route).as_slice() {
                [] => None,
                some => Some(format!("it leads to {}, which is no version of the flag", some.join(", "))),
            })
    }
}

/// A route table for all of which the filter is switched off.
pub(in crate::cli) fn switched_off(table: &Node) -> Option<Told> {
    let name = table.text_at("name").unwrap_or("without a name");
    is_unfiltered(table).then(|| Told::Unfiltered { place: format!("route table {name}") })
}

/// Whether this filter is switched off for what a part of the routes says.
fn is_unfiltered(part: &Node) -> bool {
    let all = part.find("typed_per_filter_config");
    all.and_then(|all| all.exactly(FILTER)).is_some_and(|settings| settings.is_true("disabled"))
}

fn orphan(copy: &Node) -> Told {
    Told::Orphan { route: format!("route {:?}", copy.text_at("name").unwrap_or_default()) }
}

fn left(route: String, why: &str) -> Told {
    Told::Left { route, why: why.to_owned() }
}

/// How people find a route.
pub(in crate::cli) fn called(route: &Node, virtual_host: &str, index: usize) -> String {
    let condition = ["prefix", "path", "path_separated_prefix", "safe_regex/regex"];
    let by = condition.iter().find_map(|field| route.text_at(&format!("match/{field}"))).unwrap_or_default();
    format!("route {} ({by}) of virtual host {virtual_host}", index + 1)
}
