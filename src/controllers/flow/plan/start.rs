//! The steps towards a Flow that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use sha2::{Digest, Sha256};

use crate::api::name::NodeId;
use crate::broker::work::{FlowWork, Loaded, NodeWork};
use crate::controllers::flow::build::{self, BuildConfig, Identity};
use crate::controllers::flow::snapshot::{Runner, Snapshot};
use crate::controllers::flow::validate::{ValidFlow, ValidNode};

use super::nodes::{self, Credentials};
use super::report::{self, Running};
use super::{DRAIN_GLANCE, Plan, Step, is_kept, trigger};

/// The plan of a Flow that should run and can.
pub fn plan(config: &BuildConfig, flow: &Identity, valid: &ValidFlow, seen: &Snapshot) -> Plan {
    let deployments = deployments(config, flow, valid, seen);
    let removed = removed(flow, valid, &deployments, seen);
    let work = work(flow, valid, &removed.draining, seen);
    let states = nodes::assess(valid, &deployments, work.as_ref(), seen);
    let blocked = blocked(valid, seen);
    let mut steps = vec![];
    if !is_kept(seen) {
        steps.push(Step::AddFinalizer);
    }
    if blocked.is_none() {
        // Before the list of queues forgets them: whoever is interrupted in between begins again.
        steps.extend(remove(&removed, seen));
        steps.extend(make(valid, &removed, deployments, work, seen));
    }
    let ready = blocked.is_none() && states.values().all(|state| *state == nodes::State::Ready);
    let trigger = trigger::armed(seen, ready);
    let running = Running {
        entry: valid.entry.clone(),
        nodes: states,
        blocked,
        trigger,
        draining: removed.draining.iter().map(ToString::to_string).collect(),
    };
    let mut plan = report::running(flow, seen, running);
    plan.look_again = sooner(plan.look_again, (!removed.draining.is_empty()).then_some(DRAIN_GLANCE));
    plan.steps = steps;
    plan
}

fn sooner(some: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    some.into_iter().chain(other).min()
}

/// What nothing can be done about here: everything waits for it.
fn blocked(valid: &ValidFlow, seen: &Snapshot) -> Option<String> {
    if seen.namespace_ending {
        return Some("the namespace is being deleted: nothing can be made in it".into());
    }
    let new = valid.nodes.keys().any(|node| !seen.queues.iter().flatten().any(|known| known == node));
    seen.broker_trouble.clone().filter(|_| new)
}

/// Nodes that the spec no longer has.
struct Removed {
    /// Those that still have messages, and time to handle them.
    draining: BTreeSet<NodeId>,
    /// Those that are done, or out of time.
    done: BTreeSet<NodeId>,
}

fn removed(
    flow: &Identity,
    valid: &ValidFlow,
    deployments: &BTreeMap<NodeId, Deployment>,
    seen: &Snapshot,
) -> Removed {
    let known = seen.known().into_iter().filter(|node| !valid.nodes.contains_key(node));
    let late = report::elapsed(seen) >= Duration::from_secs(u64::try_from(flow.drain_seconds).unwrap_or(0));
    // Those before it in the graph give it more as long as pods of theirs are there that know it.
    let forgotten = is_forgotten(valid, deployments, seen);
    // Who has not heard of it may still send to the node that was the first one.
    let heard = trigger::knows_entry(seen, &valid.entry);
    let (done, draining) = known.partition(|node| forgotten && (late || heard && seen.is_empty(node)));
    Removed { draining, done }
}

/// Whether all that takes messages for the nodes of the spec knows the spec as it is: no pod of before is left, not even one
/// that ends, and the runner has loaded what it was told.
fn is_forgotten(valid: &ValidFlow, deployments: &BTreeMap<NodeId, Deployment>, seen: &Snapshot) -> bool {
    let replaced = |id: &NodeId| {
        let ends = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_some();
        let ending = seen.pods.get(id).is_some_and(|pods| pods.iter().any(ends));
        let live = seen.deployments.get(id);
        let rolled = || live.is_none_or(|live| nodes::is_replaced(live, deployments.get(id)));
        !ending && rolled()
    };
    let of_runner = valid.nodes.values().filter(|node| node.image.is_none());
    let told = |node: &ValidNode| seen.work.as_ref().is_some_and(|work| work.nodes.contains(&node.work));
    let loaded = |loaded: &Loaded| seen.work.as_ref().is_none_or(|work| work.revision == loaded.revision);
    valid.nodes.keys().all(replaced) && of_runner.into_iter().all(told) && seen.loaded.iter().all(loaded)
}

