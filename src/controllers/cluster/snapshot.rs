//! All that was seen of a Cluster, of its members, and of what it subscribes to, at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::jiff::Timestamp;

use crate::api::cartridge::CartridgeSpec;
use crate::api::cluster::Cluster;
use crate::api::instance::Instance;

/// What was seen.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Cluster.
    pub cluster: Arc<Cluster>,
    /// When this was seen.
    pub now: Timestamp,
    /// Whether the namespace is being deleted: nothing can be made in it any more.
    pub namespace_ending: bool,
    /// The cartridge, or what is to be done about it, in words.
    pub cartridge: Result<Arc<CartridgeSpec>, String>,
    /// How the values differ from what the cartridge asks for.
    pub unfit: Option<String>,
    /// The Instances that the Cluster owns, also those that are going.
    pub members: Vec<Arc<Instance>>,
    /// Ordinals whose names belong to Instances of others.
    pub foreign: BTreeSet<u32>,
    /// The stored revisions that the Cluster owns.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Whether the Secret with the subscription key is there.
    pub key: bool,
    /// What is wrong with the load balancer.
    pub trouble: Option<String>,
    /// What the API server did not take, and why.
    pub refused: Option<String>,
    /// Whether the event log has the last transition.
    pub announced: bool,
}
