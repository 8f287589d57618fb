//! Whose request is it? Envoy would tell with a call for each request, which costs more than
//! anything that we do; so it is found out only where it matters. Hostcalls.

use std::rc::Rc;

use flag::config::{FlagService, Role, Workload};
use flag::record::Record;

use crate::hostcalls;
use crate::request::property;

/// What a plugin's requests need of its configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) role: Role,
    pub(crate) header: String,
    pub(crate) workload: Option<Workload>,
}

/// One plugin's part in the VM.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// As Envoy's configuration calls it.
    pub(crate) name: String,
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

/// The settings that all plugins have, the newest of which is the last.
pub(crate) fn common(plugins: &[(u32, Plugin)]) -> Option<Rc<Settings>> {
    let (_, newest) = plugins.last()?;
    let same = plugins.iter().all(|(_, plugin)| plugin.settings == newest.settings);
    same.then(|| Rc::clone(&newest.settings))
}

/// The settings of the plugin that the request in context belongs to: by the plugin's name, then by
/// the listener's direction. Of those that are still alike the newest has replaced the others, or
/// will have once they have drained; but what one edge takes away from clients is taken away.
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
    let twin = |(_, other): &&(u32, Plugin)| {
        let roles = (other.settings.role == Role::Inbound) == (newest.settings.role == Role::Inbound);
        other.name == newest.name && roles && other.settings != newest.settings
    };
    if others.iter().any(|other| twin(&other)) {
        log::warn!(
            "another plugin named {} has another role, header or workload: until it is gone its requests are \
             treated like those of this one. Plugins that are to stay need names of their own",
            flag::quoted(&newest.name)
        );
    }
}
