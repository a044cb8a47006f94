//! Who has reason to look: what happens to one object, told to the controllers of others.

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::api::cartridge::Cartridge;
use crate::api::cluster::Cluster;
use crate::api::flow::Flow;
use crate::api::instance::Instance;
use crate::api::label;
use crate::runtime::watch::{Cached, subject};

/// Flows whose schedule is to be looked at; none where all are.
pub type Changes = UnboundedReceiver<Option<ObjectRef<Flow>>>;

/// A namespace, of which only the metadata is watched.
pub type NamespaceMeta = PartialObjectMeta<Namespace>;

/// Tells the controllers.
#[derive(Clone, Debug)]
pub struct Wake {
    flows: UnboundedSender<ObjectRef<Flow>>,
    namespaces: UnboundedSender<ObjectRef<NamespaceMeta>>,
    gone: UnboundedSender<Flow>,
    schedules: UnboundedSender<Option<ObjectRef<Flow>>>,
    cartridges: UnboundedSender<ObjectRef<Cartridge>>,
    clusters: UnboundedSender<ObjectRef<Cluster>>,
    balancers: UnboundedSender<ObjectRef<Cluster>>,
    instances: UnboundedSender<ObjectRef<Instance>>,
    parted: UnboundedSender<Parted>,
}

/// What is gone, and to be forgotten.
#[derive(Clone, Debug)]
pub enum Parted {
    /// A Cartridge.
    Cartridge(Box<Cartridge>),
    /// A Cluster.
    Cluster(Box<Cluster>),
    /// An Instance.
    Instance(Box<Instance>),
}

/// What the controllers hear.
#[derive(Debug)]
pub struct Calls {
    /// Flows to look at.
    pub flows: UnboundedReceiver<ObjectRef<Flow>>,
    /// Namespaces whose runner is to be looked at.
    pub namespaces: UnboundedReceiver<ObjectRef<NamespaceMeta>>,
    /// Flows that are gone, to be forgotten.
    pub gone: UnboundedReceiver<Flow>,
    /// What concerns members.
    pub members: MemberCalls,
}

/// What the controllers of members hear.
#[derive(Debug)]
pub struct MemberCalls {
    /// Cartridges to look at.
    pub cartridges: UnboundedReceiver<ObjectRef<Cartridge>>,
    /// Clusters to look at.
    pub clusters: UnboundedReceiver<ObjectRef<Cluster>>,
    /// Clusters whose load balancer is to be looked at.
    pub balancers: UnboundedReceiver<ObjectRef<Cluster>>,
    /// Instances to look at.
    pub instances: UnboundedReceiver<ObjectRef<Instance>>,
    /// What else is gone.
    pub parted: UnboundedReceiver<Parted>,
}

impl Wake {
    /// One who tells, and what is heard of it: by the controllers, and by the scheduler.
    #[must_use]
    pub fn new() -> (Self, Calls, Changes) {
        let (flows, heard_flows) = unbounded_channel();
        let (namespaces, heard_namespaces) = unbounded_channel();
        let (gone, heard_gone) = unbounded_channel();
        let (schedules, heard_schedules) = unbounded_channel();
        let (cartridges, heard_cartridges) = unbounded_channel();
        let (clusters, heard_clusters) = unbounded_channel();
        let (balancers, heard_balancers) = unbounded_channel();
        let (instances, heard_instances) = unbounded_channel();
        let (parted, heard_parted) = unbounded_channel();
        let calls = Calls {
            flows: heard_flows,
            namespaces: heard_namespaces,
            gone: heard_gone,
            members: MemberCalls {
                cartridges: heard_cartridges,
                clusters: heard_clusters,
                balancers: heard_balancers,
                instances: heard_instances,
                parted: heard_parted,
            },
        };
        let wake =
            Self { flows, namespaces, gone, schedules, cartridges, clusters, balancers, instances, parted };
        (wake, calls, heard_schedules)
    }

    /// One Flow has reason. Where nobody listens any more, nobody needs to know.
    pub fn flow(&self, flow: ObjectRef<Flow>) {
        let _ = self.flows.send(flow);
    }

    /// One Cartridge has reason.
    pub fn cartridge(&self, cartridge: ObjectRef<Cartridge>) {
        let _ = self.cartridges.send(cartridge);
    }

