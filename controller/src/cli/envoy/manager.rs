//! The filter in a connection manager, and what stands before and behind it. Pure.

use super::node::Node;

/// The name that the controller's file has the filter under: Envoy takes it by no other.
pub(in crate::cli) const FILTER: &str = "versionflag";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

const WASM: &str = "http.wasm.v3.Wasm";

/// HTTP filters that may change `:authority`, or a header, by what their type ends with.
const REWRITE: [&str; 7] = [
    "http.lua.v3.Lua",
    WASM,
    "http.ext_proc.v3.ExternalProcessor",
    "http.ext_authz.v3.ExtAuthz",
    "http.header_mutation.v3.HeaderMutation",
    "http.golang.v3alpha.Config",
    "http.dynamic_modules.v3.DynamicModuleFilter",
];

/// The type of an HTTP filter, wherever it comes from.
pub(in crate::cli) fn kind(filter: &Node) -> &str {
    let discovered = || filter.list_at("config_discovery/type_urls").first().and_then(|one| one.text_at(""));
    filter.text_at("typed_config/@type").or_else(discovered).unwrap_or_default()
}

fn is_router(filter: &Node) -> bool {
    kind(filter).ends_with(ROUTER)
}

/// Whether it is the filter of a flag by its name.
pub(in crate::cli) fn is_ours(filter: &Node) -> bool {
    filter.text_at("name") == Some(FILTER)
}

/// The filters behind ours that may change what it has looked at.
pub(in crate::cli) fn rewriting_behind(filters: &[Node]) -> Vec<&str> {
    let behind = filters.iter().skip_while(|one| !is_ours(one)).skip(1);
    let rewriting = behind.filter(|one| REWRITE.iter().any(|end| kind(one).ends_with(end)));
    rewriting.map(|one| one.text_at("name").unwrap_or_default()).collect()
}

/// Puts the filter directly before the router: behind whatever may rewrite a request. One that is there already stays
/// where it is.
pub(super) fn add_filter(manager: &mut Node, filter: &Node) -> Result<(), String> {
    let filters = manager.list_mut("http_filters").ok_or("its http_filters are no list")?;
    if let Some(old) = filters.iter_mut().find(|one| is_ours(one)) {
        if !kind(old).is_empty() && !kind(old).ends_with(WASM) {
            return Err(format!(
                "it has an HTTP filter named {FILTER} of another type ({}): give that one another name, because the \
                 filter of the flag has to have this one",
                kind(old)
            ));
        }
        if old != filter {
            *old = filter.clone();
        }
        return Ok(());
    }
    let router = filters
        .iter()
        .position(is_router)
        .ok_or("it has no router among its http_filters (envoy.filters.http.router): without it no route is taken")?;
    filters.insert(router, filter.clone());
    Ok(())
}

/// Whether Envoy itself takes the routing header of clients away.
pub(in crate::cli) fn removes_header(manager: &Node, header: &str) -> bool {
    let mut mutations = manager
        .list_at("early_header_mutation_extensions")
        .iter()
        .flat_map(|one| one.list_at("typed_config/mutations"));
    mutations.any(|one| one.text_at("remove").is_some_and(|name| name.eq_ignore_ascii_case(header)))
}

/// Has Envoy take the routing header of clients away, where it does not yet.
pub(super) fn remove_header(manager: &mut Node, extensions: &[Node], header: &str) {
    if !removes_header(manager, header)
        && let Some(all) = manager.list_mut("early_header_mutation_extensions")
    {
        all.extend(extensions.iter().cloned());
    }
}

/// Whether a connection manager, or a route, lets WebSockets through.
pub(in crate::cli) fn allows_websocket(upgrades: &[Node]) -> bool {
    let is_one = |one: &&Node| one.text_at("upgrade_type").is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
    upgrades.iter().find(is_one).is_some_and(|one| one.find("enabled").is_none() || one.is_true("enabled"))
}
