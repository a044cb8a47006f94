//! What the controllers see of the cluster, each kind watched once, and whom a change gives reason to look.

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
use crate::runtime::Index;
use crate::runtime::watch::{cache, cache_metadata, subject};

use super::members::{NodePods, SecretUsers};
use super::wake::Wake;

/// All that is watched.
#[derive(Clone)]
pub struct Caches {
    /// Flows.
    pub flows: Store<Flow>,
    /// Deployments that are ours.
    pub deployments: Store<Deployment>,
    /// Which of them belong to which Flow.
    pub deployments_of: Index<Deployment>,
    /// Pods that are ours.
    pub pods: Store<Pod>,
    /// Which of them belong to which Flow.
    pub pods_of: Index<Pod>,
    /// Which of them belong to which Instance.
    pub pods_of_instance: Index<Pod>,
    /// Which Instances have pods on which node, under no namespace.
    pub pods_on_node: NodePods,
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
        secret_users: &SecretUsers,
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
        let deployments_of = Index::<Deployment>::new(owner);
        let index = deployments_of.clone();
        let (deployments, task) =
            cache(Api::all(client.clone()), ours(), move |event: &Event<Deployment>| {
                index.note(event);
                w.child_changed(event, &known);
            });
        keep(task);
        let (w, known) = of_flow(wake, &flows);
        let pods_of = Index::<Pod>::new(owner);
        let index = pods_of.clone();
        let pods_of_instance =
            Index::<Pod>::new(|pod| pod.labels().get(label::INSTANCE).cloned().into_iter().collect());
        let pods_on_node = NodePods::default();
        let (of_instance, on_node) = (pods_of_instance.clone(), pods_on_node.clone());
        let (pods, task) = cache(Api::all(client.clone()), ours(), move |event: &Event<Pod>| {
            index.note(event);
            of_instance.note(event);
            on_node.note(event);
            w.child_changed(event, &known);
            w.pod_changed(event);
        });
        keep(task);
        let (w, known) = of_flow(wake, &flows);
        let users = secret_users.clone();
        let (secrets, task) =
            cache_metadata(Api::<PartialObjectMeta<Secret>>::all(client.clone()), all(), move |event| {
                w.child_changed(event, &known);
                if let Some(secret) = subject(event) {
                    w.flows_where(&known, |flow| uses(flow, &secret));
                    users.wake(&secret, &w);
                }
                w.secret_changed(event);
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
        Self {
            flows,
            deployments,
            deployments_of,
            pods,
            pods_of,
            pods_of_instance,
            pods_on_node,
            secrets,
            namespaces,
            gateways,
        }
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

/// The key of what belongs to the runner of a namespace: no Flow has such a name.
pub const OF_RUNNER: &str = "";

/// What an object belongs to: a Flow, or the runner.
fn owner<K: Resource>(object: &K) -> Vec<String> {
    let labels = object.labels();
    let runner =
        || (labels.get(label::COMPONENT).map(String::as_str) == Some("runner")).then(|| OF_RUNNER.to_owned());
    labels.get(label::FLOW).cloned().or_else(runner).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        let (index, (reader, mut writer)) = (Index::<Pod>::new(owner), store::store());
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
        assert_eq!(names(&index.of(&reader, "shop", OF_RUNNER)), ["r"]);
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
