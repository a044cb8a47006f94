//! On which nodes Instances have pods, and which nodes do not answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

use crate::api::instance::Instance;
use crate::api::label;

use super::lock;

/// The Instances that have pods on each node.
#[derive(Clone, Debug, Default)]
pub struct NodePods(Arc<Mutex<OnNodes>>);

#[derive(Debug, Default)]
struct OnNodes {
    of: HashMap<(String, String), (String, String)>,
    on: HashMap<String, BTreeSet<(String, String)>>,
}

impl NodePods {
    /// Takes note of what the watch says. What went while nobody watched is of no harm: somebody looks at it in vain.
    pub fn note(&self, event: &Event<Pod>) {
        let (Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) = event else { return };
        let Some(instance) = pod.labels().get(label::INSTANCE) else { return };
        let namespace = pod.namespace().unwrap_or_default();
        let place = (namespace.clone(), pod.name_any());
        let mut all = lock(&self.0);
        if let Some((node, instance)) = all.of.remove(&place)
            && let Some(there) = all.on.get_mut(&node)
        {
            there.remove(&(namespace.clone(), instance));
            if there.is_empty() {
                all.on.remove(&node);
            }
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if let Some(node) = node.filter(|_| !matches!(event, Event::Delete(_))) {
            all.of.insert(place, (node.clone(), instance.clone()));
            all.on.entry(node).or_default().insert((namespace, instance.clone()));
        }
    }

    pub(super) fn on(&self, node: &str) -> Vec<ObjectRef<Instance>> {
        let all = lock(&self.0);
        let there = all.on.get(node).into_iter().flatten();
        there.map(|(namespace, instance)| ObjectRef::new(instance).within(namespace)).collect()
    }
}

/// The nodes that do not answer, and since when; no more is kept of nodes.
#[derive(Clone, Debug)]
pub struct LostNodes {
    lost: Arc<Mutex<HashMap<String, Timestamp>>>,
    ready: tokio::sync::watch::Sender<bool>,
}

impl Default for LostNodes {
    fn default() -> Self {
        Self { lost: Arc::default(), ready: tokio::sync::watch::Sender::new(false) }
    }
}

impl LostNodes {
    /// Since when a node does not answer; none where it does.
    #[must_use]
    pub fn since(&self, node: &str) -> Option<Timestamp> {
        lock(&self.lost).get(node).copied()
    }

    pub(super) async fn wait_until_ready(&self) {
        // The sender is here: it cannot have ended.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Takes note of what the watch says, and names the node where something has changed.
    pub(super) fn note(&self, event: &Event<Node>) -> Option<String> {
        match event {
            Event::Apply(node) | Event::InitApply(node) => {
                let (name, now) = (node.name_any(), silent_since(node));
                let mut lost = lock(&self.lost);
                let before = lost.get(&name).copied();
                match now {
                    Some(since) => drop(lost.insert(name.clone(), since)),
                    None => drop(lost.remove(&name)),
                }
                (before != now).then_some(name)
            }
            // Kubernetes itself removes the pods of nodes that are gone.
            Event::Delete(node) => lock(&self.lost).remove(&node.name_any()).map(|_| node.name_any()),
            Event::Init => None,
            Event::InitDone => {
                self.ready.send_replace(true);
                None
            }
        }
    }
}

/// Since when a node has not been ready. One that never said anything is not counted as lost.
fn silent_since(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    (ready.status != "True").then(|| ready.last_transition_time.as_ref().map(|time| time.0)).flatten()
}
