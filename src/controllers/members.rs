//! What the controllers of Cartridges, Clusters and Instances see of the cluster, and whom a change gives reason to look.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::task::JoinSet;

use crate::api::cartridge::Cartridge;
use crate::api::cluster::Cluster;
use crate::api::condition::{ConditionType, find, is_true};
use crate::api::instance::{Desired, Instance};
use crate::api::label;
use crate::runtime::Index;
use crate::runtime::watch::{Cached, cache};

use super::caches::WatchEnded;
use super::cartridge::Users;
use super::instance::exchange::Exchange;
use super::instance::imports::Unit;
use super::instance::member_of;
use super::wake::{Parted, Wake};

/// All that is watched for the sake of members.
#[derive(Clone)]
pub struct MemberCaches {
    /// Cartridges.
    pub cartridges: Store<Cartridge>,
    /// Who uses them.
    pub users: Arc<Users>,
    /// Clusters.
    pub clusters: Store<Cluster>,
    /// Which of them subscribe to which cartridge, by its name.
    pub clusters_of: Index<Cluster>,
    /// Instances.
    pub instances: Store<Instance>,
    /// Which of them are members of which Cluster.
    pub members_of: Index<Instance>,
    /// What they offer and want.
    pub exchange: Arc<Exchange>,
    /// Stored revisions that are ours.
    pub revisions: Store<ControllerRevision>,
    /// Which of them belong to which Cluster.
    pub revisions_of: Index<ControllerRevision>,
    /// Services that are ours.
    pub services: Store<Service>,
    /// `EndpointSlices` that are ours.
    pub slices: Store<EndpointSlice>,
    /// Which of them belong to which Cluster.
    pub slices_of: Index<EndpointSlice>,
    /// The nodes that do not answer, and since when.
    pub lost_nodes: LostNodes,
}

impl MemberCaches {
    /// Begins to watch, for as long as the tasks run.
    pub fn start(client: &Client, wake: &Wake, pods: &NodePods, tasks: &mut JoinSet<()>) -> Self {
        let ours = || watcher::Config::default().labels(&format!("{}=millrace", label::MANAGED_BY));
        let all = watcher::Config::default;
        let mut keep = |task: tokio::task::JoinHandle<()>| {
            let task = tokio_util::task::AbortOnDropHandle::new(task);
            tasks.spawn(async move { drop(task.await) });
        };
        let (users, exchange) = (Arc::<Users>::default(), Arc::<Exchange>::default());
        let members_of = Index::<Instance>::new(|instance| {
            member_of(instance).map(|(cluster, _)| cluster).into_iter().collect()
        });
        let clusters_of = Index::<Cluster>::new(|cluster| vec![cluster.spec.cartridge.name.clone()]);

        let (w, x, index, u) = (wake.clone(), exchange.clone(), members_of.clone(), users.clone());
        let (instances, task) = cache(Api::all(client.clone()), all(), move |event: &Event<Instance>| {
            index.note(event);
            for woken in x.note(event) {
                w.instance(woken);
            }
            for used in u.note_instance(event) {
                w.cartridge(used);
            }
            instance_changed(event, &w);
        });
        keep(task);

        let (w, index, members, known) =
            (wake.clone(), clusters_of.clone(), members_of.clone(), Generations::default());
        let (x, u) = (exchange.clone(), users.clone());
        let (clusters, task) = cache(Api::all(client.clone()), all(), move |event: &Event<Cluster>| {
            index.note(event);
            for used in u.note_cluster(event) {
                w.cartridge(used);
            }
            cluster_changed(event, &known, &members, &x, &w);
        });
        keep(task);

        let (w, known) = (wake.clone(), Generations::default());
        let known_users = (clusters.clone(), instances.clone());
        let (cartridges, task) = cache(Api::all(client.clone()), all(), move |event: &Event<Cartridge>| {
            cartridge_changed(event, &known, (&known_users.0, &known_users.1), &w);
        });
        keep(task);

        let revisions_of = Index::<ControllerRevision>::new(|it| {
            it.labels().get(label::CLUSTER).cloned().into_iter().collect()
        });
        let (w, index, members) = (wake.clone(), revisions_of.clone(), members_of.clone());
        let (revisions, task) =
            cache(Api::all(client.clone()), ours(), move |event: &Event<ControllerRevision>| {
                index.note(event);
                revision_changed(event, &members, &w);
            });
        keep(task);

        let w = wake.clone();
        let (services, task) = cache(Api::all(client.clone()), ours(), move |event: &Event<Service>| {
            of_balancer(event, &w);
        });
        keep(task);

        let slices_of =
            Index::<EndpointSlice>::new(|it| it.labels().get(label::CLUSTER).cloned().into_iter().collect());
        let (w, index, members, known) =
            (wake.clone(), slices_of.clone(), members_of.clone(), instances.clone());
        let (slices, task) = cache(Api::all(client.clone()), ours(), move |event: &Event<EndpointSlice>| {
            index.note(event);
            of_balancer(event, &w);
            slice_changed(event, &members, &known, &w);
        });
        keep(task);

        let lost_nodes = LostNodes::default();
        let (w, lost, pods) = (wake.clone(), lost_nodes.clone(), pods.clone());
        let (_, task) = cache(Api::all(client.clone()), all(), move |event: &Event<Node>| {
            if let Some(node) = lost.note(event) {
                for instance in pods.on(&node) {
                    w.instance(instance);
                }
            }
        });
        keep(task);

        Self {
            cartridges,
            users,
            clusters,
            clusters_of,
            instances,
            members_of,
            exchange,
            revisions,
            revisions_of,
            services,
            slices,
            slices_of,
            lost_nodes,
        }
    }

