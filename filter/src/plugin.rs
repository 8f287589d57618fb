//! Whose request is it? Envoy would tell with a call for each request, which costs more than
//! anything that we do; so it is found out only where it matters. Hostcalls.

use std::rc::Rc;

use flag::config::{FlagService, Role, Workload};
use flag::record::Record;

use crate::hostcalls;
use crate::request::property;

/// What a plugin's requests need of its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) role: Role,
    pub(crate) header: String,
    /// The routing headers of other plugins of its name.
    pub(crate) other_headers: Vec<String>,
    pub(crate) workload: Option<Workload>,
}

/// One plugin's part in the VM.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// As Envoy's configuration calls it.
    pub(crate) name: String,
    /// As it is configured.
    pub(crate) own: Settings,
    /// As its requests are treated: see [`merge`].
    pub(crate) settings: Rc<Settings>,
    pub(crate) flags: Vec<Record>,
    pub(crate) service: Option<FlagService>,
}

/// Whether the request in context came to a listener for inbound traffic. A plugin is not told.
#[inline(never)]
pub(crate) fn is_inbound() -> bool {
    const INBOUND: u8 = 1;
    hostcalls::property("xds\0listener_direction").is_some_and(|bytes| bytes.first() == Some(&INBOUND))
}

/// Whether nothing tells the requests of two plugins apart.
fn alike(one: &Plugin, other: &Plugin) -> bool {
    one.name == other.name && (one.own.role == Role::Inbound) == (other.own.role == Role::Inbound)
}

/// Envoy goes back to a plugin that still drains, and does not say so, when its configuration comes again. So what one
/// plugin does to its requests is done to those of all that are alike: each header is set, and taken away if one of
/// them is an edge. Otherwise the newest, the last one, decides.
pub(crate) fn merge(plugins: &mut [(u32, Plugin)]) {
    let merged = |of: &Plugin| {
        let mut merged = of.own.clone();
        for (_, Plugin { own, .. }) in plugins.iter().filter(|(_, plugin)| alike(plugin, of)) {
            let role = if merged.role == Role::Edge { Role::Edge } else { own.role };
            let mut other_headers = std::mem::take(&mut merged.other_headers);
            other_headers.push(std::mem::take(&mut merged.header));
            other_headers.retain(|known| *known != own.header);
            merged = Settings { role, other_headers, ..own.clone() };
        }
        Rc::new(merged)
    };
    let all: Vec<Rc<Settings>> = plugins.iter().map(|(_, plugin)| merged(plugin)).collect();
    for ((_, plugin), settings) in plugins.iter_mut().zip(all) {
        plugin.settings = settings;
    }
}

/// The settings that all plugins have, the newest of which is the last.
pub(crate) fn common(plugins: &[(u32, Plugin)]) -> Option<Rc<Settings>> {
    let (_, newest) = plugins.last()?;
    let same = plugins.iter().all(|(_, plugin)| plugin.settings == newest.settings);
    same.then(|| Rc::clone(&newest.settings))
}

/// The settings of the plugin that the request in context belongs to: by the plugin's name, then by
/// the listener's direction.
#[cold]
pub(crate) fn of_request(plugins: &[(u32, Plugin)]) -> Option<Rc<Settings>> {
    let mut alike: Vec<&Rc<Settings>> = plugins.iter().map(|(_, plugin)| &plugin.settings).collect();
    let name = property("plugin_name").unwrap_or_default();
    if plugins.iter().any(|(_, plugin)| plugin.name == name) {
        alike = plugins.iter().filter(|(_, plugin)| plugin.name == name).map(|(_, plugin)| &plugin.settings).collect();
    }
    let observes = |settings: &&Rc<Settings>| settings.role == Role::Inbound;
    if alike.iter().any(observes) && !alike.iter().all(observes) {
        let inbound = is_inbound();
        alike.retain(|settings| observes(settings) == inbound);
    }
    let edge = alike.iter().rfind(|settings| settings.role == Role::Edge);
    edge.or(alike.last()).map(|settings| Rc::clone(settings))
}

/// Says so where requests of two plugins cannot be told apart.
pub(crate) fn warn_of_twins(plugins: &[(u32, Plugin)]) {
    let Some(((_, newest), others)) = plugins.split_last() else { return };
    let twin = |(_, other): &&(u32, Plugin)| alike(other, newest) && other.own != newest.own;
    if others.iter().any(|other| twin(&other)) {
        log::warn!(
            "another plugin named {} has another role, header or workload: until it is gone its requests are \
             treated like those of this one. Plugins that are to stay need names of their own",
            flag::quoted(&newest.name)
        );
    }
}