    /// One Cluster has reason.
    pub fn cluster(&self, cluster: ObjectRef<Cluster>) {
        let _ = self.clusters.send(cluster);
    }

    /// The load balancer of one Cluster has reason.
    pub fn balancer(&self, cluster: ObjectRef<Cluster>) {
        let _ = self.balancers.send(cluster);
    }

    /// One Instance has reason.
    pub fn instance(&self, instance: ObjectRef<Instance>) {
        let _ = self.instances.send(instance);
    }

    /// Something is gone.
    pub fn parted(&self, parted: Parted) {
        let _ = self.parted.send(parted);
    }

    /// A pod that may belong to an Instance has changed.
    pub fn pod_changed(&self, event: &Event<Pod>) {
        let (Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) = event else { return };
        let Some(namespace) = pod.namespace() else { return };
        if let Some(instance) = pod.labels().get(label::INSTANCE) {
            self.instance(ObjectRef::new(instance).within(&namespace));
            if let Some(cluster) = pod.labels().get(label::CLUSTER) {
                self.balancer(ObjectRef::new(cluster).within(&namespace));
            }
        }
    }

    /// A Secret that may be an Instance's or a Cluster's own has changed.
    pub fn secret_changed(&self, event: &Event<PartialObjectMeta<Secret>>) {
        let (Event::Apply(secret) | Event::InitApply(secret) | Event::Delete(secret)) = event else { return };
        let Some(namespace) = secret.namespace() else { return };
        if let Some(instance) = secret.labels().get(label::INSTANCE) {
            self.instance(ObjectRef::new(instance).within(&namespace));
        } else if let Some(cluster) = secret.labels().get(label::CLUSTER) {
            self.cluster(ObjectRef::new(cluster).within(&namespace));
        }
    }

    /// The runner of a namespace has reason.
    pub fn namespace(&self, name: &str) {
        let _ = self.namespaces.send(ObjectRef::new(name));
    }

    /// All Flows that are of some kind have reason.
    pub fn flows_where(&self, flows: &Store<Flow>, of_kind: impl Fn(&Flow) -> bool) {
        for flow in flows.state().iter().filter(|flow| of_kind(flow)) {
            self.flow(ObjectRef::from_obj(&**flow));
        }
    }

    /// A Flow has changed.
    pub fn flow_changed(&self, event: &Event<Flow>) {
        if let Event::Delete(flow) = event {
            let _ = self.gone.send(flow.clone());
        }
        let Some(flow) = subject(event) else {
            // What went while nobody watched is told by nobody.
            let _ = self.schedules.send(None);
            return;
        };
        let _ = self.schedules.send(Some(flow.clone()));
        if let Some(namespace) = &flow.namespace {
            self.namespace(namespace);
        }
        self.flow(flow);
    }

    /// Something that may belong to a Flow, or to a runner, has changed.
    pub fn child_changed<K: Cached>(&self, event: &Event<K>, flows: &Store<Flow>) {
        match event {
            Event::Apply(child) | Event::InitApply(child) | Event::Delete(child) => self.child(child, flows),
            // What went while nobody watched is told by nobody.
            Event::InitDone => self.flows_where(flows, |_| true),
            Event::Init => {}
        }
    }

    fn child<K: Resource>(&self, child: &K, flows: &Store<Flow>) {
        let Some(namespace) = child.namespace() else { return };
        if let Some(flow) = child.labels().get(label::FLOW) {
            self.flow(ObjectRef::new(flow).within(&namespace));
        } else if child.labels().get(label::COMPONENT).map(String::as_str) == Some("runner") {
            self.namespace(&namespace);
            self.flows_where(flows, |flow| {
                flow.namespace().as_ref() == Some(&namespace) && has_builtins(flow)
            });
        }
    }

    /// A namespace has changed: where it is going, its Flows must know.
    pub fn namespace_changed(&self, event: &Event<NamespaceMeta>, flows: &Store<Flow>) {
        let (Event::Apply(namespace) | Event::InitApply(namespace)) = event else { return };
        self.namespace(&namespace.name_any());
        if namespace.metadata.deletion_timestamp.is_some() {
            let name = Some(namespace.name_any());
            self.flows_where(flows, |flow| flow.namespace() == name);
        }
    }
}

/// Whether a Flow has nodes that the runner runs.
fn has_builtins(flow: &Flow) -> bool {
    flow.spec.graph.nodes.iter().any(|node| node.builtin.is_some())
}
