//! What to do about a Flow, and what to say of it: pure, total, and with the time passed in.
//!
//! ```text
//!   nodes     how each node is: ready, on its way, or waiting for something that is missing
//!   trigger   whether gateways or scheduler have taken the trigger up, or have given it up
//!   start     the steps towards a Flow that runs       stop    the steps towards one that is at rest
//!   report    the status that comes of it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;

use crate::api::condition::{self, ConditionType};
use crate::api::flow::FlowStatus;
use crate::api::flow::phase::Wish;
use crate::api::name::NodeId;
use crate::api::transition::Event;
use crate::broker::work::FlowWork;

use super::build::{BuildConfig, Identity};
use super::snapshot::Snapshot;
use super::validate::{Invalid, ValidFlow};

mod nodes;
mod report;
mod start;
mod stop;
mod trigger;

#[cfg(test)]
mod simulation;

/// What keeps a Flow from going before its queues are drained and its last transition is told.
pub const FINALIZER: &str = "millrace.dev/drain";

/// How often a drain is looked at: nothing tells when a queue becomes empty.
const DRAIN_GLANCE: Duration = Duration::from_millis(500);

/// What to do and what to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in this order; a step that fails ends the rest.
    pub steps: Vec<Step>,
    /// What to say, whatever became of the steps.
    pub status: FlowStatus,
    /// What to announce, and a note for it, where the phase moved.
    pub event: Option<(Event, String)>,
    /// When to look again, if nothing happens before. None: in some minutes.
    pub look_again: Option<Duration>,
}

/// One thing to do. Each can be done again, with the same end.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the Flow from going before it is drained.
    AddFinalizer,
    /// Make the queues of these nodes.
    EnsureQueues(BTreeSet<NodeId>),
    /// Give the pods credentials that are good for these nodes' queues.
    PutBrokerSecret(BTreeSet<NodeId>),
    /// Make a node's Deployment, or make it what it should be.
    PutDeployment(NodeId, Box<Deployment>),
    /// Remove the Deployment of a node.
    DeleteDeployment(NodeId),
    /// Tell the runner which built-in nodes to run.
    PutWork(FlowWork),
    /// Tell the runner to run none.
    DeleteWork,
    /// Make dead letters of what is left in the queues of these nodes.
    Abandon(BTreeSet<NodeId>),
    /// Forget up to which due time the schedule was followed.
    RemoveLedger,
    /// Remove the queues of these nodes.
    RemoveQueues(BTreeSet<NodeId>),
    /// Remove the pods' credentials: nothing is left at the broker.
    DeleteBrokerSecret,
    /// Let the Flow go.
    RemoveFinalizer,
}

impl Step {
    /// Whether it takes away what cannot be had back, or what runs.
    #[must_use]
    pub const fn destroys(&self) -> bool {
        match self {
            Self::DeleteDeployment(_)
            | Self::DeleteWork
            | Self::Abandon(_)
            | Self::RemoveLedger
            | Self::RemoveQueues(_)
            | Self::DeleteBrokerSecret => true,
            // The last is conditional on the version that was seen.
            Self::AddFinalizer
            | Self::EnsureQueues(_)
            | Self::PutBrokerSecret(_)
            | Self::PutDeployment(..)
            | Self::PutWork(_)
            | Self::RemoveFinalizer => false,
        }
    }

    /// The step in words, for logs.
    #[must_use]
    pub fn note(&self) -> String {
        let list = |nodes: &BTreeSet<NodeId>| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::AddFinalizer => "keeps the flow until it is drained".into(),
            Self::EnsureQueues(nodes) => format!("makes the queues of {}", list(nodes)),
            Self::PutBrokerSecret(nodes) => format!("gives the pods credentials for {}", list(nodes)),
            Self::PutDeployment(node, _) => format!("puts the deployment of {node}"),
            Self::DeleteDeployment(node) => format!("removes the deployment of {node}"),
            Self::PutWork(work) => format!("tells the runner revision {}", work.revision),
            Self::DeleteWork => "tells the runner to stop".into(),
            Self::Abandon(nodes) => format!("makes dead letters of what is left for {}", list(nodes)),
            Self::RemoveLedger => "forgets how far the schedule was followed".into(),
            Self::RemoveQueues(nodes) => format!("removes the queues of {}", list(nodes)),
            Self::DeleteBrokerSecret => "removes the credentials of the pods".into(),
            Self::RemoveFinalizer => "lets the flow go".into(),
        }
    }
}

/// Decides.
#[must_use]
pub fn plan(
    config: &BuildConfig,
    flow: &Identity,
    valid: &Result<ValidFlow, Invalid>,
    seen: &Snapshot,
) -> Plan {
    match (wish(seen), valid) {
        (Wish::Run, Ok(valid)) => start::plan(config, flow, valid, seen),
        // What runs goes on as it was last accepted.
        (Wish::Run, Err(invalid)) => report::refused(seen, invalid),
        (wish @ (Wish::Suspend | Wish::Delete), valid) => stop::plan(flow, wish, valid.as_ref().err(), seen),
    }
}

fn wish(seen: &Snapshot) -> Wish {
    if seen.flow.metadata.deletion_timestamp.is_some() {
        Wish::Delete
    } else if seen.flow.spec.suspend.unwrap_or_default() {
        Wish::Suspend
    } else {
        Wish::Run
    }
}

/// Whether a condition of the Flow was True when it was seen.
fn was(seen: &Snapshot, of: ConditionType) -> bool {
    seen.flow.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, of))
}

/// Whether the Flow has our finalizer.
fn is_kept(seen: &Snapshot) -> bool {
    seen.flow.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// How many of something there are, by whether it holds.
fn count<K>(of: &BTreeMap<K, nodes::State>) -> (usize, usize) {
    (of.values().filter(|state| matches!(state, nodes::State::Ready)).count(), of.len())
}
