//! The controllers of Cartridges, Clusters and Instances, and the load balancer: how they are set up, and driven together.

use std::sync::{Arc, Mutex};

use kube::Client;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::membership::{self, Membership, Troubles};
use crate::runtime::{DriveMetrics, Writer, drive};

use super::instance::secrets::SecretValues;
use super::instance::{Rejections, Untold};
use super::members::{MemberCaches, SecretUsers};
use super::schemas::Schemas;
use super::wake::{MemberCalls, Parted};
use super::{cartridge, cluster, flow, instance};

/// How many Instances are looked at at a time, and load balancers: a member that goes must be out of its own at once.
const MANY: u16 = 16;
/// How many Clusters and Cartridges are looked at at a time. They sum up Instances: under load they wait, and then write more
/// at once.
const FEW: u16 = 4;

/// What the four work with.
pub struct Platform {
    cartridges: Arc<cartridge::Context>,
    clusters: Arc<cluster::Context>,
    balancers: Arc<Membership>,
    instances: Arc<instance::Context>,
}

impl Platform {
    /// Sets them up.
    #[must_use]
    pub fn new(
        flows: &Arc<flow::Context>,
        caches: MemberCaches,
        secret_users: SecretUsers,
        client: Client,
        writer: &Writer,
    ) -> Self {
        let (schemas, troubles) = (Arc::<Schemas>::default(), Troubles::default());
        let cartridges = cartridge::Context {
            flows: flows.clone(),
            users: caches.users.clone(),
            schemas: schemas.clone(),
            writer: writer.named(cartridge::MANAGER),
            written: Mutex::default(),
        };
        let clusters = cluster::Context {
            flows: flows.clone(),
            caches: caches.clone(),
            schemas: schemas.clone(),
            troubles: troubles.clone(),
            writer: writer.named(cluster::MANAGER),
            memory: cluster::Memory::default(),
        };
        let balancers = Membership {
            instances: (caches.instances.clone(), caches.members_of.clone()),
            pods: (flows.caches.pods.clone(), flows.caches.pods_of_instance.clone()),
            revisions: caches.revisions.clone(),
            services: caches.services.clone(),
            slices: (caches.slices.clone(), caches.slices_of.clone()),
            writer: writer.named(membership::MANAGER),
            troubles,
        };
        let instances = instance::Context {
            flows: flows.clone(),
            caches,
            secrets: SecretValues::new(client, flows.caches.secrets.clone()),
            secret_users,
            schemas,
            writer: writer.named(instance::MANAGER),
            rejected: Rejections::default(),
            untold: Arc::default(),
        };
        Self {
            cartridges: Arc::new(cartridges),
            clusters: Arc::new(clusters),
            balancers: Arc::new(balancers),
            instances: Arc::new(instances),
        }
    }

    /// What is seen of members.
    #[must_use]
    pub fn caches(&self) -> &MemberCaches {
        &self.instances.caches
    }

    /// Those whose agents could not be told because the broker was away.
    #[must_use]
    pub fn untold(&self) -> Arc<Untold> {
        self.instances.untold.clone()
    }

    /// Drives all four until `over`.
    pub async fn run(self, calls: MemberCalls, metrics: &DriveMetrics, over: &CancellationToken) {
        let caches = self.caches().clone();
        let mut parted = UnboundedReceiverStream::new(calls.parted);
        let forgetting = async {
            while let Some(parted) = parted.next().await {
                match parted {
                    Parted::Cartridge(gone) => cartridge::forget(&gone, &self.cartridges),
                    Parted::Cluster(gone) => cluster::forget(&gone, &self.clusters),
                    Parted::Instance(gone) => instance::forget(&gone, &self.instances),
                }
            }
        };
        let (a, b, c, d) =
            (self.cartridges.clone(), self.clusters.clone(), self.balancers.clone(), self.instances.clone());
        let stream = UnboundedReceiverStream::new;
        let driving = async {
            tokio::join!(
                drive(
                    "cartridge",
                    FEW,
                    caches.cartridges.clone(),
                    UnboundedReceiverStream::new(calls.cartridges),
                    move |it| cartridge::reconcile(it, a.clone()),
                    metrics.clone(),
                    over.clone(),
                ),
                drive(
                    "cluster",
                    FEW,
                    caches.clusters.clone(),
                    UnboundedReceiverStream::new(calls.clusters),
                    move |it| cluster::reconcile(it, b.clone()),
                    metrics.clone(),
                    over.clone(),
                ),
                drive(
                    "membership",
                    MANY,
                    caches.clusters.clone(),
                    UnboundedReceiverStream::new(calls.balancers),
                    move |it| membership::reconcile(it, c.clone()),
                    metrics.clone(),
                    over.clone(),
                ),
                drive(
                    "instance",
                    MANY,
                    caches.instances.clone(),
                    stream(calls.instances),
                    move |it| instance::reconcile(it, d.clone()),
                    metrics.clone(),
                    over.clone(),
                ),
            );
        };
        tokio::select! {
            () = driving => {}
            () = forgetting => {}
        }
    }
}
