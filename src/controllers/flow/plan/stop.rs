//! The steps towards a Flow that is at rest: the route goes first, then what is queued is worked off, then the pods end,
//! then the queues go. What is left when the time is over becomes dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::flow::phase::Wish;
use crate::api::name::NodeId;
use crate::controllers::flow::build::Identity;
use crate::controllers::flow::snapshot::{Runner, Snapshot};
use crate::controllers::flow::validate::Invalid;

use super::report::{self, Stopping};
use super::{DRAIN_GLANCE, Plan, Step, is_kept, trigger};

/// How long, beyond the drain limit, a Flow that is being deleted waits for a broker that does not answer. After that its
/// queues are left behind: a namespace must not hang for ever.
const FORSAKEN: Duration = Duration::from_secs(300);
/// How long a Flow that is being deleted waits until its last transition is in the event log.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// How far a Flow is on its way to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Gateways may still take requests for it.
    Disarming(String),
    /// Messages are queued or being handled.
    Draining,
    /// Its pods end.
    Removing,
    /// Its queues go.
    Cleaning,
    /// Nothing of it is left.
    Rest,
}

/// The plan of a Flow that should be at rest, or go.
pub fn plan(flow: &Identity, wish: Wish, invalid: Option<&Invalid>, seen: &Snapshot) -> Plan {
    let stage = stage(flow, wish, seen);
    let stopping = Stopping { wish, invalid, stage: &stage };
    let mut plan = report::stopping(flow, seen, &stopping);
    plan.steps = steps(&stage, seen);
    if stage == Stage::Rest && wish == Wish::Delete && is_kept(seen) && may_go(seen) {
        plan.steps = leave(seen);
    }
    if stage != Stage::Rest || wish == Wish::Delete {
        plan.look_again = Some(DRAIN_GLANCE);
    }
    plan
}

fn stage(flow: &Identity, wish: Wish, seen: &Snapshot) -> Stage {
    let limit = Duration::from_secs(u64::try_from(flow.drain_seconds).unwrap_or(0));
    let elapsed = report::draining_for(seen);
    let late = seen.namespace_ending || elapsed >= limit;
    let known = seen.known();
    // Nothing says any more what runners do, and nobody waits for it.
    let forsaken = wish == Wish::Delete && !seen.broker_up() && elapsed >= limit + FORSAKEN;
    if let Some(who) = trigger::still_heard(seen).filter(|_| !late) {
        // Gateways are heard through the broker.
        Stage::Disarming(seen.broker_trouble.clone().unwrap_or(who))
    } else if !late && known.iter().any(|node| !seen.is_empty(node)) {
        Stage::Draining
    } else if has_pods(seen) || has_work(seen) && !forsaken {
        Stage::Removing
    } else if forsaken || known.is_empty() {
        Stage::Rest
    } else {
        Stage::Cleaning
    }
}

/// Whether pods still take messages of the Flow, or will.
fn has_pods(seen: &Snapshot) -> bool {
    seen.pods.values().any(|pods| !pods.is_empty()) || !seen.deployments.is_empty()
}

/// Whether the runner still takes messages of the Flow, or will.
fn has_work(seen: &Snapshot) -> bool {
    // A runner that is not there has nothing loaded, whatever it said last.
    let loaded = seen.loaded.is_some() && seen.runner == Runner::Ready;
    seen.work.is_some() || loaded
}

/// The last steps. Once more all that the Flow may have had at the broker goes: the list of it may have gone before, with a
/// namespace that is being deleted.
fn leave(seen: &Snapshot) -> Vec<Step> {
    let spec = seen.flow.spec.graph.nodes.iter().filter_map(|node| node.id.parse().ok());
    let nodes: BTreeSet<NodeId> = spec.chain(seen.known()).collect();
    let clean = [Step::Abandon(nodes.clone()), Step::RemoveLedger, Step::RemoveQueues(nodes)];
    clean.into_iter().filter(|_| seen.broker_up()).chain([Step::RemoveFinalizer]).collect()
}

fn steps(stage: &Stage, seen: &Snapshot) -> Vec<Step> {
    match stage {
        Stage::Disarming(_) | Stage::Draining | Stage::Rest => vec![],
        Stage::Removing => {
            let work = seen.work.iter().map(|_| Step::DeleteWork);
            let ending = |node: &&NodeId| {
                seen.deployments.get(*node).is_some_and(|live| live.metadata.deletion_timestamp.is_none())
            };
            // Pods first: a broker that is away keeps none of them.
            let pods = seen.deployments.keys().filter(ending).cloned().map(Step::DeleteDeployment);
            pods.chain(work).collect()
        }
        Stage::Cleaning => {
            let known: BTreeSet<_> = seen.known();
            vec![
                Step::Abandon(known.clone()),
                Step::RemoveLedger,
                Step::RemoveQueues(known),
                Step::DeleteBrokerSecret,
            ]
        }
    }
}

/// Whether nobody waits for the Flow's last words.
fn may_go(seen: &Snapshot) -> bool {
    report::has_stopped(seen) && (seen.announced || report::at_rest_for(seen) >= LAST_WORDS)
}