    /// Waits until the first list of each kind is there: nothing is decided before.
    ///
    /// # Errors
    /// A watch has ended.
    pub async fn wait(&self) -> Result<(), WatchEnded> {
        self.cartridges.wait_until_ready().await?;
        self.clusters.wait_until_ready().await?;
        self.instances.wait_until_ready().await?;
        self.revisions.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.slices.wait_until_ready().await?;
        self.lost_nodes.wait_until_ready().await;
        Ok(())
    }
}

fn reference<K: Resource<DynamicType = ()>>(name: &str, of: &impl kube::ResourceExt) -> ObjectRef<K> {
    ObjectRef::new(name).within(&of.namespace().unwrap_or_default())
}

fn instance_changed(event: &Event<Instance>, wake: &Wake) {
    let (Event::Apply(instance) | Event::InitApply(instance) | Event::Delete(instance)) = event else {
        return;
    };
    wake.instance(ObjectRef::from_obj(instance));
    if let Some((cluster, _)) = member_of(instance) {
        wake.cluster(reference(&cluster, instance));
        wake.balancer(reference(&cluster, instance));
    }
    if matches!(event, Event::Delete(_)) {
        wake.parted(Parted::Instance(Box::new(instance.clone())));
    }
}

fn cluster_changed(
    event: &Event<Cluster>,
    known: &Generations,
    members: &Index<Instance>,
    exchange: &Exchange,
    wake: &Wake,
) {
    let (Event::Apply(cluster) | Event::InitApply(cluster) | Event::Delete(cluster)) = event else { return };
    let gone = matches!(event, Event::Delete(_));
    wake.cluster(ObjectRef::from_obj(cluster));
    wake.balancer(ObjectRef::from_obj(cluster));
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    // A status that moves is no reason for a thousand members to look.
    if known.has_moved(cluster, String::new(), gone) {
        for member in members.names(&namespace, &name) {
            wake.instance(reference(&member, cluster));
        }
        for unit in [Unit::Cluster(name.clone()), Unit::Instance(name.clone())] {
            for importer in exchange.importers(&namespace, &unit) {
                wake.instance(importer);
            }
        }
    }
    if gone {
        wake.parted(Parted::Cluster(Box::new(cluster.clone())));
    }
}

fn cartridge_changed(
    event: &Event<Cartridge>,
    known: &Generations,
    (clusters, instances): (&Store<Cluster>, &Store<Instance>),
    wake: &Wake,
) {
    let (Event::Apply(cartridge) | Event::InitApply(cartridge) | Event::Delete(cartridge)) = event else {
        return;
    };
    let gone = matches!(event, Event::Delete(_));
    wake.cartridge(ObjectRef::from_obj(cartridge));
    if known.has_moved(cartridge, acceptance(cartridge), gone) {
        let (namespace, name) = (cartridge.namespace(), cartridge.name_any());
        let is = |of: &crate::api::cluster::CartridgeRef, user: Option<String>| {
            of.name == name && of.namespace.clone().or(user) == namespace
        };
        for cluster in clusters.state().iter().filter(|it| is(&it.spec.cartridge, it.namespace())) {
            wake.cluster(ObjectRef::from_obj(&**cluster));
        }
        for instance in instances.state().iter().filter(|it| is(&it.spec.cartridge, it.namespace())) {
            wake.instance(ObjectRef::from_obj(&**instance));
        }
    }
    if gone {
        wake.parted(Parted::Cartridge(Box::new(cartridge.clone())));
    }
}

/// What was said of a Cartridge, and of which generation: a new spec may be used only when it was looked at itself.
fn acceptance(cartridge: &Cartridge) -> String {
    let conditions = cartridge.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let accepted = find(conditions, ConditionType::Accepted);
    format!("{:?}", accepted.map(|accepted| (&accepted.status, accepted.observed_generation)))
}

fn revision_changed(event: &Event<ControllerRevision>, members: &Index<Instance>, wake: &Wake) {
    let (Event::Apply(stored) | Event::InitApply(stored) | Event::Delete(stored)) = event else { return };
    if let Some(cluster) = stored.labels().get(label::CLUSTER) {
        wake.cluster(reference(cluster, stored));
        wake.balancer(reference(cluster, stored));
        for member in members.names(&stored.namespace().unwrap_or_default(), cluster) {
            wake.instance(reference(&member, stored));
        }
    }
    if let Some(instance) = stored.labels().get(label::INSTANCE) {
        wake.instance(reference(instance, stored));
    }
}

