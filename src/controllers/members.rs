//! What the controllers of Cartridges, Clusters and Instances see of the cluster.
//!
//! ```text
//!   changes   whom a change gives reason to look      nodes   who runs where, and which nodes do not answer
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::task::JoinSet;

use crate::api::cartridge::Cartridge;
use crate::api::cluster::Cluster;
use crate::api::instance::{Instance, member_of};
use crate::api::label;
use crate::runtime::Index;
use crate::runtime::watch::cache;

use super::caches::WatchEnded;
use super::cartridge::Users;
use super::instance::exchange::Exchange;
use super::wake::Wake;
use changes::{
    Generations, cartridge_changed, cluster_changed, instance_changed, of_balancer, revision_changed,
    slice_changed,
};

mod changes;
mod nodes;

pub use nodes::{LostNodes, NodePods};

/// A namespace and a name.
type Place = (String, String);

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
