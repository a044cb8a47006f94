//! Which objects of a store belong together: looking through all of them for each owner would cost the square of their
//! number.

use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

use super::watch::Cached;

/// Names of objects by namespace and what they belong to.
type Names = HashMap<(String, String), BTreeSet<String>>;

/// The objects of a kind by what they belong to, such as the Flow or the Cluster that a label names.
#[derive(Debug)]
pub struct Index<K> {
    keys: fn(&K) -> Vec<String>,
    state: Arc<Mutex<State>>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    /// What each object, by namespace and name, was last said to belong to.
    of: HashMap<(String, String), Vec<String>>,
    /// The objects of the list that is being received.
    coming: Option<BTreeSet<(String, String)>>,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { keys: self.keys, state: self.state.clone(), kind: PhantomData }
    }
}

impl<K: Cached> Index<K> {
    /// `keys` says what an object belongs to, within its namespace.
    #[must_use]
    pub fn new(keys: fn(&K) -> Vec<String>) -> Self {
        Self { keys, state: Arc::default(), kind: PhantomData }
    }

    /// Takes note of what the watch says. Call it before the store changes, or after: the store decides what is there.
    pub fn note(&self, event: &Event<K>) {
        let mut state = self.lock();
        match event {
            Event::Init => state.coming = Some(BTreeSet::new()),
            Event::InitApply(object) => {
                let object = self.put(&mut state, object);
                if let Some(coming) = &mut state.coming {
                    coming.insert(object);
                }
            }
            Event::InitDone => {
                if let Some(coming) = state.coming.take() {
                    let gone: Vec<_> =
                        state.of.keys().filter(|object| !coming.contains(*object)).cloned().collect();
                    for object in gone {
                        state.set(object, vec![]);
                    }
                }
            }
            Event::Apply(object) => drop(self.put(&mut state, object)),
            Event::Delete(object) => state.set(place(object), vec![]),
        }
    }

    fn put(&self, state: &mut State, object: &K) -> (String, String) {
        let place = place(object);
        state.set(place.clone(), (self.keys)(object));
        place
    }

    /// The objects of a store that belong to something, in the order of their names.
    #[must_use]
    pub fn of(&self, store: &Store<K>, namespace: &str, key: &str) -> Vec<Arc<K>> {
        let state = self.lock();
        let names = state.names.get(&(namespace.to_owned(), key.to_owned()));
        let object = |name: &String| store.get(&ObjectRef::new(name).within(namespace));
        names.into_iter().flatten().filter_map(object).collect()
    }

    /// The names of the objects that belong to something.
    #[must_use]
    pub fn names(&self, namespace: &str, key: &str) -> Vec<String> {
        let state = self.lock();
        state.names.get(&(namespace.to_owned(), key.to_owned())).into_iter().flatten().cloned().collect()
    }

    /// How many objects belong to something.
    #[must_use]
    pub fn count(&self, namespace: &str, key: &str) -> usize {
        self.lock().names.get(&(namespace.to_owned(), key.to_owned())).map_or(0, BTreeSet::len)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, object: (String, String), keys: Vec<String>) {
        let (namespace, name) = object.clone();
        for key in self.of.remove(&object).into_iter().flatten() {
            let key = (namespace.clone(), key);
            if let Some(names) = self.names.get_mut(&key) {
                names.remove(&name);
                if names.is_empty() {
                    self.names.remove(&key);
                }
            }
        }
        for key in &keys {
            self.names.entry((namespace.clone(), key.clone())).or_default().insert(name.clone());
        }
        if !keys.is_empty() {
            self.of.insert(object, keys);
        }
    }
}

/// The namespace and name of an object; those of a cluster-scoped one are under no namespace.
fn place<K: Cached>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: Option<&str>) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"namespace": "shop", "name": name, "labels": {"of": owner}}}),
        )
        .unwrap()
    }

    fn index() -> Index<Pod> {
        Index::new(|pod: &Pod| {
            pod.labels().get("of").filter(|of| !of.is_empty()).cloned().into_iter().collect()
        })
    }

    #[test]
    fn an_object_is_found_under_what_it_belongs_to_now() {
        let (store, mut writer) = reflector::store::<Pod>();
        let index = index();
        let mut tell = |event: Event<Pod>| {
            index.note(&event);
            writer.apply_watcher_event(&event);
        };
        tell(Event::Apply(pod("a", Some("x"))));
        tell(Event::Apply(pod("b", Some("x"))));
        assert_eq!(index.names("shop", "x"), ["a", "b"]);
        assert_eq!(index.of(&store, "shop", "x").len(), 2);
        tell(Event::Apply(pod("a", Some("y"))));
        assert_eq!(
            (index.names("shop", "x"), index.names("shop", "y")),
            (vec!["b".into()], vec!["a".into()])
        );
        tell(Event::Delete(pod("b", Some("x"))));
        assert_eq!((index.count("shop", "x"), index.count("other", "y")), (0, 0));
    }

    #[test]
    fn what_a_new_list_lacks_is_forgotten_only_when_it_is_complete() {
        let index = index();
        index.note(&Event::Apply(pod("a", Some("x"))));
        index.note(&Event::Init);
        index.note(&Event::InitApply(pod("b", Some("x"))));
        assert_eq!(index.names("shop", "x"), ["a", "b"]);
        index.note(&Event::InitDone);
        assert_eq!(index.names("shop", "x"), ["b"]);
    }
}