fn of_balancer<K: Cached>(event: &Event<K>, wake: &Wake) {
    let (Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) = event else { return };
    if let Some(cluster) = object.labels().get(label::CLUSTER) {
        wake.balancer(reference(cluster, object));
        wake.cluster(reference(cluster, object));
    }
}

/// Members that wait until the load balancer has let them go.
fn slice_changed(
    event: &Event<EndpointSlice>,
    members: &Index<Instance>,
    known: &Store<Instance>,
    wake: &Wake,
) {
    let (Event::Apply(slice) | Event::InitApply(slice) | Event::Delete(slice)) = event else { return };
    let Some(cluster) = slice.labels().get(label::CLUSTER) else { return };
    let namespace = slice.namespace().unwrap_or_default();
    for member in members.of(known, &namespace, cluster) {
        let conditions = member.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let stays = member.metadata.deletion_timestamp.is_none()
            && member.spec.desired.unwrap_or_default() == Desired::Started
            && is_true(conditions, ConditionType::Serving);
        if !stays {
            wake.instance(ObjectRef::from_obj(&*member));
        }
    }
}

/// The last generation of each object, and something else of it that others depend on.
#[derive(Debug, Default)]
struct Generations(Mutex<HashMap<Place, Generation>>);

/// A namespace and a name.
type Place = (String, String);
/// A uid, a generation, and something else that others depend on.
type Generation = (Option<String>, Option<i64>, String);

impl Generations {
    fn has_moved<K: Resource>(&self, object: &K, and: String, gone: bool) -> bool {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let mut all = lock(&self.0);
        if gone {
            all.remove(&key);
            return true;
        }
        let now = (object.uid(), object.meta().generation, and);
        all.insert(key, now.clone()) != Some(now)
    }
}

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

    fn on(&self, node: &str) -> Vec<ObjectRef<Instance>> {
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

    async fn wait_until_ready(&self) {
        // The sender is here: it cannot have ended.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Takes note of what the watch says, and names the node where something has changed.
    fn note(&self, event: &Event<Node>) -> Option<String> {
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

/// Which Instances read which Secrets.
#[derive(Clone, Debug, Default)]
pub struct SecretUsers(Arc<Mutex<HashMap<Place, BTreeSet<String>>>>);

impl SecretUsers {
    /// Takes note that an Instance reads a Secret of its namespace.
    pub fn uses(&self, namespace: &str, secret: &str, instance: &str) {
        let key = (namespace.to_owned(), secret.to_owned());
        lock(&self.0).entry(key).or_default().insert(instance.to_owned());
    }

    /// Forgets an Instance.
    pub fn forget(&self, namespace: &str, instance: &str) {
        lock(&self.0).retain(|(of, _), users| {
            if of == namespace {
                users.remove(instance);
            }
            !users.is_empty()
        });
    }

    /// Wakes those that read a Secret that has changed.
    pub fn wake(&self, secret: &ObjectRef<PartialObjectMeta<Secret>>, wake: &Wake) {
        let namespace = secret.namespace.clone().unwrap_or_default();
        let users = lock(&self.0).get(&(namespace.clone(), secret.name.clone())).cloned();
        for instance in users.into_iter().flatten() {
            wake.instance(ObjectRef::new(&instance).within(&namespace));
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store;
    use serde_json::{Value, json};

    use super::*;

    fn object<K: serde::de::DeserializeOwned>(kind: &str, more: &Value) -> K {
        let mut object = json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": kind,
            "metadata": {"namespace": "shop", "name": "db", "uid": "1", "generation": more["generation"]},
        });
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    /// A Cartridge of a generation, that was looked at in another.
    fn cartridge(generation: i64, looked_at: i64) -> Event<Cartridge> {
        let mut cartridge: Cartridge = object("Cartridge", &json!({"spec": {"image": "db:1"}}));
        cartridge.metadata.generation = Some(generation);
        cartridge.status = serde_json::from_value(json!({"conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "observedGeneration": looked_at, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}))
        .unwrap();
        Event::Apply(cartridge)
    }

    #[test]
    fn a_cluster_looks_again_when_the_new_spec_of_its_cartridge_was_accepted() {
        let (wake, mut calls, _) = Wake::new();
        let ((clusters, mut writer), (instances, _)) = (store::<Cluster>(), store::<Instance>());
        writer.apply_watcher_event(&Event::Apply(object(
            "Cluster",
            &json!({"spec": {"cartridge": {"name": "db"}, "replicas": 1}}),
        )));
        let known = Generations::default();
        for (generation, looked_at, woken) in
            [(1, 1, true), (1, 1, false), (2, 1, true), (2, 2, true), (2, 2, false)]
        {
            cartridge_changed(&cartridge(generation, looked_at), &known, (&clusters, &instances), &wake);
            let heard = calls.members.clusters.try_recv().is_ok();
            assert_eq!(heard, woken, "generation {generation}, looked at in {looked_at}");
        }
    }
}