/// The Deployments that there should be; none for a node whose credentials were never there.
fn deployments(
    config: &BuildConfig,
    flow: &Identity,
    valid: &ValidFlow,
    seen: &Snapshot,
) -> BTreeMap<NodeId, Deployment> {
    let build = |id: &NodeId| {
        let node = valid.nodes.get(id)?;
        let image = node.image.as_ref()?;
        let live = seen.deployments.get(id).map(|live| &**live);
        let credentials = nodes::credentials(image, live, seen);
        if credentials == Credentials::Missing(None) {
            return None;
        }
        Some((id.clone(), build::deployment(config, flow, node, image, credentials.hash())))
    };
    valid.nodes.keys().filter_map(build).collect()
}

/// What the runner should do; none where there is nothing.
fn work(
    flow: &Identity,
    valid: &ValidFlow,
    draining: &BTreeSet<NodeId>,
    seen: &Snapshot,
) -> Option<FlowWork> {
    let wanted = valid.nodes.values().filter(|node| node.image.is_none()).map(|node| node.work.clone());
    let told = seen.work.iter().filter(|work| work.uid == flow.uid).flat_map(|work| &work.nodes);
    let left = told.filter(|node| draining.contains(&node.id)).cloned();
    let nodes: Vec<NodeWork> = wanted.chain(left).collect();
    (!nodes.is_empty()).then(|| FlowWork { uid: flow.uid.clone(), revision: revision(&nodes), nodes })
}

fn revision(nodes: &[NodeWork]) -> String {
    let mut hex = HEXLOWER.encode(&Sha256::digest(serde_json::to_vec(nodes).unwrap_or_default()));
    hex.truncate(16);
    hex
}

/// The list of queues before the queues, so that none is forgotten; queues before those who use them; the runner, which
/// is there already, before pods that take their time.
fn make(
    valid: &ValidFlow,
    removed: &Removed,
    deployments: BTreeMap<NodeId, Deployment>,
    work: Option<FlowWork>,
    seen: &Snapshot,
) -> Vec<Step> {
    let nodes: BTreeSet<NodeId> = valid.nodes.keys().cloned().collect();
    let queues: BTreeSet<NodeId> =
        nodes.iter().chain(&removed.draining).chain(&removed.done).cloned().collect();
    let mut steps = vec![];
    let left = queues.difference(&removed.done).cloned().collect::<BTreeSet<_>>();
    // A node leaves the list only when its queue is gone: the list is what is remembered of it.
    let list = if gone(removed, seen) { left } else { queues };
    // Each time: only the credentials themselves show whether they are those of the broker's present account.
    steps.push(Step::PutBrokerSecret(list));
    if seen.broker_up() {
        steps.push(Step::EnsureQueues(nodes));
    }
    match work {
        Some(work) if seen.work.as_ref() != Some(&work) => steps.push(Step::PutWork(work)),
        None if seen.work.is_some() => steps.push(Step::DeleteWork),
        _ => {}
    }
    steps.extend(deployments.into_iter().map(|(id, it)| Step::PutDeployment(id, Box::new(it))));
    // What became a built-in has no pods of its own.
    let builtin = |id: &&NodeId| valid.nodes.get(id).is_some_and(|node| node.image.is_none());
    steps.extend(seen.deployments.keys().filter(builtin).cloned().map(Step::DeleteDeployment));
    steps
}

/// Whether nobody takes messages for the removed nodes any more, so that their queues can go.
fn gone(removed: &Removed, seen: &Snapshot) -> bool {
    let pods = |node: &NodeId| seen.pods.get(node).is_some_and(|pods| !pods.is_empty());
    let told = |node: &NodeId| seen.work.iter().flat_map(|work| &work.nodes).any(|work| work.id == *node);
    let busy = |node: &NodeId| seen.deployments.contains_key(node) || pods(node) || told(node);
    // A runner may still handle what it was told to leave.
    let stale = |loaded: &Loaded| seen.work.as_ref().map(|work| &work.revision) != Some(&loaded.revision);
    let leaving = seen.runner == Runner::Ready && seen.loaded.as_ref().is_some_and(stale);
    !leaving && !removed.done.iter().any(busy)
}

fn remove(removed: &Removed, seen: &Snapshot) -> Vec<Step> {
    let done = &removed.done;
    let mut steps: Vec<_> = done
        .iter()
        .filter(|node| seen.deployments.contains_key(*node))
        .cloned()
        .map(Step::DeleteDeployment)
        .collect();
    let queued: BTreeSet<_> =
        seen.queues.iter().flatten().filter(|node| done.contains(*node)).cloned().collect();
    if !queued.is_empty() && gone(removed, seen) && seen.broker_up() {
        steps.push(Step::Abandon(queued.clone()));
        steps.push(Step::RemoveQueues(queued));
    }
    steps
}
