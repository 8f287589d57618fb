//! Objects of one kind by namespace and name, and where something changed. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

type Places<K> = BTreeMap<String, BTreeMap<String, Arc<K>>>;

/// What a watch has told of one kind. An object without a namespace is in the namespace "".
#[derive(Debug)]
pub struct Index<K> {
    places: Places<K>,
    /// What the list has told that is being read; what it does not tell is gone.
    fresh: Places<K>,
}

impl<K> Default for Index<K> {
    fn default() -> Index<K> {
        Index { places: BTreeMap::new(), fresh: BTreeMap::new() }
    }
}

impl<K: Resource> Index<K> {
    /// Takes in what happened. The namespaces that look different now.
    pub fn apply(&mut self, event: Event<K>) -> BTreeSet<String> {
        match event {
            Event::Init => {
                self.fresh.clear();
                BTreeSet::new()
            }
            Event::InitApply(object) => {
                put(&mut self.fresh, object);
                BTreeSet::new()
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.places, std::mem::take(&mut self.fresh));
                let names = before.keys().chain(self.places.keys()).collect::<BTreeSet<_>>();
                names.into_iter().filter(|name| !same(before.get(*name), self.places.get(*name))).cloned().collect()
            }
            Event::Apply(object) => [put(&mut self.places, object)].into(),
            Event::Delete(object) => {
                let namespace = object.namespace().unwrap_or_default();
                if let Some(place) = self.places.get_mut(&namespace) {
                    place.remove(&object.name_any());
                    if place.is_empty() {
                        self.places.remove(&namespace);
                    }
                }
                [namespace].into()
            }
        }
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

fn put<K: Resource>(places: &mut Places<K>, object: K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    places.entry(namespace.clone()).or_default().insert(object.name_any(), Arc::new(object));
    namespace
}

fn same<K: Resource>(one: Option<&BTreeMap<String, Arc<K>>>, other: Option<&BTreeMap<String, Arc<K>>>) -> bool {
    let versions = |place: &BTreeMap<String, Arc<K>>| {
        let version = |object: &K| (object.meta().uid.clone(), object.resource_version());
        place.values().map(|object| version(object)).collect::<Vec<_>>()
    };
    one.map(versions) == other.map(versions)
}
