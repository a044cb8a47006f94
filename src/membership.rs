//! Load-balancer membership: a Service for each Cluster, and its endpoints, which are the Active members.
//!
//! ```text
//!   plan     who is listed, and where: pure
//!   build    the Service, and a slice of endpoints
//! ```
//! It reads the resources and acts on what their conditions say, as anybody else could.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};

use crate::api::cartridge::Port;
use crate::api::cluster::Cluster;
use crate::api::instance::{Instance, member_of};
use crate::api::name::{ClusterName, NamespaceName};
use crate::api::revision::Revision;
use crate::runtime::{Failure, Index, Next, WriteError, Writer};

use build::Identity;
use plan::{Member, Plan, Snapshot};

pub mod build;
pub mod plan;

/// Fields that membership writes are its own.
pub const MANAGER: &str = "millrace-membership";

/// How long until a cache that is behind is looked at again, if it does not tell by itself.
const GLANCE: Duration = Duration::from_millis(500);

/// What membership works with.
pub struct Membership {
    /// Instances, and which of them are members of which Cluster.
    pub instances: (Store<Instance>, Index<Instance>),
    /// Pods, and which of them belong to which Instance.
    pub pods: (Store<Pod>, Index<Pod>),
    /// Stored revisions.
    pub revisions: Store<ControllerRevision>,
    /// Services that are ours.
    pub services: Store<Service>,
    /// Slices that are ours, and which of them belong to which Cluster.
    pub slices: (Store<EndpointSlice>, Index<EndpointSlice>),
    /// Writes to the Kubernetes API.
    pub writer: Writer,
    /// By the Cluster's uid, what could not be made.
    pub troubles: Troubles,
}

/// What could not be made, for those who tell people.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<HashMap<String, String>>>);

impl Troubles {
    /// Why the load balancer of the Cluster with this uid is not as it should be; none where it is.
    #[must_use]
    pub fn of(&self, uid: &str) -> Option<String> {
        self.lock().get(uid).cloned()
    }

    /// Forgets a Cluster that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn set(&self, uid: &str, trouble: Option<String>) {
        match trouble {
            Some(trouble) => drop(self.lock().insert(uid.to_owned(), trouble)),
            None => drop(self.lock().remove(uid)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the load balancer of one Cluster, and makes it what it should be.
///
/// # Errors
/// Something could not be written: it is tried again.
pub async fn reconcile(cluster: Arc<Cluster>, context: Arc<Membership>) -> Result<Next, Failure> {
    let Some(identity) = Identity::of(&cluster) else { return Ok(Next::Settled) };
    let seen = observe(&cluster, &identity, &context);
    if is_behind(&identity, &seen, &context) {
        return Ok(Next::After(GLANCE));
    }
    let plan = plan::plan(&identity, &seen);
    match act(plan, &seen, &context).await {
        Ok(()) | Err(WriteError::NamespaceEnding) => {
            context.troubles.set(&identity.uid, None);
            Ok(Next::Settled)
        }
        Err(error) => {
            let trouble = match &error {
                WriteError::Foreign => Some(
                    "its Service or an EndpointSlice cannot be made, because an object of its name belongs to somebody else: \
                     remove that"
                        .to_owned(),
                ),
                WriteError::Invalid(why) | WriteError::Forbidden(why) => Some(format!("its Service is refused: {why}")),
                _ => context.troubles.of(&identity.uid),
            };
            context.troubles.set(&identity.uid, trouble);
            Err(Failure::of_write(error, "cannot put the load balancer in order"))
        }
    }
}

fn observe(cluster: &Arc<Cluster>, identity: &Identity, context: &Membership) -> Snapshot {
    let (namespace, name) = (identity.namespace.as_str(), identity.name.as_str());
    let mut known: BTreeMap<String, Option<Vec<Port>>> = BTreeMap::new();
    let mut ports = |revision: Option<&String>| -> Option<Vec<Port>> {
        let revision = revision?;
        let read = || {
            let stored = context.revisions.get(&ObjectRef::new(revision).within(namespace))?;
            Some(Revision::read(&stored)?.cartridge.ports)
        };
        known.entry(revision.clone()).or_insert_with(read).clone()
    };
    let current = cluster.status.as_ref().and_then(|status| status.current_revision.as_ref());
    let current = ports(current);
    let members = context.instances.1.of(&context.instances.0, namespace, name);
    let ours = |instance: &Arc<Instance>| member_of(instance).is_some_and(|(_, uid)| uid == identity.uid);
    let members = members.into_iter().filter(ours).map(|instance| {
        let revision = instance.status.as_ref().and_then(|status| status.revision.as_ref());
        let pods = context.pods.1.of(&context.pods.0, namespace, &instance.name_any());
        let uid = instance.meta().uid.clone().unwrap_or_default();
        let owned = |pod: &Arc<Pod>| pod.owner_references().iter().any(|owner| owner.uid == uid);
        let pod = pods.into_iter().find(owned);
        Member { ports: ports(revision), pod, instance }
    });
    Snapshot {
        members: members.collect(),
        ports: current,
        service: context.services.get(&ObjectRef::new(&identity.service()).within(namespace)),
        slices: context.slices.1.of(&context.slices.0, namespace, name),
        deleting: cluster.meta().deletion_timestamp.is_some(),
        balancer: cluster.spec.load_balancer.clone().unwrap_or_default(),
    }
}

/// Whether what is cached is older than what we have written.
fn is_behind(identity: &Identity, seen: &Snapshot, context: &Membership) -> bool {
    let (writer, namespace) = (&context.writer, identity.namespace.as_str());
    let service = seen.service.as_ref().map(|service| &service.metadata);
    let slice = |slice: &Arc<EndpointSlice>| {
        writer.is_ahead_of::<EndpointSlice>(namespace, &slice.name_any(), Some(&slice.metadata))
    };
    writer.is_ahead_of::<Service>(namespace, &identity.service(), service) || seen.slices.iter().any(slice)
}

async fn act(plan: Plan, seen: &Snapshot, context: &Membership) -> Result<(), WriteError> {
    let writer = &context.writer;
    let service = match &plan.service {
        Some(service) => writer.put(service, seen.service.as_deref()).await,
        None => Ok(()),
    };
    if matches!(service, Err(WriteError::Foreign)) {
        // Under that name, somebody else's Service would send its requests to our members.
        for slice in &seen.slices {
            writer.delete::<EndpointSlice>(&slice.metadata).await?;
        }
        return service;
    }
    // Whatever else is wrong with it: whoever is to leave leaves.
    for wanted in &plan.slices {
        let name = wanted.name_any();
        let live = seen.slices.iter().find(|live| live.name_any() == name);
        writer.put(wanted, live.map(|live| &**live)).await?;
    }
    for gone in &plan.gone {
        writer.delete::<EndpointSlice>(&gone.metadata).await?;
    }
    service
}

/// Whether a slice lists a pod as ready: the load balancer sends to it.
#[must_use]
pub fn is_ready_in(slice: &EndpointSlice, uid: &str) -> bool {
    slice.endpoints.iter().any(|endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        ready && endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()) == Some(uid)
    })
}

/// The name of a Cluster's Service.
#[must_use]
pub fn service_name(namespace: &NamespaceName, cluster: &ClusterName) -> String {
    build::service_name(namespace, cluster)
}
