//! Writes what is not as it has to be in Istio: the routes of each flag when it says so, and one plugin
//! for all flags of a namespace. I/O: the Kubernetes API.

use crate::names::MANAGER;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flag::record::Record;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;

use super::object::{Kind, MeshObject, TrafficExtension, WasmPlugin, contains};
use super::plugin::{self, Image, Part, Target};
use super::plugins::{Plugins, Shown};
use super::routes::{may_write, metadata};
use super::watch::{IstioCache, WatchState, Watched};
use machine::time::UnixMs;
use service::failpoint;
use service::lock::lock;

/// The shortest time between two writes of a plugin: every one makes all its proxies build it anew.
const PAUSE: Duration = Duration::from_millis(500);

/// What was written, and no watch has shown for so long, is gone again.
const UNSEEN: Duration = Duration::from_secs(10);

/// Why something is not written.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The API refused it.
    #[error("{what} cannot be written: {error}")]
    Api {
        /// What.
        what: String,
        /// Why not.
        error: kube::Error,
    },
    /// There is one of another owner.
    #[error("{0} has a name that the controller needs, and is not its own: rename it")]
    NotOurs(String),
}

/// What was written of an object last.
struct LastWrite {
    spec: Value,
    version: u64,
    /// The watch has shown it.
    seen: bool,
    at: Instant,
}

/// Since when each version has had a destination of routes.
type Since = BTreeMap<String, UnixMs>;

/// Writes to Istio, in the name of this controller.
pub struct Mesh {
    client: Client,
    /// What the cluster holds.
    pub istio: IstioCache,
    /// Where the filter is.
    pub image: Image,
    /// By kind, namespace and name.
    written: Mutex<BTreeMap<(&'static str, String, String), LastWrite>>,
    plugins: Mutex<Plugins>,
    destinations: Mutex<BTreeMap<(String, String), Since>>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Mesh")
    }
}

