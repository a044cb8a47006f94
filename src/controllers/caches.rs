//! What the controllers see of the cluster, each kind watched once, and whom a change gives reason to look.

use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::task::JoinSet;

use crate::api::flow::Flow;
use crate::api::label;
use crate::runtime::watch::{Cached, cache, cache_metadata, subject};

use super::wake::Wake;

/// All that is watched.
#[derive(Clone)]
pub struct Caches {
    /// Flows.
    pub flows: Store<Flow>,
    /// Deployments that are ours.
    pub deployments: Store<Deployment>,
    /// Which of them belong to which Flow.
    pub deployments_of: ByFlow<Deployment>,
    /// Pods that are ours.
    pub pods: Store<Pod>,
    /// Which of them belong to which Flow.
    pub pods_of: ByFlow<Pod>,
    /// The metadata of all Secrets.
    pub secrets: Store<PartialObjectMeta<Secret>>,
    /// The metadata of all namespaces.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// The endpoints of the gateway's Service.
    pub gateways: Store<EndpointSlice>,
}

/// A watch ended before its first list was there.
#[derive(Debug, thiserror::Error)]
#[error("a watch has ended")]
pub struct WatchEnded(#[from] kube::runtime::reflector::store::WriterDropped);

impl Caches {
    /// Begins to watch, for as long as the tasks run. `gateway` is the gateway's Service in the namespace of the install.
    pub fn start(
        client: &Client,
        namespace: &str,
        gateway: &str,
        wake: &Wake,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let ours = || watcher::Config::default().labels(&format!("{}=millrace", label::MANAGED_BY));
        let all = watcher::Config::default;
        let mut keep = |task: tokio::task::JoinHandle<()>| {
            let task = tokio_util::task::AbortOnDropHandle::new(task);
            tasks.spawn(async move { drop(task.await) });
        };
        let w = wake.clone();
        let (flows, task) = cache(Api::all(client.clone()), all(), move |event| w.flow_changed(event));
        keep(task);
        let of_flow = |wake: &Wake, flows: &Store<Flow>| (wake.clone(), flows.clone());
        let (w, known) = of_flow(wake, &flows);
        let deployments_of = ByFlow::<Deployment>::default();
        let index = deployments_of.clone();
        let (deployments, task) =
            cache(Api::all(client.clone()), ours(), move |event: &Event<Deployment>| {
                index.note(event);
                w.child_changed(event, &known);
            });
        keep(task);
        let (w, known) = of_flow(wake, &flows);
        let pods_of = ByFlow::<Pod>::default();
        let index = pods_of.clone();
        let (pods, task) = cache(Api::all(client.clone()), ours(), move |event: &Event<Pod>| {
            index.note(event);
            w.child_changed(event, &known);
        });
        keep(task);
        let (w, known) = of_flow(wake, &flows);
        let (secrets, task) =
            cache_metadata(Api::<PartialObjectMeta<Secret>>::all(client.clone()), all(), move |event| {
                w.child_changed(event, &known);
                if let Some(secret) = subject(event) {
                    w.flows_where(&known, |flow| uses(flow, &secret));
                }
            });
        keep(task);
        let (w, known) = of_flow(wake, &flows);
        let (namespaces, task) =
            cache_metadata(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all(), move |event| {
                w.namespace_changed(event, &known);
            });
        keep(task);
        let (w, known) = of_flow(wake, &flows);
        let slices = all().labels(&format!("{}={gateway}", label::SERVICE_NAME));
        let api = Api::namespaced(client.clone(), namespace);
        let (gateways, task) = cache(api, slices, move |_: &Event<EndpointSlice>| {
            w.flows_where(&known, super::flow::waits_for_gateways);
        });
        keep(task);
        Self { flows, deployments, deployments_of, pods, pods_of, secrets, namespaces, gateways }
    }

    /// Waits until the first list of each kind is there: nothing is decided before.
    ///
    /// # Errors
    /// A watch has ended.
    pub async fn wait(&self) -> Result<(), WatchEnded> {
        self.flows.wait_until_ready().await?;
        self.deployments.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.secrets.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await?;
        self.gateways.wait_until_ready().await?;
        Ok(())
    }
}

/// Whether a node of a Flow gets its credentials from a Secret.
fn uses(flow: &Flow, secret: &ObjectRef<PartialObjectMeta<Secret>>) -> bool {
    let names = || flow.spec.graph.nodes.iter().filter_map(|node| node.credentials.as_ref());
    flow.namespace() == secret.namespace && names().any(|from| from.secret_ref.name == secret.name)
}

/// Names of objects, by namespace and Flow; the runner's are under no Flow's name.
type Names = HashMap<(String, String), BTreeSet<String>>;

/// Children by the Flow that they belong to: looking through all of them for each Flow would cost the square of their
/// number.
#[derive(Clone, Debug)]
pub struct ByFlow<K>(Arc<Mutex<Index>>, PhantomData<fn() -> K>);

#[derive(Debug, Default)]
struct Index {
    names: Names,
    /// The same, while a list is being received.
    coming: Option<Names>,
}

impl<K> Default for ByFlow<K> {
    fn default() -> Self {
        Self(Arc::default(), PhantomData)
    }
}

impl<K: Cached> ByFlow<K> {
    /// Takes note of what the watch says. Call it before the store changes, or after: the store decides what is there.
    pub fn note(&self, event: &Event<K>) {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => index.coming = Some(Names::new()),
            Event::InitApply(object) => {
                if let (Some(coming), Some(key)) = (&mut index.coming, owner(object)) {
                    coming.entry(key).or_default().insert(object.name_any());
                }
            }
            Event::InitDone => {
                if let Some(coming) = index.coming.take() {
                    index.names = coming;
                }
            }
            Event::Apply(object) => {
                if let Some(key) = owner(object) {
                    index.names.entry(key).or_default().insert(object.name_any());
                }
            }
            Event::Delete(object) => {
                let Some(key) = owner(object) else { return };
                if let Some(names) = index.names.get_mut(&key) {
                    names.remove(&object.name_any());
                    if names.is_empty() {
                        index.names.remove(&key);
                    }
                }
            }
        }
    }

    /// The children of a Flow that a store holds.
    #[must_use]
    pub fn of(&self, store: &Store<K>, namespace: &str, flow: &str) -> Vec<Arc<K>> {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = index.names.get(&(namespace.to_owned(), flow.to_owned()));
        names
            .into_iter()
            .flatten()
            .filter_map(|name| store.get(&ObjectRef::new(name).within(namespace)))
            .collect()
    }

    /// What belongs to the runner of a namespace.
    #[must_use]
    pub fn of_runner(&self, store: &Store<K>, namespace: &str) -> Vec<Arc<K>> {
        self.of(store, namespace, "")
    }
}

