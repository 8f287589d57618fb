//! Objects of one kind by namespace and name, and by what else they are looked for, and where something changed. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

type Places<K> = BTreeMap<String, BTreeMap<String, Arc<K>>>;

/// By what else an object is looked for.
type Keys<K> = Box<dyn Fn(&K) -> BTreeSet<String> + Send>;

/// What a watch has told of one kind. An object without a namespace is in the namespace "".
pub struct Index<K> {
    places: Places<K>,
    /// What the list has told that is being read; what it does not tell is gone.
    fresh: Places<K>,
    keys: Option<Keys<K>>,
    /// Namespace and name of those that have a key.
    keyed: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl<K> Default for Index<K> {
    fn default() -> Index<K> {
        Index { places: BTreeMap::new(), fresh: BTreeMap::new(), keys: None, keyed: BTreeMap::new() }
    }
}

impl<K> fmt::Debug for Index<K> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Index")
    }
}

impl<K: Resource> Index<K> {
    /// One in which objects are found by their keys, too.
    pub fn by(keys: impl Fn(&K) -> BTreeSet<String> + Send + 'static) -> Index<K> {
        Index { keys: Some(Box::new(keys)), ..Index::default() }
    }

    /// Takes in what happened. The namespaces that look different now.
    pub fn apply(&mut self, event: Event<K>) -> BTreeSet<String> {
        match event {
            Event::Init => {
                self.fresh.clear();
                BTreeSet::new()
            }
            Event::InitApply(object) => {
                put(&mut self.fresh, Arc::new(object));
                BTreeSet::new()
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.places, std::mem::take(&mut self.fresh));
                self.key_all();
                let names = before.keys().chain(self.places.keys()).collect::<BTreeSet<_>>();
                names.into_iter().filter(|name| !same(before.get(*name), self.places.get(*name))).cloned().collect()
            }
            Event::Apply(object) => {
                let object = Arc::new(object);
                let (namespace, before) = put(&mut self.places, Arc::clone(&object));
                self.key(before.as_deref(), Some(&object));
                [namespace].into()
            }
            Event::Delete(object) => {
                let namespace = object.namespace().unwrap_or_default();
                if let Some(place) = self.places.get_mut(&namespace) {
                    let before = place.remove(&object.name_any());
                    if place.is_empty() {
                        self.places.remove(&namespace);
                    }
                    self.key(before.as_deref(), None);
                }
                [namespace].into()
            }
        }
    }

    /// Finds one object by its keys, and no longer by those that it had before.
    fn key(&mut self, before: Option<&K>, now: Option<&K>) {
        let Some(keys) = &self.keys else { return };
        let at = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        for (object, key) in before.iter().flat_map(|object| keys(object).into_iter().map(move |key| (*object, key))) {
            if let Some(places) = self.keyed.get_mut(&key) {
                places.remove(&at(object));
                if places.is_empty() {
                    self.keyed.remove(&key);
                }
            }
        }
        for (object, key) in now.iter().flat_map(|object| keys(object).into_iter().map(move |key| (*object, key))) {
            self.keyed.entry(key).or_default().insert(at(object));
        }
    }

    fn key_all(&mut self) {
        self.keyed.clear();
        let all: Vec<Arc<K>> = self.all().cloned().collect();
        for object in all {
            self.key(None, Some(&object));
        }
    }

    /// Those that have a key.
    pub fn by_key(&self, key: &str) -> impl Iterator<Item = &Arc<K>> {
        let places = self.keyed.get(key).into_iter().flatten();
        places.filter_map(|(namespace, name)| self.get(namespace, name))
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.places.get(namespace)?.get(name)
    }

    /// What is in one namespace.
    pub fn of(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.places.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// What is anywhere.
    pub fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.places.values().flat_map(BTreeMap::values)
    }
}

/// The namespace, and what was there before.
fn put<K: Resource>(places: &mut Places<K>, object: Arc<K>) -> (String, Option<Arc<K>>) {
    let namespace = object.namespace().unwrap_or_default();
    let before = places.entry(namespace.clone()).or_default().insert(object.name_any(), object);
    (namespace, before)
}

fn same<K: Resource>(one: Option<&BTreeMap<String, Arc<K>>>, other: Option<&BTreeMap<String, Arc<K>>>) -> bool {
    let versions = |place: &BTreeMap<String, Arc<K>>| {
        let version = |object: &K| (object.meta().uid.clone(), object.resource_version());
        place.values().map(|object| version(object)).collect::<Vec<_>>()
    };
    one.map(versions) == other.map(versions)
}