fn version<K: Kind>(object: &MeshObject<K>) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Mesh {
    /// Nothing is written yet.
    pub fn new(client: Client, istio: IstioCache, image: Image) -> Mesh {
        Mesh {
            client,
            istio,
            image,
            written: Mutex::default(),
            plugins: Mutex::default(),
            destinations: Mutex::default(),
        }
    }

    /// Another replica acts: what was written here says nothing any more.
    pub fn forget(&self) {
        lock(&self.written).clear();
        *lock(&self.plugins) = Plugins::default();
        lock(&self.destinations).clear();
    }

    /// Takes in which versions have a destination of routes now. Since when each has had it, as far as this
    /// replica has seen.
    pub fn since(&self, namespace: &str, name: &str, versions: &BTreeSet<String>, now: UnixMs) -> Since {
        let mut all = lock(&self.destinations);
        let since = all.entry((namespace.to_owned(), name.to_owned())).or_default();
        since.retain(|version, _| versions.contains(version));
        for version in versions {
            since.entry(version.clone()).or_insert(now);
        }
        since.clone()
    }

    /// Writes an object, unless it is like that. Whether it was written.
    pub async fn keep<K: Kind>(&self, watched: &Watched<K>, wanted: MeshObject<K>) -> Result<bool, MeshError>
    where
        MeshObject<K>: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let found = watched.get(wanted.namespace(), &wanted.name_any());
        self.keep_over(found.as_deref(), wanted).await
    }

    /// The same over what a watch has shown.
    pub async fn keep_over<K: Kind>(
        &self,
        found: Option<&MeshObject<K>>,
        wanted: MeshObject<K>,
    ) -> Result<bool, MeshError>
    where
        MeshObject<K>: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let (namespace, name) = (wanted.namespace().to_owned(), wanted.name_any());
        let key = (K::KIND, namespace.clone(), name.clone());
        if !may_write(found) {
            return Err(MeshError::NotOurs(format!("{} {namespace}/{name}", K::KIND)));
        }
        let known = {
            let mut written = lock(&self.written);
            let shown = found.map(version);
            match written.get_mut(&key) {
                Some(last) if shown.is_none_or(|shown| shown < last.version) => {
                    // The watch has not come so far yet, or somebody has deleted it since, maybe before it was shown.
                    let deleted = shown.is_none() && (last.seen || last.at.elapsed() > UNSEEN);
                    if !deleted && last.spec == wanted.spec {
                        return Ok(false);
                    }
                    if deleted { None } else { Some(last.version) }
                }
                Some(last) => {
                    last.seen = true;
                    shown
                }
                None => shown,
            }
        };
        if let Some(found) = found
            && Some(version(found)) == known
            && contains(&found.spec, &wanted.spec)
        {
            return Ok(false);
        }
        let spec = wanted.spec.clone();
        let mut object = wanted;
        // Of exactly what was seen: a leader of before must not undo it.
        object.metadata.resource_version = known.map(|version| version.to_string());
        let api: Api<MeshObject<K>> = Api::namespaced(self.client.clone(), &namespace);
        let params = PatchParams::apply(MANAGER).force();
        let answer = api.patch(&name, &params, &Patch::Apply(&object)).await;
        let what = || format!("{} {namespace}/{name}", K::KIND);
        let done = answer.map_err(|error| MeshError::Api { what: what(), error })?;
        tracing::info!(kind = K::KIND, namespace, name, "written");
        lock(&self.written).insert(key, LastWrite { spec, version: version(&done), seen: false, at: Instant::now() });
        Ok(true)
    }

    /// Takes in what a flag has in its plugins. They are written when all flags have been asked.
    pub fn offer(&self, uid: &str, part: Part) {
        lock(&self.plugins).offer(uid, part);
    }

    /// What went wrong with one of these plugins, last.
    pub fn trouble(&self, targets: &BTreeSet<Target>) -> Option<String> {
        lock(&self.plugins).trouble(targets)
    }

    /// The plugins that may not be as they have to be: something has changed since they were looked at. `flags` are the
    /// names of all that exist, by uid. How long to wait with those that were written a moment ago.
    pub fn due_plugins(&self, flags: &BTreeMap<String, String>) -> (Vec<Target>, Option<Duration>) {
        if self.image.problem().is_some() || self.istio.plugins_problem().is_some() {
            return (vec![], None);
        }
        let mut plugins = lock(&self.plugins);
        // A flag that is gone stays where it is, until something else is written there.
        plugins.retain_parts(flags);
        // Flags may have had parts there that have none now.
        let targets =
            self.istio.plugin_targets().into_iter().chain(plugins.targets().iter().cloned()).collect::<BTreeSet<_>>();
        let (mut due, mut wait) = (vec![], None::<Duration>);
        for target in targets {
            let versions = self.versions(&target);
            if !plugins.is_due(&target, versions) {
                continue;
            }
            match plugins.rest(&target, PAUSE) {
                Some(rest) => wait = Some(wait.map_or(rest, |wait| wait.min(rest))),
                None => due.push(target),
            }
        }
        (due, wait)
    }

    /// What the watches have shown of a plugin, of either kind, and whether that is what was written last.
    fn versions(&self, target: &Target) -> Shown {
        let (namespace, name) = (&target.namespace, target.name());
        let written = lock(&self.written);
        let is_shown = |kind: &'static str, version: Option<u64>| {
            let last = written.get(&(kind, namespace.clone(), name.clone()));
            last.is_none_or(|last| last.seen || version.is_some_and(|version| version >= last.version))
        };
        let old = self.istio.plugins.get(namespace, &name).as_deref().map(version);
        let new = self.istio.extensions.get(namespace, &name).as_deref().map(version);
        let known = is_shown(WasmPlugin::KIND, old) && is_shown(TrafficExtension::KIND, new);
        Shown { versions: (old, new), extends: self.extends(), known }
    }

    /// Whether new plugins are of the newer kind.
    fn extends(&self) -> bool {
        self.istio.extensions.state() == WatchState::Current
    }

    /// Writes a plugin, unless it is as it has to be.
    pub async fn write_plugin(&self, target: &Target, flags: &BTreeMap<String, String>) {
        let (parts, revision) = lock(&self.plugins).parts_of(target);
        let shown = self.versions(target);
        let written = self.write(target, &parts, flags).await;
        let (wrote, trouble) = match written {
            Ok(wrote) => (wrote, None),
            Err(error) => {
                tracing::warn!(%error, "is tried again");
                (true, Some(error.to_string()))
            }
        };
        lock(&self.plugins).looked(target, (!wrote).then_some((revision, shown)), trouble);
    }

    async fn write(
        &self,
        target: &Target,
        parts: &BTreeMap<String, Arc<Part>>,
        flags: &BTreeMap<String, String>,
    ) -> Result<bool, MeshError> {
        let (name, istio) = (target.name(), &self.istio);
        let old = istio.plugins.get(&target.namespace, &name);
        // Both kinds at once would run the filter twice: what there is of the older one stays in use.
        let extends = self.extends() && old.is_none();
        let known = if extends {
            istio.extensions.get(&target.namespace, &name).and_then(|found| plugin::known(&found))
        } else {
            old.and_then(|found| plugin::known(&found))
        };
        let records = known.iter().flat_map(|known| &known.flags);
        let frozen: Vec<Record> = records.filter(|record| is_silent(record, parts, flags)).cloned().collect();
        let here = parts.values().map(Arc::as_ref).filter(|part| part.targets.contains(target));
        let config = plugin::config(here, &frozen, &self.image.cluster);
        let left = || known.and_then(|known| plugin::left(known, target, parts.values().map(Arc::as_ref)));
        let Some(config) = config.or_else(left) else { return Ok(false) };
        failpoint::point("before a plugin is written");
        let metadata = metadata(&target.namespace, &name);
        let written = if extends {
            let spec = plugin::spec::<TrafficExtension>(&self.image, target, &config);
            self.keep(&istio.extensions, MeshObject::new(metadata, spec)).await?
        } else {
            let spec = plugin::spec::<WasmPlugin>(&self.image, target, &config);
            self.keep(&istio.plugins, MeshObject::new(metadata, spec)).await?
        };
        if written {
            failpoint::point("after a plugin was written");
        }
        Ok(written)
    }
}

/// Whether a flag exists and has not been heard of since this controller acts.
fn is_silent(record: &Record, parts: &BTreeMap<String, Arc<Part>>, flags: &BTreeMap<String, String>) -> bool {
    !parts.contains_key(&record.uid) && flags.get(&record.uid) == Some(&record.name)
}
