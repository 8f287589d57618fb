//! The filter as Istio delivers it: which flags it has in which namespace. Pure.

use crate::names::MANAGER;
use std::collections::{BTreeMap, BTreeSet};

use flag::PROTOCOL;
use flag::config::{Config, FlagService, Role};
use flag::record::Record;
use flag::snapshot::check_flags;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::object::{Kind, MeshObject, TrafficExtension};
use super::ours;
use super::routes::short_hash;
use machine::spec::Callers;

/// Where the filter is, and how it reaches the flag service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Its address: `oci://…`.
    pub url: Option<String>,
    /// Its SHA-256, unless the address has it.
    pub sha256: Option<String>,
    /// The secret to pull it with.
    pub pull_secret: Option<String>,
    /// The Envoy cluster of the flag service.
    pub cluster: String,
    /// Istio's root namespace.
    pub root: String,
}

impl Image {
    /// What is missing before anything can be delivered.
    pub fn problem(&self) -> Option<String> {
        let Some(url) = &self.url else {
            return Some("the controller does not know where the filter is: start it with --plugin-url".to_owned());
        };
        let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digest = url.split_once("@sha256:").map(|(_, digest)| digest).or(self.sha256.as_deref());
        if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
            return Some(format!("{digest:?} is no SHA-256: it has 64 digits from 0 to f"));
        }
        let pinned = digest.is_some();
        (!pinned)
            .then(|| format!("the filter {url} is not pinned: add @sha256:… to --plugin-url, or set --plugin-sha256"))
    }
}

/// The pods that one plugin is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Their namespace.
    pub namespace: String,
    /// Their labels; none: all of them.
    pub labels: BTreeMap<String, String>,
}

impl Target {
    /// That of a plugin as it is, if the controller wrote it.
    pub fn of<K: Kind>(found: &MeshObject<K>) -> Option<Target> {
        if !ours(found) {
            return None;
        }
        let selector = found.spec.pointer("/selector/matchLabels");
        let labels = selector.map_or_else(|| Ok(BTreeMap::new()), BTreeMap::deserialize).ok()?;
        let target = Target { namespace: found.namespace().to_owned(), labels };
        (target.name() == found.name_any()).then_some(target)
    }

    /// The name of its plugin.
    pub fn name(&self) -> String {
        if self.labels.is_empty() {
            return MANAGER.to_owned();
        }
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let hash = short_hash(&labels.join(","));
        format!("{MANAGER}-gateway-{hash}")
    }
}

/// The plugins that a flag of `namespace` has a part in. A gateway where all pods have the filter needs
/// none of its own.
pub fn targets(namespace: &str, callers: &Callers) -> BTreeSet<Target> {
    let everywhere = namespaces(namespace, callers);
    let all = |namespace: &String| Target { namespace: namespace.clone(), labels: BTreeMap::new() };
    let gateways = callers.gateways.iter().filter(|gateway| !everywhere.contains(gateway.namespace(namespace)));
    let gateways = gateways.map(|gateway| Target {
        namespace: gateway.namespace(namespace).to_owned(),
        labels: gateway.match_labels.clone(),
    });
    everywhere.iter().map(all).chain(gateways).collect()
}

/// The namespaces where every pod has the filter: that of the flag, whose pods observe what arrives, and
/// those of the callers.
pub fn namespaces(namespace: &str, callers: &Callers) -> BTreeSet<String> {
    callers.namespaces.iter().cloned().chain([namespace.to_owned()]).collect()
}

/// Why a flag may have no plugin where it asks for one: in Istio's root namespace that would be one for
/// all pods of all namespaces, who are not asked.
pub fn too_wide(namespace: &str, callers: &Callers, root: &str) -> Option<String> {
    namespaces(namespace, callers).contains(root).then(|| {
        format!("a plugin in {root}, Istio's root namespace, is for all namespaces: name gateways there in spec.callers.gateways")
    })
}

/// What one flag has in its plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// By this the oldest of several flags comes first.
    pub age: (Option<Timestamp>, String),
    /// The plugins.
    pub targets: BTreeSet<Target>,
    /// The routing header.
    pub header: String,
    /// The flag.
    pub record: Record,
}

