//! All that was seen of a Flow and of what it has made, at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::api::flow::Flow;
use crate::api::name::NodeId;
use crate::broker::work::{FlowWork, Loaded};
use crate::scheduler::TakenUp;

/// What was seen.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Flow.
    pub flow: Arc<Flow>,
    /// When this was seen.
    pub now: Timestamp,
    /// Whether the namespace is being deleted: nothing can be made in it any more.
    pub namespace_ending: bool,
    /// The Deployments that the Flow owns, by node.
    pub deployments: BTreeMap<NodeId, Arc<Deployment>>,
    /// Its pods, by node.
    pub pods: BTreeMap<NodeId, Vec<Arc<Pod>>>,
    /// The Secrets that its nodes' credentials come from: a hash of the content, or none where there is no Secret.
    pub credentials: BTreeMap<String, Option<String>>,
    /// The nodes that have queues, as the Secret with the broker's credentials says; none where there is no Secret.
    pub queues: Option<BTreeSet<NodeId>>,
    /// Why the broker cannot be used, where it cannot.
    pub broker_trouble: Option<String>,
    /// The nodes whose Deployment the API server did not take, and why.
    pub refused: BTreeMap<NodeId, String>,
    /// How many messages wait or are being handled, by node: looked at only where something is drained.
    pub backlog: Option<BTreeMap<NodeId, u64>>,
    /// What the runner was told.
    pub work: Option<FlowWork>,
    /// What the runner has loaded.
    pub loaded: Option<Loaded>,
    /// How the runner of the namespace is.
    pub runner: Runner,
    /// The gateways.
    pub gateways: Gateways,
    /// How many of its messages no node could handle; none where that is not known.
    pub dead_letters: Option<u64>,
    /// What the scheduler has taken up of the Flow.
    pub scheduled: Option<TakenUp>,
    /// The resourceVersion of the first version of the Flow that was seen with its present route state.
    pub route_since: u64,
    /// The same for its present entry node, into whose queue gateways put messages.
    pub entry_since: u64,
    /// Whether the event log has the last transition of the Flow.
    pub announced: bool,
}

/// The runner of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runner {
    /// A pod of it is ready.
    Ready,
    /// It is on its way, or was never asked for; with what keeps it.
    Starting(Option<String>),
}

/// The gateways: who there is, and how far each has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    /// The endpoints of the gateway's Service: those that are ready, and all others that are listed.
    pub endpoints: BTreeMap<String, bool>,
    /// The highest resourceVersion that each gateway's routes hold, where it was heard of lately.
    pub applied: BTreeMap<String, u64>,
}

impl Gateways {
    /// Those that may take requests and have not yet applied a version of the routes.
    ///
    /// # Errors
    /// No gateway is ready at all: nothing takes requests.
    pub fn behind_arming(&self, version: u64) -> Result<Vec<&str>, NoGateway> {
        let ready = || self.endpoints.iter().filter(|(_, ready)| **ready).map(|(name, _)| name.as_str());
        ready().next().ok_or(NoGateway)?;
        Ok(ready().filter(|name| !self.has_applied(name, version)).collect())
    }

    /// Those that are listed, ready or not, and have not yet applied a version of the routes: they may still take
    /// requests over connections that they have.
    #[must_use]
    pub fn behind_disarming(&self, version: u64) -> Vec<&str> {
        self.endpoints.keys().map(String::as_str).filter(|name| !self.has_applied(name, version)).collect()
    }

    fn has_applied(&self, name: &str, version: u64) -> bool {
        self.applied.get(name).is_some_and(|applied| *applied >= version)
    }
}

/// No endpoint of the gateway's Service is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoGateway;

impl Snapshot {
    /// Whether the broker can be used.
    #[must_use]
    pub const fn broker_up(&self) -> bool {
        self.broker_trouble.is_none()
    }

    /// The nodes that left something behind: a queue, messages, a Deployment, pods, work of the runner.
    #[must_use]
    pub fn known(&self) -> BTreeSet<NodeId> {
        let queues = self.queues.iter().flatten();
        let work = self.work.iter().flat_map(|work| work.nodes.iter().map(|node| &node.id));
        let pods = self.pods.iter().filter(|(_, pods)| !pods.is_empty()).map(|(node, _)| node);
        let waiting = self.backlog.iter().flatten().filter(|(_, count)| **count > 0).map(|(node, _)| node);
        queues.chain(work).chain(self.deployments.keys()).chain(pods).chain(waiting).cloned().collect()
    }

    /// Whether nothing waits for a node and nothing is being handled by it. Where nobody has looked, something may.
    #[must_use]
    pub fn is_empty(&self, node: &NodeId) -> bool {
        self.backlog.as_ref().and_then(|backlog| backlog.get(node)).is_some_and(|waiting| *waiting == 0)
    }
}
