//! Who uses which cartridge: Clusters, and Instances without one, of all namespaces.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

use crate::api::cartridge::{Cartridge, User};
use crate::api::cluster::{CartridgeRef, Cluster};
use crate::api::instance::Instance;
use crate::runtime::watch::Cached;

/// How many are named.
const NAMED: usize = 20;

/// A user: its namespace, name and kind, in the order in which they are named.
type Place = (String, String, &'static str);
/// A cartridge: its namespace and name.
type Used = (String, String);

/// Who uses which cartridge.
#[derive(Debug, Default)]
pub struct Users(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    of: HashMap<Place, Used>,
    by: HashMap<Used, BTreeSet<Place>>,
    coming: HashMap<&'static str, BTreeSet<Place>>,
}

/// The users of one cartridge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<User>,
}

impl Users {
    /// Takes note of what the watch of Clusters says, and names the cartridges whose users have changed.
    pub fn note_cluster(&self, event: &Event<Cluster>) -> Vec<ObjectRef<Cartridge>> {
        self.note("Cluster", event, |cluster| Some(&cluster.spec.cartridge))
    }

    /// The same of Instances: one that is made for a Cluster is none of its own.
    pub fn note_instance(&self, event: &Event<Instance>) -> Vec<ObjectRef<Cartridge>> {
        let own = |instance: &Instance| instance.spec.cluster.is_none();
        self.note("Instance", event, |instance| Some(&instance.spec.cartridge).filter(|_| own(instance)))
    }

    /// Who uses a cartridge.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str) -> Usage {
        let state = self.lock();
        let Some(users) = state.by.get(&(namespace.to_owned(), name.to_owned())) else {
            return Usage::default();
        };
        let user = |(namespace, name, kind): &Place| User {
            kind: (*kind).to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
        };
        Usage { count: users.len(), first: users.iter().take(NAMED).map(user).collect() }
    }

    fn note<K: Cached>(
        &self,
        kind: &'static str,
        event: &Event<K>,
        used: impl for<'a> Fn(&'a K) -> Option<&'a CartridgeRef>,
    ) -> Vec<ObjectRef<Cartridge>> {
        let place = |object: &K| (object.namespace().unwrap_or_default(), object.name_any(), kind);
        let mut state = self.lock();
        match event {
            Event::Init => {
                state.coming.insert(kind, BTreeSet::new());
                vec![]
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let place = place(object);
                if let Some(coming) = state.coming.get_mut(kind) {
                    coming.insert(place.clone());
                }
                let namespace = place.0.clone();
                let used =
                    used(object).map(|of| (of.namespace.clone().unwrap_or(namespace), of.name.clone()));
                state.set(place, used)
            }
            Event::Delete(object) => state.set(place(object), None),
            Event::InitDone => {
                let Some(coming) = state.coming.remove(kind) else { return vec![] };
                let gone: Vec<_> = state
                    .of
                    .keys()
                    .filter(|place| place.2 == kind && !coming.contains(*place))
                    .cloned()
                    .collect();
                gone.into_iter().flat_map(|place| state.set(place, None)).collect()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, place: Place, used: Option<Used>) -> Vec<ObjectRef<Cartridge>> {
        let before = match &used {
            Some(used) => self.of.insert(place.clone(), used.clone()),
            None => self.of.remove(&place),
        };
        if before == used {
            return vec![];
        }
        if let Some(before) = &before
            && let Some(users) = self.by.get_mut(before)
        {
            users.remove(&place);
            if users.is_empty() {
                self.by.remove(before);
            }
        }
        if let Some(used) = &used {
            self.by.entry(used.clone()).or_default().insert(place);
        }
        let changed = before.into_iter().chain(used);
        changed.map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(namespace: &str, name: &str, of: &serde_json::Value) -> Cluster {
        serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Cluster",
            "metadata": {"namespace": namespace, "name": name}, "spec": {"cartridge": of},
        }))
        .unwrap()
    }

    #[test]
    fn users_of_all_namespaces_are_counted_and_the_first_are_named() {
        let users = Users::default();
        let of = json!({"name": "tomcat", "namespace": "catalogue"});
        let woken = users.note_cluster(&Event::Apply(cluster("shop", "b", &of)));
        assert_eq!(woken, [ObjectRef::new("tomcat").within("catalogue")]);
        assert_eq!(users.note_cluster(&Event::Apply(cluster("shop", "b", &of))), []);
        users.note_cluster(&Event::Apply(cluster("crm", "z", &of)));
        users.note_cluster(&Event::Apply(cluster("catalogue", "own", &json!({"name": "tomcat"}))));
        let usage = users.of("catalogue", "tomcat");
        let names: Vec<_> =
            usage.first.iter().map(|user| format!("{}/{}", user.namespace, user.name)).collect();
        assert_eq!((usage.count, names.join(" ")), (3, "catalogue/own crm/z shop/b".into()));
        users.note_cluster(&Event::Delete(cluster("shop", "b", &of)));
        users.note_cluster(&Event::Init);
        users.note_cluster(&Event::InitApply(cluster("crm", "z", &of)));
        let woken = users.note_cluster(&Event::InitDone);
        assert_eq!((users.of("catalogue", "tomcat").count, woken.len()), (1, 1));
    }
}