/// The namespace and name of the Flow that an object belongs to; no name for what belongs to the runner.
fn owner<K: Resource>(object: &K) -> Option<(String, String)> {
    let labels = object.labels();
    let runner = || (labels.get(label::COMPONENT).map(String::as_str) == Some("runner")).then(String::new);
    Some((object.namespace()?, labels.get(label::FLOW).cloned().or_else(runner)?))
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, labels: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}}))
            .unwrap()
    }

    fn of(name: &str, flow: &str) -> Pod {
        pod(name, &json!({"millrace.dev/flow": flow}))
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn pods_are_found_by_their_flow_and_a_list_replaces_what_was_known() {
        let (index, (reader, mut writer)) = (ByFlow::<Pod>::default(), store::store());
        let mut see = |event: Event<Pod>| {
            index.note(&event);
            writer.apply_watcher_event(&event);
        };
        see(Event::Init);
        see(Event::InitApply(of("a", "orders")));
        see(Event::InitApply(of("b", "bills")));
        see(Event::InitApply(pod("r", &json!({"app.kubernetes.io/component": "runner"}))));
        see(Event::InitDone);
        see(Event::Apply(of("c", "orders")));
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["a", "c"]);
        assert_eq!(names(&index.of_runner(&reader, "shop")), ["r"]);
        see(Event::Delete(of("a", "orders")));
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["c"]);
        see(Event::Init);
        see(Event::InitApply(of("d", "orders")));
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["c"]);
        see(Event::InitDone);
        assert_eq!(names(&index.of(&reader, "shop", "orders")), ["d"]);
        assert_eq!(names(&index.of(&reader, "shop", "bills")), Vec::<String>::new());
    }
}