/// The configuration of one plugin: the parts of all flags, and what it has of `frozen` ones, which exist
/// and have nothing to say yet. A part that cannot stand beside an older one is left out.
pub fn config<'a>(parts: impl IntoIterator<Item = &'a Part>, frozen: &[Record], cluster: &str) -> Option<Config> {
    let mut parts: Vec<&Part> = parts.into_iter().collect();
    parts.sort_by(|one, other| one.age.cmp(&other.age));
    let header = parts.first()?.header.clone();
    let fitting = parts.iter().filter(|part| part.header == header).map(|part| &part.record);
    let all: Vec<Record> = fitting.chain(frozen).cloned().collect();
    let mut flags: Vec<Record> = vec![];
    let mut checks = |flags: &[Record]| check_flags(flags).is_ok();
    take_fitting(&mut flags, &all, &mut checks);
    // Equal content has to be equal, whoever was asked first.
    flags.sort_by(|one, other| one.uid.cmp(&other.uid));
    Some(Config {
        protocol: PROTOCOL,
        role: Role::Auto,
        header,
        workload: None,
        service: Some(FlagService { cluster: cluster.to_owned(), authority: MANAGER.to_owned() }),
        first_answer_ms: 500,
        flags,
    })
}

/// Takes all of `more`, but those that do not fit beside an older one. Most often all do, which is asked once, and not
/// for each.
pub fn take_fitting<T: Clone>(taken: &mut Vec<T>, more: &[T], fit: &mut impl FnMut(&[T]) -> bool) {
    let before = taken.len();
    taken.extend(more.iter().cloned());
    if fit(taken) {
        return;
    }
    taken.truncate(before);
    if more.len() > 1 {
        let (first, second) = more.split_at(more.len() / 2);
        take_fitting(taken, first, fit);
        take_fitting(taken, second, fit);
    }
}

/// What is left in a plugin where no flag has a part, if a flag that had one has none now: its callers are
/// elsewhere. Who starts there does not choose a version any more, and goes by the routes without one, to the
/// active version, so that this is safe in a switch too. Who runs there goes on by the record that it has, until it
/// starts anew: what that leads to the old version arrives there, which keeps the old version. A flag that is gone
/// stays, and so does one that was not asked yet.
pub fn left<'a>(found: Config, target: &Target, parts: impl IntoIterator<Item = &'a Part> + Clone) -> Option<Config> {
    let is_left = |record: &Record| {
        let mut own = parts.clone().into_iter().filter(|part| part.record.name == record.name).peekable();
        own.peek().is_none() || own.any(|part| part.targets.contains(target))
    };
    let (flags, gone): (Vec<_>, Vec<_>) = found.flags.into_iter().partition(is_left);
    (!gone.is_empty()).then_some(Config { flags, ..found })
}

/// The spec of a plugin of kind `K`.
pub fn spec<K: Kind>(image: &Image, target: &Target, config: &Config) -> Value {
    let mut wasm = json!({
        "imagePullPolicy": "IfNotPresent",
        // Istio's default is that requests fail when the filter does.
        "failStrategy": "FAIL_OPEN",
        "pluginName": MANAGER,
        "pluginConfig": config,
    });
    for (field, value) in [("url", &image.url), ("sha256", &image.sha256), ("imagePullSecret", &image.pull_secret)] {
        if let (Some(fields), Some(value)) = (wasm.as_object_mut(), value) {
            fields.insert(field.to_owned(), json!(value));
        }
    }
    let mut spec = if K::KIND == TrafficExtension::KIND { json!({ "wasm": wasm }) } else { wasm };
    if let Some(fields) = spec.as_object_mut().filter(|_| !target.labels.is_empty()) {
        fields.insert("selector".to_owned(), json!({ "matchLabels": target.labels }));
    }
    spec
}

/// What the filter is told by a plugin as it is.
pub fn known<K: Kind>(found: &MeshObject<K>) -> Option<Config> {
    let wasm = found.spec.get("wasm").unwrap_or(&found.spec);
    Config::parse(wasm.get("pluginConfig")?.to_string().as_bytes()).ok()
}
