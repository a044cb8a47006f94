//! What the controllers see of the cluster, each kind watched once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

use crate::api::label;

/// Pods by the Flow that they belong to: looking through all of them for each Flow would cost the square of their number.
#[derive(Clone, Debug, Default)]
pub struct PodIndex(Arc<Mutex<Index>>);

#[derive(Debug, Default)]
struct Index {
    /// Names of pods, by namespace and Flow.
    pods: HashMap<(String, String), BTreeSet<String>>,
    /// The same, while a list is being received.
    coming: Option<HashMap<(String, String), BTreeSet<String>>>,
}

impl PodIndex {
    /// Takes note of what the watch says. Call it before the store changes, or after: the store decides what is there.
    pub fn note(&self, event: &Event<Pod>) {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => index.coming = Some(HashMap::new()),
            Event::InitApply(pod) => {
                if let (Some(coming), Some(key)) = (&mut index.coming, flow_of(pod)) {
                    coming.entry(key).or_default().insert(pod.name_any());
                }
            }
            Event::InitDone => {
                if let Some(coming) = index.coming.take() {
                    index.pods = coming;
                }
            }
            Event::Apply(pod) => {
                if let Some(key) = flow_of(pod) {
                    index.pods.entry(key).or_default().insert(pod.name_any());
                }
            }
            Event::Delete(pod) => {
                let Some(key) = flow_of(pod) else { return };
                if let Some(names) = index.pods.get_mut(&key) {
                    names.remove(&pod.name_any());
                    if names.is_empty() {
                        index.pods.remove(&key);
                    }
                }
            }
        }
    }

    /// The pods of a Flow that a store holds.
    #[must_use]
    pub fn of(&self, store: &Store<Pod>, namespace: &str, flow: &str) -> Vec<Arc<Pod>> {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = index.pods.get(&(namespace.to_owned(), flow.to_owned()));
        names
            .into_iter()
            .flatten()
            .filter_map(|name| store.get(&ObjectRef::new(name).within(namespace)))
            .collect()
    }
}

/// The namespace and name of the Flow that a pod belongs to.
fn flow_of(pod: &Pod) -> Option<(String, String)> {
    Some((pod.namespace()?, pod.labels().get(label::FLOW)?.clone()))
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, flow: &str) -> Pod {
        let labels = json!({"millrace.dev/flow": flow});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}}))
            .unwrap()
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn pods_are_found_by_their_flow_and_a_list_replaces_what_was_known() {
        let (index, (reader, mut writer)) = (PodIndex::default(), store::store());
        let mut see = |event: Event<Pod>| {
            index.note(&event);
            writer.apply_watcher_event(&event);
        };
        see(Event::Init);
        see(Event::InitApply(pod("a", "orders")));
        see(Event::InitApply(pod("b", "bills")));
        see(Event::InitDone);
        see(Event::Apply(pod("c", "orders")));
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["a", "c"]);
        see(Event::Delete(pod("a", "orders")));
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["c"]);
        see(Event::Init);
        see(Event::InitApply(pod("d", "orders")));
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["c"]);
        see(Event::InitDone);
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["d"]);
        assert_eq!(names(&index.of(&reader, "shop", "bills")), Vec::<String>::new());
    }
}
